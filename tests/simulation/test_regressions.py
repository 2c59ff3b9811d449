"""The shortest schedules that once went wrong, on the shipped processor: clean as it is, wrong without the guard."""

import pytest

from tests.simulation.driver import Simulation
from tests.simulation.guards import (
    RED,
    Remove,
)
from tests.simulation.schedules import BY_NAME, SCHEDULES, Schedule
from tests.simulation.verdict import faults_of


def played(schedule: Schedule) -> Simulation:
    """The world after a schedule, before it heals."""
    return Simulation(skew_s=(1, 0), ordered=schedule.ordered).run(schedule.labels)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_schedule_is_clean(schedule: Schedule) -> None:
    """After healing the state is the fold of the log; nothing was lost, made up, or published below K."""
    assert faults_of(played(schedule)) == {}


@pytest.mark.parametrize(("name", "remove", "fault"), RED, ids=lambda value: getattr(value, "__name__", None))
def test_a_schedule_goes_wrong_without_its_guard(
    name: str, remove: Remove, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard is needed, and the schedule would tell if it were gone."""
    remove(monkeypatch)
    assert fault in faults_of(played(BY_NAME[name]))
