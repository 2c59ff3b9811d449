"""Timers: one deadline a customer, the earliest in memory, memory over store."""

from streams.processing.timers import Timers


def popped(timers: Timers, watermark_ms: int) -> list[str]:
    """Everything the watermark has passed."""
    found = []
    while (customer := timers.pop(watermark_ms)) is not None:
        found.append(customer)
    return found


def test_a_deadline_is_passed_only_by_a_greater_watermark() -> None:
    """An event at exactly the due time is still in time, so equality releases nothing."""
    timers = Timers([("a", 10)], complete=True)
    assert popped(timers, 10) == []
    assert popped(timers, 11) == ["a"]


def test_a_replaced_deadline_never_fires_at_its_old_time() -> None:
    """A touch moves the due time; the old heap entry is dead."""
    timers = Timers([], complete=True)
    timers.put("a", 10)
    timers.put("a", 30)
    assert timers.first() == 30
    assert popped(timers, 20) == []
    assert popped(timers, 31) == ["a"]


def test_due_finds_exactly_what_pop_will_return() -> None:
    """The profiles to load before a run are those of the timers that it releases."""
    timers = Timers([(f"c{n}", n * 7 % 50) for n in range(40)], complete=True)
    due = timers.due(25)
    assert due == set(popped(timers, 25))
    assert due == {f"c{n}" for n in range(40) if n * 7 % 50 < 25}


def test_a_cut_holds_the_last_change_of_each_customer() -> None:
    """A removed and set again timer is written once, with its last value."""
    timers = Timers([("a", 5)], complete=True)
    assert popped(timers, 6) == ["a"]
    timers.put("a", 9)
    timers.put("b", 4)
    timers.put("b", None)
    assert timers.cut() == {"a": 9, "b": None}
    assert timers.cut() == {}


def test_memory_wins_over_a_page() -> None:
    """What memory knows of a customer is newer than what the store held."""
    timers = Timers([("a", 5)], complete=False)
    assert timers.horizon_ms == 5
    timers.put("b", 50)
    timers.page([("b", 7), ("c", 8)], 20)
    assert timers.horizon_ms == 20
    assert popped(timers, 20) == ["a", "c"]


def test_a_confirmed_removal_is_forgotten_and_an_unconfirmed_one_is_not() -> None:
    """Until the store has removed a timer, a page must not bring it back."""
    timers = Timers([("a", 5)], complete=False)
    assert popped(timers, 6) == ["a"]
    cut = timers.cut()
    timers.page([("a", 5)], 10)
    assert timers.first() is None
    timers.confirmed(cut)
    timers.page([("a", 15)], 20)
    assert timers.first() == 15


def test_the_heap_does_not_grow_with_the_touches_of_one_customer() -> None:
    """10,000 moves of one deadline keep memory bounded."""
    timers = Timers([], complete=True)
    for at in range(10_000):
        timers.put("a", at)
    assert len(timers._heap) <= 1_010  # the bound is the claim
    assert popped(timers, 20_000) == ["a"]


def test_the_heap_is_rebuilt_when_deadlines_keep_moving_earlier() -> None:
    """Each move to an earlier time takes a new place; the dead places do not pile up."""
    timers = Timers([], complete=True)
    for at in range(10_000, 0, -1):
        timers.put("a", at)
    assert len(timers._heap) <= 1_010  # the bound is the claim
    assert popped(timers, 2) == ["a"]
    assert popped(timers, 20_000) == []


def test_too_many_deadlines_leave_memory_and_come_back_in_time() -> None:
    """The later half is left to the store, unless it is not written there yet; memory ends where it begins."""
    stored = {f"c{n:03}": n for n in range(100)}
    timers = Timers(stored.items(), complete=True)
    timers.put("new", 500)
    timers.trim(100)
    assert (timers.horizon_ms, len(timers._known)) == (50, 51)
    assert popped(timers, 60) == [f"c{n:03}" for n in range(50)]
    assert timers.next_ms() == 50
    timers.page([(customer, at) for customer, at in stored.items() if at >= 50], None)
    assert popped(timers, 1_000) == [*(f"c{n:03}" for n in range(50, 100)), "new"]


def test_few_deadlines_stay_where_they_are() -> None:
    """Up to the limit nothing leaves, and what is not written yet never does."""
    timers = Timers([("a", 5), ("b", 6)], complete=True)
    timers.trim(2)
    assert (timers.horizon_ms, timers.next_ms()) == (None, 5)
    for number in range(10):
        timers.put(f"n{number}", number)
    timers.trim(4)
    assert timers.horizon_ms is None
    assert len(popped(timers, 100)) == 12
