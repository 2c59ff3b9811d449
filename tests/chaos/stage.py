"""Workers under a steady flow of records, and what befalls them: each fault is counted, and what follows is timed."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

from streams.producer.plan import Planned, Script, plan
from tests.chaos.ground import Disk, Ground
from tests.support.brokers import Names
from tests.support.history import harsh_script
from tests.support.workers import Deployment, WorkerProcess

PARTITIONS = 6
PER_S = 500
RECORDS_MAX = 150_000
CAUGHT_UP_WITHIN_S = 120
FENCED_TOO_OFTEN = 75
STOPPED_WITHIN_S = 10
QUICK: Mapping[str, str] = {"COMMIT_INTERVAL": "100ms", "RUN_RECORDS_MAX": "100", "DIRTY_CUSTOMERS_MAX": "50"}
"""Many small commits, so that a fault hits one."""
TRANSACTIONS: Mapping[str, str] = {"PROCESSING_GUARANTEE": "exactly_once", "RUN_RECORDS_MAX": "100"}
LIVE_STEPS = (("3s", 3_000), ("8s", 8_000), ("20s", 20_000))
LIVE: Mapping[str, str] = {
    "PUNCTUATION": "on",
    "TOPIC_TIMESTAMPS": "LogAppendTime",
    "CART_STEPS": ",".join(name for name, _ in LIVE_STEPS),
    "LATENESS": "1s",
}
"""Kafka's clock counts, silence is punctuated, carts are abandoned within seconds."""
LIVE_PER_S = 250


