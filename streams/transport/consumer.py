"""An aiokafka consumer in Faust's own event loop that fetches only what is claimed and never commits by itself.

Faust's stock consumer lives in a thread of its own and fetches whatever is assigned. This one stays in the loop (no hop
per fetch, and a claim is opened in one step), and keeps a gate: a partition is fetched only between `open` and
`close_tasks`, and every run carries the claim that opened it.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

import faust.transport.consumer as stock
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.exceptions import ConsumerNotStarted
from faust.types import TP, ConsumerMessage
from mode import Service, get_logger

from streams.errors import AccessDenied, LogUnavailable
from streams.processing.ports import Run
from streams.transport.alignment import Alignment
from streams.transport.client import RebalanceListener, group_consumer
from streams.transport.closing import closed_in_time
from streams.transport.connect import connected
from streams.transport.fast_fetch import hand_out_whole_records
from streams.transport.runs import message_of
from streams.transport.wiring import Wiring

logger = get_logger(__name__)

FORBIDDEN = (GroupAuthorizationFailedError, TopicAuthorizationFailedError)
HOPELESS = (
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    InconsistentGroupProtocolError,
)
"""Group errors that a person must mend."""
POLL_MS, POLL_WHILE_BUFFERED_MS, WAITING_MS = 250, 50, 5
"""How long to wait for records: at most; while some tasks are busy; while some wait for another topic of their task."""
WATCH_INTERVAL_S = 1.0


class Consumer(stock.Consumer):
    """Faust's consumer over aiokafka, gated by claims."""

    app: Any
    mundane_level = "debug"
    transport: Any
    logger = logger
    consumer_stopped_errors = (ConsumerStoppedError,)

    def __post_init__(self) -> None:
        self._kafka: AIOKafkaConsumer | None = None
        self._open: dict[TopicPartition, str] = {}
        """Claim under which each partition is fetched; what is not in here is not fetched."""
        self._handed: dict[TopicPartition, int] = {}
        """End (exclusive) of the records handed on since the partition was opened."""
        self._alignment = Alignment()

    # ------------------------------------------------------------------ the gate

    @property
    def wiring(self) -> Wiring:
        """The application's wiring."""
        return cast(Wiring, self.app.wiring)

    @property
    def kafka(self) -> AIOKafkaConsumer:
        """The aiokafka consumer; ConsumerNotStarted before the start."""
        if self._kafka is None:
            raise ConsumerNotStarted("the consumer is not started")
        return self._kafka

    @property
    def opened(self) -> frozenset[int]:
        """Partition numbers of the tasks whose records flow."""
        return frozenset(tp.partition for tp in self._open)

    def open(self, partition: int, claim: str, offsets: Mapping[str, int]) -> None:
        """Fetch the task's partitions from these offsets, under this claim.

        Raises aiokafka's IllegalStateError where one of them is not assigned any more; then none is open.
        """
        try:
            for topic, offset in offsets.items():
                tp = TopicPartition(topic, partition)
                self.kafka.seek(tp, offset)
                self._read_offset[tp] = None
                self._handed.pop(tp, None)
                self._alignment.drop(tp)
                self._buffered_partitions.discard(tp)
                self.kafka.resume(tp)
                self._open[tp] = claim
        except KafkaError:
            self.close_tasks((partition,))
            raise

    def close_tasks(self, partitions: Collection[int] | None = None) -> None:
        """Stop fetching these tasks (None: all); what was fetched already is dropped by its claim."""
        closing = [tp for tp in self._open if partitions is None or tp.partition in partitions]
        for tp in closing:
            del self._open[tp]
            self._alignment.drop(tp)
            self._buffered_partitions.discard(tp)
        self._pause(closing)

    def _pause(self, tps: Collection[TopicPartition]) -> None:
        if tps:
            assigned = self.kafka.assignment()
            self.kafka.pause(*(TopicPartition(*tp) for tp in tps if tp in assigned))

    def _get_active_partitions(self) -> set[TP]:
        return {tp for tp in self._open if tp not in self._buffered_partitions}

    def on_buffer_full(self, tp: TP) -> None:
        if tp in self._open:
            self._buffered_partitions.add(tp)

    def on_buffer_drop(self, tp: TP) -> None:
        self._buffered_partitions.discard(tp)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Faust pauses what it revokes, assigns or stops with: those tasks are closed."""
        tps = list(tps)
        self.close_tasks({tp.partition for tp in tps})
        self._pause(tps)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Nothing: only a claim opens a partition."""

    def stop_flow(self) -> None:
        """Records drained while the flow stands still are lost to Faust, so every task is opened anew afterwards."""
        super().stop_flow()
        self.close_tasks()

    # ------------------------------------------------------------------ fetch

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP]]:
        if not self.flow_active:
            await self.wait_first(self.can_resume_flow.wait())
        active = self._get_active_partitions()
        waiting = self._alignment.waiting & active
        fetching = active - waiting if self.flow_active else set()
        records: Mapping[Any, list[Any]] = {}
        if fetching:
            poll_ms = POLL_WHILE_BUFFERED_MS if self._buffered_partitions or waiting else POLL_MS
            records = await self._getmany(fetching, min(poll_ms / 1_000, timeout))
        else:
            # An idle worker is alive: it must not lose its place for not polling.
            with self.kafka._subscription.fetch_context():
                await asyncio.sleep((WAITING_MS if waiting else POLL_WHILE_BUFFERED_MS) / 1_000)
        runs = ((tp, self._tagged(tp, records.get(tp, []))) for tp in (*waiting, *records))
        return {tp: run for tp, run in runs if run is not None}, active

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[Any, list[Any]]:
        try:
            fetched: Mapping[TopicPartition, list[Any]] = await self.kafka.getmany(
                *(active_partitions or ()), timeout_ms=int(timeout * 1_000), max_records=self.wiring.run_records_max
            )
            return fetched
        except ConsumerStoppedError:
            raise
        except OffsetOutOfRangeError as error:
            for tp in error.args[0]:
                self.app.tables.on_fenced(tp.partition, LogUnavailable(f"{tp.topic} has no offset {error.args[0][tp]}"))
        except KafkaError as error:
            self._judge(error)
            await asyncio.sleep(WATCH_INTERVAL_S)
        return {}

    def _tagged(self, tp: TopicPartition, records: list[Any]) -> Run | None:
        claim = self._open.get(tp)
        if claim is None:
            return None
        records = self._alignment.turn(tp, records, self._behind(tp))
        if not records:
            return None
        self._handed[tp] = records[-1].offset + 1
        return Run(tp.topic, tp.partition, claim, records)

    def _behind(self, tp: TopicPartition) -> Iterator[tuple[TopicPartition, int]]:
        """The task's other partitions with records that are not applied yet, and the time of the last one that is."""
        for topic, (position, last_ms) in self.wiring.processor.reached(tp.partition).items():
            other = TopicPartition(topic, tp.partition)
            if other != tp and other in self._open and not self.caught_up(other, position):
                yield other, last_ms

    def _to_message(self, tp: TP, record: Run) -> ConsumerMessage:
        return message_of(tp, record, self.app.consumer_generation_id)

    # ------------------------------------------------------------------ commits, positions

    async def force_commit(self, topics: object = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Nothing: the processor commits each interval and when a task is released; Faust has no offsets of its own."""
        return False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise AssertionError(f"Faust tried to commit {offsets}: input topics must be declared with acks=False")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Positions of what is open; moves nothing."""
        return {tp: position for tp in self._open if (position := self._position(tp)) is not None}

    async def position(self, tp: TP) -> int | None:
        return self._position(tp)

    def _position(self, tp: TP) -> int | None:
        assignment = self.kafka._subscription.subscription.assignment
        state = assignment.state_value(tp) if assignment is not None else None
        return state.position if state is not None and state.has_valid_position else None

    def caught_up(self, tp: TopicPartition, position: int) -> bool:
        """Whether `position` is the end of what may be read, and nothing fetched is still on its way to the task."""
        if tp not in self._open or self._handed.get(tp, 0) > position or tp in self._alignment:
            return False
        if tp in self.kafka._fetcher._records:
            return False
        state = self.kafka._subscription.subscription.assignment.state_value(tp)
        end = state.lso if state.lso is not None and state.lso >= 0 else state.highwater
        return end is not None and state.position >= end

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        raise AssertionError(f"only a claim seeks, not Faust: {partitions}")

    async def _seek(self, partition: TP, offset: int) -> None:
        raise AssertionError(f"only a claim seeks, not Faust: {partition} to {offset}")

    # ------------------------------------------------------------------ life

    async def on_start(self) -> None:
        if self.wiring.fast_fetch:
            hand_out_whole_records()
        self._kafka = await connected(self, lambda: group_consumer(self.app), self.wiring)

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._kafka is not None:
            await closed_in_time(self._kafka.stop(), "the consumer", self.wiring.close_deadline_ms)

    def close(self) -> None:
        """Nothing: on_stop leaves the group."""

    @Service.task
    async def _watchdog(self) -> None:
        """Ask how the coordinator is: it keeps its death to itself, and the worker would be silent for ever."""
        while not self.should_stop:
            await self.sleep(WATCH_INTERVAL_S)
            try:
                self.kafka._coordinator.check_errors()
                if self.kafka._fetcher.error_future.done() and not self.should_stop:
                    self.wiring.fatal(LogUnavailable("the fetch loop of the consumer ended"))
            except KafkaError as error:
                self._judge(error)

    def _judge(self, error: KafkaError) -> None:
        """Stop the worker for what waiting does not heal."""
        if isinstance(error, FORBIDDEN):
            self.wiring.fatal(AccessDenied(f"Kafka's ACLs do not let this worker read in its group: {error!r}"))
        elif isinstance(error, HOPELESS) or self.kafka._coordinator._coordination_task.done():
            self.wiring.fatal(LogUnavailable(f"the consumer group cannot be served: {error!r}"))
        else:
            logger.warning("the consumer group or the fetch had an error, going on: %r", error)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit and forget the tasks first; where the group has already given them to others, only forget."""
        lost = self.kafka._coordinator.member_id == ""
        try:
            await self.app.tables.revoke({tp.partition for tp in revoked}, lost=lost)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
            self.wiring.fatal(error)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        self.app.on_rebalance_end()

    async def verify_all_partitions_active(self) -> None:
        """Nothing: Faust's livelock detector walks every partition, and the watchdog knows more."""

    # ------------------------------------------------------------------ what Faust asks

    async def subscribe(self, topics: Iterable[str]) -> None:
        self.kafka.subscribe(topics=set(topics), listener=RebalanceListener(self))

    def assignment(self) -> set[TP]:
        return stock.ensure_TPset(self.kafka.assignment())

    def highwater(self, tp: TP) -> int:
        return self.kafka.highwater(TopicPartition(*tp)) or 0

    def topic_partitions(self, topic: str) -> int | None:
        partitions = self.kafka.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        offsets: Mapping[TP, int] = await self.kafka.beginning_offsets([TopicPartition(*tp) for tp in partitions])
        return offsets

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        offsets: Mapping[TP, int] = await self.kafka.end_offsets([TopicPartition(*tp) for tp in partitions])
        return offsets

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:  # noqa: ARG002
        raise AssertionError(f"whoever writes to {topic} names the partition")

    async def create_topic(self, topic: str, *_: Any, **__: Any) -> None:
        raise AssertionError(f"Faust tried to create {topic}: `pulseline topics apply` does that")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)
