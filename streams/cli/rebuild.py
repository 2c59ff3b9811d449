"""`pulseline rebuild`: after the state was lost, prepare that the workers fold the retained log again."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, cast

import click
import msgspec
from kafka import TopicPartition

from models.topics import INPUT_TOPICS, topic_name
from streams.cli.ask import moment
from streams.cli.bulk import partition_for
from streams.cli.offline import Input, OfflineProblem, agree, commit_for, read_books, read_input, require_idle
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.progress import Waiting
from streams.cli.state import forget_app, redis_of
from streams.cli.tail import consumer_of, read_through
from streams.engagement.metric_memory import remembered
from streams.engagement.metric_values import Published
from streams.processing.book import Book, TopicBook
from streams.processing.metrics_publisher import HOLD_FIELD, WATERMARKS_FIELD, Hold
from streams.processing.ports import Commit
from streams.settings import Settings, redis_options
from streams.stores import keys
from streams.stores.redis import RedisStore

METRICS = "metrics.v1"
LOOKED_AT = 200
"""Of the oldest records of a partition, to see whether their customers belong there."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What there is: the input, the tasks that have state, and those that lost it (offsets, but no state).

    behind: those of the kept that have read less than the group had, as after a restored backup.
    """

    input: Input
    kept: Collection[int]
    lost: Collection[int]
    behind: Collection[int] = ()

    @property
    def records(self) -> int:
        """Records that will be folded again."""
        return sum(each.end - each.start for task in self.lost for each in self.input[task].values())

    @property
    def gone(self) -> int:
        """Records that the log held once and no longer does."""
        return sum(each.start for task in self.lost for each in self.input[task].values())


def find_loss(settings: Settings, *, discard: bool) -> Loss:
    """Compare Redis with Kafka; where the state is discarded, every task with offsets counts as lost."""
    found = read_input(settings)
    kept = {} if discard else {task: book for task, (_, book) in read_books(settings, settings.partitions).items()}
    behind = [
        task
        for task, book in kept.items()
        if any((each.committed or 0) > book.positions().get(topic, 0) for topic, each in found[task].items())
    ]
    lost = [
        task
        for task, topics in sorted(found.items())
        if task not in kept and any(each.committed is not None for each in topics.values())
    ]
    for task in (*lost, *behind):
        for topic, each in found[task].items():
            if each.committed is not None and each.committed > each.end:
                raise OfflineProblem(
                    f"task {task}, {topic}: the group's offset {each.committed} is beyond the log end {each.end}: it "
                    "belongs to another log. Check KAFKA_BOOTSTRAP and TOPIC_PREFIX; if the topics are new, take "
                    f"another APP_ID, or delete the offsets of the group {settings.app_id}"
                )
    if lost:
        require_in_place(settings, lost)
    return Loss(found, [*kept], lost, behind)


def require_in_place(settings: Settings, lost: Collection[int]) -> None:
    """OfflineProblem where the oldest records are of customers of other tasks, as after `pulseline repartition`."""
    left = Counter(
        {
            TopicPartition(topic_name(settings.topic_prefix, suffix), task): LOOKED_AT
            for suffix in INPUT_TOPICS
            for task in lost
        }
    )
    with consumer_of(settings) as consumer:
        consumer.assign(list(left))
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(list(left))
        while places := [
            place for place, number in left.items() if number > 0 and consumer.position(place) < ends[place]
        ]:
            consumer.pause(*(left.keys() - places))
            for place, records in consumer.poll(timeout_ms=500, max_records=LOOKED_AT).items():
                left[place] -= len(records)
                for record in records:
                    if record.key is not None and partition_for(record, 0, settings.partitions) != place.partition:
                        raise OfflineProblem(
                            f"{place.topic}[{place.partition}] still holds records of customers who belong to other "
                            "tasks, from before a repartition: a rebuild would tear them in two. Restore a backup"
                        )


def described(settings: Settings, loss: Loss) -> Iterator[str]:
    """What will happen, in lines."""
    yield f"{len(loss.lost)} of {settings.partitions} tasks of {settings.app_id} have offsets in Kafka, but no state"
    for topic in sorted({topic for task in loss.lost for topic in loss.input[task]}):
        parts = [loss.input[task][topic] for task in loss.lost]
        oldest = min((each.oldest_ms for each in parts if each.oldest_ms is not None), default=None)
        records, gone = sum(each.end - each.start for each in parts), sum(each.start for each in parts)
        since = "empty" if oldest is None else f"{records:,} records, the oldest of {moment(oldest)}"
        yield f"  {topic}: {since}" + (f"; {gone:,} older ones are gone" if gone else "")
    yield f"The workers will fold these {loss.records:,} records again. Then:"
    yield "* triggers, outcomes and rejected records below the group's offsets are not published again"
    yield "* scores are published again; metrics once all is folded, with a new state_since_ms"
    if loss.gone:
        yield "* lost is what only older records told: the faded rest of old events in scores, older carts and orders"


def prepare(settings: Settings, loss: Loss) -> None:
    """Write the beginning of each lost task; a task at a time, so whoever was interrupted begins again."""
    keep_metrics_told(settings, loss)
    fresh = {
        (topic, task): each.start
        for task in loss.lost
        for topic, each in loss.input[task].items()
        if each.committed is None
    }
    if fresh:
        commit_for(settings, fresh)
    asyncio.run(_begin(settings, loss))


async def _begin(settings: Settings, loss: Loss) -> None:
    from streams.app import plan_of

    store = RedisStore(
        settings.redis_url, settings.app_id, timeout_ms=settings.redis_timeout_ms, **redis_options(settings)
    )
    try:
        await store.check()
        schema = await store.deployment(plan_of(settings).deployment())
        now_ms = time.time_ns() // 1_000_000
        for task in loss.lost:
            topics = {name: TopicBook(position=each.start, since=each.start) for name, each in loss.input[task].items()}
            book = Book(since_ms=now_ms, topics=topics, schema=schema)
            await store.commit(Commit(partition=task, base=None, new=token_hex(8), meta=book.pack(), now_ms=now_ms))
    finally:
        await store.close()


def keep_metrics_told(settings: Settings, loss: Loss) -> None:
    """Remember what was published of the metrics, and hold them back until it is folded again."""
    key = keys.published(settings.app_id)
    with redis_of(settings) as client:
        hold: Hold = msgspec.json.decode(cast(bytes | None, client.hget(key, HOLD_FIELD)) or b"{}", type=Hold)
        before: dict[str, int] = msgspec.json.decode(cast(bytes | None, client.hget(key, WATERMARKS_FIELD)) or b"{}")
        windows, told = read_told(settings)
        for task in (*loss.lost, *loss.behind):
            hold[task] = {
                topic: each.committed for topic, each in loss.input[task].items() if each.committed is not None
            }
        written: dict[Any, bytes] = {window: msgspec.msgpack.encode(value) for window, value in windows.items()}
        reached = {name: max(at, before.get(name, at)) for name, at in told.items()}
        written[WATERMARKS_FIELD] = msgspec.json.encode({**before, **reached})
        written[HOLD_FIELD] = msgspec.json.encode(hold)
        client.hset(key, mapping=written)


def read_told(settings: Settings) -> tuple[dict[str, Published], dict[str, int]]:
    """What the metrics topic still tells, as the publisher remembers it, and the watermarks it was told for."""
    with Waiting(f"reading {topic_name(settings.topic_prefix, METRICS)}") as waiting:
        records = read_through(settings, [METRICS], lambda read, total: waiting.tick(f"{read:,} of {total:,}"))
        return remembered(json.loads(record.value) for _, record in records)


@click.command(cls=SettingsCommand)
@click.option("--discard-state", is_flag=True, help="Delete the state that is there, and rebuild all of it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_settings
def rebuild(settings: Settings, *, discard_state: bool, yes: bool) -> None:
    """Prepare that the workers fold the retained log again, for tasks whose state is lost. No worker may be active.

    A restored backup of Redis loses less; run after that, it lets the metrics go on with their revisions. Interrupted,
    it may be run again.
    """
    require_idle(settings)
    loss = find_loss(settings, discard=discard_state)
    if not loss.lost and not discard_state:
        missing = settings.partitions - len(loss.kept)
        first = f"; {missing} never began, and will" if missing else ""
        click.echo(f"Nothing is lost: {len(loss.kept)} of {settings.partitions} tasks have their state{first}.")
        if loss.behind:
            keep_metrics_told(settings, loss)
            click.echo(
                f"{len(loss.behind)} of them have read less than the group had, as after a restored backup: workers "
                "read on from there. Metrics are held back until they have, and then go on with their revisions."
            )
        return
    for line in described(settings, loss):
        click.echo(line)
    if discard_state:
        click.echo(f"All state of {settings.app_id} in Redis is DELETED first; this cannot be undone.")
    agree("Go on?", yes=yes)
    require_idle(settings)
    if discard_state:
        click.echo(f"deleted {forget_app(settings, published=not loss.lost):,} keys")
    if loss.lost:
        prepare(settings, loss)
    click.echo(f"{len(loss.lost)} tasks begin at the log's start. Start the workers: they rebuild the state.")