class Stage:
    """A deployment, its crew of workers, and the records that flow until `finish`.

    5 % of the records are rubbish, 2 % duplicates, 5 % out of order. All choices come from the seed. Live: they happen
    when they are sent; else they tell of days, at a steady rate, and no silence is punctuated. `faults` counts
    what was done; `catch_up_s` holds for each time the seconds until everything that had arrived by then was committed:
    by the time of a kill, a freeze, a joining or leaving; of an outage, by its end.
    """

    def __init__(
        self, ground: Ground, names: Names, folder: Path, stack: ExitStack, *, seed: int, live: bool, **settings: str
    ) -> None:
        self.ground, self.stack, self.folder = ground, stack, folder
        self.rng, self.seed, self.live = Random(seed), seed, live
        own = {"PARTITIONS": str(PARTITIONS), "REDIS_URL": ground.gate.url} | dict(LIVE if live else {}) | settings
        self.deployment = Deployment(ground, names, folder, **own)
        stack.callback(self.deployment.close)
        self.disk: Disk
        """That fills, where the scenario needs one."""
        self.crew: list[WorkerProcess] = []
        self.faults: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.catch_up_s: list[float] = []
        self.expected_ends: dict[int, int] = {}
        """Worker's number -> exit code, of those that were told to end or had to."""
        self.muted_below: list[tuple[dict[tuple[str, int], int], dict[int, int]]] = []
        self._enough = Event()
        self._flow: Thread | None = None

    # ------------------------------------------------------------------ the flow

    def open(self, workers: int) -> None:
        """Start so many workers, and the flow."""
        for _ in range(workers):
            self.hire()
        self.deployment.wait_shared(*self.crew)
        self._begun = time.monotonic()
        self._flow = self.deployment.load_meanwhile(self._records(), 0 if self.live else PER_S)
        self.deployment.wait("the first records", lambda: self.deployment.records_read().total() > 0)

    def _records(self) -> Iterator[Planned]:
        for record in plan(self._script()):
            if self._enough.is_set():
                return
            self.labels[record.label.partition(":")[0] or "plain"] += 1
            yield record
        raise AssertionError(f"the flow ended by itself after {RECORDS_MAX} records")

    def _script(self) -> Script:
        """Of ten days, or of the next ten minutes."""
        if not self.live:
            return harsh_script(self.seed, RECORDS_MAX, duration_ms=10 * 86_400_000, dirty=0.05)
        return harsh_script(
            self.seed,
            events=None,
            shoppers=2_000,
            start_ms=int(time.time() * 1_000),
            duration_ms=600_000,
            records_per_s=LIVE_PER_S,
            steps=LIVE_STEPS,
            lateness_ms=self.deployment.settings.lateness_ms,
            dirty=0.05,
        )

    def finish(self) -> None:
        """End the flow, let everything be read in peace, and stop the workers."""
        self._enough.set()
        assert self._flow is not None
        self._flow.join()
        self.deployment.wait("everything is read", self._all_read, 180)
        self.deployment.wait("the group shares the tasks", self._shared, 180)
        if not self.live:
            self.deployment.wait("all offsets are committed", self._all_committed)
        for worker in list(self.crew):
            assert self.leave(worker) < STOPPED_WITHIN_S, f"worker {worker.number} took long to stop"
        self._settle()

    def _settle(self) -> None:
        """Let a last worker publish what the commits before it left, and read their punctuation without adding to it.

        That all offsets are committed does not tell as much: after a rebuild they are ahead of the state.
        """
        last = self.hire(PUNCTUATION="off")
        self.deployment.wait("all tasks are claimed", lambda: f"all {PARTITIONS} tasks are claimed" in last.log)
        self.deployment.wait("all offsets are committed", self._all_committed)
        assert self.leave(last) < STOPPED_WITHIN_S
        assert self._all_committed(), "punctuation that nobody read"

    def _all_read(self) -> bool:
        self.tend()
        return self.deployment.records_read() == self.deployment.loaded

    def _all_committed(self) -> bool:
        return self.deployment.committed_places() == self.deployment.input_ends()

    def _shared(self) -> bool:
        self.tend()
        parts = [worker.assigned for worker in self.crew]
        return sorted(task for part in parts for task in part) == list(range(PARTITIONS))

    def lull(self, least_s: float = 0.5, most_s: float = 2.0) -> None:
        """Let records flow for a while."""
        time.sleep(self.rng.uniform(least_s, most_s))

    # ------------------------------------------------------------------ the crew

    def hire(self, **settings: str) -> WorkerProcess:
        self.crew.append(self.deployment.start(**settings))
        return self.crew[-1]

    def dismiss(self, worker: WorkerProcess, code: int) -> None:
        """Take a worker that has ended from the crew, with the exit code that was to be expected."""
        self.crew.remove(worker)
        self.expected_ends[worker.number] = code

    def kill(self, worker: WorkerProcess) -> None:
        """kill -9."""
        worker.kill()
        self.dismiss(worker, -9)

    def leave(self, worker: WorkerProcess) -> float:
        """SIGTERM, once it is at work: before that it has no handler for it; the seconds until it had ended."""
        self.deployment.wait(f"worker {worker.number} is at work", lambda: worker.joined)
        self.dismiss(worker, 0)
        return worker.stop()

    def tend(self) -> None:
        """Start anew whoever was fenced too often, as a supervisor does."""
        for worker in [worker for worker in self.crew if worker.process.poll() == FENCED_TOO_OFTEN]:
            self.dismiss(worker, FENCED_TOO_OFTEN)
            self.faults["(fenced too often)"] += 1
            self.hire()

    def halt(self) -> None:
        """End the flow, however the play went."""
        self._enough.set()
        for worker in self.crew:
            if worker.running:
                worker.wake()

    def mark_muted(self) -> None:
        """Note the committed offsets and the ends of the triggers: nothing decided below those may follow these."""
        self.muted_below.append((self.deployment.committed_places(), self.deployment.ends("triggers.v1")))

    def surprises(self) -> list[str]:
        """Workers that ended otherwise than expected."""
        return [
            f"worker {worker.number} ended with {worker.process.poll()}"
            for worker in self.deployment.workers
            if worker.process.poll() != self.expected_ends.get(worker.number)
        ]

    # ------------------------------------------------------------------ faults

    def hit(self, what: str) -> None:
        self.faults[what] += 1

    def catch_up(self, what: str) -> None:
        """Wait until everything that has arrived by now, or would have if Kafka had been there, is committed."""
        target = Counter(self.deployment.loaded)
        due = 0 if self.live else (time.monotonic() - self._begun) * PER_S

        def caught_up() -> bool:
            self.tend()
            read = self.deployment.records_read()
            return read.total() >= due and all(read[task] >= number for task, number in target.items())

        took_s = self.deployment.wait(f"catching up after {what}", caught_up, CAUGHT_UP_WITHIN_S)
        self.catch_up_s.append(took_s)
        print(f"    {what}: caught up after {took_s:.1f} s", flush=True)


def guarantee_settings(guarantee: str) -> dict[str, Any]:
    return dict(TRANSACTIONS if guarantee == "exactly_once" else QUICK)
