"""One transactional producer a task: outputs and offsets of a commit become visible together, or not at all.

The transactional id is the task's own, so whoever takes the task over fences its predecessor: aiokafka commits offsets
in a transaction without naming the group's generation, and the id alone has to keep a woken zombie out.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from mode import get_logger

from streams.errors import Fenced, InvalidSettings, LogUnavailable, TopicProblem
from streams.processing.ports import OutRecord

logger = get_logger(__name__)

END_TXN, END_TXN_OF_4_0 = 26, 5
"""Kafka's number of the request that ends a transaction, and the version of it that came with 4.0."""
CLOSE_S = 1.0
FORBIDDEN = (GroupAuthorizationFailedError, TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed)


class Transactions:
    """The transactional producers of the tasks of one worker; `new` makes one of its transactional id, not started."""

    def __init__(self, new: Callable[[str], AIOKafkaProducer], group: str, timeout_ms: int) -> None:
        self._new, self._group, self._timeout_s = new, group, timeout_ms / 1_000
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def take_over(self, partition: int) -> None:
        """Fence the task's predecessor and end its open transaction; only then is what the group committed final."""
        self.let_go(partition)
        producer = self._new(f"{self._group}-{partition}")
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
            require_4_0(producer)
        except BaseException as error:
            self._close(producer)
            if isinstance(error, FORBIDDEN):
                raise TopicProblem(f"Kafka does not allow transactions of {self._group}-{partition}") from error
            if isinstance(error, (KafkaError, TimeoutError)):
                raise LogUnavailable(f"no transactional producer yet ({type(error).__name__})") from error
            raise
        self._producers[partition] = producer

    async def transact(
        self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str
    ) -> None:
        """Publish the records and commit the offsets in one transaction; Fenced where it failed, or may have.

        commit: an id, which goes with the offsets as their metadata.
        """
        producer = self._producers.get(partition)
        if producer is None:
            raise Fenced("the task was let go")
        try:
            async with asyncio.timeout(self._timeout_s):
                places = {TopicPartition(topic, partition): (offset, commit) for topic, offset in offsets.items()}
                await self._carry_out(producer, records, places)
        except (MessageSizeTooLargeError, *FORBIDDEN) as error:
            self.let_go(partition)
            raise TopicProblem(
                f"Kafka refuses the outputs of task {partition} ({type(error).__name__}): "
                "`pulseline topics check` tells why"
            ) from error
        except (KafkaError, TimeoutError) as error:
            self.let_go(partition)
            raise Fenced(f"a transaction ended with {type(error).__name__}") from error

    async def _carry_out(
        self, producer: AIOKafkaProducer, records: Sequence[OutRecord], places: Mapping[TopicPartition, tuple[int, str]]
    ) -> None:
        await producer.begin_transaction()
        by_partition: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
        for record in records:
            by_partition[TopicPartition(record.topic, record.partition)].append(record)
        await asyncio.gather(*(send_batches(producer, tp, group) for tp, group in by_partition.items()))
        await producer.send_offsets_to_transaction(places, self._group)
        await producer.commit_transaction()

    def let_go(self, partition: int) -> None:
        """Close the task's producer in the background; a transaction it left open is ended by whoever takes over."""
        producer = self._producers.pop(partition, None)
        if producer is not None:
            self._close(producer)

    async def close(self) -> None:
        """Close all producers, within a second; what they left open is ended by whoever takes over."""
        for partition in list(self._producers):
            self.let_go(partition)
        closing = set(self._closing)
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _close(self, producer: AIOKafkaProducer) -> None:
        closing = asyncio.create_task(self._stop(producer), name="close-producer")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()
        except (KafkaError, TimeoutError) as error:
            logger.info("a transactional producer did not close in order: %s", type(error).__name__)
        ended = producer._txn_manager.wait_for_transaction_end()
        if ended is not None and ended.done() and not ended.cancelled():
            ended.exception()  # nobody waited for it, and asyncio would say so


async def send_batches(producer: AIOKafkaProducer, tp: TopicPartition, records: Sequence[OutRecord]) -> None:
    """Send the records of one partition in order, in as few batches as they fit, and wait for all acks."""
    batch = producer.create_batch()
    for record in records:
        headers = list(record.headers)
        if batch.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
            await asyncio.shield(await producer.send_batch(batch, tp.topic, partition=tp.partition))
            batch = producer.create_batch()
            batch.append(timestamp=None, key=record.key, value=record.value, headers=headers)
    batch.close()
    await asyncio.shield(await producer.send_batch(batch, tp.topic, partition=tp.partition))


def require_4_0(producer: AIOKafkaProducer) -> None:
    """Older brokers may tell offsets of before a transaction that has just ended, and leave transactions hanging."""
    versions = [conn._versions[END_TXN][1] for conn in producer.client._conns.values() if conn._versions]
    if max(versions, default=0) < END_TXN_OF_4_0:
        raise InvalidSettings("PULSELINE_PROCESSING_GUARANTEE=exactly_once needs Kafka 4.0 or newer.")
