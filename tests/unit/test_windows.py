"""Rolling counters: the contract's vector and the bounds of each window."""

import itertools
import random

import pytest

from streams.engagement.windows import RollingCounters

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MIDNIGHT = 1_760_054_400_000
WINDOWS = ((HOUR_MS, 5 * MINUTE_MS), (DAY_MS, HOUR_MS), (7 * DAY_MS, DAY_MS), (30 * DAY_MS, DAY_MS))


def counted(*times_ms: int) -> RollingCounters:
    counters = RollingCounters()
    for time_ms in times_ms:
        counters.add(5, time_ms)
    return counters


def expected(times_ms: list[int]) -> list[int]:
    """count(W, as_of) by the contract's definition, from the full history."""
    as_of = max(times_ms)
    return [
        sum(as_of - length < time_ms // bucket * bucket <= as_of for time_ms in times_ms) for length, bucket in WINDOWS
    ]


@pytest.mark.parametrize("order", list(itertools.permutations([9 * 60 + 4, 9 * 60 + 5, 10 * 60 + 3])))
def test_vector(order: tuple[int, ...]) -> None:
    """09:04, 09:05, 10:03 as of 10:03: two in the last hour, in any order."""
    counters = counted(*(MIDNIGHT + minute * MINUTE_MS for minute in order))
    assert counters.totals() == {5: [2, 3, 3, 3]}


@pytest.mark.parametrize(
    ("later_ms", "totals"),
    [
        (HOUR_MS - 1, [2, 2, 2, 2]),
        (HOUR_MS, [1, 2, 2, 2]),
        (DAY_MS - 1, [1, 2, 2, 2]),
        (DAY_MS, [1, 1, 2, 2]),
        (7 * DAY_MS - 1, [1, 1, 2, 2]),
        (7 * DAY_MS, [1, 1, 1, 2]),
        (30 * DAY_MS - 1, [1, 1, 1, 2]),
        (30 * DAY_MS, [1, 1, 1, 1]),
    ],
)
def test_a_bucket_leaves_each_window_at_its_edge(later_ms: int, totals: list[int]) -> None:
    """An event at midnight counts until the newest event is a whole window later, in either order."""
    for times in ((MIDNIGHT, MIDNIGHT + later_ms), (MIDNIGHT + later_ms, MIDNIGHT)):
        assert counted(*times).totals() == {5: totals}


def test_types_are_counted_apart_and_sorted() -> None:
    """Each type has its own counts; those without any are left out."""
    counters = counted(MIDNIGHT)
    counters.add(2, MIDNIGHT + 40 * DAY_MS)
    counters.add(9, MIDNIGHT + 40 * DAY_MS)
    counters.add(2, MIDNIGHT + 40 * DAY_MS)
    assert list(counters.totals().items()) == [(2, [2, 2, 2, 2]), (9, [1, 1, 1, 1])]


@pytest.mark.parametrize("seed", range(8))
def test_counts_equal_the_definition_for_months_of_events(seed: int) -> None:
    """However events are spaced and shuffled, also after packing in between, totals are those of the definition."""
    rnd = random.Random(seed)
    times, counters = [MIDNIGHT], counted(MIDNIGHT)
    for _ in range(300):
        newest = max(times)
        step = rnd.choice([MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, 9 * HOUR_MS, 40 * HOUR_MS, 12 * DAY_MS])
        times.append(newest + rnd.randrange(-step, step))
        counters.add(5, times[-1])
        if rnd.random() < 0.2:
            counters = RollingCounters.unpack(counters.as_of_ms, counters.pack())
        assert counters.totals()[5] == expected(times)


def test_many_types_and_slots_are_freed_alike() -> None:
    """Freeing slot by slot and freeing by one pass over all entries give the same state."""
    dense, sparse = RollingCounters(), RollingCounters()
    times = range(MIDNIGHT, MIDNIGHT + 3 * HOUR_MS, 5 * MINUTE_MS)
    for time_ms in times:
        for code in range(10):
            dense.add(code, time_ms)
    for code in range(10):
        for time_ms in reversed(times):
            sparse.add(code, time_ms)
    assert dense.pack() == sparse.pack()


def test_moving_an_event_leaves_nothing_behind() -> None:
    """An event moved to an earlier time is the same as one counted there, also where both times share buckets."""
    for to_ms in (MIDNIGHT + 1, MIDNIGHT + 10 * HOUR_MS):
        moved, direct = counted(MIDNIGHT + 11 * HOUR_MS), counted(to_ms)
        moved.move(5, MIDNIGHT + 11 * HOUR_MS, to_ms)
        direct.advance(MIDNIGHT + 11 * HOUR_MS)
        assert moved.pack() == direct.pack()
        moved.add(6, MIDNIGHT + 12 * HOUR_MS)
        direct.add(6, MIDNIGHT + 12 * HOUR_MS)
        moved.move(6, MIDNIGHT + 12 * HOUR_MS, MIDNIGHT + 12 * HOUR_MS - 1)
        direct.move(6, MIDNIGHT + 12 * HOUR_MS, MIDNIGHT + 12 * HOUR_MS - 1)
        assert moved.pack() == direct.pack()


def test_an_older_time_does_not_move_the_newest() -> None:
    """Advancing to the past changes nothing."""
    counters = counted(MIDNIGHT)
    counters.advance(MIDNIGHT - DAY_MS)
    assert counters.as_of_ms == MIDNIGHT
