"""The real transport in real Faust workers on real Kafka, around a fake processor that remembers every record it got.

The fake's database refuses a record twice and a commit by anybody but the last claimant; so "every record once" below
is about what state would hold, and "disorder" and "stale" are about what the transport hands over.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from tests.support.brokers import Brokers, Names, create_topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PARTITIONS = 4
ROOT = Path(__file__).parents[2]


class Cluster:
    """Workers around fake processors that share one database, and the topics they read."""

    def __init__(self, bootstrap: str, names: Names, folder: Path) -> None:
        self.names, self.folder = names, folder
        self.topics = [names.topic("cart.v1"), names.topic("clickstream.v1")]
        self.output = names.topic("scores.v1")
        create_topics(bootstrap, *self.topics, self.output, partitions=PARTITIONS)
        self.settings = {
            "KAFKA_BOOTSTRAP": bootstrap,
            "APP_ID": names.app_id,
            "PARTITIONS": str(PARTITIONS),
            "SESSION_TIMEOUT": "3s",
        }
        self.bootstrap = bootstrap
        self.workers: list[subprocess.Popen[bytes]] = []
        self.producer = KafkaProducer(bootstrap_servers=bootstrap)
        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=names.app_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            consumer_timeout_ms=2_000,
        )
        self.sent = 0

    def start(self, trouble: dict[str, Any] | None = None, **settings: str) -> subprocess.Popen[bytes]:
        config = {
            "settings": self.settings | settings,
            "topics": self.topics,
            "outputs": {self.output: PARTITIONS},
            "folder": str(self.folder),
            "trouble": trouble or {},
        }
        command = [sys.executable, "-m", "tests.support.fake_worker", json.dumps(config)]
        with (self.folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            self.workers.append(subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log))
        return self.workers[-1]

    def send(self, count: int) -> None:
        """Send `count` numbered records to each topic, spread over the partitions."""
        for number in range(self.sent, self.sent + count):
            for topic in self.topics:
                self.producer.send(topic, value=b"%d" % number, partition=number % PARTITIONS)
        self.producer.flush()
        self.sent += count

    def database(self, query: str) -> list[Any]:
        if not (self.folder / "state.db").exists():
            return []
        with closing(sqlite3.connect(self.folder / "state.db", timeout=20)) as db:
            try:
                return db.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []  # the first worker has not made the tables yet

    def applied(self) -> int:
        return sum(count for (count,) in self.database("SELECT count(*) FROM applied"))

    def fence(self, partition: int) -> None:
        with closing(sqlite3.connect(self.folder / "state.db", timeout=20)) as db, db:
            db.execute("INSERT INTO fence VALUES (?)", (partition,))

    def freeze(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGSTOP, but not while it holds the database of the fakes locked."""
        while True:
            worker.send_signal(signal.SIGSTOP)
            try:
                with closing(sqlite3.connect(self.folder / "state.db", timeout=0.5, isolation_level=None)) as db:
                    db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                worker.send_signal(signal.SIGCONT)
                time.sleep(0.05)

    def trace(self, what: str) -> list[dict[str, Any]]:
        lines = [line for path in self.folder.glob("trace-*.jsonl") for line in path.read_text().splitlines()]
        return [entry for entry in map(json.loads, lines) if entry["what"] == what]

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 40) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"{what}: not within {timeout_s} s; applied {self.applied()} of {2 * self.sent}\n{self.logs()}"
                )
            time.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4_000:] for path in sorted(self.folder.glob("worker-*.log")))

    def wait_all_applied(self, timeout_s: float = 40) -> None:
        self.wait("all applied", lambda: self.applied() >= 2 * self.sent, timeout_s)

    def check(self) -> None:
        """Every record once, with its own value, in order."""
        rows = self.database('SELECT p, topic, "offset", value FROM applied')
        seen = Counter((topic, int(value)) for _, topic, _, value in rows)
        assert seen == {(topic, number): 1 for topic in self.topics for number in range(self.sent)}
        assert self.trace("disorder") == []

    def committed(self) -> dict[tuple[str, int], int | None]:
        tps = [TopicPartition(topic, p) for topic in self.topics for p in range(PARTITIONS)]
        return {(tp.topic, tp.partition): self.consumer.committed(tp) for tp in tps}

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        self.producer.close()
        self.consumer.close()


