"""What the commands share that change a deployment while it stands still: nobody is at work, and a person agrees."""

import logging
from dataclasses import dataclass
from typing import Any

import click
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from models.topics import INPUT_TOPICS
from streams.cli.state import redis_of
from streams.cli.tail import consumer_of, partitions_of
from streams.cli.topics import admin_of
from streams.errors import LogUnavailable, PulselineError, TopicProblem
from streams.processing.book import Book, unpack_book
from streams.settings import Settings
from streams.stores import keys

IDLE = ("Empty", "Dead")


class OfflineProblem(PulselineError):
    """A command that changes a deployment while it stands still cannot do so now."""


def members(settings: Settings) -> list[dict[str, Any]]:
    """The members of the group, as Kafka describes them; a group that is rebalancing has at least one."""
    # It warns of every member whose assignment it cannot read, and Faust's is its own.
    logging.getLogger("kafka.admin").setLevel(logging.ERROR)
    with admin_of(settings) as admin:
        group = admin.describe_groups([settings.app_id])[settings.app_id]
    found: list[dict[str, Any]] = list(group["members"])
    return found if found or group["group_state"] in IDLE else [{"client_id": group["group_state"]}]


def require_idle(settings: Settings) -> None:
    """Return if no worker of the group is at work, else raise OfflineProblem."""
    active = members(settings)
    if active:
        raise OfflineProblem(
            f"the group {settings.app_id} has {len(active)} active worker(s): stop them first. One that was killed "
            f"counts until its session ends, {settings.session_timeout_ms / 1_000:g} s after its end"
        )


def agree(question: str, *, yes: bool) -> None:
    """Return if a person agrees, or did so beforehand; OfflineProblem where nobody can be asked."""
    if yes:
        return
    try:
        agreed = click.confirm(question)
    except click.Abort:
        raise OfflineProblem("nothing was changed: nobody agreed (--yes agrees beforehand)") from None
    if not agreed:
        raise OfflineProblem("nothing was changed")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of an input topic: its log, and the group's committed offset there (None: none)."""

    start: int
    end: int
    oldest_ms: int | None
    committed: int | None


Input = dict[int, dict[str, Partition]]
"""Task -> topic -> its partition."""


def read_input(settings: Settings, tasks: int | None = None) -> Input:
    """All partitions of all input topics; TopicProblem where there are more than tasks (PARTITIONS, unless given)."""
    with admin_of(settings) as admin:
        offsets = admin.list_group_offsets([settings.app_id])[settings.app_id]
    with consumer_of(settings) as consumer:
        places = partitions_of(consumer, settings, INPUT_TOPICS)
        starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        oldest = consumer.offsets_for_times(dict.fromkeys(places, 0))
    found: Input = {}
    for place in places:
        if place.partition >= (tasks or settings.partitions):
            raise TopicProblem(
                f"{place.topic} has more partitions than PULSELINE_PARTITIONS={settings.partitions}: see `pulseline "
                "topics check`"
            )
        first, committed = oldest.get(place), offsets.get(place)
        found.setdefault(place.partition, {})[place.topic] = Partition(
            start=starts[place],
            end=ends[place],
            oldest_ms=None if first is None else first.timestamp,
            committed=None if committed is None or committed.offset < 0 else committed.offset,
        )
    return found


def commit_for(settings: Settings, offsets: dict[tuple[str, int], int]) -> None:
    """Commit offsets of a group without members; (topic, partition) -> offset."""
    wanted = {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
    with admin_of(settings) as admin:
        answers = admin.alter_group_offsets(settings.app_id, wanted)
    failed = {getattr(answer, "__name__", str(answer)) for answer in answers.values()} - {"NoError"}
    if failed:
        raise LogUnavailable(f"Kafka did not take the offsets of the group {settings.app_id}: {', '.join(failed)}")


def read_books(settings: Settings, tasks: int) -> dict[int, tuple[str, Book]]:
    """(ver, book) of each task that has state."""
    with redis_of(settings) as client:
        pipeline = client.pipeline(transaction=False)
        for task in range(tasks):
            pipeline.hmget(keys.TaskKeys(settings.app_id, task).main, "ver", "meta")
        found = enumerate(pipeline.execute())
    return {task: (ver.decode(), unpack_book(meta)) for task, (ver, meta) in found if ver is not None}
