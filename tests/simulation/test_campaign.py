"""The simulation itself: a seed repeats itself, a failing one is cut short and told, a frozen process does nothing."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.campaign import report, run
from tests.simulation.driver import Simulation
from tests.simulation.guards import timer_of_waiting_events
from tests.simulation.verdict import faults_of
from tests.support.world import CLICK

EVICTING = (1, 2, 16, 40)
"""Seeds with memory for one or two customers, where it matters in which order a run's are loaded."""
SCRIPT = f"import tests.simulation.campaign as c; print([c.run(seed).labels for seed in {EVICTING}])"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A run makes thousands of warnings on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_seed_does_the_same_in_every_process() -> None:
    """Whatever the process's hashes of strings, or a failing seed could not be run again."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": str(number), "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for number in (1, 2, 3)
    ]
    assert runs[0]
    assert runs[0] == runs[1] == runs[2]


def test_a_failing_seed_is_cut_short_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard less, and the report names the fault, the few steps it takes, what came of them, and how to run it."""
    timer_of_waiting_events(monkeypatch)
    outcome = next(outcome for outcome in map(run, range(40)) if next(iter(outcome.faults), "") == "lost")
    text = report(outcome)
    steps = [line for line in text.splitlines() if line.startswith("    ")]
    assert f"seed {outcome.seed}: lost" in text
    assert 0 < len(steps) <= 20 < len(outcome.labels)
    assert any("send:product_added" in step for step in steps)
    assert "  then: lost: trigger" in text
    assert text.endswith(f"make simulate SEEDS={outcome.seed}:{outcome.seed + 1}")


def frozen() -> Simulation:
    """A has read a record and is stopped before it commits; nothing is held."""
    simulation = Simulation(held=frozenset())
    return simulation.run(["A.claim", "net:0", "send:page_viewed,c0,0,1", "A.poll:clickstream,1", "A.freeze"])


def test_a_frozen_worker_does_nothing_until_it_wakes() -> None:
    """It takes no orders, and its timers wait."""
    simulation = frozen()
    before = list(simulation.store.effects)
    assert not simulation.do("A.tick")
    simulation.run(["tick"] * 5)
    assert simulation.owner == "A"
    assert simulation.store.effects == before
    simulation.run(["A.wake", "A.tick", "net:0"])
    assert simulation.store.effects != before
    assert simulation.broker.group[CLICK, 0] == 1
    assert faults_of(simulation) == {}


def test_a_worker_that_sleeps_beyond_its_session_loses_the_task_and_is_fenced() -> None:
    """What it wakes up with is on a base that its successor has replaced."""
    simulation = frozen().run(["jump:12"])
    assert simulation.owner == "B"
    simulation.run(["B.claim", "B.poll:clickstream,1", "B.tick", "net:0", "A.wake"])
    assert simulation.workers["A"].processor.claim_of(0)
    simulation.run(["A.tick"])
    assert simulation.workers["A"].processor.claim_of(0) is None
    assert [what for what, *_ in simulation.store.effects].count("fenced") == 1
    assert faults_of(simulation) == {}


def test_a_worker_that_is_killed_while_frozen_has_done_nothing_more() -> None:
    """Also where the answer it waited for had come, and it only had to go on."""
    simulation = Simulation(held=frozenset({"commit"}))
    simulation.run(["A.claim", "A.go:commit", "net:0", "send:page_viewed,c0,0,1", "A.poll:clickstream,1", "A.tick"])
    simulation.run(["A.freeze", "A.go:commit"])
    before = list(simulation.store.effects)
    simulation.do("A.crash")
    assert simulation.store.effects == before
    assert faults_of(simulation) == {}
