"""The event ids a customer sent lately: removes what a producer sent twice.

Per topic the 128 newest ids by (occurred_at, hash), none older than 24 h before the newest. In memory and packed they
are the same bytes: records of 4 bytes time and 8 bytes hash, big-endian, sorted, so that appending, searching and
comparing cost one pass of memory each. Times count from the start of the 2^31 ms (25 d) before those that hold the
newest id.
"""

from struct import Struct
from typing import Any, Final

from xxhash import xxh3_64_digest

EVENT_IDS_MAX: Final = 128
EVENT_IDS_MAX_AGE_MS: Final = 86_400_000

_TIME_BYTES: Final = 4
_RECORD: Final = 12
_BYTES_MAX: Final = EVENT_IDS_MAX * _RECORD
_EPOCH_BITS: Final = 31
_BEYOND: Final = 1 << 32
_record: Final = Struct(">I8s").pack


class EventMemory:
    """Ids of one topic. base_ms: the time that offset 0 stands for; records: sorted (offset, hash)."""

    __slots__ = ("base_ms", "records")

    def __init__(self, base_ms: int = -_BEYOND, records: bytes = b"") -> None:
        self.base_ms = base_ms
        self.records = records

    def admit(self, event_id: str, occurred_at_ms: int) -> bool:
        """Remember an id; False where it is known already. One below the kept range is admitted unchecked."""
        offset = occurred_at_ms - self.base_ms
        if offset >= _BEYOND:
            offset = self._rebase(occurred_at_ms)
        elif offset < 0:
            return True
        digest = xxh3_64_digest(event_id.encode())
        records = self.records
        record = _record(offset, digest)
        if digest in records or record < records[-_RECORD:]:
            return self._insert(record, digest)
        if len(records) == _BYTES_MAX:
            records = records[_RECORD:]
        self.records = records + record
        return True

    def pack(self) -> list[object] | None:
        """Canonical: [epoch, records]; None where nothing is remembered."""
        if not self.records:
            return None
        if len(self.records) > _RECORD:
            self._trim(self.records)
        return [(self.base_ms >> _EPOCH_BITS) + 1, self.records]

    @classmethod
    def unpack(cls, packed: list[Any] | None) -> "EventMemory":
        """The memory that was packed."""
        return cls((packed[0] - 1) << _EPOCH_BITS, packed[1]) if packed else cls()

    def _insert(self, record: bytes, digest: bytes) -> bool:
        """The rare cases: the id may be known, or it is older than the newest."""
        oldest = self._trim(max(record, self.records[-_RECORD:]))
        records = self.records
        full = len(records) == _BYTES_MAX
        if record[:_TIME_BYTES] < oldest or (full and record < records[:_RECORD]):
            return True
        known = records.find(digest)
        while known != -1:
            if known % _RECORD == _TIME_BYTES:
                return False
            known = records.find(digest, known + 1)
        low, high = 0, len(records) // _RECORD
        while low < high:
            middle = (low + high) // 2
            if records[middle * _RECORD : (middle + 1) * _RECORD] < record:
                low = middle + 1
            else:
                high = middle
        at = low * _RECORD
        self.records = records[_RECORD if full else 0 : at] + record + records[at:]
        return True

    def _trim(self, newest: bytes) -> bytes:
        """Drop what is too old beside the newest record; returns the earliest time kept."""
        newest_offset = int.from_bytes(newest[-_RECORD : _TIME_BYTES - _RECORD], "big")
        oldest = max(newest_offset - EVENT_IDS_MAX_AGE_MS, 0).to_bytes(_TIME_BYTES, "big")
        first, records = 0, self.records
        while first < len(records) and records[first : first + _TIME_BYTES] < oldest:
            first += _RECORD
        self.records = records[first:]
        return oldest

    def _rebase(self, occurred_at_ms: int) -> int:
        """Count times from a later base; returns the offset of `occurred_at_ms`, which becomes the newest."""
        base_ms = ((occurred_at_ms >> _EPOCH_BITS) - 1) << _EPOCH_BITS
        shift, records, moved = base_ms - self.base_ms, self.records, []
        for at in range(0, len(records), _RECORD):
            offset = int.from_bytes(records[at : at + _TIME_BYTES], "big") - shift
            if offset >= 0:
                moved.append(offset.to_bytes(_TIME_BYTES, "big") + records[at + _TIME_BYTES : at + _RECORD])
        self.base_ms, self.records = base_ms, b"".join(moved)
        return occurred_at_ms - base_ms
