"""The SDK against a real Kafka: what is sent arrives as the contract says, and what does not arrive is reported."""

import gc
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from kafka import KafkaConsumer, TopicPartition

from models.codec import codec_for
from models.events import PageViewed
from models.topics import INPUT_TOPICS
from streams.cli.bulk import load_history
from streams.errors import LogUnavailable
from streams.producer.client import EngagementProducer, NotDelivered
from streams.producer.encoding import InvalidEvent
from streams.producer.plan import HARSH, Script, plan
from tests.support.brokers import Brokers, create_topics, run_brokers

pytestmark = [
    pytest.mark.integration,
    # kafka-python leaves the sockets of failed connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PARTITIONS = 4


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def breakable() -> Iterator[Brokers]:
    """Brokers that the tests of this module may stop, if they start them again."""
    with run_brokers() as running:
        yield running


@pytest.fixture
def topics(kafka_bootstrap, names):
    create_topics(kafka_bootstrap, *(names.topic(suffix) for suffix in INPUT_TOPICS), partitions=PARTITIONS)
    return names


def read_all(bootstrap: str, topic: str) -> list:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        wanted = sum(consumer.end_offsets(partitions).values())
        records: list = []
        while len(records) < wanted:
            records += [record for batch in consumer.poll(timeout_ms=1_000).values() for record in batch]
        return records
    finally:
        consumer.close()


def decoded(suffix: str, record: Any, timestamp_ms: int | None = None) -> Any:
    """The event in a record, as the workers read it."""
    return codec_for(suffix).read(record.key, record.value, timestamp_ms or record.timestamp)


def test_events_arrive_in_their_topic_under_their_key(kafka_bootstrap, topics):
    """The topic follows from the type, the key is the customer id, the partition is Kafka's default for that key."""
    with EngagementProducer(kafka_bootstrap, topic_prefix=topics.topic_prefix) as producer:
        ids = [
            producer.send(type="product_added", customer_id="c|ł", product_id="mug", unit_price_minor=1290),
            producer.send({"type": "page_viewed", "customer_id": "c-2", "occurred_at_ms": 1, "event_id": "mine"}),
            producer.send(PageViewed(event_id="typed", customer_id="c-3", occurred_at_ms=2)),
        ]
    (added,) = read_all(kafka_bootstrap, topics.topic("cart.v1"))
    event = decoded("cart.v1", added)
    assert (event.event_id, event.customer_id, added.key) == (ids[0], "c|ł", "c|ł".encode())
    assert abs(event.occurred_at_ms - added.timestamp) < 5_000
    assert added.partition == (murmur2("c|ł".encode()) & 0x7FFFFFFF) % PARTITIONS
    pages = read_all(kafka_bootstrap, topics.topic("clickstream.v1"))
    assert sorted(decoded("clickstream.v1", page, 3).event_id for page in pages) == ["mine", "typed"]


def test_events_that_break_the_contract_never_leave(kafka_bootstrap, topics):
    """The field is named, the value is not, and nothing is sent."""
    with EngagementProducer(kafka_bootstrap, topic_prefix=topics.topic_prefix) as producer:
        for fields, word in (
            ({"type": "product_added", "customer_id": "c"}, "product_id"),
            ({"type": "product_added", "customer_id": "c", "product_id": "p", "quantity": "geheim"}, "quantity"),
            ({"type": "product_added", "customer_id": "c", "product_id": "p", "quanttiy": 1}, "quantity"),
            ({"type": "product_admired", "customer_id": "c"}, "type"),
            ({"type": "page_viewed"}, "customer_id"),
            ({"type": "page_viewed", "customer_id": "\ud800"}, "customer_id"),
            ({"type": "page_viewed", "customer_id": "c", "url": "u" * 2_049}, "url"),
        ):
            with pytest.raises(InvalidEvent, match=word) as caught:
                producer.send(fields)
            assert "geheim" not in str(caught.value)
        with pytest.raises(InvalidEvent, match="no further fields"):
            producer.send(PageViewed(event_id="e", customer_id="c", occurred_at_ms=2), url="x")
    assert all(read_all(kafka_bootstrap, topics.topic(suffix)) == [] for suffix in INPUT_TOPICS)


def test_many_threads_may_share_one_producer(kafka_bootstrap, topics):
    """Four threads send 250 events each through room for 50: all arrive, each once."""
    with EngagementProducer(kafka_bootstrap, topic_prefix=topics.topic_prefix, pending_max=50) as producer:

        def send(thread: int) -> None:
            for number in range(250):
                producer.send(type="page_viewed", customer_id=f"c-{number}", event_id=f"{thread}-{number}")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush() == []
        assert producer.delivered == 1_000
    records = read_all(kafka_bootstrap, topics.topic("clickstream.v1"))
    ids = {decoded("clickstream.v1", record).event_id for record in records}
    assert (len(records), len(ids)) == (1_000, 1_000)


def test_two_megabytes_are_refused_by_the_sdk_and_by_the_broker(kafka_bootstrap, topics):
    """An event beyond the contract, a raw record beyond a request, and a broker's refusal are all told."""
    topic, big = topics.topic("cart.v1"), os.urandom(2_000_000)
    with EngagementProducer(kafka_bootstrap, topic_prefix=topics.topic_prefix) as producer:
        line = {"product_id": "p" * 500, "url": "u" * 2_000}
        with pytest.raises(InvalidEvent, match="65536"):
            producer.send(type="cart_updated", customer_id="c", items=[line] * 50)
        with pytest.raises(InvalidEvent, match="1048576"):
            producer.send_raw(topic, b"c", big)
        producer.send_raw(topic, b"c", os.urandom(900_000))
        assert producer.flush() == []
    with EngagementProducer(kafka_bootstrap, topic_prefix=topics.topic_prefix, max_request_size=4_000_000) as generous:
        generous.send_raw(topic, b"c", big)
        (refused,) = generous.flush()
        assert (refused.topic, refused.value) == (topic, big)
        assert "TooLarge" in refused.reason
        assert str(big[:8]) not in repr(refused)
        assert generous.flush() == []
    assert len(read_all(kafka_bootstrap, topic)) == 1


def test_what_a_missing_broker_did_not_take_is_reported(breakable, names):
    """While Kafka is frozen nothing is acknowledged: flush says what, closing raises it, and it can be sent again."""
    create_topics(breakable.bootstrap, names.topic("clickstream.v1"))
    producer = EngagementProducer(breakable.bootstrap, topic_prefix=names.topic_prefix, block_ms_max=3_000)
    producer.send(type="page_viewed", customer_id="c-1", event_id="before")
    assert producer.flush() == []
    breakable.kafka.pause()
    try:
        producer.send(type="page_viewed", customer_id="c-1", event_id="during")
        (waiting,) = producer.flush(timeout_s=1)
        assert "no answer" in waiting.reason
        with pytest.raises(NotDelivered) as caught:
            producer.close(timeout_s=1)
    finally:
        breakable.kafka.resume()
    (lost,) = caught.value.undelivered
    assert b'"during"' in (lost.value or b"")
    with EngagementProducer(breakable.bootstrap, topic_prefix=names.topic_prefix) as again:
        again.send_raw(lost.topic, lost.key, lost.value)
    values = [record.value for record in read_all(breakable.bootstrap, names.topic("clickstream.v1"))]
    assert sum(b'"before"' in value for value in values) == 1
    assert sum(b'"during"' in value for value in values) >= 1


def test_a_delivery_that_failed_for_good_is_reported_once(breakable, names):
    """After delivery_timeout_ms without a broker an event is given up, with the reason."""
    create_topics(breakable.bootstrap, names.topic("clickstream.v1"))
    producer = EngagementProducer(breakable.bootstrap, topic_prefix=names.topic_prefix, delivery_timeout_ms=2_000)
    producer.send(type="page_viewed", customer_id="c-1")
    assert producer.flush() == []
    breakable.kafka.kill()
    try:
        producer.send(type="page_viewed", customer_id="c-1")
        (lost,) = producer.flush(timeout_s=20)
        assert "no answer" not in lost.reason
        assert producer.flush(timeout_s=1) == []
        producer.close(timeout_s=1)
    finally:
        breakable.kafka.start()


def test_no_kafka_and_no_topic_are_told_in_time(kafka_bootstrap, names):
    """A wrong address and a missing topic are LogUnavailable, not a wait without end."""
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        EngagementProducer("127.0.0.1:1", block_ms_max=500)
    with (
        EngagementProducer(kafka_bootstrap, topic_prefix=names.topic_prefix, block_ms_max=500) as producer,
        pytest.raises(LogUnavailable, match=names.topic("clickstream.v1")),
    ):
        producer.send(type="page_viewed", customer_id="c-1")


def test_an_error_in_the_with_block_is_not_hidden_by_a_loss(breakable, names):
    """The block's own error is raised; what was not delivered stands in its notes."""
    create_topics(breakable.bootstrap, names.topic("clickstream.v1"))
    try:
        with pytest.raises(KeyError) as caught:  # noqa: PT012, SIM117
            with EngagementProducer(
                breakable.bootstrap, topic_prefix=names.topic_prefix, delivery_timeout_ms=2_000
            ) as producer:
                producer.send(type="page_viewed", customer_id="c-1")
                producer.flush()
                breakable.kafka.pause()
                producer.send(type="page_viewed", customer_id="c-1")
                raise KeyError("mine")
        assert "1 events were not delivered" in caught.value.__notes__[0]
    finally:
        breakable.kafka.resume()


def test_a_history_loaded_in_bulk_is_what_the_sdk_would_have_sent(kafka_bootstrap, names):
    """Every record of a plan is there once, with its own timestamp, in the partition of its key, in order."""
    create_topics(
        kafka_bootstrap,
        *(names.topic(suffix) for suffix in INPUT_TOPICS),
        partitions=PARTITIONS,
        **{"message.timestamp.type": "CreateTime"},
    )
    script = Script(seed=5, events=3_000, stories=HARSH, dirty=0.02, duplicates=0.02, out_of_order=0.05)
    planned = list(plan(script))
    loaded = load_history(kafka_bootstrap, names.topic_prefix, planned, partitions=PARTITIONS)
    assert loaded == len(planned)
    for suffix in INPUT_TOPICS:
        read = read_all(kafka_bootstrap, names.topic(suffix))
        wanted = [record for record in planned if record.topic == suffix]
        assert Counter((r.timestamp, r.key, r.value) for r in read) == Counter(
            (r.send_ms, r.key, r.value) for r in wanted
        )
        for number in range(PARTITIONS):
            stamps = [record.timestamp for record in read if record.partition == number]
            assert stamps == sorted(stamps)
        assert all(r.partition == (murmur2(r.key) & 0x7FFFFFFF) % PARTITIONS for r in read if r.key is not None)
