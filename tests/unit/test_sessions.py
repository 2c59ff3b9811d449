"""Sessions: the gap, joins, and when they are final."""

import itertools

import pytest

from streams.engagement import sessions

T = 1_760_054_400_000
GAP = sessions.SESSION_GAP_MS


def entered(*times_ms: int) -> list[list[int]]:
    found: list[list[int]] = []
    for time_ms in times_ms:
        sessions.enter(found, time_ms, 1, 0, 0)
    return found


def test_a_gap_of_exactly_30_minutes_does_not_start_a_session() -> None:
    """30 min extend, 30 min and 1 ms start, whichever event is read first."""
    for first, second in itertools.permutations((T, T + GAP)):
        assert entered(first, second) == [[T, T + GAP, 2, 2, 0, 0]]
    for first, second in itertools.permutations((T, T + GAP + 1)):
        assert entered(first, second) == [[T, T, 1, 1, 0, 0], [T + GAP + 1, T + GAP + 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("order", list(itertools.permutations([T, T + GAP, T + 2 * GAP, T + 4 * GAP])))
def test_an_event_joins_two_sessions(order: tuple[int, ...]) -> None:
    """Three events a gap apart are one session in any order, a far one stays alone."""
    assert entered(*order) == [[T, T + 2 * GAP, 3, 3, 0, 0], [T + 4 * GAP, T + 4 * GAP, 1, 1, 0, 0]]


def test_what_an_event_is_is_counted() -> None:
    """Pages, cart events and orders are counted apart, in joins too."""
    found: list[list[int]] = []
    sessions.enter(found, T, 1, 0, 0)
    sessions.enter(found, T + 2 * GAP, 0, 1, 0)
    sessions.enter(found, T + 2 * GAP - 1, 0, 0, 1)
    assert found == [[T, T, 1, 1, 0, 0], [T + 2 * GAP - 1, T + 2 * GAP, 2, 0, 1, 1]]
    sessions.enter(found, T + GAP, 0, 1, 0)
    assert found == [[T, T + 2 * GAP, 4, 1, 2, 1]]


def test_a_session_is_final_once_the_watermark_passed_its_end_plus_the_gap() -> None:
    """At exactly last + 30 min an event could still extend it."""
    found = entered(T, T + 3 * GAP)
    assert sessions.final(found, T + GAP) == []
    assert sessions.final(found, T + GAP + 1) == [[T, T, 1, 1, 0, 0]]
    assert sessions.final(found, T + 9 * GAP) == [[T + 3 * GAP, T + 3 * GAP, 1, 1, 0, 0]]
    assert found == []


def test_packing_keeps_every_interval() -> None:
    """Packed relative to the newest event, which may be later than any session's."""
    found = entered(T, T + 5, T + 3 * GAP)
    assert sessions.unpack(sessions.pack(found, T + 4 * GAP), T + 4 * GAP) == found
    assert sessions.pack([], T) == []
