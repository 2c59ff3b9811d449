"""Exactness on real brokers: real workers over a planned history, held against the independent fold of the input log.

Compared are every customer's profile as stored, every trigger, cancel, outcome, rejected record and last score, the
account of every record, the group's offsets, and the accumulators of the metrics.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.producer.plan import Planned, count, plan
from tests.support.brokers import Brokers, Names
from tests.support.exact import Findings, hold_against_fold
from tests.support.history import STEPS, harsh_script
from tests.support.workers import Deployment, WorkerProcess

pytestmark = pytest.mark.integration

EVENTS = int(os.environ.get("EXACT_EVENTS", "200000"))
SEED = int(os.environ.get("EXACT_SEED", "42"))
PLANNED_AT_LEAST = {
    "dirty": 1_900,
    "duplicate": 3_800,
    "out_of_order": 10_000,
    "late_cart_event": 500,
    "late_order": 100,
    "rearmed": 100,
    "taken_over": 50,
    "repeated_order": 50,
}
"""In 200,000 records."""
SLOW = {"COMMIT_INTERVAL": "100ms", "RUN_RECORDS_MAX": "100", "DIRTY_CUSTOMERS_MAX": "50"}
"""Many small commits, so that a fault hits one."""
TAIL_BYTES = 300_000


@pytest.fixture
def deploy(names: Names, tmp_path: Path) -> Iterator[Any]:
    """Makes a deployment on given brokers; whatever still runs of it is ended."""
    made: list[Deployment] = []

    def make(brokers: Brokers, **settings: str) -> Deployment:
        made.append(Deployment(brokers, names, tmp_path, **settings))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


@pytest.mark.timeout(180)
def test_a_killed_worker_loses_and_repeats_nothing(brokers: Brokers, deploy: Any) -> None:
    """kill -9 between EXEC and publication, under load: the other worker publishes what is missing, and goes on."""
    deployment = deploy(brokers, PARTITIONS="4", **SLOW)
    survivor, doomed = deployment.start(), deployment.start(FAILPOINT="publish:12")
    deployment.wait_shared(survivor, doomed)
    deployment.load(list(plan(harsh_script(3, 15_000))))
    deployment.wait("the failpoint", lambda: not doomed.running)
    deployment.wait_read(90)
    findings = judged(deployment)
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"
    assert not findings.went_back


@pytest.mark.chaos_long
@pytest.mark.timeout(1_500)
def test_a_loaded_history_equals_the_fold(brokers: Brokers, deploy: Any) -> None:
    """200,000 records that were there before the worker: dirty, repeated, out of order, and full of difficult carts."""
    records = planned()
    deployment = deploy(brokers, PARTITIONS="8")
    print(f"loaded in {deployment.load(records):.1f} s")
    worker, begun = deployment.start(), time.monotonic()
    deployment.wait("the first commit", lambda: sum(deployment.records_read().values()) > 0)
    print(f"first commit after {time.monotonic() - begun:.1f} s, all read {deployment.wait_read(900):.1f} s later")
    findings = judged(deployment)
    assert worker.process.returncode == 0
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"
    assert findings.verdict.repeated_same_id == 0
    assert not findings.went_back


@pytest.mark.chaos_long
@pytest.mark.timeout(1_800)
def test_a_history_read_under_fire_equals_the_fold(own_brokers: Brokers, deploy: Any) -> None:
    """Six kill -9 of two workers, three inside a commit; one frozen beyond its session; Redis and Kafka down as well.

    Redis is restarted once, and once killed with the end of its file lost; Kafka is killed. The records arrive
    meanwhile, a wave with each fault.
    """
    records = planned()
    deployment = deploy(own_brokers, PARTITIONS="8", **SLOW)
    fire = Fire(deployment, records)
    begun = time.monotonic()
    fire.open()
    fire.killed_by_its_failpoint("before publish")
    fire.kill(then="offsets:20")
    fire.killed_by_its_failpoint("before the offsets")
    fire.freeze()
    fire.restart_redis()
    fire.kill()
    fire.kill_redis()
    fire.kill_kafka()
    fire.kill(then="exec:20")
    fire.killed_by_its_failpoint("before EXEC")
    fire.cease()
    print(f"under fire for {time.monotonic() - begun:.0f} s")
    findings = judged(deployment)
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"
    assert set(findings.went_back.values()) <= fire.frozen_tasks
    assert sum(worker.process.returncode == -9 for worker in deployment.workers) == 6


class Fire:
    """Two workers under fire: each fault hits while a wave of records arrives, and is over when all tasks go on.

    Where a replacement is started with a failpoint, it dies by itself in the next wave.
    """

    WAVES = 10
    WAVE_S = 12.0
    FROZEN_S = 8.0

    def __init__(self, deployment: Deployment, records: list[Planned]) -> None:
        self.deployment, self.records, self.waves = deployment, records, 0
        self.wave_records = len(records) * 8 // 10 // self.WAVES
        self.workers: list[WorkerProcess] = []
        """The two at work, the older first."""
        self.frozen_tasks: set[int] = set()
        """Tasks of a worker that was frozen: its scores may have come out late."""

    def open(self) -> None:
        """A part of the history arrives at once; the second worker will die before it publishes."""
        self.workers = [self.deployment.start(), self.deployment.start(FAILPOINT="publish:20")]
        self.deployment.wait_shared(*self.workers)
        self.loaded = len(self.records) - self.WAVES * self.wave_records
        self.deployment.load(self.records[: self.loaded])

    @contextmanager
    def _wave(self) -> Iterator[None]:
        """Let the next records arrive, and a fault happen once they do."""
        wave = self.records[self.loaded : self.loaded + self.wave_records]
        self.loaded += len(wave)
        self.waves += 1
        before = self.deployment.records_read()
        arriving = self.deployment.load_meanwhile(wave, len(wave) / self.WAVE_S)
        self.deployment.wait("the wave", lambda: self.deployment.records_read() != before)
        yield
        arriving.join()
        if len(self.workers) == 2:
            self.deployment.wait_shared(*self.workers)

    def _say(self, what: str, recovered_s: float) -> None:
        behind = sum(self.deployment.loaded.values()) - sum(self.deployment.records_read().values())
        print(f"{what}: tasks went on after {recovered_s:.1f} s, {behind} records behind")

    def _start(self, then: str = "") -> None:
        self.workers.append(self.deployment.start(**({"FAILPOINT": then} if then else {})))

    def kill(self, then: str = "") -> None:
        """kill -9 the older one; the replacement will die at the failpoint `then`, if one is named."""
        with self._wave():
            victim = self.workers[0]
            tasks = victim.assigned
            victim.kill()
            self.workers.remove(victim)
            recovered_s = self.deployment.wait_moved(tasks)
            self._say(f"kill -9 of worker {victim.number} with tasks {sorted(tasks)}", recovered_s)
            if not then:
                self._start()
        if then:
            self.deployment.wait_read()  # so that it does not die before the next wave
            self._start(then)
            self.deployment.wait_shared(*self.workers)

    def killed_by_its_failpoint(self, where: str) -> None:
        """The younger one dies inside a commit."""
        with self._wave():
            victim = self.workers[1]
            self.deployment.wait(f"worker {victim.number} dies {where}", lambda: not victim.running)
            tasks = victim.assigned
            self.workers.remove(victim)
            recovered_s = self.deployment.wait_moved(tasks)
            self._say(f"kill -9 {where} of worker {victim.number} with tasks {sorted(tasks)}", recovered_s)
            self._start()

    def freeze(self) -> None:
        """SIGSTOP beyond the session, then SIGCONT: the zombie has to find out, and comes back."""
        with self._wave():
            frozen, begun = self.workers[0], time.monotonic()
            tasks = frozen.assigned
            frozen.freeze()
            self.frozen_tasks |= tasks
            recovered_s = self.deployment.wait_moved(tasks)
            time.sleep(max(0.0, begun + self.FROZEN_S - time.monotonic()))
            frozen.wake()
            self._say(f"SIGSTOP of worker {frozen.number} with tasks {sorted(tasks)}", recovered_s)

    def restart_redis(self) -> None:
        """Redis is shut down in order and started again."""
        with self._wave():
            server: Any = self.deployment.brokers.redis
            before, begun = self.deployment.records_read(), time.monotonic()
            server.stop()
            time.sleep(1)
            server.start()
            self._all_moved("Redis restarted", before, begun)

    def kill_redis(self) -> None:
        """kill -9 of Redis, and the end of its append-only file is lost, as in a power cut."""
        with self._wave():
            server = self.deployment.brokers.redis
            before, begun = self.deployment.records_read(), time.monotonic()
            server.kill()
            lost = lose_tail(server, TAIL_BYTES)
            server.start()
            undone = sum((before - self.deployment.records_read()).values())
            self._all_moved(f"Redis killed, {lost} bytes and {undone} records of its state lost", before, begun)

    def kill_kafka(self) -> None:
        """kill -9 of the broker, and its return."""
        with self._wave():
            server = self.deployment.brokers.kafka
            server.kill()
            before, begun = self.deployment.records_read(), time.monotonic()
            server.start()
            self._all_moved("Kafka killed", before, begun)

    def _all_moved(self, what: str, before: Counter[int], begun: float) -> None:
        self.deployment.wait_moved(range(self.deployment.settings.partitions), before)
        self._say(what, time.monotonic() - begun)

    def cease(self) -> None:
        """Let everything be read in peace."""
        assert self.waves == self.WAVES
        print(f"all read {self.deployment.wait_read(600):.1f} s after the last fault")


def lose_tail(server: Any, lost: int) -> int:
    """Cut the end off a dead Redis' append-only file, where we can reach it; returns how many bytes went."""
    folder = getattr(server, "folder", None)
    if folder is None:
        return 0
    path = max(folder.rglob("*.aof"), key=lambda path: path.stat().st_size)
    size = path.stat().st_size
    os.truncate(path, max(0, size - lost))
    return min(size, lost)


def planned() -> list[Planned]:
    """The long history, and that it is as difficult as promised."""
    records = list(plan(harsh_script(SEED, EVENTS, duration_ms=4 * 86_400_000, out_of_order=0.06)))
    counts = count(records)
    counts["dirty"] = sum(number for label, number in counts.items() if label.startswith("dirty:"))
    print(f"\nseed {SEED}: {dict(counts.most_common())}")
    for label, least in PLANNED_AT_LEAST.items():
        assert counts[label] * 200_000 >= least * len(records), label
    return records


def judged(deployment: Deployment) -> Findings:
    """Stop the workers, then hold what they left against the fold."""
    for worker in deployment.workers:
        if worker.running:
            assert worker.stop() < 10
    assert deployment.committed() == deployment.loaded
    begun = time.monotonic()
    findings = hold_against_fold(deployment, {"lateness_ms": deployment.settings.lateness_ms, "steps": STEPS})
    print(f"judged in {time.monotonic() - begun:.1f} s: {findings.text()}")
    logs = "".join(worker.log for worker in deployment.workers)
    assert "客" not in logs, "a customer id stands in a log"
    assert "🛒" not in logs, "a customer id stands in a log"
    return findings
