"""A history of ordinary shoppers, written to the input topics as fast as Kafka takes it, with its own timestamps."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from models.topics import topic_name
from streams.producer.plan import CALM, Planned, Script, plan
from streams.stores.keys import partition_of

BROWSING = 3.0
"""The stories of an ordinary shop with more browsing: about 70 % clicks, 18 % cart, 9 % mail, 3 % social events."""
BATCH_BYTES = 900_000


def history(events: int, customers: int, start_ms: int) -> Iterable[Planned]:
    """Twelve hours of a shop."""
    stories = {**CALM, "browse": CALM["browse"] * BROWSING}
    return plan(
        Script(seed=1, shoppers=customers, events=events, start_ms=start_ms, duration_ms=43_200_000, stories=stories)
    )


async def load(bootstrap: str, prefix: str, partitions: int, records: Iterable[Planned]) -> dict[str, int]:
    """Write the records to the partitions of their keys; returns how many each topic got."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=2 * BATCH_BYTES, acks="all")
    await producer.start()
    batches: dict[tuple[str, int], Any] = defaultdict(producer.create_batch)
    sizes: dict[tuple[str, int], int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    sent = []
    try:
        for record in records:
            topic = topic_name(prefix, record.topic)
            place = (topic, partition_of((record.key or b"").decode(), partitions))
            batches[place].append(key=record.key, value=record.value, timestamp=record.send_ms)
            sizes[place] += len(record.value or b"") + 100
            counts[topic] += 1
            if sizes[place] > BATCH_BYTES:
                sent.append(await producer.send_batch(batches.pop(place), topic, partition=place[1]))
                sizes[place] = 0
        for place, batch in batches.items():
            sent.append(await producer.send_batch(batch, place[0], partition=place[1]))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return dict(counts)
