"""Every key Pulseline keeps in Redis, on one page.

```
{app:p}:m       hash    ver (random id of the last commit), meta (the task's packed book: offsets, watermarks, since)
{app:p}:s:xx    hash    256 buckets of customers; fields h:<customer id> (hot) and c:<customer id> (cold)
{app:p}:t       zset    customer id -> earliest timer, epoch ms
{app:p}:e       zset    customer id -> end of the oldest open session, epoch ms
{app:p}:o       string  outputs of the last commit
{app:p}:a       hash    metric accumulators -> absolute integer
{app:p}:ad      hash    what changed lately: f:<accumulator> and v:<ver> -> number of the commit since the claim
{app:0}:r       hash    what the metrics publisher published
{app}:deployment hash   partitions, group, contract, topics
```
The braces are Redis' hash tag: all keys of a task lie in one slot, so one MULTI may change them all.
"""

import re

from xxhash import xxh3_64_intdigest

from streams.errors import InvalidSettings

BUCKETS = 256
_APP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_app_id(app_id: str) -> str:
    """Return the APP_ID if it can be part of a key, else raise InvalidSettings.

    A brace would end the hash tag and spread a task over slots; a colon would let two deployments meet in one key
    (`{a:1}:deployment` of the one is in the slot and the namespace of task 1 of the other).
    """
    if not _APP_ID.fullmatch(app_id):
        raise InvalidSettings(
            f"APP_ID {app_id!r} cannot name keys in Redis: "
            "use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
        )
    return app_id


def bucket(customer: bytes) -> int:
    """Bucket of a customer id in UTF-8: 0..255."""
    return xxh3_64_intdigest(customer) & (BUCKETS - 1)


def partition_of(customer_id: str, partitions: int) -> int:
    """The task that owns a customer: Kafka's default partitioner over the UTF-8 customer id.

    >>> partition_of("c-1", 16) == partition_of("c-1", 16)
    True
    """
    from aiokafka.partitioner import murmur2

    return int(murmur2(customer_id.encode()) & 0x7FFFFFFF) % partitions


def deployment(app_id: str) -> str:
    """Key of the deployment record, shared by all tasks."""
    return f"{{{app_id}}}:deployment"


def published(app_id: str) -> str:
    """Key of what the metrics publisher published; it lies with task 0, whose owner publishes."""
    return f"{{{app_id}:0}}:r"


class TaskKeys:
    """The keys of one task.

    >>> TaskKeys("shop", 3).main, TaskKeys("shop", 3).states[255]
    ('{shop:3}:m', '{shop:3}:s:ff')
    """

    __slots__ = ("accumulators", "changed", "main", "outputs", "sessions", "states", "timers")

    def __init__(self, app_id: str, partition: int) -> None:
        tag = f"{{{app_id}:{partition}}}"
        self.main = f"{tag}:m"
        self.states = [f"{tag}:s:{number:02x}" for number in range(BUCKETS)]
        self.timers = f"{tag}:t"
        self.sessions = f"{tag}:e"
        self.outputs = f"{tag}:o"
        self.accumulators = f"{tag}:a"
        self.changed = f"{tag}:ad"

    def state(self, customer: bytes) -> str:
        """Key of the bucket that holds a customer."""
        return self.states[bucket(customer)]

    def besides_main(self) -> list[str]:
        """All keys of the task but `main`."""
        return [*self.states, self.timers, self.sessions, self.outputs, self.accumulators, self.changed]
