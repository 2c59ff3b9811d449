"""State that is put back, lost or begun anew beside a Kafka that went on: it equals the fold, and nothing is repeated.

Compared are every customer's profile as stored, every trigger, cancel, outcome, rejected record and last score, the
account of every record, the group's offsets, and the accumulators of the metrics.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from click.testing import CliRunner, Result
from msgspec import msgpack

from streams.cli import main
from streams.engagement.metric_memory import remembered
from streams.engagement.metric_values import Published
from streams.processing.metrics_publisher import HOLD_FIELD, WATERMARKS_FIELD
from streams.producer.plan import plan
from streams.stack import ports, tools
from streams.stack.redis_server import RedisServer
from streams.stores import keys
from tests.support.brokers import TOOLS, Brokers, Names, Server
from tests.support.exact import Findings, hold_against_fold
from tests.support.history import STEPS, harsh_script
from tests.support.judge import read_topic
from tests.support.workers import Deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

HISTORY = list(plan(harsh_script(11, 5_000)))


@dataclass
class Beside:
    """A Kafka that other tests use too, beside a Redis of one's own that may be lost."""

    bootstrap: str
    kafka: Server
    redis: RedisServer

    @property
    def redis_url(self) -> str:
        return self.redis.url


@contextmanager
def new_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A Redis process with its data in `folder`."""
    server = RedisServer(folder, program=tools.find_redis(TOOLS), port=ports.pick(), options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def deployed(brokers: Brokers, server: RedisServer, names: Names, folder: Path) -> Iterator[Deployment]:
    """A deployment of two tasks on it; its workers are ended."""
    beside = Beside(brokers.bootstrap, brokers.kafka, server)
    deployment = Deployment(beside, names, folder, PARTITIONS="2", METRICS_INTERVAL="500ms", RUN_RECORDS_MAX="200")
    with closing(deployment):
        yield deployment


def moved_to(deployment: Deployment, server: RedisServer) -> None:
    """Let the deployment go on with another Redis."""
    assert isinstance(deployment.brokers, Beside)
    deployment.brokers.redis = server
    deployment.texts["REDIS_URL"] = server.url


def stopped(deployment: Deployment) -> Findings:
    """Stop the workers, then hold what they left against the fold."""
    for worker in deployment.workers:
        if worker.running:
            worker.stop()
    assert deployment.committed() == deployment.loaded
    findings = hold_against_fold(deployment, {"lateness_ms": deployment.settings.lateness_ms, "steps": STEPS})
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"
    return findings


def command(deployment: Deployment, *arguments: str) -> Result:
    """A `pulseline` command with the deployment's settings."""
    environ = {f"PULSELINE_{name}": text for name, text in deployment.texts.items()}
    return CliRunner().invoke(main, arguments, env=environ, catch_exceptions=False)


