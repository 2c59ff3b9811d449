"""The topic registry is the contract's."""

import pytest

from models.events import EVENTS_OF_TOPIC
from models.outputs import Metric, Outcome, RejectedHeaders, Score, TriggerCancelled, TriggerSent
from models.topics import INPUT_TOPICS, OUTPUT_TOPICS, TOPICS, topic_name, topic_suffix

DAY_MS = 86_400_000


def test_the_topics() -> None:
    """Four inputs and five outputs, by their public names."""
    assert [topic_name("engagement", suffix) for suffix in INPUT_TOPICS] == [
        "engagement.clickstream.v1",
        "engagement.cart.v1",
        "engagement.email.v1",
        "engagement.social.v1",
    ]
    assert [topic_name("engagement", suffix) for suffix in OUTPUT_TOPICS] == [
        "engagement.scores.v1",
        "engagement.triggers.v1",
        "engagement.outcomes.v1",
        "engagement.metrics.v1",
        "engagement.rejected.v1",
    ]
    assert list(TOPICS) == [*INPUT_TOPICS, *OUTPUT_TOPICS]


def test_records_of_each_topic() -> None:
    """The registry names the class of every record of every topic, and where control records may stand."""
    assert {suffix: TOPICS[suffix].records for suffix in INPUT_TOPICS} == EVENTS_OF_TOPIC
    assert [TOPICS[suffix].records for suffix in OUTPUT_TOPICS] == [
        (Score,),
        (TriggerSent, TriggerCancelled),
        (Outcome,),
        (Metric,),
        (RejectedHeaders,),
    ]
    assert [topic.suffix for topic in TOPICS.values() if topic.control] == ["clickstream.v1", "cart.v1"]


def test_keys_and_partitions() -> None:
    """Customers' records stand in the partition of their task; metrics are keyed by name in one partition."""
    assert {suffix: topic.key for suffix, topic in TOPICS.items() if topic.key != "customer_id"} == {
        "metrics.v1": "metric",
        "rejected.v1": "as rejected",
    }
    assert {topic.partition_count(16) for topic in TOPICS.values() if topic.suffix != "metrics.v1"} == {16}
    assert TOPICS["metrics.v1"].partition_count(16) == 1


def test_retention_and_size() -> None:
    """Scores are compacted; all else is kept for its time; a rejected record of the largest size fits."""
    days = {suffix: topic.retention_ms / DAY_MS for suffix, topic in TOPICS.items() if topic.retention_ms is not None}
    assert days == {
        **dict.fromkeys(INPUT_TOPICS, 35),
        "triggers.v1": 14,
        "outcomes.v1": 14,
        "metrics.v1": 1,
        "rejected.v1": 30,
    }
    assert [suffix for suffix, topic in TOPICS.items() if topic.compacted] == ["scores.v1"]
    assert {suffix for suffix, topic in TOPICS.items() if topic.max_message_bytes != 1_048_576} == {"rejected.v1"}
    assert TOPICS["rejected.v1"].max_message_bytes == 4 * 1_048_576


def test_configuration_in_kafkas_names() -> None:
    """What `topics apply` sets; the timestamp setting is for inputs alone."""
    assert TOPICS["cart.v1"].config() == {
        "cleanup.policy": "delete",
        "max.message.bytes": "1048576",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "3024000000",
    }
    assert TOPICS["cart.v1"].config("CreateTime")["message.timestamp.type"] == "CreateTime"
    assert TOPICS["scores.v1"].config("CreateTime") == {
        "cleanup.policy": "compact",
        "max.message.bytes": "1048576",
        "message.timestamp.type": "LogAppendTime",
    }


def test_names_and_suffixes() -> None:
    """A name is prefix.suffix; a prefix may have dots, and no topic of another prefix is taken for ours."""
    assert topic_name("eu.shop-1", "cart.v1") == "eu.shop-1.cart.v1"
    assert topic_suffix("eu.shop-1", "eu.shop-1.cart.v1") == "cart.v1"
    for foreign in ("shop-1.cart.v1", "cart.v1", "eu.shop-1.cart.v2", "eu.shop-1"):
        with pytest.raises(KeyError):
            topic_suffix("eu.shop-1", foreign)
    with pytest.raises(KeyError):
        topic_name("engagement", "carts.v1")


@pytest.mark.parametrize("prefix", ["", "a b", "ł", "a/b", "x" * 242])
def test_a_prefix_that_kafka_would_refuse(prefix: str) -> None:
    """Said at once, by name, not by the broker."""
    with pytest.raises(ValueError, match="topic prefix"):
        topic_name(prefix, "cart.v1")
    assert topic_name("x" * 241, "cart.v1")
