"""Alignment: whose records' turn it is, where topics of a task are read from long ago."""

from collections.abc import Iterable

from aiokafka import TopicPartition

from streams.processing.ports import LogRecord
from streams.transport.alignment import Alignment

HOUR_MS = 3_600_000
CART, CLICK, EMAIL = (TopicPartition(f"engagement.{name}.v1", 0) for name in ("cart", "clickstream", "email"))


def at(*hours: float) -> list[LogRecord]:
    return [LogRecord(number, int(hour * HOUR_MS), None, b"{}") for number, hour in enumerate(hours)]


def hours(records: Iterable[LogRecord]) -> list[float]:
    return [record.timestamp / HOUR_MS for record in records]


def test_nothing_waits_where_no_topic_is_behind() -> None:
    """The usual case: every other topic is read to its end."""
    alignment = Alignment()
    assert hours(alignment.turn(CART, at(1, 500), [])) == [1, 500]
    assert alignment.waiting == frozenset()


def test_what_is_twelve_hours_ahead_waits_until_the_others_have_come_so_far() -> None:
    """Exactly twelve hours is not too far."""
    alignment = Alignment()
    assert hours(alignment.turn(CART, at(1, 12, 12.1, 30), [(CLICK, 0)])) == [1, 12]
    assert CART in alignment
    assert hours(alignment.turn(CART, [], [(CLICK, HOUR_MS)])) == [12.1]
    assert hours(alignment.turn(CART, [], [])) == [30]
    assert CART not in alignment


def test_the_slowest_topic_counts() -> None:
    """One that was never read holds the others back, wherever they are."""
    alignment = Alignment()
    assert hours(alignment.turn(CART, at(20), [(CLICK, 19 * HOUR_MS), (EMAIL, -1)])) == []
    assert alignment.waiting == {CART}


def test_two_that_wait_for_each_other_go_on_by_what_they_hold() -> None:
    """Both logs have a hole of days: the one whose next record is older goes first."""
    alignment = Alignment()
    assert alignment.turn(CART, at(100), [(CLICK, HOUR_MS)]) == []
    assert alignment.turn(CLICK, at(90), [(CART, HOUR_MS)]) != []
    assert hours(alignment.turn(CART, [], [(CLICK, 90 * HOUR_MS)])) == [100]


def test_a_partition_that_was_closed_forgets_what_waited() -> None:
    """It will be fetched again, from wherever its next claim says."""
    alignment = Alignment()
    assert alignment.turn(CART, at(100), [(CLICK, 0)]) == []
    alignment.drop(CART)
    assert alignment.turn(CART, at(1), [(CLICK, 0)]) != []
    assert alignment.waiting == frozenset()
