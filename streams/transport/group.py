"""This member's standing in its consumer group: is it confirmed, what is committed, commit.

aiokafka takes the group generation when it sends and retries by itself, so a commit asked for under one generation
could be sent under the next; here each attempt is one request, bound to the generation of the moment of asking.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from time import monotonic
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata
from mode import get_logger

from streams.errors import Fenced, LogUnavailable, TopicProblem

logger = get_logger(__name__)
T = TypeVar("T")

REFUSALS = (CommitFailedError, UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
FORBIDDEN = (GroupAuthorizationFailedError, TopicAuthorizationFailedError)
RETRY_S = 0.1
DOUBT_S = 1.0


class Group:
    """Requests to the group coordinator and to the partitions' leaders, each bounded by `timeout_ms`."""

    def __init__(self, kafka: AIOKafkaConsumer, timeout_ms: int) -> None:
        self._kafka = kafka
        self._timeout_s = timeout_ms / 1_000
        self._heartbeats = asyncio.Lock()
        self._confirmed_at = -1.0
        """When the latest successful heartbeat was begun."""
        self._commits: dict[int, asyncio.Task[None]] = {}
        """The offset commit in flight of each task; it outlives whoever waited for it."""

    async def confirmed(self) -> None:
        """Return once a heartbeat begun after this call was answered well, and no rejoin is pending."""
        begun = monotonic()
        while not await self._beat_since(begun):
            if monotonic() - begun > self._timeout_s:
                raise LogUnavailable("the group coordinator did not confirm this worker's membership")
            await asyncio.sleep(RETRY_S)

    async def _beat_since(self, begun: float) -> bool:
        async with self._heartbeats:
            if self._confirmed_at < begun:
                beat = monotonic()
                if await self._in_time(self._heartbeat(), "the group coordinator"):
                    self._confirmed_at = beat
            return self._confirmed_at >= begun and not self._rejoining()

    async def _heartbeat(self) -> bool:
        coordinator = self._kafka._coordinator
        generation, member = coordinator.generation, coordinator.member_id
        if generation < 0 or coordinator.coordinator_id is None or self._rejoining():
            return False
        answered = await coordinator._do_heartbeat()
        return (
            bool(answered)
            and (generation, member) == (coordinator.generation, coordinator.member_id)
            and not self._rejoining()
        )

    def _rejoining(self) -> bool:
        subscription = self._kafka._subscription
        if subscription.subscription is None or subscription.reassignment_in_progress:
            return True
        return bool(self._kafka._coordinator.need_rejoin(subscription.subscription))

    async def committed(self, partition: int, topics: Iterable[str]) -> dict[str, int | None]:
        """The group's committed offsets (None: none), read after this member's own commits of the task have ended.

        None at all is believed after DOUBT_S: a broker that came back after a crash answers so for a moment, without an
        error, and what follows from it is grave (StateLost is not noticed, a replay not muted, exactly_once stops).
        """
        found = await self._offsets(partition, topics)
        return {topic: found[topic].offset if topic in found else None for topic in topics}

    async def told(self, partition: int, topics: Iterable[str]) -> str | None:
        """What was written beside all committed offsets of the task alike; None: nothing, or not the same."""
        texts = {entry.metadata for entry in (await self._offsets(partition, topics)).values()}
        return (texts.pop() or None) if len(texts) == 1 else None

    async def _offsets(self, partition: int, topics: Iterable[str]) -> dict[str, OffsetAndMetadata]:
        await self._settled(partition)
        tps, begun = [TopicPartition(topic, partition) for topic in topics], monotonic()
        while True:
            asking = self._kafka._coordinator.fetch_committed_offsets(tps)
            found = await self._in_time(asking, "the group coordinator")
            if found or monotonic() - begun > DOUBT_S:
                return {tp.topic: entry for tp, entry in found.items()}
            await asyncio.sleep(RETRY_S)

    async def bounds(self, partition: int, topics: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(log start, end of what may be read) per topic."""
        tps = [TopicPartition(topic, partition) for topic in topics]
        starts, ends = await self._in_time(
            asyncio.gather(self._kafka.beginning_offsets(tps), self._kafka.end_offsets(tps)), "the log"
        )
        return {tp.topic: (starts[tp], ends[tp]) for tp in tps}

    async def commit(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Commit a task's offsets under today's generation; Fenced where it is refused or has moved on."""
        generation, deadline = self._kafka._coordinator.generation, monotonic() + self._timeout_s
        wanted = {TopicPartition(topic, partition): OffsetAndMetadata(offset, "") for topic, offset in offsets.items()}
        while True:
            await self._settled(partition)
            sent = asyncio.create_task(self._send(generation, wanted), name=f"offsets-{partition}")
            sent.add_done_callback(_retrieve)
            self._commits[partition] = sent
            if await self._accepted(sent):
                return
            if monotonic() > deadline:
                raise LogUnavailable("the group coordinator does not take offset commits")
            await asyncio.sleep(RETRY_S)

    async def _send(self, generation: int, wanted: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """One request; between the look at the generation and its use there is no await."""
        coordinator, subscription = self._kafka._coordinator, self._kafka._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if coordinator.generation != generation or assignment is None or not wanted.keys() <= assignment.tps:
            raise Fenced("the group moved on before the offsets were committed")
        await coordinator._do_commit_offsets(assignment, wanted)

    async def _accepted(self, sent: asyncio.Task[None]) -> bool:
        """Whether the coordinator took the offsets; False: ask again."""
        await asyncio.wait({sent}, timeout=self._timeout_s)
        if not sent.done():
            raise LogUnavailable("the group coordinator does not answer an offset commit")
        try:
            sent.result()
        except REFUSALS as refusal:
            raise Fenced(f"the group coordinator refused the offsets: {type(refusal).__name__}") from refusal
        except FORBIDDEN as refusal:
            raise TopicProblem(f"Kafka does not let this group commit offsets: {type(refusal).__name__}") from refusal
        except KafkaError as error:
            logger.info("an offset commit failed, trying again: %s", type(error).__name__)
            return False
        return True

    async def _settled(self, partition: int) -> None:
        """Wait for the commit in flight, so that offsets reach the coordinator in order."""
        running = self._commits.get(partition)
        if running is not None and not running.done():
            await asyncio.wait({running}, timeout=self._timeout_s)
            if not running.done():
                raise LogUnavailable("an offset commit is still unanswered")

    async def _in_time(self, request: Awaitable[T], what: str) -> T:
        try:
            # Not wait_for: Python 3.11's forgets a cancellation that comes in the same turn as the answer.
            async with asyncio.timeout(self._timeout_s):
                return await request
        except TimeoutError as error:
            raise LogUnavailable(f"{what} does not answer") from error
        except FORBIDDEN as error:
            raise TopicProblem(f"Kafka does not allow this: {type(error).__name__}") from error
        except KafkaError as error:
            raise LogUnavailable(f"{what} answers {type(error).__name__}") from error


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the outcome, so that asyncio does not report one nobody waited for."""
    if not task.cancelled():
        task.exception()
