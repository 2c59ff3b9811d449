"""Random schedules of two workers under every fault: after healing, all is as the fold of the log. A seed is a run."""

import logging
import os

import pytest

from tests.simulation.campaign import report, run
from tests.simulation.guards import Remove, gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare

SEEDS = 120
GROUPS = 6


@pytest.fixture(autouse=True)
def quiet() -> object:
    """A run makes thousands of warnings on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_runs_end_as_the_fold_of_the_log(group: int) -> None:
    """No crash, zombie, failover, lost or late answer changes what is stored or published in the end."""
    first = int(os.environ.get("SIMULATION_SEED", "0"))
    failed = []
    for seed in range(first + group, first + SEEDS, GROUPS):
        faults, setting, labels = run(seed)
        if faults:
            failed.append(report(seed, faults, setting, labels))
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("remove", [gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare])
def test_random_runs_find_a_missing_guard(remove: Remove, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are no mere exercise: without a guard of the protocol some of the first ones go wrong."""
    remove(monkeypatch)
    assert any(run(seed)[0] for seed in range(40))
