"""(b) A bare aiokafka loop with the same decoder and the same core: no Faust, no Redis, no outputs.

Every profile stays in memory and nothing is packed or scored. Run as a child process; prints one JSON line.
"""

import asyncio
import gc
import json
import os
import sys
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.app import plan_of
from streams.processing.book import Book, TopicBook
from streams.processing.plan import Plan
from streams.processing.ports import Run, Stored
from streams.processing.task import Task
from streams.settings import Settings


async def main(bootstrap: str, target: int, topics: list[str]) -> None:
    """Read `target` events of the topics and fold them."""
    plan: Plan = plan_of(Settings.from_environ(os.environ))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False, fetch_max_wait_ms=100
    )
    await consumer.start()
    partitions = [TopicPartition(topic, number) for topic in topics for number in range(plan.partitions)]
    consumer.assign(partitions)
    tasks = {
        number: Task(
            plan,
            number,
            ver="bench",
            stored=Stored("bench", b""),
            book=Book(0, {topic: TopicBook(0, 0) for topic in topics}),
            committed={},
        )
        for number in range(plan.partitions)
    }
    # As the worker sets it (streams/transport/application.py).
    gc.freeze()
    gc.set_threshold(50_000, 10, 100)
    seen, cpu, wall = 0, time.process_time(), time.perf_counter()
    while seen < target:
        for partition, records in (await consumer.getmany(timeout_ms=500, max_records=5_000)).items():
            task = tasks[partition.partition]
            read = task.read(Run(partition.topic, partition.partition, "bench", records))
            task.take(dict.fromkeys(task.missing(read), (None, None)))
            task.apply(read)
            task.decisions.clear()
            task.rejected.clear()
            task.scored.clear()
            seen += len(records)
    result = {"events": seen, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps(result), flush=True)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
