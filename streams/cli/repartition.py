"""`pulseline repartition`: give a drained deployment a multiple of its tasks; each new one continues one old one.

With M = k x N tasks, the customers of task p go to p, p + N, p + 2N ...: every new task has one parent, whose clock and
beginning it takes over. What is moved is copied first, then removed; the deployment tells of it from the first change
to the last, so that no worker starts in between and an interrupted run is run again.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

import click

from models.topics import TOPICS, topic_name
from streams.cli.offline import Input, OfflineProblem, agree, commit_for, read_books, read_input, require_idle
from streams.cli.options import SettingsCommand, takes_settings
from streams.cli.progress import Waiting
from streams.cli.state import redis_of
from streams.cli.topics import VISIBLE_S_MAX, admin_of
from streams.engagement.accumulators import Key, field_of
from streams.engagement.rules import PLACED
from streams.engagement.windows import DAY_MS
from streams.errors import TopicProblem
from streams.processing.book import Book, TopicBook
from streams.settings import Settings
from streams.stores import keys
from streams.stores.deployment import GROWING_FIELD

if TYPE_CHECKING:
    from redis import Redis

PAGE = 1_000
NEVER_LESS = "Kafka never takes partitions away, and a new task continues one old one"


def check_target(settings: Settings, to: int) -> bool:
    """Whether an interrupted run to `to` tasks goes on; OfflineProblem where the deployment cannot become so many."""
    tasks = settings.partitions
    if to <= tasks or to % tasks:
        raise OfflineProblem(f"{tasks} tasks can become {2 * tasks}, {3 * tasks}, ..., not {to}: {NEVER_LESS}")
    with redis_of(settings) as client:
        stored = cast(dict[bytes, bytes], client.hgetall(keys.deployment(settings.app_id)))
    if stored.get(b"partitions") != str(tasks).encode():
        found = stored.get(b"partitions", b"no").decode()
        raise OfflineProblem(f"{settings.app_id} has {found} tasks in Redis, PULSELINE_PARTITIONS says {tasks}")
    begun = stored.get(GROWING_FIELD.encode())
    if begun is not None and begun != str(to).encode():
        raise OfflineProblem(f"a run to {begun.decode()} tasks was interrupted: run that one again first")
    return begun is not None


def require_drained(settings: Settings, found: Input, books: dict[int, tuple[str, Book]]) -> None:
    """Return if every task has read its log to the end and published what it decided; else OfflineProblem."""
    for task in range(settings.partitions):
        if task not in books:
            raise OfflineProblem(f"task {task} has no state: let the workers run until every task was claimed")
        positions = books[task][1].positions()
        for topic, each in found[task].items():
            unread = each.end - positions.get(topic, each.start)
            if unread or each.committed != positions.get(topic):
                raise OfflineProblem(
                    f"task {task}, {topic}: {unread} records are not read, or not all of it is published: stop the "
                    "producers, let the workers read everything, then stop them in order"
                )


def grow_topics(settings: Settings, to: int) -> None:
    """Give every topic with a partition a task as many as there will be, and wait until all brokers tell so."""
    wanted = {topic_name(settings.topic_prefix, suffix): topic.partition_count(to) for suffix, topic in TOPICS.items()}
    with admin_of(settings) as admin:

        def short() -> dict[str, int]:
            described = admin.describe_topics(list(wanted))
            found = {each["name"]: len(each["partitions"]) for each in described}
            return {name: number for name, number in wanted.items() if found[name] < number}

        left = short()
        if left:
            admin.create_partitions(left)
        end_s = time.monotonic() + VISIBLE_S_MAX
        while left := short():
            if time.monotonic() > end_s:
                raise TopicProblem(f"Kafka did not give more partitions to {', '.join(sorted(left))}")
            time.sleep(0.1)


def move(settings: Settings, to: int) -> Counter[int]:
    """Move customers, timers and sessions to their new tasks; return how many fields went to which. May be repeated."""
    found, tasks, app = read_input(settings, to), settings.partitions, settings.app_id
    books, done = read_books(settings, to), Counter[int]()
    new = [task for task in range(tasks, to) if task not in books]
    commit_for(settings, {(topic, task): each.start for task in new for topic, each in found[task].items()})
    with redis_of(settings) as client, Waiting("moving customers") as waiting:
        for task in new:
            client.unlink(*keys.TaskKeys(app, task).besides_main())
        for parent in range(tasks):
            children = {task for task in new if task % tasks == parent}
            for child, field_count in _copy(client, app, parent, to, children):
                done[child] += field_count
                waiting.tick(f"{done.total():,} fields")
            for child in children:
                book = continued(books[parent][1], found[child])
                client.hset(keys.TaskKeys(app, child).accumulators, placed_before(settings, books[parent][1]), 0)
                client.hset(keys.TaskKeys(app, child).main, mapping={"ver": token_hex(8), "meta": book})
        for parent in range(tasks):
            _remove(client, app, parent, to)
            client.hset(keys.TaskKeys(app, parent).main, "ver", token_hex(8))
    return done


def continued(parent: Book, logs: Any) -> bytes:
    """The book of a task that begins at the start of its partitions, with its parent's clock and beginning."""
    topics = {
        name: TopicBook(position=each.start, since=each.start, watermark_ms=parent.topics[name].watermark_ms)
        for name, each in logs.items()
    }
    return Book(since_ms=parent.since_ms, topics=topics, schema=parent.schema).pack()


