"""The book a task keeps of its input: position, watermark, first offset, fingerprint and account of each topic."""

from collections.abc import Mapping

import msgspec

from streams.engagement.decisions import Decided
from streams.engagement.snapshot import SCHEMA
from streams.errors import NewerSchema

NO_WATERMARK = -1
HANDLER_WINDOW_RECORDS = 10_000


class TopicBook(msgspec.Struct, omit_defaults=True):
    """One input topic of one task; offsets of its partition, times in epoch ms.

    position: the next offset to apply; since: the offset at which the state began; last_offset, last_timestamp_ms: the
    fingerprint, the last record read (-1: none). applied + duplicate + rejected + control + erased = records read since
    `since`.
    """

    position: int
    since: int
    watermark_ms: int = NO_WATERMARK
    last_offset: int = -1
    last_timestamp_ms: int = -1
    applied: int = 0
    duplicate: int = 0
    rejected: int = 0
    control: int = 0
    erased: int = 0
    gap: int = 0
    """Records lost to retention before they were read, where the operator chose to go on."""
    folded_early: int = 0
    lines_dropped: int = 0
    carts_trimmed: int = 0
    """How often a customer's carts reached a limit (docs/limits.md)."""
    failed: list[int] = []
    """Offsets among the last HANDLER_WINDOW_RECORDS that were rejected for an error in the handler."""

    def advance(self, watermark_ms: int) -> None:
        """Move the watermark on; it never goes back."""
        if watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms

    def limited(self, decided: Decided) -> None:
        """Count the limits of carts that a run reached."""
        self.folded_early += decided.folded_early
        self.lines_dropped += decided.lines_dropped
        self.carts_trimmed += decided.carts_trimmed

    def handler_failed(self, offset: int) -> None:
        """Remember a record rejected for an error in the handler: a restart must not begin to count anew."""
        self.failed = [*(failed for failed in self.failed if failed > offset - HANDLER_WINDOW_RECORDS), offset]

    def account(self) -> dict[str, int]:
        """How many records ended in which way."""
        return {name: getattr(self, name) for name in ("applied", "duplicate", "rejected", "control", "erased")}


class Book(msgspec.Struct):
    """The whole book of one task.

    since_ms: the wall time at which its state began; schema: in which the task writes, its profiles as well; commit: id
    of the commit that wrote this, which later claims leave.
    """

    since_ms: int
    topics: dict[str, TopicBook] = msgspec.field(default_factory=dict)
    schema: int = SCHEMA
    commit: str = ""

    def pack(self) -> bytes:
        """Encode as compact JSON, readable with redis-cli."""
        return msgspec.json.encode(self)

    def positions(self) -> dict[str, int]:
        """The next offset of each topic."""
        return {name: topic.position for name, topic in self.topics.items()}

    def watermarks(self, inputs: Mapping[str, str]) -> dict[str, int]:
        """The watermark of each channel; inputs: topic name -> suffix, as in the plan."""
        return {
            inputs[name].partition(".")[0]: self.topics[name].watermark_ms for name in self.topics if name in inputs
        }


class _SchemaOnly(msgspec.Struct):
    schema: int


def unpack_book(meta: bytes) -> Book:
    """Decode a book; NewerSchema where a newer version wrote it."""
    found = msgspec.json.decode(meta, type=_SchemaOnly).schema
    if found > SCHEMA:
        raise NewerSchema(
            f"the stored state has schema {found}, this version reads up to {SCHEMA}: upgrade this worker"
        )
    return msgspec.json.decode(meta, type=Book)
