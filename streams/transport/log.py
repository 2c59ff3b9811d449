"""The processor's Log over Kafka: outputs in one compressed batch a partition, offsets through the group."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from faust.types import AppT
from mode import get_logger

from models.codec import control_record
from streams.errors import LogUnavailable, TopicProblem
from streams.processing.ports import OutRecord
from streams.transport.consumer import Consumer
from streams.transport.driver import Producer
from streams.transport.group import Group
from streams.transport.transactions import Transactions, send_batches

logger = get_logger(__name__)


class KafkaLog:
    """Implements processing.ports.Log over the app's consumer and producer, which must be started before it is used."""

    def __init__(self, app: AppT, *, inputs: Sequence[str], timeout_ms: int) -> None:
        self._app = app
        self._inputs = tuple(inputs)
        self._timeout_ms = timeout_ms
        self._groups: dict[int, Group] = {}
        self._transactions = Transactions(self._transactional, app.conf.id, timeout_ms)
        self._sending: dict[int, tuple[Sequence[OutRecord], asyncio.Future[list[None]]]] = {}
        """What is not acked yet, by identity: publishing the same records again waits on, and sends nothing twice."""

    @property
    def _consumer(self) -> Consumer:
        return cast(Consumer, self._app.consumer)

    @property
    def _producer(self) -> Producer:
        return cast(Producer, self._app.producer)

    @property
    def _group(self) -> Group:
        kafka = self._consumer.kafka
        if id(kafka) not in self._groups:
            self._groups = {id(kafka): Group(kafka, self._timeout_ms)}
        return self._groups[id(kafka)]

    async def confirmed(self) -> None:
        await self._group.confirmed()

    async def committed(self, partition: int) -> dict[str, int | None]:
        return await self._group.committed(partition, self._inputs)

    async def bounds(self, partition: int) -> dict[str, tuple[int, int]]:
        return await self._group.bounds(partition, self._inputs)

    async def commit_offsets(self, partition: int, offsets: Mapping[str, int]) -> None:
        await self._group.commit(partition, offsets)

    def _transactional(self, transactional_id: str) -> AIOKafkaProducer:
        return self._producer.transactional(transactional_id)

    async def take_over(self, partition: int) -> None:
        await self._transactions.take_over(partition)

    async def last_transaction(self, partition: int) -> str | None:
        return await self._group.told(partition, self._inputs)

    async def transact(
        self, partition: int, records: Sequence[OutRecord], offsets: Mapping[str, int], commit: str
    ) -> None:
        await self._transactions.transact(partition, records, offsets, commit)

    def let_go(self, partition: int) -> None:
        self._transactions.let_go(partition)

    async def close(self) -> None:
        """Close the transactional producers; the app stops its own."""
        await self._transactions.close()

    def caught_up(self, topic: str, partition: int, position: int) -> bool:
        return self._consumer.caught_up(TopicPartition(topic, partition), position)

    async def punctuate(self, topic: str, partition: int, watermark_ms: int) -> None:
        await self.publish([OutRecord(topic, partition, None, *control_record(watermark_ms))])

    async def publish(self, records: Sequence[OutRecord]) -> None:
        """Send all, a partition's in order, and wait for all acks; LogUnavailable after the time of one request."""
        if not records:
            return
        sending = self._begun(records)
        await asyncio.wait({sending}, timeout=self._timeout_ms / 1_000)
        if not sending.done():
            raise LogUnavailable(f"{len(records)} outputs were not acknowledged in time")
        self._sending.pop(id(records), None)
        sending.result()

    def _begun(self, records: Sequence[OutRecord]) -> asyncio.Future[list[None]]:
        for key, (_, sending) in list(self._sending.items()):
            if sending.done() and key != id(records):
                del self._sending[key]
        if id(records) not in self._sending:
            by_partition: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
            for record in records:
                by_partition[TopicPartition(record.topic, record.partition)].append(record)
            sending = asyncio.gather(*(self._send(tp, group) for tp, group in by_partition.items()))
            sending.add_done_callback(_retrieve)
            self._sending[id(records)] = (records, sending)
        return self._sending[id(records)][1]

    async def _send(self, tp: TopicPartition, records: Sequence[OutRecord]) -> None:
        producer = self._producer.kafka
        try:
            await send_batches(producer, tp, records)
        except (MessageSizeTooLargeError, TopicAuthorizationFailedError) as error:
            raise TopicProblem(
                f"{tp.topic} refuses records ({type(error).__name__}): `pulseline topics check` tells why"
            ) from error
        except KafkaError as error:
            if not error.retriable and not isinstance(error, KafkaTimeoutError):
                logger.warning("the producer failed for good (%r), making a new one", error)
                await self._producer.renew(producer)
            raise LogUnavailable(f"{tp.topic} does not take records: {type(error).__name__}") from error


def _retrieve(sending: asyncio.Future[list[None]]) -> None:
    """Look at the outcome, so that asyncio does not report one nobody waited for."""
    if not sending.cancelled():
        sending.exception()
