"""More tasks for a drained deployment, on real brokers: every customer goes on where they were, under a new task."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka.partitioner import murmur2
from click.testing import CliRunner, Result

from streams.cli import main
from streams.cli import repartition as command
from streams.producer.plan import plan
from streams.settings import Settings
from streams.stores.keys import TaskKeys
from tests.support import fold as independent
from tests.support.brokers import Brokers, Names
from tests.support.fold import CHANNELS, FoldRecord, fold
from tests.support.history import STEPS, harsh_script
from tests.support.judge import Verdict, compare_customers, read_topic
from tests.support.totals import disagreements, summed, totals_of
from tests.support.workers import Deployment

pytestmark = [pytest.mark.integration, pytest.mark.chaos_long, pytest.mark.timeout(240)]

HISTORY = list(plan(harsh_script(23, 4_000)))
OLD, NEW = 2, 6
CLOCKS = ("cart", "clickstream")
Log = dict[tuple[str, int], list[FoldRecord]]


def test_more_tasks_go_on_with_the_state_of_the_old_ones(
    brokers: Brokers, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks become six between two parts of a history: state and outputs are the fold's, nothing is repeated.

    Refused while a worker is active, or to a number that is no multiple. Interrupted in the midst, no worker starts and
    another run ends it; a rebuild from records of before is refused.
    """
    deployment = Deployment(brokers, names, tmp_path, PARTITIONS=str(OLD), RUN_RECORDS_MAX="200")
    try:
        worker = deployment.start()
        deployment.load(HISTORY[:2_500])
        deployment.wait_read()
        assert "active worker" in refused(deployment, NEW)
        worker.stop()
        assert "can become 4, 6" in refused(deployment, 5)
        before = inputs(deployment)
        interrupted(deployment, monkeypatch)
        done = run(deployment, "repartition", "--to", str(NEW), "--yes")
        assert (done.exit_code, f"PULSELINE_PARTITIONS={NEW}" in done.output) == (0, True), done.output
        use(deployment, NEW)
        deployment.load(HISTORY[2_500:])
        worker = deployment.start()
        deployment.wait_read()
        worker.stop()
        assert deployment.committed() == deployment.loaded
        judge(deployment, before)
        rebuilt = run(deployment, "rebuild", "--discard-state", "--yes")
        assert (rebuilt.exit_code, "other tasks" in rebuilt.output) == (1, True), rebuilt.output
    finally:
        deployment.close()


def run(deployment: Deployment, *arguments: str) -> Result:
    """A `pulseline` command with the deployment's settings."""
    environ = {f"PULSELINE_{name}": text for name, text in deployment.texts.items()}
    return CliRunner().invoke(main, arguments, env=environ)


def refused(deployment: Deployment, to: int) -> str:
    """What `pulseline repartition` says where it does nothing."""
    result = run(deployment, "repartition", "--to", str(to), "--yes")
    assert (result.exit_code, len(result.output.strip().splitlines())) == (1, 1), result.output
    return result.output


def interrupted(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command end in the midst of removing: customers lie in both places; no worker starts on that."""

    class Killed(Exception):
        pass

    removed, remove = Counter[int](), command._remove

    def remove_one(client: Any, app: str, parent: int, to: int) -> None:
        if removed.total():
            raise Killed
        remove(client, app, parent, to)
        removed[parent] += 1

    with monkeypatch.context() as patched:
        patched.setattr(command, "_remove", remove_one)
        result = run(deployment, "repartition", "--to", str(NEW), "--yes")
        assert isinstance(result.exception, Killed)
    use(deployment, NEW)
    worker = deployment.start()
    deployment.wait("it stops", lambda: not worker.running)
    assert (worker.process.returncode, "did not end: run it again" in worker.log) == (1, True), worker.log
    use(deployment, OLD)
    assert "run that one again" in refused(deployment, 2 * NEW)


def use(deployment: Deployment, partitions: int) -> None:
    """Let workers and commands know of so many tasks."""
    deployment.texts["PARTITIONS"] = str(partitions)
    deployment.settings = Settings.from_environ({}, deployment.texts)


def inputs(deployment: Deployment) -> Log:
    """The input log."""
    return {
        (topic, partition): log
        for topic in (deployment.names.topic(f"{channel}.v1") for channel in CHANNELS)
        for partition, log in read_topic(deployment.brokers.bootstrap, topic).items()
    }


def as_if_always(before: Log, after: Log) -> Log:
    """The log of each new task, had there always been so many.

    Of the records before, those of its own customers, and of its parent's others only what they told of time.
    """
    was = fold(before, {"steps": STEPS}, strict=False)
    found: Log = {}
    for (topic, task), log in after.items():
        parent = before[topic, task % OLD]
        rows = [row for record in parent for row in told(topic, task, record, (topic, task % OLD), was.rejected)]
        rows += log[len(parent) if task < OLD else 0 :]
        found[topic, task] = [row._replace(offset=number) for number, row in enumerate(rows)]
    return found


def told(topic: str, task: int, record: FoldRecord, place: tuple[str, int], rejected: Any) -> list[FoldRecord]:
    """A record of the parent as one of its tasks reads it."""
    if (*place, record.offset) in rejected or record.key is None:
        return []
    if (murmur2(record.key) & 0x7FFFFFFF) % NEW == task:
        return [record]
    if topic.split(".")[1] not in CLOCKS:
        return []
    told_ms = json.loads(record.value or b"")["occurred_at_ms"] - independent.DEFAULT_POLICY["lateness_ms"]
    control = json.dumps({"type": "watermark_advanced", "watermark_ms": told_ms}).encode()
    return [record._replace(key=None, value=control, headers=(("pl-control", b"1"),))]


def judge(deployment: Deployment, before: Log) -> None:
    """Customers and metrics are the fold's; every trigger and outcome of it was published once, and no other."""
    result = fold(as_if_always(before, inputs(deployment)), {"steps": STEPS}, strict=False)
    verdict = Verdict()
    compare_customers(verdict, result.customers, deployment.read_customers())
    assert not verdict.customers_differ, verdict.text()
    with redis.Redis.from_url(deployment.brokers.redis_url) as client:
        for task in range(NEW):
            of = TaskKeys(deployment.names.app_id, task)
            held = {field[2:] for key in of.states for field in client.hkeys(key)}
            assert held
            assert all((murmur2(customer) & 0x7FFFFFFF) % NEW == task for customer in held)
            assert {*client.zrange(of.timers, 0, -1), *client.zrange(of.sessions, 0, -1)} <= held
    for topic, name, wanted in (
        ("triggers.v1", "trigger_id", result.triggers),
        ("outcomes.v1", "outcome_id", result.outcomes),
    ):
        published = [record for log in output(deployment, topic) for record in log if name in record]
        assert Counter(record[name] for record in published) == Counter(wanted.keys())
    totals = totals_of(result.metrics, deployment.names.topic_prefix)
    got = summed(deployment.read_accumulators())
    differ = disagreements(totals, got, max(result.watermarks.values()))
    assert not [line for line in differ if "active_customers" not in line]


def output(deployment: Deployment, topic: str) -> list[list[dict[str, Any]]]:
    logs = read_topic(deployment.brokers.bootstrap, deployment.names.topic(topic))
    return [[json.loads(record.value or b"") for record in log] for log in logs.values()]
