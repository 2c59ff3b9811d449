"""The shortest schedules that once went wrong, on the shipped processor: clean as it is, wrong without the guard."""

import pytest

from tests.simulation.driver import Simulation
from tests.simulation.guards import RED, Remove, confirmed_generation, lateness_of_punctuation, store_before_publish
from tests.simulation.schedules import BY_NAME, SCHEDULES, Schedule
from tests.simulation.verdict import faults_of, repeats
from tests.support.world import TRIGGERS


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


def test_without_its_lateness_a_punctuation_is_still_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lateness in W is no guard of its own: the reader caps W by the log's own time less the lateness.

    So a worker that punctuates too early, or whose clock is ahead, makes nothing late; that is why both guards must be
    taken away for the schedule to go wrong.
    """
    lateness_of_punctuation(monkeypatch)
    assert faults_of(played(BY_NAME["a punctuation less than the lateness behind the clock"])) == {}


def first_steps(simulation: Simulation) -> set[bytes]:
    """The different records published of the first step of the two carts there are."""
    values = [record.value or b"" for record in simulation.broker.outputs[TRIGGERS]]
    return {value for value in values if b'"step":"3s"' in value}


def test_a_decision_is_stored_before_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published first, a crash would publish it again with another time; no rule of at least once forbids that.

    Only the content tells: a repeat must be the same record, word for word.
    """
    schedule = BY_NAME["a crash after the cut of a decision"]
    crashed = schedule.labels.index("A.crash")
    stored_first = Simulation(skew_s=(1, 0)).run(
        [*schedule.labels[: crashed - 1], "A.exec", "A.pub", *schedule.labels[crashed:]]
    )
    assert faults_of(stored_first) == {}
    assert repeats(stored_first) == 1
    assert len(first_steps(stored_first)) == 2
    store_before_publish(monkeypatch)
    published_first = played(schedule)
    assert faults_of(published_first) == {}
    assert len(first_steps(published_first)) == 3


def test_a_zombie_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim needs the coordinator's word since the fence. Without it zombie and owner fence each other: no state is
    wrong, but each claim of one who is no member costs the owner a replay, so the claims are counted.
    """
    schedule = BY_NAME["a zombie that wakes up after it lost its task"]
    asleep = played(schedule)
    assert asleep.workers["A"].processor.claim_of(0) is None
    assert asleep.workers["B"].processor.claim_of(0) is not None
    assert faults_of(asleep) == {}
    confirmed_generation(monkeypatch)
    awake = played(schedule)
    assert awake.workers["A"].processor.claim_of(0) is not None
    assert faults_of(awake) == {}


def test_a_claim_waits_for_the_offset_commits_of_its_own_worker() -> None:
    """As the worker's group client has it, the second schedule cannot even begin: K is read after all of them."""
    schedule = BY_NAME["an offset commit arrives after the next claim"]
    until = schedule.labels.index("A.claimR", 1)
    simulation = Simulation(skew_s=(1, 0)).run([*schedule.labels[:until], "A.claimR"])
    assert not simulation.workers["A"].gates.waiting
    simulation.do("net:0")
    assert [here.name for here in simulation.workers["A"].gates.waiting] == ["claim reply"]
    assert faults_of(simulation) == {}