def test_a_savepoint_restored_beside_a_kafka_that_went_on(brokers: Brokers, names: Names, tmp_path: Path) -> None:
    """An RDB taken under load, in a fresh Redis once all else was read; then half of what that Redis wrote is lost.

    No trigger, outcome or rejected record is repeated: each lies below the group's offsets. Metrics go on with their
    revisions.
    """
    half = len(HISTORY) // 2
    with new_redis(tmp_path / "first") as first, deployed(brokers, first, names, tmp_path) as deployment:
        deployment.load(HISTORY[:half])
        deployment.start()
        deployment.wait("some is read", lambda: sum(deployment.records_read().values()) > half // 3)
        with redis.Redis.from_url(first.url) as client:
            client.save()
        savepoint = (tmp_path / "first" / "dump.rdb").rename(tmp_path / "savepoint.rdb")
        deployment.load(HISTORY[half : half + half // 2])
        deployment.wait_read()
        deployment.workers[-1].stop()
        first.stop()

        second_folder = tmp_path / "second"
        second_folder.mkdir()
        shutil.copy(savepoint, second_folder / "dump.rdb")
        # With the append-only file on, Redis would not read the RDB.
        with new_redis(second_folder, "--appendonly", "no") as second:
            with redis.Redis.from_url(second.url) as client:
                client.config_set("appendonly", "yes")
            moved_to(deployment, second)
            assert sum(deployment.records_read().values()) < sum(deployment.loaded.values())
            noticed = command(deployment, "rebuild")
            assert (noticed.exit_code, "2 of them have read less" in noticed.output) == (0, True), noticed.output
            deployment.start()
            deployment.wait_read()
            wait_told(deployment)
            assert stopped(deployment).verdict.repeated_same_id == 0
            assert never_lower(deployment)

        with new_redis(second_folder) as again:
            moved_to(deployment, again)
            again.kill()
            log = max(second_folder.rglob("*.aof"), key=lambda path: path.stat().st_size)
            os.truncate(log, log.stat().st_size // 2)
            again.start()
            assert sum(deployment.records_read().values()) < sum(deployment.loaded.values())
            deployment.load(HISTORY[half + half // 2 :])
            deployment.start()
            deployment.wait_read()
            assert stopped(deployment).verdict.repeated_same_id == 0


@pytest.mark.chaos_long
def test_a_lost_state_is_rebuilt(brokers: Brokers, names: Names, tmp_path: Path) -> None:
    """All of Redis is lost, then one task: each time the retained log gives the same state. Then it is discarded.

    No decision is repeated, and the metrics go on with their revisions.
    """
    with new_redis(tmp_path / "redis") as server, deployed(brokers, server, names, tmp_path) as deployment:
        deployment.load(HISTORY[:3_000])
        deployment.start()
        deployment.wait_read()
        wait_told(deployment)
        refused = command(deployment, "rebuild", "--yes")
        assert (refused.exit_code, "active worker" in refused.output) == (1, True), refused.output
        stopped(deployment)
        told = newest(deployment)
        untouched = command(deployment, "rebuild")
        assert (untouched.exit_code, "Nothing is lost: 2 of 2" in untouched.output) == (0, True), untouched.output

        with redis.Redis.from_url(server.url) as client:
            client.flushall()
            lost = deployment.start()
            deployment.wait("it stops", lambda: not lost.running)
            assert (lost.process.returncode, "StateLost" in lost.log, "`pulseline rebuild`" in lost.log) == (
                1,
                True,
                True,
            )
            unasked = command(deployment, "rebuild")
            assert (unasked.exit_code, "nothing was changed" in unasked.output) == (1, True), unasked.output
            assert client.dbsize() == 1  # the deployment, by the worker
            rebuilt(deployment, "2 of 2 tasks", told)
            assert newest(deployment) == told

            client.delete(keys.TaskKeys(names.app_id, 1).main)
            deployment.load(HISTORY[3_000:])
            rebuilt(deployment, "1 of 2 tasks", told)
            assert never_lower(deployment)

            begun_anew = command(deployment, "rebuild", "--discard-state", "--yes")
            assert (begun_anew.exit_code, "2 of 2 tasks" in begun_anew.output) == (0, True), begun_anew.output
            assert not any(deployment.records_read().values())
            assert not client.exists(*keys.TaskKeys(names.app_id, 0).besides_main()[:258])
            assert "Nothing is lost" in command(deployment, "rebuild").output


def rebuilt(deployment: Deployment, words: str, told: dict[str, Published]) -> None:
    """Run `pulseline rebuild`, then a worker until it has read all: state as folded, metrics as told before."""
    result = command(deployment, "rebuild", "--yes")
    assert (result.exit_code, words in result.output) == (0, True), result.output
    deployment.start()
    deployment.wait_read()
    wait_told(deployment)
    findings = stopped(deployment)
    assert findings.verdict.repeated_same_id == 0
    now = newest(deployment)
    assert all(now[window].revision >= was.revision for window, was in told.items())


def metric_records(deployment: Deployment) -> list[dict[str, Any]]:
    """The metrics topic."""
    log = read_topic(deployment.brokers.bootstrap, deployment.names.topic("metrics.v1"))[0]
    return [json.loads(record.value or b"") for record in log]


def wait_told(deployment: Deployment) -> None:
    """Wait until everything that was read is published in metrics, and all that is remembered of them is in the log."""

    def told() -> bool:
        with redis.Redis.from_url(deployment.brokers.redis_url) as client:
            stored = cast(dict[bytes, bytes], client.hgetall(keys.published(deployment.names.app_id)))
        watermarks = json.loads(stored.pop(WATERMARKS_FIELD.encode(), b"{}"))
        books = deployment.books().values()
        reached = min(book.topics[deployment.names.topic("cart.v1")].watermark_ms for book in books)
        if HOLD_FIELD.encode() in stored or watermarks.get("cart", -1) < reached:
            return False
        published = {key.decode(): msgpack.decode(value, type=Published) for key, value in stored.items()}
        return published.items() <= remembered(metric_records(deployment))[0].items()

    deployment.wait("the metrics are told", told)


def newest(deployment: Deployment) -> dict[str, Published]:
    """What a reader of the metrics ends with; those since the state's start left out."""
    return {key: value for key, value in remembered(metric_records(deployment))[0].items() if "|all|" not in key}


def never_lower(deployment: Deployment) -> bool:
    """Whether in the log of the metrics no window's watermark goes back, nor its revision."""
    last: dict[str, tuple[int, int]] = {}
    for value in metric_records(deployment):
        window = f"{value['metric']} {value['dimensions']} {value['window']} {value['window_start_ms']}"
        now, before = (value["watermark_ms"], value["revision"]), last.get(window, (0, 0))
        if now[0] < before[0] or now[1] < before[1]:
            return False
        last[window] = now
    return True
