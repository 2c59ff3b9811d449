"""Claiming a task: read the state, check it against the log, take it over, finish what its last owner began."""

from collections.abc import Collection
from dataclasses import dataclass
from secrets import token_hex

from models.outputs import RejectedHeaders
from streams.engagement.profile import Profile
from streams.errors import LogMismatch, OffsetsLost, StateGap, StateLost
from streams.processing.book import Book, TopicBook, unpack_book
from streams.processing.outputs import OutputWriter, unpack_outputs
from streams.processing.plan import Plan
from streams.processing.ports import Clock, Commit, Log, OutRecord, StateStore, Stored
from streams.processing.task import Task


@dataclass(frozen=True, slots=True)
class Claims:
    """Steps 1 to 3 of the protocol, and the repeat of the stored commit's publication."""

    store: StateStore
    log: Log
    clock: Clock
    plan: Plan

    async def claim(self, partition: int, rejects: Collection[tuple[str, int]]) -> tuple[Task, dict[str, int]]:
        """Return the claimed task and where to fetch from, per input topic.

        Raises StateLost, OffsetsLost, StateGap, LogMismatch, DeploymentMismatch, NewerSchema; Retriable errors mean:
        try again.
        """
        await self.log.confirmed()
        schema = await self.store.deployment(self.plan.deployment())
        stored = await self.store.read(partition)
        committed = await self.log.committed(partition)
        bounds = await self.log.bounds(partition)
        if stored is None:
            await self._begin(partition, schema, committed, bounds)
        else:
            book = self._checked(partition, unpack_book(stored.meta), bounds, committed)
            self._require_offsets(partition, book, committed)
        if self.plan.exactly_once:
            await self.log.take_over(partition)
        ver = token_hex(8)
        claimed = await self.store.claim(partition, ver)
        # Asked again: until the claim the predecessor may have applied and committed records that came meanwhile.
        bounds = await self.log.bounds(partition)
        committed = await self.log.committed(partition)
        book = self._checked(partition, unpack_book(claimed.meta), bounds, committed)
        self._adopt_topics(book, bounds)
        book.schema = max(book.schema, schema)
        known = {topic: offset or 0 for topic, offset in committed.items()}
        task = Task(self.plan, partition, ver=ver, stored=claimed, book=book, committed=known, rejects=rejects)
        await self._finish_last_commit(task, claimed, committed)
        return task, self._seek(task, bounds)

    def mismatch(self, reason: Exception) -> LogMismatch:
        """The error of a log that is not the one the state was made from."""
        return LogMismatch(
            f"{reason}: the log is not the one this state was folded from; check KAFKA_BOOTSTRAP and APP_ID"
        )

    async def _begin(
        self, partition: int, schema: int, committed: dict[str, int | None], bounds: dict[str, tuple[int, int]]
    ) -> None:
        """First start (or rebuild): begin at the log start, write that, then commit it."""
        if any(offset is not None for offset in committed.values()) and not self.plan.rebuild:
            raise StateLost(
                f"task {partition}: the group {self.plan.app_id} has committed offsets, but Redis holds no state for "
                "them. Restore a backup of Redis, or stop all workers and run `pulseline rebuild` (or start one with "
                "--rebuild on) to fold the retained log again; outputs below the committed offsets are not repeated"
            )
        book = Book(since_ms=self.clock.wall_ms(), schema=schema)
        self._adopt_topics(book, bounds)
        await self.store.commit(
            Commit(partition=partition, base=None, new=token_hex(8), meta=book.pack(), now_ms=self.clock.wall_ms())
        )
        missing = {topic: position for topic, position in book.positions().items() if committed.get(topic) is None}
        if missing:
            await self.log.commit_offsets(partition, missing)

    def _adopt_topics(self, book: Book, bounds: dict[str, tuple[int, int]]) -> None:
        """Give a topic that is new to the state its own beginning, the log start."""
        for topic in self.plan.inputs:
            if topic not in book.topics:
                start = bounds[topic][0]
                book.topics[topic] = TopicBook(position=start, since=start)

    def _checked(
        self, partition: int, book: Book, bounds: dict[str, tuple[int, int]], committed: dict[str, int | None]
    ) -> Book:
        """Compare the positions with the log that answers now."""
        for topic, entry in book.topics.items():
            start, end = bounds[topic]
            if entry.position > end:
                raise self.mismatch(
                    LogMismatch(f"task {partition}, {topic}: position {entry.position} is beyond the log end {end}")
                )
            if entry.position < start and _begins(entry, committed.get(topic), start):
                entry.position = entry.since = start
            elif entry.position < start:
                if self.plan.on_gap != "continue":
                    raise StateGap(
                        f"task {partition}, {topic}: the state ends at offset {entry.position}, the log starts at "
                        f"{start}: {start - entry.position} records are gone. Restore a newer backup, or go on without "
                        "them with PULSELINE_ON_GAP=continue"
                    )
                entry.gap += start - entry.position
                entry.position = entry.since = start
                entry.last_offset = -1
        return book

    def _require_offsets(self, partition: int, book: Book, committed: dict[str, int | None]) -> None:
        """Exactly once, K tells what was published: where records were read, it must be there."""
        read = sum(sum(topic.account().values()) for topic in book.topics.values())
        if self.plan.exactly_once and read and any(committed.get(topic) is None for topic in book.topics):
            raise OffsetsLost(
                f"task {partition}: Redis holds its state, but the group {self.plan.app_id} has no committed offsets, "
                "so whether its last outputs were published cannot be told. Start once with "
                "PULSELINE_PROCESSING_GUARANTEE=at_least_once, which publishes them again and commits the offsets"
            )

    async def _finish_last_commit(self, task: Task, claimed: Stored, committed: dict[str, int | None]) -> None:
        """Publish what the stored commit may have left unpublished (steps 4 and 5 of that commit)."""
        known, positions, commit = task.committed, task.book.positions(), task.book.commit
        # Not told by K: a replay after a failover may end its commit exactly there.
        if self.plan.exactly_once and commit and await self.log.last_transaction(task.partition) == commit:
            return
        records, scored = unpack_outputs(task.partition, claimed.outputs)
        due = [record for record in records if self._unpublished(record, known)]
        if scored:
            # Whether they were published cannot be told from K: after a failover K may be ahead of this very commit,
            # while the replay has published older scores of the same customers.
            loaded = await self.store.load(task.partition, (task.ver,), scored)
            writer, now = OutputWriter(self.plan, task.partition), self.clock.wall_ms()
            due += [
                writer.score(Profile.unpack(customer, *packed), now) for customer, packed in loaded.items() if packed[0]
            ]
        offsets = {topic: max(position, known.get(topic, 0)) for topic, position in positions.items()}
        if self.plan.exactly_once:
            await self.log.transact(task.partition, due, offsets, commit)
            return
        if due:
            await self.log.publish(due)
        if offsets != committed:
            await self.log.commit_offsets(task.partition, offsets)

    def _unpublished(self, record: OutRecord, known: dict[str, int]) -> bool:
        """Whether it was decided at or above K: a rejected record by itself, all else by a record of the carts."""
        if record.topic == self.plan.rejected_topic:
            why = RejectedHeaders.read_from(record.headers)
            return why.offset >= known.get(why.topic, 0)
        return (record.at or 0) >= known.get(self.plan.cart_topic, 0)

    @staticmethod
    def _seek(task: Task, bounds: dict[str, tuple[int, int]]) -> dict[str, int]:
        """Fetch from the last applied record, to compare it, where the log still has it; else from the position."""
        seek = {}
        for topic, entry in task.book.topics.items():
            seek[topic] = entry.position
            if entry.last_offset >= bounds[topic][0]:
                seek[topic] = entry.last_offset
                task.expected[topic] = (entry.last_offset, entry.last_timestamp_ms)
        return seek


def _begins(entry: TopicBook, committed: int | None, start: int) -> bool:
    """Whether a rebuild has read nothing yet, so that it may as well begin where the log does by now.

    What went meanwhile was read before the state was lost; where it was not, it is a gap.
    """
    return entry.position == entry.since and entry.last_offset < 0 and (committed or 0) >= start
