"""What Redis holds, read for people: one customer's profile, and the account of all tasks. Nothing here writes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import redis

from streams.errors import StoreUnavailable
from streams.processing.book import Book, unpack_book
from streams.settings import Settings, mask, redis_options
from streams.stores import keys
from streams.stores.entry import refused
from streams.stores.keys import TaskKeys, partition_of

if TYPE_CHECKING:
    from streams.engagement.profile import Profile


@contextmanager
def redis_of(settings: Settings) -> Iterator["redis.Redis"]:
    """A client of the store; StoreUnavailable where it does not answer."""
    timeout_s = settings.redis_timeout_ms / 1_000
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        protocol=2,
        **redis_options(settings),
    )
    try:
        yield client
    except (redis.RedisError, OSError) as error:
        raise refused(error, f"Redis at {mask(settings.redis_url)}") or StoreUnavailable(
            f"Redis does not answer at {mask(settings.redis_url)} ({type(error).__name__}). "
            "`pulseline stack up` starts one here; PULSELINE_REDIS_URL names another."
        ) from error
    finally:
        client.close()


def read_profile(settings: Settings, customer_id: str) -> "Profile | None":
    """The profile as of its task's last commit; None where the state knows no such customer."""
    from streams.engagement.profile import Profile

    raw = customer_id.encode()
    key = TaskKeys(settings.app_id, partition_of(customer_id, settings.partitions)).state(raw)
    with redis_of(settings) as client:
        hot, cold = cast(list[bytes | None], client.hmget(key, [b"h:" + raw, b"c:" + raw]))
    return None if hot is None and cold is None else Profile.unpack(customer_id, hot, cold)


@dataclass(slots=True)
class Accounted:
    """What became of the records that the tasks have read: outcome (applied, duplicate, ...) -> number, and per topic.

    tasks: those that have state; active: those that have read at least one record.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    topics: dict[str, Counter[str]] = field(default_factory=dict)
    tasks: set[int] = field(default_factory=set)
    active: set[int] = field(default_factory=set)

    @property
    def records(self) -> int:
        return self.outcomes.total()

    @property
    def sent(self) -> int:
        """Records that producers sent: all but the workers' own control records."""
        return self.records - self.outcomes["control"]

    def take(self, task: int, book: Book) -> None:
        """Add the account of one task."""
        self.tasks.add(task)
        for name, topic in book.topics.items():
            account = Counter(topic.account())
            self.topics.setdefault(name, Counter()).update(account)
            self.outcomes.update(account)
            if account.total():
                self.active.add(task)


def accounted(settings: Settings) -> Accounted:
    """The account of all tasks, each as of its last commit."""
    found = Accounted()
    with redis_of(settings) as client:
        pipeline = client.pipeline(transaction=False)
        for task in range(settings.partitions):
            pipeline.hget(TaskKeys(settings.app_id, task).main, "meta")
        for task, meta in enumerate(cast(list[bytes | None], pipeline.execute())):
            if meta is not None:
                found.take(task, unpack_book(meta))
    return found


def forget_app(settings: Settings, *, published: bool = True) -> int:
    """Delete everything Redis holds of this APP_ID, for state that is made anew; return how many keys.

    published: also what was published of the metrics. Every task's `m` goes before the rest of it, so that no task is
    left that seems to have its state.
    """
    app, deployment = settings.app_id, keys.deployment(settings.app_id)
    with redis_of(settings) as client:
        stored = int(cast(bytes | None, client.hget(deployment, "partitions")) or 0)
        tasks = [TaskKeys(app, task) for task in range(max(stored, settings.partitions))]
        deleted = client.unlink(*[task.main for task in tasks])
        for task in tasks:
            deleted += client.unlink(*task.besides_main())
        return deleted + client.unlink(deployment, *([keys.published(app)] if published else []))
