"""What the processor needs of the world: a state store, a log, a clock. Each has an in-memory implementation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class LogRecord:
    """A record as read from the log; aiokafka's ConsumerRecord has the same attributes and is used as it is."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class Run:
    """Consecutive records of one partition of one input topic, tagged with the claim under which they were fetched."""

    topic: str
    partition: int
    claim: str
    records: Sequence[Any]


@dataclass(slots=True)
class OutRecord:
    """A record to publish; `at` is the cart offset whose reading decided it (None: a score, not subject to muting)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    at: int | None = None


@dataclass(slots=True)
class Stored:
    """What the store holds of one task. All bytes as written by the task; times epoch ms.

    ver: random id of the last commit; meta: the task's own packed book (offsets, watermarks, since, fingerprints,
    account, schema); timers and sessions: earliest first, at most a page of them, with `*_complete` telling whether
    that is all; outputs: `o` of the last commit; accumulators: absolute integers.
    """

    ver: str
    meta: bytes
    timers: list[tuple[str, int]] = field(default_factory=list)
    sessions: list[tuple[str, int]] = field(default_factory=list)
    timers_complete: bool = True
    sessions_complete: bool = True
    outputs: bytes = b""
    accumulators: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Commit:
    """Everything one commit changes, applied whole or not at all, only where the stored ver is `base`.

    hot/cold: packed fields that changed (customer -> bytes); timers/sessions: customer -> epoch ms, None removes;
    outputs replaces `o`; accumulators: absolute values of the changed ones, None removes.
    """

    partition: int
    base: str | None
    new: str
    meta: bytes
    hot: Mapping[str, bytes] = field(default_factory=dict)
    cold: Mapping[str, bytes | None] = field(default_factory=dict)
    timers: Mapping[str, int | None] = field(default_factory=dict)
    sessions: Mapping[str, int | None] = field(default_factory=dict)
    outputs: bytes = b""
    accumulators: Mapping[str, int | None] = field(default_factory=dict)
    now_ms: int = 0


@dataclass(slots=True)
class Accumulated:
    """Accumulators of a task as of commit `ver`.

    All of them if `whole`, else those changed since the commit asked for (None: removed).
    """

    ver: str | None
    fields: dict[str, int | None]
    whole: bool


class StateStore(Protocol):
    """State of all tasks. Every method raises StoreUnavailable where the store does not answer.

    `vers` are those this worker wrote last or is writing in a commit not yet answered: a load that finds another
    raises Fenced.
    """

    async def check(self) -> None:
        """Raise UnsafeStore where the store may drop state (eviction policy), or is too old."""

    async def deployment(self, wanted: Mapping[str, str]) -> int:
        """Compare the stored deployment with `wanted`, write it where absent; return the schema to write state in.

        wanted: partitions, group, contract, topics as a comma list that may grow. Raises DeploymentMismatch if it
        differs, NewerSchema where it is written in a schema that this version does not know.
        """

    async def read(self, partition: int) -> Stored | None:
        """Read without claiming: ver and meta only. None: no state."""

    async def claim(self, partition: int, new: str) -> Stored:
        """Atomically write ver=new and return everything as of then (ver in the result is the OLD one)."""

    async def load(
        self, partition: int, vers: Collection[str], customers: Sequence[str]
    ) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Packed (hot, cold) of each customer; None where absent."""

    async def timers(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        """Stored timers with after_ms <= deadline <= until_ms, earliest first."""

    async def sessions(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> list[tuple[str, int]]:
        """The same of open sessions."""

    async def commit(self, commit: Commit) -> None:
        """Apply the commit where the stored ver is commit.base; base None: where there is no state, a first start.

        Done already (the stored ver is commit.new): return; any other ver: Fenced. Unknown outcomes are resolved inside
        by reading ver on a fresh connection, with retries; StoreUnavailable if it stays unknown.
        """

    async def ver(self, partition: int) -> str | None:
        """The stored ver."""

    async def accumulators(self, partition: int) -> dict[str, int]:
        """All accumulators of a task; empty where it has no state."""

    async def accumulators_changed(self, partition: int, since: str | None) -> Accumulated:
        """The accumulators changed after commit `since`, as of one moment.

        All of them where `since` is None, older than a minute, or no longer in the task's chain of commits (claimed
        again, failed over).
        """

    async def published(self) -> dict[str, bytes]:
        """What the metrics publisher wrote: field -> packed value."""

    async def published_field(self, field: str) -> bytes | None:
        """One field of what the metrics publisher wrote."""

    async def write_published(self, vers: Collection[str], changes: Mapping[str, bytes | None]) -> None:
        """Change what was published (None removes), only while the ver of task 0 is one of `vers`, else Fenced."""

    async def close(self) -> None:
        """Release connections."""


class Log(Protocol):
    """The task's side of Kafka. Every method raises LogUnavailable where the broker does not answer."""

    async def confirmed(self) -> None:
        """Return once the coordinator confirmed this member's generation after the call began; no rejoin is pending."""

    async def committed(self, partition: int) -> dict[str, int | None]:
        """The group's committed offset per input topic (None: none). An error is retried, never read as none."""

    async def bounds(self, partition: int) -> dict[str, tuple[int, int]]:
        """(log start, log end) per input topic."""

    async def commit_offsets(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Commit offsets; Fenced where the coordinator refuses (rebalanced, unknown member, illegal generation)."""

    async def publish(self, records: Sequence[OutRecord]) -> None:
        """Send all and wait for all acks; LogUnavailable if any is missing. May be called again with the same."""

    async def take_over(self, partition: int) -> None:
        """Exactly once: fence whoever may still publish for this task, and end what it left open."""

    async def last_transaction(self, partition: int) -> str | None:
        """Exactly once: the id given to the transaction that committed the task's offsets; None where none did."""

    async def transact(
        self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str
    ) -> None:
        """Exactly once: publish all and commit the offsets, under the id of the commit they belong to, or neither.

        Raises Fenced where another took the task over, and where the outcome stays unknown: the next claim, which takes
        over and then reads the offsets, finds it out.
        """

    def let_go(self, partition: int) -> None:
        """Close what `take_over` opened for this task, without waiting for it."""

    async def punctuate(self, topic: str, partition: int, watermark_ms: int) -> None:
        """Append a watermark_advanced control record."""

    def caught_up(self, topic: str, partition: int, position: int) -> bool:
        """Whether `position` is the log end as of the latest fetch, with nothing fetched still on its way."""


class Clock(Protocol):
    """Wall and monotonic time in ms."""

    def wall_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...
