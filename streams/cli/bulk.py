"""Loading a planned history in whole batches, without the SDK and its checks: for large tests and benchmarks."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from models.topics import topic_name
from streams.producer.plan import Planned

BATCH_BYTES_MAX = 900_000
Place = tuple[str, int]
"""(topic, partition)"""


def partition_for(record: Planned, number: int, partitions: int) -> int:
    """Where Kafka's default partitioner puts a record; one without a key goes where its number says."""
    return number % partitions if record.key is None else (murmur2(record.key) & 0x7FFFFFFF) % partitions


def load_history(
    bootstrap: str,
    topic_prefix: str,
    records: Iterable[Planned],
    *,
    partitions: int,
    progress: Callable[[int], None] | None = None,
    **kafka_options: Any,
) -> int:
    """Write all records to topics with CreateTime, each at its `send_ms`, in order within a partition; return how many.

    kafka_options: aiokafka's, for security. Records larger than a batch are refused by Kafka; the connection's errors
    are aiokafka's.
    """
    return asyncio.run(_load(bootstrap, topic_prefix, records, partitions, progress, kafka_options))


async def _load(
    bootstrap: str,
    topic_prefix: str,
    records: Iterable[Planned],
    partitions: int,
    progress: Callable[[int], None] | None,
    kafka_options: dict[str, Any],
) -> int:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=1_048_576,
        **kafka_options,
    )
    await producer.start()
    try:
        open_batches: dict[Place, Any] = {}
        sent: dict[Place, asyncio.Future[Any]] = {}
        count = 0
        for count, record in enumerate(records, start=1):
            place = topic_name(topic_prefix, record.topic), partition_for(record, count, partitions)
            batch = open_batches.get(place) or open_batches.setdefault(place, producer.create_batch())
            if batch.append(key=record.key, value=record.value, timestamp=record.send_ms) is None:
                await _send(producer, place, batch, sent)
                batch = open_batches[place] = producer.create_batch()
                batch.append(key=record.key, value=record.value, timestamp=record.send_ms)
            if progress is not None and count % 10_000 == 0:
                progress(count)
        for place, batch in open_batches.items():
            await _send(producer, place, batch, sent)
        await asyncio.gather(*sent.values())
        return count
    finally:
        await producer.stop()


async def _send(producer: Any, place: Place, batch: Any, sent: dict[Place, asyncio.Future[Any]]) -> None:
    """Send a batch after the one before it in its partition was acknowledged."""
    if place in sent:
        await sent.pop(place)
    batch.close()
    sent[place] = await producer.send_batch(batch, place[0], partition=place[1])
