"""One worker killed again and again while it reads a full log as fast as it can."""

import time
from dataclasses import dataclass, field
from random import Random

from streams.producer.plan import plan
from tests.support.history import harsh_script
from tests.support.workers import Deployment

DAY_MS = 86_400_000


@dataclass
class Killed:
    """at: records committed at each kill. back_s: seconds from each kill until the next worker had committed more."""

    at: list[int] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    read_s: float = 0.0


def killed_while_reading(deployment: Deployment, *, events: int, kills: int, seed: int) -> Killed:
    """Load a history; kill -9 the only worker at random points of it, and start the next one at once."""
    deployment.load(plan(harsh_script(seed, events, duration_ms=4 * DAY_MS, dirty=0.05, out_of_order=0.06)))
    moments = sorted(Random(seed).sample(range(events // 50, events * 9 // 10), kills))
    told, worker = Killed(), deployment.start()
    deployment.wait("the first commit", lambda: deployment.records_read().total() > 0)
    begun = time.monotonic()
    for moment in moments:
        wait_beyond(deployment, moment)
        worker.kill()
        told.at.append(deployment.records_read().total())
        worker = deployment.start()
        told.back_s.append(round(wait_beyond(deployment, told.at[-1] + 1), 1))
    deployment.wait_read(600)
    told.read_s = time.monotonic() - begun
    return told


def wait_beyond(deployment: Deployment, records: int) -> float:
    """Seconds until so many records are committed."""
    return deployment.wait(f"{records} records", lambda: deployment.records_read().total() >= records, 300)
