"""Distinct customers: exact at every edge, in any order."""

import random
from collections import Counter
from typing import Any

import pytest

from streams.engagement.active import ActivePeriods

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T = 1_760_054_400_000
WINDOWS = {"24h": (DAY_MS, HOUR_MS), "7d": (7 * DAY_MS, DAY_MS), "30d": (30 * DAY_MS, DAY_MS)}


def told(times_ms: list[int]) -> Counter[tuple[str, int]]:
    """What the facts of one customer add up to, by window and edge."""
    periods, newest = ActivePeriods(), None
    facts: list[tuple[Any, ...]] = []
    for time_ms in times_ms:
        periods.mark(newest, time_ms, facts)
        newest = time_ms if newest is None else max(newest, time_ms)
    counts: Counter[tuple[str, int]] = Counter()
    for _, window, edge_ms, customers, edges in facts:
        for number in range(edges):
            counts[window, edge_ms + number * WINDOWS[window][1]] += customers
    return counts


def expected(times_ms: list[int]) -> dict[tuple[str, int], int]:
    """By definition: one at each edge whose window holds an event."""
    return {
        (window, start + bucket + number * bucket): 1
        for window, (length, bucket) in WINDOWS.items()
        for time_ms in times_ms
        for start in (time_ms // bucket * bucket,)
        for number in range(length // bucket)
    }


def test_one_event_counts_in_every_window_that_holds_its_hour_or_day() -> None:
    """24 hourly edges, 7 and 30 daily ones; the first ends right after the event's bucket."""
    counts = told([T + 5])
    assert counts == expected([T + 5])
    assert Counter(window for window, _ in counts) == {"24h": 24, "7d": 7, "30d": 30}
    assert min(edge for window, edge in counts if window == "24h") == T + HOUR_MS


@pytest.mark.parametrize("seed", range(20))
def test_a_customer_counts_once_at_every_edge_in_any_order(seed: int) -> None:
    """Events up to 40 h late, over two months: at no edge nothing, at no edge twice."""
    rnd = random.Random(seed)
    times = [T + rnd.randrange(60 * DAY_MS) for _ in range(rnd.randrange(1, 60))]
    read = sorted(times, key=lambda time_ms: time_ms + rnd.randrange(40 * HOUR_MS))
    assert told(read) == expected(times)


def test_what_is_later_still_is_left_out() -> None:
    """More than 40 hours late counts in no window of hours, more than 34 days late in no window of days."""
    late = told([T + 41 * HOUR_MS, T])
    assert not any(window == "24h" and edge <= T + DAY_MS for window, edge in late)
    assert late["7d", T + DAY_MS] == 1
    very_late = told([T + 35 * DAY_MS, T])
    assert very_late == told([T + 35 * DAY_MS])


def test_what_is_just_as_late_as_may_be_counts() -> None:
    """Exactly 40 hours in the windows of hours, exactly 34 days in those of days."""
    assert told([T + 40 * HOUR_MS, T])["24h", T + HOUR_MS] == 1
    assert told([T + 34 * DAY_MS, T])["30d", T + DAY_MS] == 1


def test_a_second_event_of_the_same_hour_tells_nothing() -> None:
    """What is covered already is no news."""
    facts: list[tuple[Any, ...]] = []
    periods = ActivePeriods()
    periods.mark(None, T, facts)
    first = len(facts)
    periods.mark(T, T + 5, facts)
    assert len(facts) == first