def placed_before(settings: Settings, parent: Book) -> str:
    """The accumulator that lets a new task know of orders.

    One named again moves its count to an earlier time, and a task only moves what it has counted, or seems to have.
    """
    topic = settings.topic("cart")
    watermark_ms = max(0, parent.topics[topic].watermark_ms)
    return field_of(Key("events", (topic, PLACED), "events", "1d", watermark_ms - watermark_ms % DAY_MS))


def _copy(client: "Redis", app: str, parent: int, to: int, children: set[int]) -> Iterator[tuple[int, int]]:
    """Copy what belongs to the children; yields (child, fields) as it goes."""
    old = keys.TaskKeys(app, parent)
    for bucket, key in enumerate(old.states):
        for child, fields in _by_task(_fields(client, key), to, prefixed=True):
            if child in children:
                client.hset(keys.TaskKeys(app, child).states[bucket], mapping=cast(Any, fields))
                yield child, len(fields)
    for name in ("timers", "sessions"):
        for child, deadlines in _by_task(_deadlines(client, getattr(old, name)), to):
            if child in children:
                client.zadd(getattr(keys.TaskKeys(app, child), name), cast(Any, deadlines))


def _remove(client: "Redis", app: str, parent: int, to: int) -> None:
    """Remove from a parent what belongs to its children."""
    old = keys.TaskKeys(app, parent)
    for key in old.states:
        for task, fields in _by_task(_fields(client, key), to, prefixed=True):
            if task != parent:
                client.hdel(key, *fields)
    for key in (old.timers, old.sessions):
        for task, deadlines in _by_task(_deadlines(client, key), to):
            if task != parent:
                client.zrem(key, *deadlines)


def _fields(client: "Redis", key: str) -> Iterable[tuple[bytes, bytes]]:
    return cast(dict[bytes, bytes], client.hgetall(key)).items()


def _deadlines(client: "Redis", key: str) -> Iterable[tuple[bytes, float]]:
    return cast(list[tuple[bytes, float]], client.zrange(key, 0, -1, withscores=True))


def _by_task(
    entries: Iterable[tuple[bytes, Any]], to: int, *, prefixed: bool = False
) -> Iterator[tuple[int, dict[bytes, Any]]]:
    """Entries by the task of their customer, a page at a time; prefixed: two bytes stand before the customer's id."""
    pages: dict[int, dict[bytes, Any]] = {}
    for name, value in entries:
        task = keys.partition_of(name[2 * prefixed :].decode(), to)
        page = pages.setdefault(task, {})
        page[name] = value
        if len(page) >= PAGE:
            yield task, pages.pop(task)
    yield from pages.items()


@click.command(cls=SettingsCommand)
@click.option("--to", required=True, type=int, help="How many tasks there will be: a multiple of PARTITIONS.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_settings
def repartition(settings: Settings, *, to: int, yes: bool) -> None:
    """Give the deployment more tasks: its topics more partitions, and each customer's state a new place.

    Producers and workers must be stopped, everything read. PARTITIONS is the present number. It cannot be undone;
    interrupted, it must be run again. Backups of before, and a rebuild from records of before, are worth nothing then.
    """
    begun = check_target(settings, to)
    require_idle(settings)
    found = read_input(settings, to)
    if not begun:
        require_drained(settings, found, read_books(settings, settings.partitions))
        click.echo(
            f"{settings.app_id} and the topics of {settings.topic_prefix} go from {settings.partitions} to {to}."
        )
        agree("Are all producers stopped, and is there a backup of Redis? This cannot be undone. Go on?", yes=yes)
        require_idle(settings)
        with redis_of(settings) as client:
            client.hset(keys.deployment(settings.app_id), GROWING_FIELD, str(to))
    grow_topics(settings, to)
    moved = move(settings, to)
    with redis_of(settings) as client, client.pipeline() as pipeline:
        pipeline.hset(keys.deployment(settings.app_id), "partitions", str(to))
        pipeline.hdel(keys.deployment(settings.app_id), GROWING_FIELD)
        pipeline.execute()
    click.echo(f"Moved {moved.total():,} fields to {to - settings.partitions} new tasks.")
    require_silence(settings, to, found)
    click.echo(f"Set PULSELINE_PARTITIONS={to} for workers and commands, then start the workers and the producers.")


def require_silence(settings: Settings, to: int, before: Input) -> None:
    """OfflineProblem where producers wrote meanwhile: those records may lie with a task that no longer is theirs."""
    now = read_input(settings, to)
    written = {
        f"{topic}[{task}] from offset {before[task][topic].end}"
        for task in range(settings.partitions)
        for topic, each in now[task].items()
        if each.end != before[task][topic].end
    }
    if written:
        raise OfflineProblem(
            f"producers wrote meanwhile, so these may count for other tasks: {', '.join(sorted(written))}. "
            f"The deployment has {to} tasks now"
        )
