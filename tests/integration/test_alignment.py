"""A history of many days is read as it was written: the topics of a task side by side, so that every count is exact."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.producer.plan import plan
from tests.support.brokers import Brokers, Names
from tests.support.exact import hold_against_fold
from tests.support.history import STEPS, harsh_script
from tests.support.workers import Deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DAYS, EVENTS = 8, 8_000


@pytest.fixture
def deployment(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(brokers, names, tmp_path, PARTITIONS="2")
    yield made
    made.close()


def test_days_of_history_are_counted_exactly(deployment: Deployment) -> None:
    """Read one topic after the other, many hours would miss customers that were active in them."""
    deployment.load(list(plan(harsh_script(7, EVENTS, duration_ms=DAYS * 86_400_000))))
    worker = deployment.start()
    deployment.wait_read(90)
    worker.stop()
    findings = hold_against_fold(deployment, {"lateness_ms": deployment.settings.lateness_ms, "steps": STEPS})
    assert findings.ok, f"{findings.text()}\n{deployment.logs()}"
    assert findings.active_short == 0