@pytest.fixture
def cluster(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(brokers.bootstrap, names, tmp_path)
    try:
        yield running
    finally:
        running.stop()


def stop(worker: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to a clean exit."""
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    return time.monotonic() - begun


def test_every_record_reaches_its_task_once_and_in_order_while_workers_come_and_go(cluster: Cluster) -> None:
    """A second worker joins and leaves under load; state holds every record once, and offsets end at the log's end."""
    cluster.send(2_000)
    cluster.start({"claim_s": 0.3})
    cluster.wait("first records", lambda: cluster.applied() > 0)
    second = cluster.start({"claim_s": 0.3})
    for _ in range(20):
        cluster.send(200)
        time.sleep(0.1)
    cluster.wait(
        "both own tasks", lambda: len({entry["claim"] for entry in cluster.trace("claimed")}) >= PARTITIONS + 2
    )
    cluster.send(500)
    assert stop(second) < 10
    cluster.send(500)
    cluster.wait_all_applied()
    cluster.check()
    assert stop(cluster.workers[0]) < 10
    ends = {(topic, p): cluster.sent // PARTITIONS for topic in cluster.topics for p in range(PARTITIONS)}
    assert cluster.committed() == ends


def test_a_killed_worker_loses_and_repeats_nothing_in_state(cluster: Cluster) -> None:
    """kill -9 under load: the survivor claims the dead worker's tasks and goes on where their state ends."""
    cluster.start()
    second = cluster.start({"apply_s": 0.02})
    cluster.wait("both started", lambda: len(cluster.trace("prepared")) == 2)
    for _ in range(20):
        cluster.send(200)
        time.sleep(0.1)
    second.kill()
    cluster.send(1_000)
    cluster.wait_all_applied()
    cluster.check()


def test_a_woken_zombie_writes_nothing_and_comes_back(cluster: Cluster) -> None:
    """A worker frozen beyond its session finds its tasks taken: its stale commit is refused, and it rejoins."""
    cluster.start()
    cluster.wait("first owns all", lambda: len(cluster.trace("claimed")) >= PARTITIONS)
    frozen = cluster.start()
    cluster.wait("both own tasks", lambda: len(cluster.trace("claimed")) >= 2 * PARTITIONS)
    cluster.send(400)
    cluster.freeze(frozen)
    cluster.send(2_000)
    cluster.wait_all_applied()
    before = len(cluster.trace("claimed"))
    frozen.send_signal(signal.SIGCONT)
    cluster.wait("it rejoined", lambda: len(cluster.trace("claimed")) > before)
    cluster.send(2_000)
    cluster.wait_all_applied()
    cluster.check()


def test_a_fenced_task_is_claimed_again_from_the_offsets_of_its_state(cluster: Cluster) -> None:
    """What was fetched under the old claim is dropped, and fetched again under the new one."""
    cluster.start({"apply_s": 0.05})
    cluster.send(2_000)
    cluster.wait("first records", lambda: cluster.applied() > 0)
    for _ in range(3):
        cluster.fence(1)
        cluster.fence(2)
        cluster.send(500)
        time.sleep(0.7)
    cluster.wait("three fences of each", lambda: len(cluster.trace("fenced")) == 6)
    cluster.send(500)
    cluster.wait_all_applied()
    cluster.check()
    claims = Counter(entry["p"] for entry in cluster.trace("claimed"))
    assert claims == {0: 1, 1: 4, 2: 4, 3: 1}


def test_nothing_is_fetched_before_the_claim(cluster: Cluster) -> None:
    """A claim that fails three times, then takes a while, delays its task; no record arrives before or beside it."""
    cluster.send(1_000)
    cluster.start({"claims_fail": 3, "claim_s": 0.5})
    cluster.wait_all_applied()
    cluster.check()
    assert Counter(entry["p"] for entry in cluster.trace("claim_failed")) == dict.fromkeys(range(PARTITIONS), 3)
    assert cluster.trace("stale") == []


def test_a_claim_may_take_longer_than_a_request_to_kafka(cluster: Cluster) -> None:
    """Claims outlast the request timeout (Faust's own recovery would die of that) and the session."""
    cluster.send(400)
    cluster.start({"claim_s": 8}, REQUEST_TIMEOUT="3s")
    cluster.wait_all_applied()
    cluster.check()


def test_outputs_are_published_to_the_partition_named(cluster: Cluster) -> None:
    """Every output is acknowledged before the offsets are committed, in order, in the partition the processor names."""
    cluster.start({"publish_to": cluster.output})
    cluster.send(1_000)
    cluster.wait_all_applied()
    stop(cluster.workers[0])
    cluster.consumer.assign([TopicPartition(cluster.output, p) for p in range(PARTITIONS)])
    cluster.consumer.seek_to_beginning()
    found = [(record.partition, int(record.value)) for record in cluster.consumer]
    assert Counter(number for _, number in found) == dict.fromkeys(range(1_000), 2)
    assert all(number % PARTITIONS == partition for partition, number in found)


def test_a_missing_topic_stops_the_worker_and_says_so(cluster: Cluster) -> None:
    """Faust would wait for it without a word."""
    cluster.topics.append(cluster.names.topic("email.v1"))
    worker = cluster.start()
    assert worker.wait(20) == 1
    assert "email.v1 does not exist: run `pulseline topics apply`" in cluster.logs()
    assert "Traceback" not in cluster.logs()


def test_a_wrong_partition_count_stops_the_worker_and_says_so(cluster: Cluster) -> None:
    """A task whose topics are partitioned differently cannot be."""
    worker = cluster.start(PARTITIONS="8")
    assert worker.wait(20) == 1
    assert "has 4 partitions, not 8" in cluster.logs()
    assert "Traceback" not in cluster.logs()


def test_kafka_absent_at_start_stops_the_worker_after_a_while(cluster: Cluster) -> None:
    """It waits as long as a request may take, then says where it looked."""
    worker = cluster.start(KAFKA_BOOTSTRAP="127.0.0.1:9", REQUEST_TIMEOUT="4s", SESSION_TIMEOUT="3s")
    assert worker.wait(30) == 1
    assert "Kafka at 127.0.0.1:9 does not answer" in cluster.logs()
    assert "is it running?" in cluster.logs()
    assert "Traceback" not in cluster.logs()


@pytest.mark.timeout(180)
def test_a_broker_that_dies_and_comes_back_is_waited_for(own_brokers: Brokers, names: Names, tmp_path: Path) -> None:
    """kill -9 of the broker under load: the worker stays up, and afterwards every record is there once."""
    cluster = Cluster(own_brokers.bootstrap, names, tmp_path)
    try:
        cluster.start({"publish_to": cluster.output}, REQUEST_TIMEOUT="5s")
        cluster.send(1_000)
        cluster.wait("first records", lambda: cluster.applied() > 0)
        cluster.consumer.close()
        cluster.producer.close()  # kafka-python would leave sockets open while it tries to connect
        own_brokers.kafka.kill()
        time.sleep(6)
        own_brokers.kafka.start()
        cluster.producer = KafkaProducer(bootstrap_servers=cluster.bootstrap)
        cluster.send(1_000)
        cluster.wait_all_applied(60)
        cluster.check()
        assert stop(cluster.workers[0]) < 10
    finally:
        cluster.stop()
