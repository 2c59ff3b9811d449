"""The local stack against its promises: real, durable, restartable."""

import pytest
import redis as redis_client
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.stack.local import LocalStack
from tests.support.brokers import TOOLS, create_topics

pytestmark = pytest.mark.integration


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", compression_type="lz4")
    try:
        sent = [producer.send(topic, key=b"c-1", value=value) for value in values]
        for future in sent:
            future.get(timeout=20)
    finally:
        producer.close()


def consume(bootstrap: str, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while len(values) < end:
            values += [record.value for record in consumer.poll(timeout_ms=1000).get(partition, [])]
        return values
    finally:
        consumer.close()


def test_records_and_keys_make_the_round_trip(kafka_bootstrap, redis_url, names):
    """What is produced is consumed, byte for byte, and what is set is got, on a Redis that evicts nothing and logs."""
    topic = names.topic("round_trip")
    create_topics(kafka_bootstrap, topic)
    values = [b"%d" % number for number in range(500)]
    produce(kafka_bootstrap, topic, values)
    assert consume(kafka_bootstrap, topic) == values

    with redis_client.Redis.from_url(redis_url) as client:
        client.set(f"{names.key_prefix}:k", b"v")
        assert client.get(f"{names.key_prefix}:k") == b"v"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendonly")["appendonly"] == "yes"


def test_topics_are_never_made_by_accident(kafka_bootstrap, names):
    """A producer that misspells a topic gets an error instead of a new topic."""
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, max_block_ms=1500)
    try:
        with pytest.raises(KafkaError):
            producer.send(names.topic("misspelt"), b"x").get(timeout=5)
    finally:
        producer.close()


def test_servers_that_are_killed_come_back_with_their_data(own_brokers, names):
    """After kill -9 and a restart on the same ports both hold every acknowledged record and key."""
    topic = names.topic("survivor")
    create_topics(own_brokers.bootstrap, topic)
    produce(own_brokers.bootstrap, topic, [b"before"])
    with redis_client.Redis.from_url(own_brokers.redis_url) as client:
        client.set(f"{names.key_prefix}:k", b"v")

    own_brokers.kafka.kill()
    own_brokers.redis.kill()
    own_brokers.redis.start()
    own_brokers.kafka.start()

    produce(own_brokers.bootstrap, topic, [b"after"])
    assert consume(own_brokers.bootstrap, topic) == [b"before", b"after"]
    with redis_client.Redis.from_url(own_brokers.redis_url) as client:
        assert client.get(f"{names.key_prefix}:k") == b"v"


def test_a_second_start_adopts_what_runs(tmp_path):
    """Bringing the stack up twice leaves one Kafka and one Redis, and whoever comes second can stop both."""
    first = LocalStack(tmp_path, tools_dir=TOOLS).start()
    second = LocalStack(tmp_path, tools_dir=TOOLS)
    try:
        pids = (first.kafka.daemon.pid, first.redis.daemon.pid)
        second.start()
        assert (second.kafka.daemon.pid, second.redis.daemon.pid) == pids
        assert second.state == first.state
    finally:
        second.stop()
    assert not first.any_running
