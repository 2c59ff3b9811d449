"""Chaos on a real Kafka and a real Redis, the short set: `make chaos` plays all scenarios and prints the table."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.runner import play
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.shows import killed_while_reading
from tests.support.brokers import Brokers, Names
from tests.support.exact import hold_against_fold
from tests.support.history import STEPS
from tests.support.workers import Deployment

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

SEED = int(os.environ.get("CHAOS_SEED", "1"))
EVENTS, KILLS = 300_000, 10


@pytest.mark.timeout(170)
@pytest.mark.parametrize(
    ("name", "guarantee"),
    [
        ("zombies", "exactly_once"),
        ("flush", "at_least_once"),
        pytest.param("failover", "at_least_once", marks=pytest.mark.chaos_long),
    ],
)
def test_nothing_is_lost_or_invented(brokers: Brokers, name: str, guarantee: str) -> None:
    """One round: all equals the fold; nothing below the offsets is repeated, and exactly_once nothing at all."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    run = play(replace(scenario, rounds=1), guarantee, SEED, brokers)
    assert run.ok, run.text()


@pytest.fixture
def deployment(brokers: Brokers, names: Names, tmp_path: Path) -> Iterator[Deployment]:
    running = Deployment(brokers, names, tmp_path, PARTITIONS="8")
    yield running
    running.close()


@pytest.mark.chaos_long
@pytest.mark.timeout(1_800)
def test_one_worker_killed_ten_times_counts_every_event(deployment: Deployment) -> None:
    """300,000 events at full rate, kill -9 at ten random points: 300,000 counted, triggers and state equal the fold."""
    killed = killed_while_reading(deployment, events=EVENTS, kills=KILLS, seed=SEED)
    print(f"\nseed {SEED}: killed at {killed.at} records; back after {killed.back_s} s; read in {killed.read_s:.0f} s")
    assert deployment.workers[-1].stop() < 10
    assert deployment.records_read().total() == EVENTS
    assert deployment.committed() == deployment.loaded
    findings = hold_against_fold(deployment, {"lateness_ms": deployment.settings.lateness_ms, "steps": STEPS})
    print(findings.text())
    assert findings.ok, deployment.logs()
    assert [worker.process.returncode for worker in deployment.workers] == [-9] * KILLS + [0]
