"""Whole workers on real Kafka and Redis: started as users start them, in bad surroundings, and stopped in time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from models.topics import INPUT_TOPICS, TOPICS
from streams.stores.keys import partition_of
from tests.support.brokers import Brokers, Names, create_topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARTITIONS = 4


class Shop:
    """A deployment of its own: topics, settings, and the processes that serve it."""

    def __init__(self, brokers: Brokers, names: Names, folder: Path) -> None:
        self.names, self.folder, self.bootstrap = names, folder, brokers.bootstrap
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")} | {
            "PULSELINE_KAFKA_BOOTSTRAP": brokers.bootstrap,
            "PULSELINE_REDIS_URL": brokers.redis_url,
            "PULSELINE_APP_ID": names.app_id,
            "PULSELINE_TOPIC_PREFIX": names.topic_prefix,
            "PULSELINE_PARTITIONS": str(PARTITIONS),
            "PULSELINE_SESSION_TIMEOUT": "3s",
            "PULSELINE_COMMIT_INTERVAL": "200ms",
            "PULSELINE_WEB_PORT": "0",
        }
        tasks = [names.topic(suffix) for suffix, topic in TOPICS.items() if topic.partitions == "tasks"]
        create_topics(brokers.bootstrap, *tasks, partitions=PARTITIONS)
        create_topics(brokers.bootstrap, names.topic("metrics.v1"), partitions=1)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.sent = 0
        self.producer = KafkaProducer(bootstrap_servers=brokers.bootstrap)
        self.consumer = KafkaConsumer(bootstrap_servers=brokers.bootstrap, group_id=names.app_id)

    def run(self, *command: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    cwd=self.folder,
                    env=self.environ | environ,
                    stdout=log,
                    stderr=log,
                )
            )
        return self.processes[-1]

    def worker(self, *options: str, **environ: str) -> subprocess.Popen[bytes]:
        return self.run("pulseline", "worker", *options, **environ)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def send(self, count: int) -> None:
        """Send page views of as many customers."""
        for number in range(self.sent, self.sent + count):
            customer = f"c-{number}"
            event = {
                "event_id": token_hex(8),
                "type": "page_viewed",
                "customer_id": customer,
                "occurred_at_ms": int(time.time() * 1_000),
                "url": "https://shop.example/",
            }
            self.producer.send(
                self.names.topic("clickstream.v1"),
                key=customer.encode(),
                value=json.dumps(event).encode(),
                partition=partition_of(customer, PARTITIONS),
            )
        self.producer.flush()
        self.sent += count

    def committed(self) -> int:
        """Records before the group's committed offsets."""
        tps = [TopicPartition(self.names.topic(suffix), p) for suffix in INPUT_TOPICS for p in range(PARTITIONS)]
        return sum(self.consumer.committed(tp) or 0 for tp in tps)

    def scores(self) -> int:
        tps = [TopicPartition(self.names.topic("scores.v1"), p) for p in range(PARTITIONS)]
        return sum(self.consumer.end_offsets(tps).values())

    def wait(self, what: str, condition: Callable[[], Any], timeout_s: float = 40) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {timeout_s} s\n{self.log()[-6_000:]}")
            time.sleep(0.1)

    def wait_served(self) -> None:
        self.wait("all applied and committed", lambda: self.committed() >= self.sent)

    def end(self) -> None:
        self.producer.close()
        self.consumer.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def shop(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Shop]:
    running = Shop(brokers, names, tmp_path)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def own_shop(own_brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Shop]:
    running = Shop(own_brokers, names, tmp_path)
    try:
        yield running
    finally:
        running.end()


