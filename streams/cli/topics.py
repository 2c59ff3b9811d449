"""`pulseline topics`: the topics as the registry (models/topics.py) says, created or compared."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from models.topics import TOPICS, Topic, topic_name
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.reach import kafka_errors, reach_kafka
from streams.errors import TopicProblem
from streams.settings import Settings, kafka_options

# A larger value than the registry's harms nobody, and lowering it could delete or refuse data.
GROWING = ("retention.ms", "max.message.bytes")
UNLIMITED = "-1"
VISIBLE_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a topic is not as the registry says. `kept`: more than asked for, and left so."""

    topic: str
    what: str
    found: str
    wanted: str
    kept: bool = False

    def __str__(self) -> str:
        if self.what == "topic":
            return f"{self.topic}: missing"
        note = ", which is more and stays" if self.kept else ""
        return f"{self.topic}: {self.what} is {self.found}, the registry says {self.wanted}{note}"


@contextlib.contextmanager
def admin_of(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Kafka's admin client; LogUnavailable where Kafka does not answer."""
    reach_kafka(settings)
    with (
        kafka_errors(settings),
        contextlib.closing(
            KafkaAdminClient(
                bootstrap_servers=settings.kafka_bootstrap.split(","),
                request_timeout_ms=settings.request_timeout_ms,
                **kafka_options(settings),
            )
        ) as admin,
    ):
        yield admin


def compare(admin: KafkaAdminClient, settings: Settings) -> list[Difference]:
    """Every way in which the topics are not as the registry says."""
    wanted = {topic_name(settings.topic_prefix, suffix): topic for suffix, topic in TOPICS.items()}
    existing: dict[str, dict[str, str]] = {name: {} for name in set(admin.list_topics()) & wanted.keys()}
    if existing:
        for described in admin.describe_topics(list(existing)):
            existing[described["name"]]["partitions"] = str(len(described["partitions"]))
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in existing]
        for name, entries in admin.describe_configs(asked, config_filter="all")["topic"].items():
            existing[name] |= {key: str(entry["value"]) for key, entry in entries.items()}
    found = []
    for name, topic in wanted.items():
        if name not in existing:
            found.append(Difference(name, "topic", "missing", "present"))
        else:
            found += _differences(name, topic, settings, existing[name])
    return found


def _differences(name: str, topic: Topic, settings: Settings, existing: dict[str, str]) -> Iterator[Difference]:
    wanted = {"partitions": str(topic.partition_count(settings.partitions))} | topic.config(settings.topic_timestamps)
    for what, value in wanted.items():
        if existing[what] != value:
            more = what in GROWING and (existing[what] == UNLIMITED or int(existing[what]) > int(value) >= 0)
            yield Difference(name, what, existing[what], value, kept=more)


def apply_topics(settings: Settings, *, replication_factor: int = -1) -> list[Difference]:
    """Create what is missing and correct configurations, never downwards; return what was changed.

    TopicProblem where a topic has another number of partitions: customers would change their partition.
    """
    with admin_of(settings) as admin:
        differences = [difference for difference in compare(admin, settings) if not difference.kept]
        wrong = [difference for difference in differences if difference.what == "partitions"]
        if wrong:
            raise TopicProblem(
                "; ".join(map(str, wrong)) + ". The number of partitions cannot change while data is in the topics: "
                "set PULSELINE_PARTITIONS to it, or take another PULSELINE_TOPIC_PREFIX."
            )
        _create(admin, settings, [each.topic for each in differences if each.what == "topic"], replication_factor)
        changed: dict[str, dict[str, str]] = {}
        for each in differences:
            if each.what != "topic":
                changed.setdefault(each.topic, {})[each.what] = each.wanted
        if changed:
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, config) for name, config in changed.items()]
            )
        if differences:
            _await(admin, settings)
        return differences


def _await(admin: KafkaAdminClient, settings: Settings) -> None:
    """Return once the broker shows what was applied: it answers before it has taken a change in."""
    end_s = time.monotonic() + VISIBLE_S_MAX
    while left := [difference for difference in compare(admin, settings) if not difference.kept]:
        if time.monotonic() > end_s:
            raise TopicProblem("Kafka did not take over: " + "; ".join(map(str, left)))
        time.sleep(0.05)


def _create(admin: KafkaAdminClient, settings: Settings, missing: list[str], replication_factor: int) -> None:
    if not missing:
        return
    wanted = {topic_name(settings.topic_prefix, suffix): topic for suffix, topic in TOPICS.items()}
    admin.create_topics(
        {
            name: {
                "num_partitions": wanted[name].partition_count(settings.partitions),
                "replication_factor": replication_factor,
                "configs": wanted[name].config(settings.topic_timestamps),
            }
            for name in missing
        }
    )
    admin.wait_for_topics(missing)


@click.group()
def topics() -> None:
    """Create the topics, or compare them with the registry."""


@topics.command("apply", cls=SettingsCommand)
@click.option("--replication-factor", default=-1, help="Copies of each new partition; default: the broker's.")
@takes_settings
def apply_command(settings: Settings, *, replication_factor: int) -> None:
    """Create what is missing and correct the rest; partitions, retention and sizes never shrink."""
    changed = apply_topics(settings, replication_factor=replication_factor)
    for difference in changed:
        click.echo(f"created {difference.topic}" if difference.what == "topic" else f"corrected {difference}")
    click.echo(f"{len(TOPICS)} topics of {settings.topic_prefix} are as the registry says")


@topics.command("check", cls=SettingsCommand)
@takes_settings
def check_command(settings: Settings) -> None:
    """Report every difference; exit code 1 unless the topics will do."""
    with admin_of(settings) as admin:
        differences = compare(admin, settings)
    for difference in differences:
        click.echo(str(difference))
    if any(not difference.kept for difference in differences):
        raise TopicProblem("`pulseline topics apply` corrects what can be corrected")
    click.echo(f"{len(TOPICS)} topics of {settings.topic_prefix} are as the registry says")
