"""Live metrics: the owner of task 0 adds up the accumulators of all tasks and publishes what changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from models.outputs import cloudevent_headers, metric_id
from streams.engagement.metric_values import Published, Revision, Totals, least_watermarks, outdated, revise
from streams.errors import Fenced
from streams.processing.book import Book, unpack_book
from streams.processing.plan import Plan
from streams.processing.ports import Clock, Log, OutRecord, StateStore
from streams.processing.task import Task

WATERMARKS_FIELD = "#watermarks"
HOLD_FIELD = "#hold"
"""Task -> topic -> offset up to which a rebuild must have folded: what was told before is not told in part again."""
WRITE_ATTEMPTS = 5

Hold = dict[int, dict[str, int]]


@dataclass(slots=True)
class MetricsPublisher:
    """Reads every task's accumulators from the store, whoever owns them; what was published is remembered in the store.

    A record is remembered before it is published; a new owner of task 0 publishes the remembered ones again once, as
    its predecessor may have died between the two (same revision: readers see no difference).
    """

    store: StateStore
    log: Log
    clock: Clock
    plan: Plan
    _claim: str | None = None
    _published: dict[str, Published] = field(default_factory=dict)
    _since: dict[str, int] = field(default_factory=dict)
    _hold: Hold = field(default_factory=dict)
    _totals: Totals = field(default_factory=Totals)
    _read: dict[int, tuple[str | None, dict[str, int]]] = field(default_factory=dict)

    async def tick(self, tasks: Mapping[int, Task]) -> None:
        """Publish once if task 0 is among the tasks; tell all of them up to where metrics are published."""
        owner = tasks.get(0)
        if owner is not None:
            await self._publish(owner, tasks)
            watermarks = self._since
        else:
            packed = await self.store.published_field(WATERMARKS_FIELD)
            watermarks = {} if packed is None else msgspec.json.decode(packed, type=dict[str, int])
        for task in tasks.values():
            task.published_watermarks = watermarks

    async def _publish(self, owner: Task, tasks: Mapping[int, Task]) -> None:
        first = self._claim != owner.claim
        if first:
            await self._load(owner)
        books = await self._books()
        if not _folded(self._hold, books):
            self._claim = None
            return
        watermarks, since_ms = self._of_all(books)
        for partition in range(self.plan.partitions):
            await self._add_up(partition)
        values = self._totals.values(watermarks, self._since, since_ms)
        revisions = revise(self._published, values)
        known = {revision.value.key for revision in revisions}
        repeated = [
            Revision(value, self._published[value.key].revision)
            for value in values
            if first and value.key in self._published and value.key not in known
        ]
        changes = {revision.value.key: revision.published for revision in revisions}
        gone = [key for key in outdated(self._published, watermarks) if key not in changes]
        # Whatever goes wrong from here on, the next turn begins anew: it loads what is remembered and repeats it.
        self._claim = None
        if await self._remember(owner, tasks, changes, gone, watermarks):
            await self.log.publish([self._record(revision, since_ms) for revision in (*repeated, *revisions)])
            self._claim = owner.claim

    async def _load(self, owner: Task) -> None:
        """Begin as the owner of task 0 with what was published before."""
        stored = await self.store.published()
        hold = stored.pop(HOLD_FIELD, None)
        self._hold = {} if hold is None else msgspec.json.decode(hold, type=Hold)
        packed = stored.pop(WATERMARKS_FIELD, None)
        self._since = {} if packed is None else msgspec.json.decode(packed, type=dict[str, int])
        self._published = {key: msgspec.msgpack.decode(value, type=Published) for key, value in stored.items()}
        self._read, self._totals, self._claim = {}, Totals(), owner.claim

    async def _books(self) -> dict[int, Book]:
        """The book of every task that has begun.

        Read before the accumulators, so that these are at least as new: no window is called final too early.
        """
        read = {partition: await self.store.read(partition) for partition in range(self.plan.partitions)}
        return {partition: unpack_book(stored.meta) for partition, stored in read.items() if stored is not None}

    def _of_all(self, books: Mapping[int, Book]) -> tuple[dict[str, int], int]:
        """Least watermark of each channel over all tasks, and when the oldest state began.

        A task that was never claimed holds every watermark back.
        """
        if len(books) < self.plan.partitions:
            return {}, self.clock.wall_ms()
        watermarks = least_watermarks([book.watermarks(self.plan.inputs) for book in books.values()])
        return watermarks, min(book.since_ms for book in books.values())

    async def _add_up(self, partition: int) -> None:
        """Take what changed in a task's accumulators into the totals; only that travels."""
        ver, fields = self._read.get(partition, (None, {}))
        read = await self.store.accumulators_changed(partition, ver)
        gone = dict.fromkeys(fields.keys() - read.fields.keys()) if read.whole else {}
        for name, value in {**gone, **read.fields}.items():
            before = fields.pop(name, 0)
            if value is not None:
                fields[name] = value
            self._totals.add(name, (value or 0) - before)
        self._read[partition] = (read.ver, fields)

    async def _remember(
        self,
        owner: Task,
        tasks: Mapping[int, Task],
        changes: Mapping[str, Published],
        gone: list[str],
        watermarks: Mapping[str, int],
    ) -> bool:
        """Write down what is about to be published; False where task 0 is no longer ours."""
        packed: dict[str, bytes | None] = {key: msgspec.msgpack.encode(value) for key, value in changes.items()}
        packed |= dict.fromkeys(gone)
        reached = self._totals.reached(watermarks, self._since)
        packed[WATERMARKS_FIELD] = msgspec.json.encode(reached)
        if self._hold:
            packed[HOLD_FIELD] = None
        for _ in range(WRITE_ATTEMPTS):
            if tasks.get(0) is not owner:
                return False
            try:
                # The task commits meanwhile, so the ver may be one newer than the one asked for.
                await self.store.write_published(owner.vers(), packed)
            except Fenced:
                continue
            self._published.update(changes)
            for key in gone:
                del self._published[key]
            self._since, self._hold = reached, {}
            return True
        return False

    def _record(self, revision: Revision, since_ms: int) -> OutRecord:
        value = revision.value
        name = value.metric.name
        ce_id = metric_id(name, value.dimensions, value.window, value.window_start_ms, revision.revision)
        headers = cloudevent_headers(self.plan.app_id, "metrics.v1", ce_id, self.clock.wall_ms(), name)
        return OutRecord(
            self.plan.metrics_topic, 0, name.encode(), msgspec.json.encode(revision.record(since_ms)), headers
        )


def _folded(hold: Hold, books: Mapping[int, Book]) -> bool:
    """Whether every task that is rebuilt has read what the group had read before."""
    return all(
        partition in books and books[partition].positions().get(topic, 0) >= offset
        for partition, topics in hold.items()
        for topic, offset in topics.items()
    )
