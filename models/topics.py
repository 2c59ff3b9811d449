"""The topic registry: every topic Pulseline reads or writes, in one table.

A topic is named by its suffix, such as `cart.v1`; `topic_name` puts the deployment's prefix before it. All input topics
have the same number of partitions and the same key, because partition p of all of them together is one task.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from models.events import EVENTS_OF_TOPIC
from models.outputs import Metric, Outcome, RejectedHeaders, Score, TriggerCancelled, TriggerSent

DEFAULT_TOPIC_PREFIX = "engagement"
DAY_MS = 86_400_000
MIB = 1_048_576
TOPIC_NAME_CHARS_MAX = 249

Role = Literal["input", "output"]
TimestampType = Literal["LogAppendTime", "CreateTime"]

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One line of the registry.

    key: what a record's key is, as UTF-8. records: the classes of its values (of its headers for rejected.v1, whose
    values are the rejected ones). retention_ms None: kept for ever, compacted by key. partitions: "tasks" = as many as
    there are tasks, and a record stands in the partition of the input that caused it; "one" = one.
    control: carries control records besides.
    """

    suffix: str
    role: Role
    key: Literal["customer_id", "metric", "as rejected"]
    records: tuple[type[BaseModel], ...]
    retention_ms: int | None
    partitions: Literal["tasks", "one"] = "tasks"
    max_message_bytes: int = MIB
    timestamps: TimestampType = "LogAppendTime"
    control: bool = False

    @property
    def compacted(self) -> bool:
        return self.retention_ms is None

    def partition_count(self, tasks: int) -> int:
        """Return the number of partitions in a deployment of `tasks` tasks."""
        return tasks if self.partitions == "tasks" else 1

    def config(self, input_timestamps: TimestampType = "LogAppendTime") -> dict[str, str]:
        """Return the topic's configuration in Kafka's names; `input_timestamps` is the setting for input topics."""
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": input_timestamps if self.role == "input" else self.timestamps,
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        return config


def _input(suffix: str, *, control: bool = False) -> Topic:
    # 35 days: what state remembers for 30 (orders, windows, open carts) can be rebuilt from the log, with some grace.
    return Topic(
        suffix=suffix,
        role="input",
        key="customer_id",
        records=EVENTS_OF_TOPIC[suffix],
        retention_ms=35 * DAY_MS,
        control=control,
    )


TOPICS: dict[str, Topic] = {
    topic.suffix: topic
    for topic in (
        _input("clickstream.v1", control=True),
        _input("cart.v1", control=True),
        _input("email.v1"),
        _input("social.v1"),
        Topic(suffix="scores.v1", role="output", key="customer_id", records=(Score,), retention_ms=None),
        Topic(
            suffix="triggers.v1",
            role="output",
            key="customer_id",
            records=(TriggerSent, TriggerCancelled),
            retention_ms=14 * DAY_MS,
        ),
        Topic(suffix="outcomes.v1", role="output", key="customer_id", records=(Outcome,), retention_ms=14 * DAY_MS),
        Topic(
            suffix="metrics.v1", role="output", key="metric", records=(Metric,), retention_ms=DAY_MS, partitions="one"
        ),
        # A rejected record may be as large as the broker takes, and gains headers.
        Topic(
            suffix="rejected.v1",
            role="output",
            key="as rejected",
            records=(RejectedHeaders,),
            retention_ms=30 * DAY_MS,
            max_message_bytes=4 * MIB,
        ),
    )
}
INPUT_TOPICS: tuple[str, ...] = tuple(topic.suffix for topic in TOPICS.values() if topic.role == "input")
OUTPUT_TOPICS: tuple[str, ...] = tuple(topic.suffix for topic in TOPICS.values() if topic.role == "output")


def topic_name(prefix: str, suffix: str) -> str:
    """Return the name of a registered topic, such as engagement.cart.v1.

    Raises KeyError for a suffix that is not registered, ValueError where Kafka would refuse the name.
    """
    name = f"{prefix}.{TOPICS[suffix].suffix}"
    if not prefix or len(name) > TOPIC_NAME_CHARS_MAX or not _LEGAL_NAME.fullmatch(name):
        raise ValueError(
            f"topic prefix {prefix!r}: letters, digits, '.', '_' and '-', and at most {TOPIC_NAME_CHARS_MAX} in all"
        )
    return name


def topic_suffix(prefix: str, name: str) -> str:
    """Return the suffix of a topic's name; KeyError where it is none of this deployment's topics."""
    suffix = name.removeprefix(f"{prefix}.")
    if suffix == name or suffix not in TOPICS:
        raise KeyError(name)
    return suffix