def stop(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """(exit code, seconds) of a SIGTERM."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    return process.wait(20), time.monotonic() - begun


def output_of(command: Sequence[str], environ: dict[str, str], folder: Path) -> str:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


@pytest.mark.parametrize("command", [["pulseline", "worker"], ["faust", "-A", "streams.worker", "worker"]])
def test_a_worker_serves_however_it_is_started(shop: Shop, command: list[str]) -> None:
    """Faust's command line and ours run the same worker; SIGTERM commits all and leaves the group in under 10 s."""
    shop.send(50)
    worker = shop.run(*command)
    shop.wait_served()
    assert shop.scores() == 50
    shop.send(50)
    code, seconds = stop(worker)
    assert (code, seconds < 10) == (0, True)


def test_faust_lists_the_table_and_the_four_agents(names: Names, tmp_path: Path) -> None:
    """Without a broker, as nothing connects at import."""
    environ = os.environ | {"PULSELINE_KAFKA_BOOTSTRAP": "127.0.0.1:9", "PULSELINE_REDIS_URL": "redis://127.0.0.1:9/0"}
    assert "customers" in output_of(["faust", "-A", "streams.worker", "tables"], environ, tmp_path)
    agents = output_of(["faust", "-A", "streams.worker", "agents"], environ, tmp_path)
    for name in ("clickstream", "cart", "email", "social"):
        assert name in agents


def test_a_killed_worker_is_reported_and_its_tasks_are_taken_over(shop: Shop) -> None:
    """Of two workers side by side one is killed: the other goes on, and the exit code tells of it in the end."""
    parent = shop.worker("--workers", "2")
    shop.send(100)
    shop.wait_served()
    shop.wait("two workers share the tasks", lambda: ": 2 tasks assigned" in shop.log())
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    shop.send(100)
    shop.wait_served()
    assert f"worker 1 (pid {children[1]}) was killed by SIGKILL" in shop.log()
    code, seconds = stop(parent)
    assert (code, seconds < 10) == (137, True)


def test_workers_end_with_the_process_that_started_them(shop: Shop) -> None:
    """No worker stays behind unseen when its parent is killed."""
    parent = shop.worker("--workers", "2")
    shop.wait("tasks assigned", lambda: "tasks assigned" in shop.log())
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    shop.wait("the children are gone", lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), 20)


def test_state_lost_stops_the_worker_and_says_what_to_do(shop: Shop) -> None:
    """Redis without state while Kafka has offsets: never begin at those offsets as if nothing had been."""
    worker = shop.worker()
    shop.send(20)
    shop.wait_served()
    stop(worker)
    with redis.Redis.from_url(shop.environ["PULSELINE_REDIS_URL"]) as client:
        keys = client.keys(f"{{{shop.names.app_id}*")
        assert keys
        client.delete(*keys)
    again = shop.worker()
    assert again.wait(30) == 1
    assert "StateLost" in shop.log()
    assert "--rebuild" in shop.log()
    assert "Traceback" not in shop.log()
    rebuilt = shop.worker("--rebuild", "on")
    shop.send(5)
    shop.wait_served()
    assert stop(rebuilt)[0] == 0


def test_redis_absent_at_start_stops_the_worker_after_a_while(shop: Shop) -> None:
    """It waits as long as a request may take, then names what does not answer."""
    worker = shop.worker(PULSELINE_REDIS_URL="redis://127.0.0.1:9/0", PULSELINE_REQUEST_TIMEOUT="4s")
    assert worker.wait(40) == 1
    assert "StoreUnavailable" in shop.log()
    assert "Traceback" not in shop.log()


def test_a_redis_that_evicts_is_refused(own_shop: Shop, own_brokers: Brokers) -> None:
    """A store that may drop state in silence cannot hold it."""
    with redis.Redis.from_url(own_brokers.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    worker = own_shop.worker()
    assert worker.wait(30) == 1
    assert "UnsafeStore" in own_shop.log()
    assert "noeviction" in own_shop.log()


def test_redis_may_go_away_and_come_back(own_shop: Shop, own_brokers: Brokers) -> None:
    """A frozen Redis stops the commits, not the worker; afterwards every record is there."""
    worker = own_shop.worker()
    own_shop.send(100)
    own_shop.wait_served()
    own_brokers.redis.pause()
    own_shop.send(100)
    time.sleep(8)
    assert own_shop.committed() < own_shop.sent
    own_brokers.redis.resume()
    own_shop.wait_served()
    assert stop(worker)[0] == 0


def test_a_worker_stops_in_time_while_redis_is_frozen(own_shop: Shop, own_brokers: Brokers) -> None:
    """Nothing can be committed, so the exit says that; the group is left within 10 s all the same."""
    worker = own_shop.worker()
    own_shop.send(100)
    own_shop.wait_served()
    own_brokers.redis.pause()
    own_shop.send(100)
    time.sleep(1)
    _, seconds = stop(worker)
    assert seconds < 10
    own_brokers.redis.resume()
    again = own_shop.worker()
    own_shop.wait_served()
    assert stop(again)[0] == 0
