"""Rolling from one version to the next and back, on real brokers: both at work side by side, and the state is exact."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from streams.engagement import snapshot
from streams.engagement.profile import Profile
from streams.processing import book
from streams.producer.plan import plan
from streams.stores.keys import TaskKeys
from tests.support.brokers import Brokers, Names
from tests.support.exact import hold_against_fold
from tests.support.history import STEPS, harsh_script
from tests.support.next_version import NEXT, without_field
from tests.support.workers import ROOT, Deployment, WorkerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NEXT_VERSION = "tests.support.next_version"
HISTORY = list(plan(harsh_script(5, 4_000)))


@pytest.fixture
def deployment(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(brokers, names, tmp_path, PARTITIONS="2", RUN_RECORDS_MAX="200")
    yield made
    made.close()


def upgrade(deployment: Deployment, *options: str) -> tuple[int, str]:
    """`pulseline upgrade` of the next version: (exit code, what it says)."""
    ran = subprocess.run(
        [sys.executable, "-m", NEXT_VERSION, "upgrade", *options],
        env={"PYTHONPATH": ROOT} | deployment.settings.environ(),
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


def schemas(deployment: Deployment) -> tuple[set[int], set[int]]:
    """(schemas of the books, schemas of the profiles' fields) as stored."""
    found: set[int] = set()
    with redis.Redis.from_url(deployment.brokers.redis_url) as client:
        for task in range(deployment.settings.partitions):
            for key in TaskKeys(deployment.names.app_id, task).states:
                found |= {packed[0] for packed in client.hvals(key)}
    return {stored.schema for stored in deployment.books().values()}, found


def stop(*workers: WorkerProcess) -> None:
    for worker in workers:
        worker.stop()


def test_a_rolling_upgrade_and_back(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old and new share the tasks and hand them to each other, forth and back; after the finish the old one stops.

    Until then the new version writes what the old one reads; the old one that comes too late loses nothing.
    """
    parts = [HISTORY[start : start + 1_000] for start in range(0, 4_000, 1_000)]
    old = deployment.start()
    deployment.wait_moved(range(2))
    new = deployment.start(NEXT_VERSION)
    deployment.wait_shared(old, new)
    deployment.load(parts[0])
    deployment.wait_read()
    code, said = upgrade(deployment, "--finish")
    assert (code, "1 of 2 active workers read schemas below 2" in said) == (1, True), said
    stop(new)
    deployment.load(parts[1])
    deployment.wait_read()
    newer = deployment.start(NEXT_VERSION)
    deployment.wait_shared(old, newer)
    stop(old)
    deployment.load(parts[2])
    deployment.wait_read()
    assert schemas(deployment) == ({1}, {1})

    code, said = upgrade(deployment, "--finish")
    assert (code, "schema 2" in said) == (0, True), said
    become_next(monkeypatch)
    late = deployment.start()
    deployment.wait("it stops", lambda: not late.running)
    assert (late.process.returncode, "NewerSchema" in late.log, "Traceback" in late.log) == (1, True, False)
    deployment.load(parts[3])
    deployment.wait_read()
    stop(newer)
    books, profiles = schemas(deployment)
    assert NEXT in books
    assert NEXT in profiles
    findings = hold_against_fold(deployment, {"lateness_ms": deployment.settings.lateness_ms, "steps": STEPS})
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"


def become_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process read what the next version wrote."""
    opened = Profile._open_hot

    def open_without_field(self: Profile, hot: list[Any]) -> None:
        opened(self, without_field(hot))

    monkeypatch.setattr(snapshot, "SCHEMA", NEXT)
    monkeypatch.setattr(book, "SCHEMA", NEXT)
    monkeypatch.setattr(Profile, "_open_hot", open_without_field)
