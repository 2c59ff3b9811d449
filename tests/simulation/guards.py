"""The guards of the protocol, each with the change of the shipped code that takes it away."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.codec import control_record
from streams.engagement.cart import CartBook
from streams.engagement.cart_state import Cart
from streams.processing.claims import Claims
from streams.processing.outputs import unpack_outputs
from streams.processing.ports import Commit, LogRecord, Run
from streams.processing.processor import Processor
from streams.processing.punctuation import Punctuator
from streams.processing.task import Cut, Read, Task
from streams.stores.memory import MemoryStore, _changes
from tests.simulation.loop import PROCESS
from tests.simulation.wire import Network, Request, SimulatedLog, SimulatedStore

Patch = pytest.MonkeyPatch


def outputs_by_their_at(patch: Patch) -> None:
    """A claim publishes `o` where its commit's number is above that in the group's metadata, as was first tried."""
    stored: dict[str, int] = {}
    own: dict[str, int] = {}
    latest: dict[int, int] = {}
    sent: dict[Request, int] = {}
    group = [0]
    claim, commit, send, deliver = SimulatedStore.claim, SimulatedStore.commit, Network.send, Network.deliver

    async def counted_claim(self: SimulatedStore, partition: int, new: str) -> Any:
        found = await claim(self, partition, new)
        stored[new] = stored.get(found.ver, 0)
        return found

    async def counted_commit(self: SimulatedStore, made: Commit) -> None:
        await commit(self, made)
        stored[made.new] = own[made.new] = own.get(made.base or "", 0) + 1
        latest[id(PROCESS.get())] = own[made.new]

    def counted_send(self: Network, request: Request) -> None:
        sent[request] = latest.get(id(PROCESS.get()), 0)
        send(self, request)

    def counted_deliver(self: Network, request: Request) -> None:
        if request.kind == "offsets" and request.generation == self.broker.generation[0]:
            group[0] = sent[request]
        deliver(self, request)

    async def finish(self: Claims, task: Task, claimed: Any, _known: Any) -> None:
        records, _ = unpack_outputs(task.partition, claimed.outputs)
        if records and group[0] < stored.get(task.ver, 0):
            await self.log.publish(records)
        own[task.ver] = max(stored.get(task.ver, 0), group[0])

    patch.setattr(SimulatedStore, "claim", counted_claim)
    patch.setattr(SimulatedStore, "commit", counted_commit)
    patch.setattr(Network, "send", counted_send)
    patch.setattr(Network, "deliver", counted_deliver)
    patch.setattr(Claims, "_finish_last_commit", finish)


def ver_at_load(patch: Patch) -> None:
    """A load takes whatever the store holds."""
    patch.setattr(MemoryStore, "_guarded", lambda self, partition, _vers: self._task(partition))


def cap_of_punctuation(patch: Patch) -> None:
    """A punctuation moves the watermark to what it says, whatever the log's own time."""

    def uncapped(record: LogRecord, lateness_ms: int) -> LogRecord:
        if not record.headers or record.value is None:
            return record
        said_ms = json.loads(record.value)["watermark_ms"] + lateness_ms
        return LogRecord(record.offset, max(record.timestamp, said_ms), None, record.value, record.headers)

    def uncapped_read(self: Task, run: Run) -> Read:
        records = [uncapped(record, self.plan.lateness_ms) for record in run.records]
        return read(self, Run(run.topic, run.partition, run.claim, records))

    read = Task.read
    patch.setattr(Task, "read", uncapped_read)


def lateness_of_punctuation(patch: Patch) -> None:
    """A punctuation stays only one second behind the worker's clock, half the lateness."""

    def hasty(self: Punctuator) -> None:
        post_init(self)
        self.plan = replace(self.plan, lateness_ms=1_000)

    post_init = Punctuator.__post_init__
    patch.setattr(Punctuator, "__post_init__", hasty)


def lateness_and_cap(patch: Patch) -> None:
    """Neither."""
    lateness_of_punctuation(patch)
    cap_of_punctuation(patch)


def fired_steps_of_what_stays(patch: Patch) -> None:
    """What a late order leaves of a cart begins anew."""
    keep_after = Cart.keep_after

    def anew(self: Cart, time_ms: int, lines: Any) -> None:
        keep_after(self, time_ms, lines)
        self.fired.clear()

    patch.setattr(Cart, "keep_after", anew)


def idle_compare(patch: Patch) -> None:
    """A task with nothing to commit looks at nothing."""

    async def nothing(self: Processor, task: Task) -> None:
        return

    patch.setattr(Processor, "_compare", nothing)


def ver_compare(patch: Patch) -> None:
    """A commit is written on whatever the store holds."""

    async def commit(self: MemoryStore, made: Commit) -> None:
        def attempt() -> None:
            if self._ver(made.partition) != made.new:
                self._write(_changes(self._task(made.partition), made))

        await self._writing("commit", made.partition, attempt)

    patch.setattr(MemoryStore, "commit", commit)


