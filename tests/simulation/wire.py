"""Store and log in memory as a worker reaches them over a network: each call can be held, lost, or answered late."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.errors import Fenced, LogUnavailable
from streams.processing.book import unpack_book
from streams.processing.ports import Commit, OutRecord, Stored
from streams.stores.memory import MemoryStore
from streams.transport.memory import MemoryBroker, MemoryLog
from tests.simulation.loop import PROCESS
from tests.support.world import REJECTED, SCORES

Deadlines = list[tuple[str, int]]


async def pass_(name: str) -> None:
    """Wait at a gate of this coroutine's process."""
    gates = PROCESS.get()
    if gates is not None:
        await gates.pass_(name)


class SimulatedStore(MemoryStore):
    """A MemoryStore with a gate before each operation (its name) and one before its reply (`<name> reply`).

    vers: the ver of task 0 after each write that can be undone. page: how many timers a claim returns.
    """

    def __init__(self, page: int = 10_000) -> None:
        super().__init__(on_step=_on_step)
        self.page = page
        self.vers: list[str | None] = []

    def _write(self, changes: Iterable[Any]) -> None:
        super()._write(changes)
        self.vers.append(self._ver(0))

    def fail_over(self, lost: int) -> None:
        super().fail_over(lost)
        del self.vers[max(0, len(self.vers) - lost) :]

    def wipe(self) -> None:
        super().wipe()
        self.vers.clear()

    async def claim(self, partition: int, new: str) -> Stored:
        stored = await super().claim(partition, new)
        if len(stored.timers) > self.page:
            stored.timers, stored.timers_complete = stored.timers[: self.page], False
        if len(stored.sessions) > self.page:
            stored.sessions, stored.sessions_complete = stored.sessions[: self.page], False
        _wrote(stored.meta)
        return stored

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        _wrote(commit.meta)

    async def ver(self, partition: int) -> str | None:
        found = await super().ver(partition)
        await pass_("ver reply")
        return found

    async def load(
        self, partition: int, vers: Collection[str], customers: Sequence[str]
    ) -> dict[str, tuple[bytes | None, bytes | None]]:
        # Who is evicted first follows from this order, and that of a set is another in every process.
        found = await super().load(partition, vers, sorted(customers))
        await pass_("load reply")
        return found

    async def timers(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> Deadlines:
        found = await super().timers(partition, vers, after_ms, until_ms, limit)
        await pass_("timers reply")
        return found

    async def sessions(
        self, partition: int, vers: Collection[str], after_ms: int, until_ms: int, limit: int
    ) -> Deadlines:
        found = await super().sessions(partition, vers, after_ms, until_ms, limit)
        await pass_("sessions reply")
        return found


def _wrote(meta: bytes) -> None:
    """Note the positions that a process knows to be in the store."""
    gates = PROCESS.get()
    if gates is not None:
        gates.stored_positions = unpack_book(meta).positions()


async def _on_step(when: str, operation: str, partition: int) -> None:
    await pass_(operation if when == "before" else f"{operation} reply")


@dataclass(slots=True, eq=False)
class Request:
    """An offset commit, a punctuation or the end of a transaction on its way to the broker.

    It arrives whatever became of its sender. generation: of the member; of a transaction, the epoch of its id.
    """

    kind: str
    sender: str
    answer: asyncio.Future[None]
    generation: int = 0
    offsets: Mapping[str, int] = field(default_factory=dict)
    topic: str = ""
    watermark_ms: int = 0
    records: Sequence[OutRecord] = ()
    commit: str | None = None

    def reply(self, error: Exception | None = None) -> None:
        """Tell the sender, if it still waits."""
        if not self.answer.done():
            if error is None:
                self.answer.set_result(None)
            else:
                self.answer.set_exception(error)
                self.answer.exception()


class Network:
    """Requests on their way to the broker, and what the broker must never see.

    held: kinds of requests that stay on their way until delivered; the others arrive at once.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.on_their_way: list[Request] = []
        self.held: frozenset[str] = frozenset()
        self.offences: list[str] = []
        self.refused: Counter[str] = Counter()
        self.overtaken: set[bytes | None] = set()
        """Customers whose latest score was published by a worker that had lost the task a moment before."""

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        self.on_their_way.append(request)
        if request.kind not in self.held:
            self.deliver(request)

    def deliver(self, request: Request) -> None:
        """Let a request arrive."""
        self.on_their_way.remove(request)
        if request.kind == "punctuation":
            value = b'{"type":"watermark_advanced","watermark_ms":%d}' % request.watermark_ms
            self.broker.append(request.topic, 0, None, value, [("pl-control", b"1")])
            request.reply()
        elif request.generation != (self.broker.epochs if request.kind == "transaction" else self.broker.generation)[0]:
            self.refused[request.kind] += 1
            request.reply(Fenced("the coordinator refused an old generation or epoch"))
        else:
            for record in request.records:
                self.broker.outputs[record.topic].append(record)
            self._move_group(request)
            request.reply()

    def _move_group(self, request: Request) -> None:
        for topic, offset in request.offsets.items():
            before = self.broker.group.get((topic, 0))
            if before is not None and offset < before:
                self.offences.append(f"{request.sender} moved K of {topic} back from {before} to {offset}")
            self.broker.group[topic, 0] = offset
        if request.commit is None:
            self.broker.transactions.pop(0, None)
        else:
            self.broker.transactions[0] = request.commit

    def lose(self, request: Request) -> None:
        """Let a request never arrive."""
        self.on_their_way.remove(request)
        request.reply(LogUnavailable(f"the {request.kind} was lost"))


class SimulatedLog(MemoryLog):
    """A worker's side of the broker. ordered: offset commits of a task wait for the one before, and a claim for all of
    them, as the worker's group client makes sure; without it they may overtake each other.
    """

    def __init__(self, name: str, network: Network, topics: Sequence[str], *, ordered: bool = True) -> None:
        super().__init__(network.broker, topics)
        self.name, self.network, self.ordered = name, network, ordered
        self.may_punctuate = True
        self.committed_at_claim: dict[str, int] = {}
        self._last: Request | None = None

    def _current(self) -> bool:
        return self.generation[0] == self.broker.generation[0]

    async def confirmed(self) -> None:
        """Only the coordinator's own word counts."""
        await pass_("confirmed")
        if not self._current():
            raise LogUnavailable("the coordinator knows a newer generation")

    async def committed(self, partition: int) -> dict[str, int | None]:
        await pass_("committed")
        await self._settled()
        found = await super().committed(partition)
        self.committed_at_claim = {topic: offset or 0 for topic, offset in found.items()}
        await pass_("committed reply")
        return found

    async def bounds(self, partition: int) -> dict[str, tuple[int, int]]:
        await pass_("bounds")
        found = await super().bounds(partition)
        await pass_("bounds reply")
        return found

    async def commit_offsets(self, partition: int, offsets: Mapping[str, int]) -> None:
        generation = self.generation[partition]
        self._look_at_offsets(offsets)
        await pass_("offsets")
        await self._settled()
        self._last = self._sent("offsets", generation=generation, offsets=dict(offsets))
        await asyncio.shield(self._last.answer)

    def _look_at_offsets(self, offsets: Mapping[str, int]) -> None:
        process = PROCESS.get()
        stored = {} if process is None else process.stored_positions
        self.network.offences += [
            f"{self.name} commits {offset} of {topic}, but the state it knows of ends at {stored.get(topic, 0)}"
            for topic, offset in offsets.items()
            if offset > max(stored.get(topic, 0), self.committed_at_claim.get(topic, 0))
        ]

    def _sent(self, kind: str, **what: Any) -> Request:
        request = Request(kind, self.name, asyncio.get_running_loop().create_future(), **what)
        self.network.send(request)
        return request

    async def _settled(self) -> None:
        last = self._last
        if self.ordered and last is not None and last in self.network.on_their_way:
            await asyncio.wait({last.answer})
            if last in self.network.on_their_way:
                raise LogUnavailable("an offset commit is still unanswered")

    async def publish(self, records: Sequence[OutRecord]) -> None:
        await pass_("publish")
        self._look_at_outputs(records)
        scored = {record.key for record in records if record.topic == SCORES}
        self.network.overtaken = self.network.overtaken - scored if self._current() else self.network.overtaken | scored
        await super().publish(records)
        await pass_("publish reply")

    def _look_at_outputs(self, records: Sequence[OutRecord]) -> None:
        cart = self.committed_at_claim.get("engagement.cart.v1", 0)
        self.network.offences += [
            f"{self.name} published a decision at {record.at}, below the K {cart} of its claim"
            for record in records
            if record.at is not None and record.topic != REJECTED and record.at < cart
        ]

    async def take_over(self, partition: int) -> None:
        await pass_("take_over")
        await super().take_over(partition)
        await pass_("take_over reply")

    async def last_transaction(self, partition: int) -> str | None:
        await pass_("last_transaction")
        return await super().last_transaction(partition)

    async def transact(
        self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str
    ) -> None:
        """Outputs and offsets arrive together or, once another has taken over, not at all; see KafkaLog.transact."""
        epoch = self.epoch.get(partition)
        if epoch is None:
            raise Fenced("the task was let go")
        self._look_at_offsets(offsets)
        self._look_at_outputs(records)
        try:
            await pass_("transaction")
            sent = self._sent(
                "transaction", generation=epoch, offsets=dict(offsets), records=list(records), commit=commit
            )
            await asyncio.shield(sent.answer)
        except LogUnavailable as error:
            self.let_go(partition)
            raise Fenced("the outcome of a transaction is not known") from error

    async def punctuate(self, topic: str, partition: int, watermark_ms: int) -> None:
        await pass_("punctuate")
        await asyncio.shield(self._sent("punctuation", topic=topic, watermark_ms=watermark_ms).answer)

    def caught_up(self, topic: str, partition: int, position: int) -> bool:
        return self.may_punctuate and super().caught_up(topic, partition, position)
