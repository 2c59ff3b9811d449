"""`topics apply` and `check` against a real Kafka."""

import time

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from models.topics import TOPICS, topic_name
from streams.cli.topics import admin_of, apply_topics, compare
from streams.errors import LogUnavailable, TopicProblem
from streams.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(kafka_bootstrap, names) -> Settings:
    return Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=names.topic_prefix, partitions=3)


def alter(settings: Settings, suffix: str, **config: str) -> None:
    name = topic_name(settings.topic_prefix, suffix)
    named = {key.replace("_", "."): value for key, value in config.items()}
    with admin_of(settings) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, named)])
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            asked = [ConfigResource(ConfigResourceType.TOPIC, name)]
            shown = admin.describe_configs(asked, config_filter="all")["topic"][name]
            if all(shown[key]["value"] == value for key, value in named.items()):
                return
        raise AssertionError(f"{named} did not become visible")


def found(settings: Settings) -> list[str]:
    with admin_of(settings) as admin:
        return [str(difference).removeprefix(settings.topic_prefix + ".") for difference in compare(admin, settings)]


def test_applying_once_is_enough(settings):
    """All topics are missing, then created with partitions and configuration as registered, then left alone."""
    assert len(found(settings)) == len(TOPICS)
    assert {difference.what for difference in apply_topics(settings)} == {"topic"}
    assert found(settings) == []
    assert apply_topics(settings) == []
    with admin_of(settings) as admin:
        partitions = {
            described["name"]: len(described["partitions"])
            for described in admin.describe_topics([settings.topic("cart"), settings.topic("metrics")])
        }
    assert partitions == {settings.topic("cart"): 3, settings.topic("metrics"): 1}


def test_every_difference_is_told_and_corrected_but_never_downwards(settings):
    """Too short a retention, another clock or policy are corrected; a longer retention or larger size stays."""
    apply_topics(settings)
    alter(settings, "cart.v1", retention_ms="1000", message_timestamp_type="CreateTime")
    alter(settings, "scores.v1", cleanup_policy="delete")
    alter(settings, "triggers.v1", retention_ms="-1")
    alter(settings, "rejected.v1", max_message_bytes="8000000")
    assert sorted(found(settings)) == [
        "cart.v1: message.timestamp.type is CreateTime, the registry says LogAppendTime",
        "cart.v1: retention.ms is 1000, the registry says 3024000000",
        "rejected.v1: max.message.bytes is 8000000, the registry says 4194304, which is more and stays",
        "scores.v1: cleanup.policy is delete, the registry says compact",
        "triggers.v1: retention.ms is -1, the registry says 1209600000, which is more and stays",
    ]
    assert len(apply_topics(settings)) == 3
    assert [line.partition(":")[0] for line in sorted(found(settings))] == ["rejected.v1", "triggers.v1"]


def test_another_number_of_partitions_is_never_changed(settings):
    """Customers would change their task: a person decides."""
    apply_topics(settings)
    wider = settings.model_copy(update={"partitions": 4})
    assert "cart.v1: partitions is 3, the registry says 4" in found(wider)
    with pytest.raises(TopicProblem, match="PULSELINE_PARTITIONS"):
        apply_topics(wider)
    assert found(settings) == []


def test_the_clock_of_input_topics_is_a_setting(settings):
    """With CreateTime only the input topics change."""
    history = settings.model_copy(update={"topic_timestamps": "CreateTime"})
    apply_topics(history)
    assert {line.partition(":")[0] for line in found(settings)} == {
        suffix for suffix, topic in TOPICS.items() if topic.role == "input"
    }


def test_a_kafka_that_is_not_there_is_told(settings):
    """LogUnavailable with the address, and what to do."""
    absent = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1", "request_timeout_ms": 500})
    with pytest.raises(LogUnavailable, match="pulseline stack up"):
        apply_topics(absent)
