"""The parts of the transport that need no broker."""

import asyncio
import json
import logging
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import (
    GroupLoadInProgressError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from faust.types import TP

from streams.errors import Fatal, Fenced, LogUnavailable, SplitTask, TopicProblem
from streams.processing.ports import LogRecord, OutRecord, Run
from streams.transport import fast_fetch, group, versions
from streams.transport.group import Group
from streams.transport.log import KafkaLog
from streams.transport.logs import JsonFormatter
from streams.transport.runs import RunScheduler, RunSchema, message_of
from streams.transport.tables import TableManager
from streams.transport.wiring import Wiring

CART = TopicPartition("t.cart.v1", 3)


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset, timestamp=1_700_000_000_000 + offset, timestamp_type=1, key=b"k", value=b"{}")


# ---------------------------------------------------------------------- runs


async def test_a_run_goes_through_faust_as_one_message_with_the_last_offset() -> None:
    """However many records, Faust sees one pseudo-record, one message and one event whose value is the run itself."""
    run = Run(CART.topic, CART.partition, "claim", [record(7), record(8), record(12)])
    scheduler: Any = RunScheduler
    ((tp, handed),) = scheduler().iterate({CART: run})
    message = message_of(tp, handed, generation=4)
    assert (message.topic, message.partition, message.offset, message.generation_id) == (*CART, 12, 4)
    app: Any = SimpleNamespace(create_event=lambda *fields: fields)
    _, value, _, of = await RunSchema().compile(app)(message, propagate=True)
    assert value is run
    assert of is message


# ---------------------------------------------------------------------- fast fetch


