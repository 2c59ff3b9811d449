"""Random schedules of two workers under every fault: after healing, all is as the fold of the log. A seed is a run."""

import logging
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.campaign import NAMES, in_short, on_all_processors, report, run, summary
from tests.simulation.guards import Remove, gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare

SEEDS = 2_000
WHAT_HAPPENS = (
    *NAMES.values(),
    *("faults/paused beyond the session", "faults/refused offsets", "faults/refused transaction"),
    *("crashes at/commit", "crashes at/commit reply", "crashes at/publish", "crashes at/publish reply"),
    *("crashes at/offsets under way", "crashes at/transaction under way", "crashes at/punctuation under way"),
    *("calls that failed/commit", "calls that failed/commit reply"),
    *("rejected because/Future", "rejected because/TooOld", "judged/triggers", "judged/outcomes"),
)
"""Each comes up often enough, or the runs are not what they say."""


@pytest.fixture
def quiet() -> Iterator[None]:
    """A run makes thousands of warnings on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(900)
def test_random_runs_end_as_the_fold_of_the_log(quiet: None) -> None:
    """No crash, zombie, failover, lost or late answer changes what is stored or published in the end."""
    first = int(os.environ.get("SIMULATION_SEED", "0"))
    tally: Counter[str] = Counter()
    failed = []
    for counts, outcomes in on_all_processors(range(first, first + SEEDS)):
        tally.update(counts)
        failed += outcomes
    assert not failed, "\n\n".join([report(failed[0]), *map(in_short, failed[1:])])
    assert tally["driven/seeds"] == SEEDS
    rare = [what for what in WHAT_HAPPENS if tally[what] < SEEDS / 200]
    assert rare == [], summary(tally)


@pytest.mark.parametrize("remove", [gate_of_the_next_exec, idle_compare, position_of_the_cut, ver_compare])
def test_random_runs_find_a_missing_guard(remove: Remove, quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are no mere exercise: without a guard of the protocol some of the first ones go wrong."""
    remove(monkeypatch)
    assert any(run(seed).faults for seed in range(40))
