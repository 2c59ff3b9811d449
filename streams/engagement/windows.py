"""Rolling counters: how many events of each type in the last hour, day, week and month.

Three rings of buckets aligned to UTC: 12 of 5 min, 24 of 1 h, 30 of 1 d. A bucket's slot is its number modulo the ring,
so a slot and the customer's newest event together tell the bucket, and slots are freed when the newest event moves on.
All rings of all types share one flat dict, sparse: a customer of ten events has some twenty entries.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Final

from streams.engagement.decay import HOUR_MS

FIVE_MINUTES_MS: Final = 300_000
DAY_MS: Final = 86_400_000

_FIVES: Final = 12
_HOURS: Final = 24
_DAYS: Final = 30
_WEEK_DAYS: Final = 7
_HOUR_SLOT: Final = _FIVES
_DAY_SLOT: Final = _FIVES + _HOURS
SLOTS: Final = _FIVES + _HOURS + _DAYS
_RINGS: Final = (
    (FIVE_MINUTES_MS, _FIVES, 0),
    (HOUR_MS, _HOURS, _HOUR_SLOT),
    (DAY_MS, _DAYS, _DAY_SLOT),
)
_TWICE: Final = tuple((width_ms, size, tuple(range(first, first + size)) * 2) for width_ms, size, first in _RINGS)
"""Each ring's slots twice in a row, so that any stretch of the ring is a slice."""


class RollingCounters:
    """Counts per event type code, kept relative to `as_of_ms`, the newest event.

    counts: code * SLOTS + slot -> events.
    """

    __slots__ = ("as_of_ms", "counts")

    def __init__(self) -> None:
        self.as_of_ms = 0
        self.counts: dict[int, int] = {}

    def add(self, code: int, occurred_at_ms: int) -> None:
        """Count one event; a late one goes to its own buckets, as far as they are still kept.

        >>> counters, nine = RollingCounters(), 9 * HOUR_MS
        >>> for minute in (4, 5, 63):
        ...     counters.add(0, nine + minute * 60_000)
        >>> counters.totals()
        {0: [2, 3, 3, 3]}
        """
        before_ms = self.as_of_ms
        if occurred_at_ms < before_ms:
            self._change(code, occurred_at_ms, 1)
            return
        self.as_of_ms = occurred_at_ms
        five = occurred_at_ms // FIVE_MINUTES_MS
        if five != before_ms // FIVE_MINUTES_MS:
            self._free(before_ms)
        hour = five // 12
        counts, base = self.counts, code * SLOTS
        slot = base + five % _FIVES
        counts[slot] = counts.get(slot, 0) + 1
        slot = base + _HOUR_SLOT + hour % _HOURS
        counts[slot] = counts.get(slot, 0) + 1
        slot = base + _DAY_SLOT + hour // 24 % _DAYS
        counts[slot] = counts.get(slot, 0) + 1

    def advance(self, as_of_ms: int) -> None:
        """Move on to a newer event and free the slots that no window needs any more."""
        before_ms = self.as_of_ms
        if as_of_ms > before_ms:
            self.as_of_ms = as_of_ms
            if as_of_ms // FIVE_MINUTES_MS != before_ms // FIVE_MINUTES_MS:
                self._free(before_ms)

    def move(self, code: int, from_ms: int, to_ms: int) -> None:
        """Count an event already counted at `from_ms` at `to_ms` instead."""
        self._change(code, from_ms, -1)
        self._change(code, to_ms, 1)

    def totals(self) -> dict[int, list[int]]:
        """Events per type code in the last [1 h, 24 h, 7 d, 30 d] as of the newest event, by code."""
        today = self.as_of_ms // DAY_MS
        totals: dict[int, list[int]] = {}
        base, row = -1, [0, 0, 0, 0]
        counts = self.counts
        for key in sorted(counts):
            slot, count = key % SLOTS, counts[key]
            if key - slot != base:
                base = key - slot
                totals[base // SLOTS] = row = [0, 0, 0, 0]
            if slot < _HOUR_SLOT:
                row[0] += count
            elif slot < _DAY_SLOT:
                row[1] += count
            else:
                row[3] += count
                if (today + _DAY_SLOT - slot) % _DAYS < _WEEK_DAYS:
                    row[2] += count
        return totals

    def pack(self) -> list[list[int]]:
        """Canonical: [differences of the sorted keys, counts]."""
        counts = self.counts
        keys = sorted(counts)
        return [[*keys[:1], *map(sub, keys[1:], keys)], [*map(counts.__getitem__, keys)]]

    @classmethod
    def unpack(cls, as_of_ms: int, packed: Sequence[Sequence[int]]) -> "RollingCounters":
        """The counters that were packed as of `as_of_ms`."""
        counters = cls()
        counters.as_of_ms = as_of_ms
        differences, counts = packed
        counters.counts = dict(zip(accumulate(differences), counts, strict=True))
        return counters

    def _change(self, code: int, occurred_at_ms: int, by: int) -> None:
        """Change the buckets of a time at or before as_of_ms, as far as they are kept."""
        counts, as_of_ms = self.counts, self.as_of_ms
        for width_ms, size, first in _RINGS:
            bucket = occurred_at_ms // width_ms
            if bucket > as_of_ms // width_ms - size:
                key = code * SLOTS + first + bucket % size
                count = counts.get(key, 0) + by
                if count:
                    counts[key] = count
                else:
                    del counts[key]

    def _free(self, before_ms: int) -> None:
        """Drop what left its ring when the newest event moved on from `before_ms`."""
        counts, as_of_ms = self.counts, self.as_of_ms
        if not counts:
            return
        stale: tuple[int, ...] = ()
        for width_ms, size, slots in _TWICE:
            first = before_ms // width_ms + 1
            moved = as_of_ms // width_ms - first + 1
            if not moved:
                break
            first %= size
            stale += slots[first : first + moved] if moved < size else slots[:size]
        gone = frozenset(stale)
        for key in [key for key in counts if key % SLOTS in gone]:
            del counts[key]
