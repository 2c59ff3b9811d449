"""When a customer was active: which distinct-customer windows an event adds the customer to.

A window of 24 hours ends at each full hour, those of 7 and 30 days at each UTC midnight. An event adds the customer to
every window that its hour (its day) lies in and that no other active hour (day) of the customer lies in already. Two
bitmaps, of 64 hours and of 64 days counted back from the newest, tell; so the sum at every edge is exact in any order
of events up to 40 hours late for the hours, 34 days for the days. What is later still is left out of these windows.
"""

from typing import Any, Final

from streams.engagement.decay import HOUR_MS
from streams.engagement.windows import DAY_MS

_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1
_HOUR_WINDOWS: Final = (("24h", 24),)
_DAY_WINDOWS: Final = (("7d", 7), ("30d", 30))


class ActivePeriods:
    """Bit n of hours (days): active in the n-th hour (day) before that of the customer's newest event."""

    __slots__ = ("days", "hours")

    def __init__(self, hours: int = 0, days: int = 0) -> None:
        self.hours = hours
        self.days = days

    def mark(self, newest_ms: int | None, occurred_at_ms: int, facts: list[tuple[Any, ...]]) -> None:
        """Mark an event by the customer and tell which windows it adds the customer to.

        newest_ms: the customer's newest event before this one. Facts: (active, window, edge_ms, customers, edges): the
        change of each of `edges` windows, the first of which ends at edge_ms, the others a bucket later each.
        """
        self.hours = _mark(self.hours, newest_ms, occurred_at_ms, HOUR_MS, _HOUR_WINDOWS, facts)
        if newest_ms is None or occurred_at_ms // DAY_MS != newest_ms // DAY_MS:
            self.days = _mark(self.days, newest_ms, occurred_at_ms, DAY_MS, _DAY_WINDOWS, facts)


def _mark(
    bits: int,
    newest_ms: int | None,
    occurred_at_ms: int,
    width_ms: int,
    windows: tuple[tuple[str, int], ...],
    facts: list[tuple[Any, ...]],
) -> int:
    """The bitmap with one more active bucket, counted back from the newest; tells the windows newly covered."""
    bucket = occurred_at_ms // width_ms
    age = 0 if newest_ms is None else newest_ms // width_ms - bucket
    if newest_ms is None or age < 0:
        bits = bits << -age & _MASK if age > -_BITS else 0
        since_earlier = (bits & -bits).bit_length() - 1 if bits else _BITS
        for window, length in windows:
            edges = min(length, since_earlier)
            facts.append(("active", window, (bucket + 1 + length - edges) * width_ms, 1, edges))
        return bits | 1
    longest = windows[-1][1]
    if age + longest > _BITS or bits >> age & 1:
        return bits
    earlier = bits >> age
    since_earlier = (earlier & -earlier).bit_length() - 1 if earlier else _BITS
    until_later = age + 1 - (bits & ((1 << age) - 1)).bit_length()
    for window, length in windows:
        first = max(1, length - since_earlier + 1)
        last = min(length, until_later)
        if first <= last:
            facts.append(("active", window, (bucket + first) * width_ms, 1, last - first + 1))
    return bits | 1 << age
