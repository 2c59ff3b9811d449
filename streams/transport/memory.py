"""The log in memory: topics, a group's offsets, and what was published; for tests and simulations."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streams.errors import Fenced, LogUnavailable
from streams.processing.ports import LogRecord, OutRecord, Run


class MemoryBroker:
    """What survives a worker: the input log, the group's offsets and the records of every output topic.

    `now_ms` gives the timestamp of appended records (LogAppendTime); effects lists what happened to it, in order.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.inputs: dict[tuple[str, int], list[LogRecord]] = defaultdict(list)
        self.starts: dict[tuple[str, int], int] = defaultdict(int)
        self.group: dict[tuple[str, int], int] = {}
        self.outputs: dict[str, list[OutRecord]] = defaultdict(list)
        self.effects: list[tuple[Any, ...]] = []
        self.generation: dict[int, int] = defaultdict(int)
        """Per partition: the member generation that owns it."""
        self.epochs: dict[int, int] = defaultdict(int)
        """Per partition: the epoch of its transactional id."""
        self.prepared: dict[int, list[tuple[Sequence[OutRecord], Mapping[str, int], str]]] = {}
        """Per partition: the transaction that is decided, but not completed."""
        self.transactions: dict[int, str] = {}
        """Per partition: the id of the transaction that committed its offsets last."""

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Append a record and return its offset."""
        log = self.inputs[topic, partition]
        offset = self.starts[topic, partition] + len(log)
        log.append(LogRecord(offset, self.now_ms() if timestamp_ms is None else timestamp_ms, key, value, headers))
        return offset

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        return self.starts[topic, partition] + len(self.inputs[topic, partition])

    def fetch(self, topic: str, partition: int, offset: int, limit: int, claim: str) -> Run:
        """A run of at most `limit` records from an offset on."""
        first = max(0, offset - self.starts[topic, partition])
        return Run(topic, partition, claim, self.inputs[topic, partition][first : first + limit])


class MemoryLog:
    """A worker's side of a MemoryBroker (implements the port Log).

    generation: what this member believes; commits of an older generation than the partition's are refused. `fail_next`
    holds names of calls (committed, publish, offsets, punctuate, take_over) to refuse once with LogUnavailable;
    "transaction": the next one is aborted; "prepared": its end is not answered, and the next take-over completes it.
    """

    def __init__(self, broker: MemoryBroker, topics: Sequence[str]) -> None:
        self.broker, self.topics = broker, topics
        self.generation: dict[int, int] = defaultdict(int)
        self.epoch: dict[int, int] = {}
        self.fail_next: list[str] = []

    def _maybe_fail(self, call: str) -> None:
        if call in self.fail_next:
            self.fail_next.remove(call)
            raise LogUnavailable(f"{call} was refused")

    async def confirmed(self) -> None:
        """A member in memory is always confirmed."""

    async def committed(self, partition: int) -> dict[str, int | None]:
        """The group's offsets."""
        self._maybe_fail("committed")
        return {topic: self.broker.group.get((topic, partition)) for topic in self.topics}

    async def bounds(self, partition: int) -> dict[str, tuple[int, int]]:
        """(log start, log end) of each topic."""
        starts, end = self.broker.starts, self.broker.end
        return {topic: (starts[topic, partition], end(topic, partition)) for topic in self.topics}

    async def commit_offsets(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Commit, or Fenced where another member owns the partition."""
        self._maybe_fail("offsets")
        if self.generation[partition] < self.broker.generation[partition]:
            raise Fenced("the coordinator refused an old generation")
        self.broker.effects.append(("offsets", partition, dict(offsets)))
        self.broker.transactions.pop(partition, None)
        for topic, offset in offsets.items():
            self.broker.group[topic, partition] = offset

    async def publish(self, records: Sequence[OutRecord]) -> None:
        """Append to the output topics; a refused call has published the first half."""
        refused = "publish" in self.fail_next
        for record in records[: len(records) // 2] if refused else records:
            self.broker.effects.append(("publish", record.topic, record.partition))
            self.broker.outputs[record.topic].append(record)
        self._maybe_fail("publish")

    async def take_over(self, partition: int) -> None:
        """Fence whoever holds the task's transactional id, and complete what it had prepared."""
        self._maybe_fail("take_over")
        self.broker.epochs[partition] += 1
        for records, offsets, commit in self.broker.prepared.pop(partition, []):
            self._carry_out(partition, records, offsets, commit)
        self.epoch[partition] = self.broker.epochs[partition]

    async def last_transaction(self, partition: int) -> str | None:
        """The id of the last transaction, unless offsets were committed without one since."""
        return self.broker.transactions.get(partition)

    async def transact(
        self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str
    ) -> None:
        """Append and commit, or Fenced where another took over; a transaction names no generation."""
        if self.epoch.get(partition) != self.broker.epochs[partition]:
            raise Fenced("another took the transactional id over")
        if "transaction" in self.fail_next:
            self.fail_next.remove("transaction")
            raise Fenced("the transaction was aborted")
        if "prepared" in self.fail_next:
            self.fail_next.remove("prepared")
            self.broker.prepared[partition] = [(records, offsets, commit)]
            raise Fenced("the end of the transaction was not answered")
        self._carry_out(partition, records, offsets, commit)

    def _carry_out(self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str) -> None:
        for record in records:
            self.broker.effects.append(("publish", record.topic, record.partition))
            self.broker.outputs[record.topic].append(record)
        self.broker.effects.append(("offsets", partition, dict(offsets)))
        self.broker.transactions[partition] = commit
        for topic, offset in offsets.items():
            self.broker.group[topic, partition] = offset

    def let_go(self, partition: int) -> None:
        """Forget the epoch."""
        self.epoch.pop(partition, None)

    async def punctuate(self, topic: str, partition: int, watermark_ms: int) -> None:
        """Append a control record."""
        self._maybe_fail("punctuate")
        value = msgspec.json.encode({"type": "watermark_advanced", "watermark_ms": watermark_ms})
        self.broker.append(topic, partition, None, value, [("pl-control", b"1")])

    def caught_up(self, topic: str, partition: int, position: int) -> bool:
        """Whether the position is the log end."""
        return position >= self.broker.end(topic, partition)