def test_records_handed_out_whole_equal_the_copies() -> None:
    """Whatever the tasks read of a record is the same either way, and the faster way is really in place."""
    stock = PartitionRecords._consumer_record
    try:
        copied = fast_fetch._records_of_sample()
        assert fast_fetch.hand_out_whole_records()
        whole = fast_fetch._records_of_sample()
        assert type(whole[0]) is not type(copied[0])
        assert [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in whole] == [
            (r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in copied
        ]
    finally:
        PartitionRecords._consumer_record = stock


def test_another_kind_of_record_leaves_the_stock_way_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build whose records lack what the tasks read falls back by itself."""
    stock = PartitionRecords._consumer_record
    monkeypatch.setattr(fast_fetch, "_whole", lambda _records, _tp, record: SimpleNamespace(offset=record.offset))
    assert not fast_fetch.hand_out_whole_records()
    assert PartitionRecords._consumer_record is stock


def test_another_version_of_aiokafka_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private seams hold for the versions they were tested with; another one is named, with the way out."""
    versions.require_versions()
    monkeypatch.setitem(versions.SUPPORTED, "aiokafka", "0.15.")
    with pytest.raises(Fatal, match=r"aiokafka 0\.14.*pip install 'aiokafka==0\.15\.\*'"):
        versions.require_versions()


# ---------------------------------------------------------------------- the group


class Coordinator:
    """A group coordinator that answers as told; records what it was asked to commit, and under which generation."""

    def __init__(self) -> None:
        self.generation, self.member_id, self.coordinator_id = 5, "me", 1
        self.answers: list[Exception | None] = []
        self.taken: list[tuple[int, dict[str, int]]] = []
        self.heartbeats: list[bool] = []
        self.rejoin = False
        self.asked = self.forgetful = 0
        """How often it was asked for offsets, and at how many of these times it knows none."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def _do_commit_offsets(self, _assignment: Any, offsets: Any) -> None:
        generation = self.generation
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken.append((generation, {tp.topic: wanted.offset for tp, wanted in offsets.items()}))

    async def _do_heartbeat(self) -> bool:
        await asyncio.sleep(0)
        return self.heartbeats.pop(0)

    async def fetch_committed_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, Any]:
        self.asked += 1
        return {tps[0]: SimpleNamespace(offset=9)} if self.asked > self.forgetful else {}

    def need_rejoin(self, _subscription: Any) -> bool:
        return self.rejoin


def group_of(coordinator: Coordinator, timeout_ms: int = 500) -> Group:
    assignment = SimpleNamespace(tps=frozenset({CART}))
    subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment), reassignment_in_progress=False)
    kafka: Any = SimpleNamespace(_coordinator=coordinator, _subscription=subscription)
    return Group(kafka, timeout_ms)


@pytest.mark.parametrize("refusal", [RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError])
async def test_a_refused_offset_commit_fences(refusal: type[Exception]) -> None:
    """Whatever says that this member is no longer the owner ends the task, without a second try."""
    coordinator = Coordinator()
    coordinator.answers = [refusal("no")]
    with pytest.raises(Fenced, match=refusal.__name__):
        await group_of(coordinator).commit(3, {CART.topic: 10})
    assert coordinator.taken == []


async def test_a_passing_error_is_retried_under_the_same_generation_only() -> None:
    """aiokafka would send the retry under whatever generation it has by then."""
    coordinator = Coordinator()
    coordinator.answers = [GroupLoadInProgressError("loading")]
    await group_of(coordinator).commit(3, {CART.topic: 10})
    assert coordinator.taken == [(5, {CART.topic: 10})]

    coordinator.answers = [GroupLoadInProgressError("loading")]
    commit = asyncio.create_task(group_of(coordinator).commit(3, {CART.topic: 11}))
    await asyncio.sleep(0.02)
    coordinator.generation = 6
    with pytest.raises(Fenced, match="moved on"):
        await commit
    assert coordinator.taken == [(5, {CART.topic: 10})]


@pytest.mark.parametrize(("forgetful", "offset"), [(2, 9), (1_000, None)])
async def test_no_offsets_at_all_are_believed_after_a_while_only(
    monkeypatch: pytest.MonkeyPatch, forgetful: int, offset: int | None
) -> None:
    """A broker that came back after a crash knows none for a moment; a group that is new has none for ever."""
    monkeypatch.setattr(group, "DOUBT_S", 0.4)
    coordinator = Coordinator()
    coordinator.forgetful = forgetful
    found = await group_of(coordinator).committed(3, [CART.topic])
    assert found == {CART.topic: offset}
    assert 3 <= coordinator.asked < 10


async def test_offsets_of_a_partition_that_is_not_assigned_are_not_sent() -> None:
    """Faust's own commit drops them in silence."""
    coordinator = Coordinator()
    with pytest.raises(Fenced):
        await group_of(coordinator).commit(4, {CART.topic: 10})
    assert coordinator.taken == []


async def test_an_unanswered_commit_is_waited_for_before_anything_else_of_its_task() -> None:
    """A commit left behind by a fence may still land: neither the next commit nor a claim's reading overtakes it."""
    coordinator = Coordinator()
    group = group_of(coordinator, timeout_ms=50)
    coordinator.gate.clear()
    with pytest.raises(LogUnavailable):
        await group.commit(3, {CART.topic: 10})
    with pytest.raises(LogUnavailable):
        await group.committed(3, [CART.topic])
    with pytest.raises(LogUnavailable):
        await group.commit(3, {CART.topic: 11})
    coordinator.gate.set()
    await group.commit(3, {CART.topic: 11})
    assert await group.committed(3, [CART.topic, "t.email.v1"]) == {CART.topic: 9, "t.email.v1": None}
    assert [offsets[CART.topic] for _, offsets in coordinator.taken] == [10, 11]


async def test_confirmation_needs_a_good_heartbeat_and_no_rejoin() -> None:
    """A failed heartbeat, one that turned the generation, or a rejoin in sight: ask again."""
    coordinator = Coordinator()
    coordinator.heartbeats = [False, True]
    await group_of(coordinator).confirmed()
    assert coordinator.heartbeats == []

    coordinator.heartbeats, coordinator.rejoin = [True] * 100, True
    with pytest.raises(LogUnavailable, match="membership"):
        await group_of(coordinator).confirmed()
    assert len(coordinator.heartbeats) == 100


async def test_claims_at_one_time_share_a_heartbeat_but_never_an_older_one() -> None:
    """Sixteen claims cost one or two heartbeats; one that was begun before the question answers nothing."""
    coordinator = Coordinator()
    coordinator.heartbeats = [True] * 16
    group = group_of(coordinator)
    await asyncio.gather(*(group.confirmed() for _ in range(16)))
    left = len(coordinator.heartbeats)
    assert left >= 14
    await group.confirmed()
    assert len(coordinator.heartbeats) == left - 1


# ---------------------------------------------------------------------- publishing


class Batch:
    """Takes three records."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.closed = False

    def append(self, *, timestamp: None, key: bytes | None, value: bytes, headers: Any) -> object | None:
        if self.closed or len(self.records) == 3:
            return None
        self.records.append(value)
        return object()

    def close(self) -> None:
        self.closed = True


class Producer:
    """An aiokafka producer whose acks come when the test says so."""

    def __init__(self) -> None:
        self.kafka = self
        self.sent: list[tuple[str, int, list[bytes]]] = []
        self.acks: list[asyncio.Future[None]] = []
        self.acks_at_once = True

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        self.sent.append((topic, partition, batch.records))
        ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acks.append(ack)
        if self.acks_at_once:
            ack.set_result(None)
        return ack


def log_of(producer: Producer, timeout_ms: int = 500) -> KafkaLog:
    app: Any = SimpleNamespace(producer=producer, consumer=None, conf=SimpleNamespace(id="test"))
    return KafkaLog(app, inputs=[CART.topic], timeout_ms=timeout_ms)


def outputs(count: int, topic: str = "t.scores.v1", partition: int = 0) -> list[OutRecord]:
    return [OutRecord(topic, partition, b"k", b"%d" % number, ()) for number in range(count)]


async def test_outputs_leave_in_batches_a_partition_each_in_order() -> None:
    """One batch a topic-partition, split where it is full; the order within a partition is kept."""
    producer = Producer()
    await log_of(producer).publish(outputs(7) + outputs(2, partition=1))
    of_zero = [records for _, partition, records in producer.sent if partition == 0]
    assert of_zero == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
    assert [records for _, partition, records in producer.sent if partition == 1] == [[b"0", b"1"]]


async def test_publishing_again_what_is_unacknowledged_sends_nothing_twice() -> None:
    """An idempotent producer never gives a batch up: the second call waits for the first one's acks."""
    producer, records = Producer(), outputs(2)
    producer.acks_at_once = False
    log = log_of(producer, timeout_ms=30)
    with pytest.raises(LogUnavailable, match="2 outputs were not acknowledged in time"):
        await log.publish(records)
    again = asyncio.create_task(log.publish(records))
    await asyncio.sleep(0)
    producer.acks[0].set_result(None)
    await again
    assert len(producer.sent) == 1


async def test_two_waiters_of_one_publication_both_end() -> None:
    """A publication cancelled and repeated within one turn leaves nothing behind."""
    producer, first, second = Producer(), outputs(1), outputs(1, partition=1)
    log = log_of(producer)
    await asyncio.gather(log.publish(first), log.publish(second), log.publish(first))
    assert log._sending == {}


# ---------------------------------------------------------------------- tables


def table_manager(inputs: tuple[str, ...]) -> TableManager:
    manager = TableManager.__new__(TableManager)
    processor: Any = None

    async def prepare() -> None:
        return None

    manager.app = SimpleNamespace(wiring=Wiring(processor, "", inputs, {}, prepare, lambda _error: None))
    return manager


def test_a_split_task_is_refused() -> None:
    """Each partition number must be assigned for every input topic, or two workers would share a task."""
    manager = table_manager(("a", "b"))
    whole = {TP(topic, p) for topic in "ab" for p in (0, 3)}
    assert manager._whole_tasks(whole) == {0, 3}
    assert manager._whole_tasks(set()) == frozenset()
    with pytest.raises(SplitTask, match=r"task 3 was assigned without \['b'\]"):
        manager._whole_tasks(whole - {TP("b", 3)})
    with pytest.raises(TopicProblem, match=r"not \['other'\]"):
        manager._whole_tasks(whole | {TP("other", 0)})


async def test_topics_must_exist_with_their_partitions() -> None:
    """What is wrong is named, with the command that mends it."""
    manager = table_manager(("a",))
    counts = {"a": {0, 1}, "metrics": {0}}

    async def fetch_all_metadata() -> Any:
        return SimpleNamespace(partitions_for_topic=counts.get)

    client = SimpleNamespace(fetch_all_metadata=fetch_all_metadata)
    manager.app.producer = SimpleNamespace(kafka=SimpleNamespace(client=client))
    manager.wiring.topics = {"a": 2, "metrics": 1}
    await manager._require_topics()
    manager.wiring.topics = {"a": 4}
    with pytest.raises(TopicProblem, match="topic a has 2 partitions, not 4: run `pulseline topics apply`"):
        await manager._require_topics()
    manager.wiring.topics = {"b": 4}
    with pytest.raises(TopicProblem, match="topic b does not exist"):
        await manager._require_topics()


class Releasing:
    """A processor whose last commits end when they are let; `done` lists what it was asked for, in order."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.done: list[str] = []

    async def release(self, partitions: Collection[int], deadline_ms: int) -> None:
        if partitions:
            await self.may_end.wait()
        self.done.append(f"released {sorted(partitions)}")

    async def stop(self) -> None:
        self.done.append("stopped")


@pytest.mark.parametrize("in_time", [True, False])
async def test_stopping_waits_for_the_last_commits_of_a_revocation(in_time: bool) -> None:
    """Else the tasks would be forgotten between EXEC and offsets; but it waits no longer than it may."""

    async def nothing() -> None:
        return None

    manager, processor = table_manager(("a",)), Releasing()
    manager.__post_init__()
    manager.data = {}
    manager.app.consumer = SimpleNamespace(close_tasks=lambda: None)
    manager.app._fetcher = SimpleNamespace(stop=nothing)
    manager.wiring.processor, manager.wiring.shutdown_timeout_ms = cast(Any, processor), 60_000 if in_time else 50
    revoking = asyncio.create_task(manager.revoke({0, 1}, lost=False))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(manager.on_stop())
    await asyncio.sleep(0.1)
    assert processor.done == ([] if in_time else ["released []", "stopped"])
    processor.may_end.set()
    await asyncio.gather(revoking, stopping)
    assert processor.done == (
        ["released [0, 1]", "released []", "stopped"] if in_time else ["released []", "stopped", "released [0, 1]"]
    )


# ---------------------------------------------------------------------- logs


def test_a_json_line_holds_what_a_collector_needs() -> None:
    """One object a line, the traceback inside it."""
    line = logging.LogRecord("streams.x", logging.WARNING, "f", 1, "task %d\nis late", (3,), None)
    fields = json.loads(JsonFormatter().format(line))
    assert fields["message"] == "task 3\nis late"
    assert fields["level"] == "WARNING"
    assert "\n" not in JsonFormatter().format(line)


def test_a_log_record_is_enough_of_a_record() -> None:
    """The in-memory log's records carry what a run's readers read."""
    assert {"offset", "timestamp", "key", "value", "headers"} <= set(LogRecord.__slots__)
