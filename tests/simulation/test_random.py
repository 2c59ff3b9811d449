"""Random schedules of two workers under every fault: after healing, all is as the fold of the log. A seed is a run."""

import logging
import os

import pytest

from tests.simulation.campaign import on_all_processors, run, summary
from tests.simulation.guards import Remove, gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare

SEEDS = 2_000


@pytest.fixture
def quiet() -> object:
    """A run makes thousands of warnings on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(900)
def test_random_runs_end_as_the_fold_of_the_log() -> None:
    """No crash, zombie, failover, lost or late answer changes what is stored or published in the end."""
    first = int(os.environ.get("SIMULATION_SEED", "0"))
    outcomes = list(on_all_processors(range(first, first + SEEDS)))
    assert [text for _, _, texts in outcomes for text in texts] == []
    tally = sum((counts for _, counts, _ in outcomes), start=type(outcomes[0][1])())
    assert tally["driven/seeds"] == SEEDS
    rare = {
        what: times for what, times in tally.items() if what.startswith(("faults/", "judged/")) and times < SEEDS / 200
    }
    assert rare == {}, summary(tally)


@pytest.mark.parametrize("remove", [gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare])
def test_random_runs_find_a_missing_guard(remove: Remove, quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are no mere exercise: without a guard of the protocol some of the first ones go wrong."""
    remove(monkeypatch)
    assert any(run(seed).faults for seed in range(40))
