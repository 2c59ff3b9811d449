"""Topics of one task side by side: none is handed on far ahead of another that still has older records to read.

At work this never holds anything back. Where history is read again (a rebuild, a new deployment on an old log), Kafka
gives whole topics one after the other, days apart; who was active in which hour is exact only where they stay within
40 hours.
"""

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from aiokafka import TopicPartition

AHEAD_MS = 12 * 3_600_000


class Alignment:
    """What was fetched too early, by partition; times are the log's own, epoch ms."""

    def __init__(self) -> None:
        self._waiting: dict[TopicPartition, list[Any]] = {}

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._waiting

    @property
    def waiting(self) -> frozenset[TopicPartition]:
        """Partitions with records that wait for their turn; they need not be fetched."""
        return frozenset(self._waiting)

    def drop(self, tp: TopicPartition) -> None:
        """Forget what waits: the partition was closed, or will be read from elsewhere."""
        self._waiting.pop(tp, None)

    def turn(self, tp: TopicPartition, fetched: list[Any], behind: Iterable[tuple[TopicPartition, int]]) -> list[Any]:
        """Return the records whose turn it is, the rest waits.

        fetched: those new from Kafka, where none wait. behind: the task's other partitions with unread records, and the
        time of the last record that was applied of each.
        """
        records = self._waiting.pop(tp, None) or fetched
        limits = [self._waiting[other][0].timestamp if other in self._waiting else last for other, last in behind]
        limit = min(limits) + AHEAD_MS if limits else None
        if limit is None or (records and max(records[0].timestamp, records[-1].timestamp) <= limit):
            return records
        now = list(takewhile(lambda record: record.timestamp <= limit, records))
        if len(now) < len(records):
            self._waiting[tp] = records[len(now) :]
        return now