def gate_of_the_next_exec(patch: Patch) -> None:
    """The next commit does not wait for the outputs of this one."""
    publish = Processor._publish_and_commit_offsets
    running: list[asyncio.Task[None]] = []

    async def meanwhile(self: Processor, *what: Any) -> None:
        running.append(asyncio.create_task(publish(self, *what)))

    patch.setattr(Processor, "_publish_and_commit_offsets", meanwhile)


def punctuation_in_the_log(patch: Patch) -> None:
    """A worker raises its own watermark when it thinks that time has passed."""

    async def write(self: Punctuator, task: Task, topic: str, watermark: int) -> None:
        book = task.book.topics[topic]
        before = (book.position, book.control, book.last_offset, book.last_timestamp_ms)
        value, headers = control_record(watermark)
        record = LogRecord(book.position, watermark + self.plan.lateness_ms, None, value, headers)
        task.apply(task.read(Run(topic, task.partition, task.claim, [record])))
        book.position, book.control, book.last_offset, book.last_timestamp_ms = before

    patch.setattr(Punctuator, "_write", write)


def position_of_the_cut(patch: Patch) -> None:
    """The offsets committed are those of the moment of committing."""

    async def publish(self: Processor, task: Task, cut: Cut, *_: Any) -> None:
        await self._step("publish", task, lambda: self.log.publish(cut.outputs), skip=not cut.outputs)
        now = task.book.positions()
        await self._step("offsets", task, lambda: self.log.commit_offsets(task.partition, now))

    patch.setattr(Processor, "_publish_and_commit_offsets", publish)


def rejected_before_exec(patch: Patch) -> None:
    """Rejected records are published with the outputs."""

    def cut(self: Task, new: str, now_ms: int) -> Cut | None:
        found = plain(self, new, now_ms)
        if found is not None:
            found.outputs, found.rejected = [*found.rejected, *found.outputs], []
        return found

    plain = Task.cut
    patch.setattr(Task, "cut", cut)


def timer_of_waiting_events(patch: Patch) -> None:
    """A customer's deadline is that of its carts alone."""

    def deadline(self: CartBook, policy: Any) -> int | None:
        waiting, self._waiting = self._waiting, []
        try:
            return plain(self, policy)
        finally:
            self._waiting = waiting

    plain = CartBook.deadline
    patch.setattr(CartBook, "deadline", deadline)


def k_never_back(patch: Patch) -> None:
    """The offsets committed are the position alone."""

    def cut(self: Task, new: str, now_ms: int) -> Cut | None:
        found = plain(self, new, now_ms)
        if found is not None:
            found.offsets = self.book.positions()
        return found

    plain = Task.cut
    patch.setattr(Task, "cut", cut)


def muting(patch: Patch) -> None:
    """A replay publishes what it decides, whatever K."""

    def apply(self: Task, found: Read) -> None:
        known, self.committed = self.committed, {}
        plain(self, found)
        self.committed = known

    plain = Task.apply
    patch.setattr(Task, "apply", apply)


def store_before_publish(patch: Patch) -> None:
    """Outputs go out before EXEC."""

    async def carry_out(self: Processor, task: Task, cut: Cut) -> None:
        await self._step("rejected", task, lambda: self.log.publish(cut.rejected), skip=not cut.rejected)
        await self._step("publish", task, lambda: self.log.publish(cut.outputs), skip=not cut.outputs)
        await self._step("exec", task, lambda: self.store.commit(cut.commit))
        task.written(cut)
        await self._step("offsets", task, lambda: self.log.commit_offsets(task.partition, cut.offsets))
        task.confirmed(cut)

    patch.setattr(Processor, "_carry_out", carry_out)


def confirmed_generation(patch: Patch) -> None:
    """Whoever believes to own a task may claim it."""

    async def at_once(self: SimulatedLog) -> None:
        return

    patch.setattr(SimulatedLog, "confirmed", at_once)


Remove = Callable[[Patch], None]
RED: list[tuple[str, Remove, str]] = [
    ("a zombie commits into the branch a failover left", outputs_by_their_at, "lost"),
    ("an offset commit arrives after the next claim", outputs_by_their_at, "lost"),
    ("a zombie loads a profile from its successor's branch", ver_at_load, "customers differ"),
    ("a punctuation less than the lateness behind the clock", lateness_and_cap, "late within lateness"),
    ("a punctuation of a worker whose clock is ahead", cap_of_punctuation, "late within lateness"),
    ("a late order between two touches", fired_steps_of_what_stays, "different content"),
    ("a failover under an idle task", idle_compare, "customers differ"),
    ("a failover between two commits", ver_compare, "customers differ"),
    ("a crash before anything of two commits was published", gate_of_the_next_exec, "lost"),
    ("silent time that is not in the log", punctuation_in_the_log, "ghost"),
    ("an event read between cut and offset commit", position_of_the_cut, "lost"),
    ("a crash between EXEC and the rejected records", rejected_before_exec, "rejected differ"),
    ("an event that waits for the watermark when its worker dies", timer_of_waiting_events, "lost"),
    ("a replay below K of one topic while another goes on", k_never_back, "offences"),
    ("a replay of a published decision", muting, "offences"),
]
"""(schedule, guard, the fault that its removal brings)"""
