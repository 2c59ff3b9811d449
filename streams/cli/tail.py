"""Following output topics, and reading them through."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from models.topics import OUTPUT_TOPICS, topic_name, topic_suffix
from streams.cli.reach import kafka_errors, reach_kafka
from streams.errors import TopicProblem
from streams.settings import Settings, kafka_options

Hear = Callable[[str, Any], None]
"""Called with (topic suffix, kafka-python's ConsumerRecord)."""


@contextmanager
def consumer_of(settings: Settings) -> Iterator[KafkaConsumer]:
    """A consumer without a group; LogUnavailable where Kafka does not answer."""
    reach_kafka(settings)
    with (
        kafka_errors(settings),
        closing(
            KafkaConsumer(
                bootstrap_servers=settings.kafka_bootstrap.split(","),
                enable_auto_commit=False,
                metrics_enabled=False,
                isolation_level="read_committed",
                **kafka_options(settings),
            )
        ) as consumer,
    ):
        yield consumer


def partitions_of(consumer: KafkaConsumer, settings: Settings, suffixes: Iterable[str]) -> list[TopicPartition]:
    """All partitions of these topics; TopicProblem where one is missing."""
    found = []
    for suffix in suffixes:
        name = topic_name(settings.topic_prefix, suffix)
        numbers = consumer.partitions_for_topic(name)
        if not numbers:
            raise TopicProblem(f"the topic {name} is missing: `pulseline topics apply` creates it")
        found += [TopicPartition(name, number) for number in sorted(numbers)]
    return found


def follow(
    settings: Settings,
    hear: Hear,
    stopping: threading.Event,
    *,
    suffixes: Iterable[str] = OUTPUT_TOPICS,
    from_start: bool = False,
    ready: threading.Event | None = None,
) -> None:
    """Call `hear` for every record of these topics from now on, or from the start, until `stopping` is set."""
    with consumer_of(settings) as consumer:
        partitions = partitions_of(consumer, settings, suffixes)
        consumer.assign(partitions)
        (consumer.seek_to_beginning if from_start else consumer.seek_to_end)(*partitions)
        for partition in partitions:
            consumer.position(partition)
        if ready is not None:
            ready.set()
        while not stopping.is_set():
            for partition, records in consumer.poll(timeout_ms=200).items():
                for record in records:
                    hear(topic_suffix(settings.topic_prefix, partition.topic), record)


def read_through(
    settings: Settings, suffixes: Iterable[str], progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield (suffix, record) of all there is in these topics at present; `progress` is told (read, of all)."""
    with consumer_of(settings) as consumer:
        partitions = partitions_of(consumer, settings, suffixes)
        consumer.assign(partitions)
        ends, starts = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        total = sum(ends[each] - starts[each] for each in partitions)
        open_ones = {each for each in partitions if ends[each] > starts[each]}
        consumer.seek_to_beginning(*partitions)
        read = 0
        while open_ones:
            for partition, records in consumer.poll(timeout_ms=500).items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield topic_suffix(settings.topic_prefix, partition.topic), record
                read += len(records)
            open_ones = {each for each in open_ones if consumer.position(each) < ends[each]}
            if progress is not None:
                progress(min(read, total), total)


def records_in(settings: Settings, suffixes: Iterable[str]) -> dict[str, int]:
    """Topic name -> how many records its log holds (of topics without transactions and compaction)."""
    with consumer_of(settings) as consumer:
        partitions = partitions_of(consumer, settings, suffixes)
        ends, starts = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
    found: dict[str, int] = {}
    for partition in partitions:
        found[partition.topic] = found.get(partition.topic, 0) + ends[partition] - starts[partition]
    return found
