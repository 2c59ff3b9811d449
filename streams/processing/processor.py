"""The async shell around the tasks of a worker: claims, loads, commits, releases. It acts; the tasks decide."""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from secrets import token_hex

from models.fields import EXACT_INTEGER_MAX
from streams.engagement.profile import Profile
from streams.errors import Fatal, Fenced, PulselineError, Retriable, TooManyFences
from streams.processing.book import HANDLER_WINDOW_RECORDS
from streams.processing.claims import Claims
from streams.processing.metrics_publisher import MetricsPublisher
from streams.processing.plan import Plan
from streams.processing.ports import Clock, Log, Run, StateStore
from streams.processing.punctuation import Punctuator
from streams.processing.task import Cut, FingerprintMismatch, HandlerFailed, Read, Task
from streams.processing.timers import Timers

logger = logging.getLogger(__name__)
Deadlines = list[tuple[str, int]]

BACKOFF_FIRST_MS, BACKOFF_MAX_MS = 100, 5_000
PAUSE_MS = 1_000
"""Outputs are published later than this after their EXEC began only where the task is still ours."""


class Processor:
    """All tasks of one worker.

    The transport sets `on_fenced` (pause the partition, claim it again) and `on_fatal` (stop the worker with it),
    asks `claim_of` which partitions may be fetched, and hands in runs; it never sees state.
    """

    def __init__(self, *, store: StateStore, log: Log, clock: Clock, plan: Plan) -> None:
        self.store, self.log, self.clock, self.plan = store, log, clock, plan
        self.tasks: dict[int, Task] = {}
        self.on_fenced: Callable[[int, Exception], None] = lambda _partition, _reason: None
        self.on_fatal: Callable[[Exception], None] = lambda _reason: None
        self.before_step: Callable[[str, int], Awaitable[None]] | None = None
        """Failpoint for tests: awaited with (step, partition) before each step of a commit."""
        self._claims = Claims(store=store, log=log, clock=clock, plan=plan)
        self._punctuator = Punctuator(log=log, clock=clock, plan=plan)
        self._metrics = MetricsPublisher(store=store, log=log, clock=clock, plan=plan)
        self._metrics_loop: asyncio.Task[None] | None = None
        self._loops: dict[int, asyncio.Task[None]] = {}
        self._applying: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._committing: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wake: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._drained: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._fences: dict[int, deque[int]] = defaultdict(deque)
        self.settled: dict[int, int] = {}
        """When each task committed, or looked whose it is, last: monotonic ms."""
        self.fenced = 0
        self.backoffs: Counter[str] = Counter()
        """How often each step waited for Kafka or Redis."""
        self._rejects: dict[int, set[tuple[str, int]]] = defaultdict(set)
        """By partition: topic and offset of the records that failed in the handler and may be read again."""

    # ------------------------------------------------------------------ claim, forget, release

    async def claim(self, partition: int) -> dict[str, int]:
        """Claim a task and return the offset to fetch from, per input topic; Retriable: try again, Fatal: stop."""
        self.forget((partition,))
        task, seek = await self._claims.claim(partition, self._rejects[partition])
        positions = task.book.positions()
        self._rejects[partition] = {(topic, at) for topic, at in task.rejects if at >= positions.get(topic, 0)}
        self.tasks[partition] = task
        self.settled[partition] = self.clock.monotonic_ms()
        self._loops[partition] = asyncio.create_task(self._commit_loop(task), name=f"commit-{partition}")
        if self._metrics_loop is None:
            self._metrics_loop = asyncio.create_task(self._publish_metrics(), name="metrics")
        return seek

    def claim_of(self, partition: int) -> str | None:
        """The tag of the claim under which a partition may be fetched now; None: not claimed."""
        task = self.tasks.get(partition)
        return None if task is None else task.claim

    def reached(self, partition: int) -> dict[str, tuple[int, int]]:
        """By topic, the next offset to apply and the time of the last record applied (epoch ms, -1: none)."""
        task = self.tasks.get(partition)
        topics = {} if task is None else task.book.topics
        return {name: (topic.position, topic.last_timestamp_ms) for name, topic in topics.items()}

    def forget(self, partitions: Collection[int]) -> None:
        """Drop the memory of tasks without committing."""
        for partition in partitions:
            self.tasks.pop(partition, None)
            self.settled.pop(partition, None)
            self.log.let_go(partition)
            self._punctuator.forget(partition)
            self._drained[partition].set()
            loop = self._loops.pop(partition, None)
            if loop is not None and loop is not asyncio.current_task():
                loop.cancel()

    async def release(self, partitions: Collection[int], deadline_ms: int) -> None:
        """Commit what the tasks hold, within deadline_ms, then forget them."""
        owned = [task for partition in partitions if (task := self.tasks.get(partition)) is not None]
        commits = [asyncio.create_task(self._last_commit(task)) for task in owned]
        try:
            if commits:
                await asyncio.wait(commits, timeout=deadline_ms / 1_000)
        finally:
            late = [commit for commit in commits if not commit.done()]
            for commit in late:
                commit.cancel()
            self.forget(partitions)
        if late:
            logger.warning("%d tasks were released before their last commit was confirmed; it is replayed", len(late))

    async def stop(self) -> None:
        """Forget everything and end the background work."""
        loops = list(self._loops.values())
        self.forget(list(self.tasks))
        if self._metrics_loop is not None:
            self._metrics_loop.cancel()
            loops.append(self._metrics_loop)
            self._metrics_loop = None
        await asyncio.gather(*loops, return_exceptions=True)

    def profile(self, customer_id: str) -> Profile | None:
        """The profile of a customer whose task keeps it in memory."""
        for task in self.tasks.values():
            found = task.profiles.get(customer_id)
            if found is not None:
                return found
        return None

    # ------------------------------------------------------------------ apply

    async def apply(self, run: Run) -> None:
        """Fold a run into its task; a run fetched under another claim is dropped."""
        async with self._applying[run.partition]:
            task = self._current(run)
            if task is None:
                return
            while task.full:
                # Also where the loop hangs in a comparison or a punctuation: memory is bounded whatever is away.
                self._wake[run.partition].set()
                self._drained[run.partition].clear()
                await self._drained[run.partition].wait()
                if self._current(run) is not task:
                    return
            try:
                read = await self._loaded(task, run)
                if self._current(run) is task:
                    task.apply(read)
            except FingerprintMismatch as mismatch:
                self.forget((run.partition,))
                self.on_fatal(self._claims.mismatch(mismatch))
            except HandlerFailed as failure:
                self._handler_failed(task, failure)
            except Fenced as reason:
                self._fenced(task, reason)
            except Exception:
                # The run is dropped, perhaps half applied: the next one must not be applied on top of that.
                self.forget((run.partition,))
                raise
            if task.full:
                self._wake[run.partition].set()

    def _current(self, run: Run) -> Task | None:
        task = self.tasks.get(run.partition)
        return task if task is not None and task.claim == run.claim else None

    async def _loaded(self, task: Task, run: Run) -> Read:
        """Decode the run and load every profile and timer it needs, waiting as long as the store is away."""
        read = task.read(run)
        backoff = BACKOFF_FIRST_MS
        while self._current(run) is task:
            vers = task.vers()
            try:
                await self._page_timers(task, read)
                missing = task.missing(read)
                if not missing:
                    break
                task.take(await self.store.load(task.partition, task.vers(), missing))
            except Retriable as error:
                if not isinstance(error, Fenced):
                    backoff = await self._back_off(backoff, "load", error)
                elif task.vers() == vers:
                    raise
                # Else a commit of this very task may have come between the question and the answer: ask again.
        return read

    async def _page_timers(self, task: Task, read: Read) -> None:
        """Bring stored deadlines into memory before a watermark passes them."""
        cart, session = task.watermarks_after(read)
        # Until neither lacks any: while the one is asked for, a commit may make those of the other leave memory.
        while task.timers.lacks(cart) or task.sessions.lacks(session):
            await self._page(task, task.timers, self.store.timers, cart)
            await self._page(task, task.sessions, self.store.sessions, session)

    async def _page(self, task: Task, timers: Timers, fetch: Callable[..., Awaitable[Deadlines]], until: int) -> None:
        limit = self.plan.timers_page
        while timers.lacks(until):
            after, trimmed = timers.horizon_ms or 0, timers.trimmed
            page = await fetch(task.partition, task.vers(), after, EXACT_INTEGER_MAX, limit)
            if timers.trimmed != trimmed:
                # A commit made deadlines leave memory meanwhile; the page may be from before it stored them.
                continue
            if len(page) < limit:
                timers.page(page, None)
            elif page[-1][1] > after:
                timers.page(page, page[-1][1])
            else:
                limit *= 2

    def _handler_failed(self, task: Task, failure: HandlerFailed) -> None:
        """A bug of ours: profiles changed in place cannot be undone, so replay with that record on the reject list."""
        rejects = self._rejects[task.partition]
        rejects.add((failure.topic, failure.offset))
        logger.error("applying a record failed; it will be rejected: %s", failure, exc_info=failure.__cause__)
        count = task.handler_failures(failure, rejects)
        if (failure.topic, failure.offset) in task.rejects:
            self._give_up(f"{failure} failed again although it is rejected: a timer that it releases fails")
        elif count >= self.plan.handler_failures_max:
            self._give_up(f"{failure}: {count} of the last {HANDLER_WINDOW_RECORDS} records failed in the handler")
        self.forget((task.partition,))
        self.on_fenced(task.partition, failure)

    def _give_up(self, why: str) -> None:
        self.on_fatal(
            PulselineError(
                f"{why}. The worker stops rather than reject the rest; nothing is lost, and the log tells where in the "
                "code it failed"
            )
        )

    def _fenced(self, task: Task, reason: Exception) -> None:
        """Forget the task's memory and let the transport claim it again, unless that happens too often."""
        if self.tasks.get(task.partition) is not task:
            return
        self.forget((task.partition,))
        self.fenced += 1
        now, fences = self.clock.monotonic_ms(), self._fences[task.partition]
        fences.append(now)
        while fences and now - fences[0] > 60_000:
            fences.popleft()
        logger.warning("task %d was fenced (%s); claiming it again", task.partition, reason)
        if len(fences) > self.plan.fences_per_minute_max:
            self.on_fatal(TooManyFences(f"task {task.partition} was fenced {len(fences)} times in a minute: {reason}"))
        self.on_fenced(task.partition, reason)

    # ------------------------------------------------------------------ commit

    async def _commit_loop(self, task: Task) -> None:
        """Commit each interval, or sooner when the task is full."""
        wake = self._wake[task.partition]
        while self.tasks.get(task.partition) is task:
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), self.plan.commit_interval_ms / 1_000)
            wake.clear()
            await self.tick(task.partition)

    async def tick(self, partition: int) -> None:
        """One turn of the commit loop: commit, or compare ver if there is nothing to do; then punctuate silent time."""
        task = self.tasks.get(partition)
        if task is None:
            return
        try:
            await self._commit(task)
            if self.tasks.get(partition) is task:
                self.settled[partition] = self.clock.monotonic_ms()
                await self._punctuator.maybe(task)
        except Fenced as reason:
            self._fenced(task, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops the worker, aloud
            self._broken(task, error)

    def _broken(self, task: Task, error: Exception) -> None:
        if not isinstance(error, Fatal):
            logger.error("the commit of task %d broke", task.partition, exc_info=error)
        self.on_fatal(error)

    async def _publish_metrics(self) -> None:
        """Publish live metrics each interval while this worker owns task 0."""
        while True:
            await asyncio.sleep(self.plan.metrics_interval_ms / 1_000)
            try:
                await self._metrics.tick(self.tasks)
            except Retriable as error:
                logger.warning("metrics were not published this time: %s", error)
            except Exception as error:
                logger.exception("the publication of metrics broke")
                self.on_fatal(error)

    async def _last_commit(self, task: Task) -> None:
        try:
            await self._commit(task)
            if self.tasks.get(task.partition) is task:
                # At once: its loop would begin another commit while other tasks end theirs, and be cut off in it.
                self.forget((task.partition,))
        except Fenced as reason:
            logger.warning("task %d was fenced at its last commit (%s)", task.partition, reason)
            if self.tasks.get(task.partition) is task:
                # At once, too: a commit that waits for this one would overwrite outputs that were not published.
                self.forget((task.partition,))
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops the worker, aloud
            self._broken(task, error)

    async def _commit(self, task: Task) -> None:
        """One commit: rejected, EXEC, outputs, offsets; each step repeated until it succeeds or the task is fenced."""
        async with self._committing[task.partition]:
            if self.tasks.get(task.partition) is not task:
                return
            cut = task.cut(token_hex(8), self.clock.wall_ms())
            self._drained[task.partition].set()
            if cut is None:
                await self._retry("compare", lambda: self._compare(task))
                return
            try:
                await self._carry_out(task, cut)
            except Fenced:
                raise
            except BaseException:
                # What was cut is nowhere else in memory: a later commit would move the positions past it for good.
                if self.tasks.get(task.partition) is task:
                    self.forget((task.partition,))
                raise

    async def _carry_out(self, task: Task, cut: Cut) -> None:
        await self._step("rejected", task, lambda: self.log.publish(cut.rejected), skip=not cut.rejected)
        begun_ms = self.clock.monotonic_ms()
        await self._step("exec", task, lambda: self.store.commit(cut.commit))
        task.written(cut)
        await self._publish_and_commit_offsets(task, cut, begun_ms)
        task.confirmed(cut)

    async def _publish_and_commit_offsets(self, task: Task, cut: Cut, begun_ms: int) -> None:
        async def still_ours() -> None:
            if self.clock.monotonic_ms() - begun_ms > PAUSE_MS:
                # Frozen or held up, perhaps beyond the session: a successor's newer scores must not be overtaken.
                await self._compare(task)

        async def publish() -> None:
            await still_ours()
            await self.log.publish(cut.outputs)

        async def transact() -> None:
            await still_ours()
            await self.log.transact(task.partition, cut.outputs, cut.offsets, cut.commit.new)

        if self.plan.exactly_once:
            await self._step("transaction", task, transact)
        else:
            await self._step("publish", task, publish, skip=not cut.outputs)
            await self._step("offsets", task, lambda: self.log.commit_offsets(task.partition, cut.offsets))

    async def _compare(self, task: Task) -> None:
        found = await self.store.ver(task.partition)
        if found != task.ver:
            raise Fenced("the stored ver is another")

    async def _step(self, name: str, task: Task, act: Callable[[], Awaitable[None]], *, skip: bool = False) -> None:
        if self.before_step is not None:
            await self.before_step(name, task.partition)
        if not skip:
            await self._retry(name, act)

    async def _retry(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        backoff = BACKOFF_FIRST_MS
        while True:
            try:
                return await act()
            except Retriable as error:
                if isinstance(error, Fenced):
                    raise
                backoff = await self._back_off(backoff, name, error)

    async def _back_off(self, backoff: int, name: str, error: Exception) -> int:
        """Wait, and say so once per step of the backoff."""
        self.backoffs[name] += 1
        logger.warning("%s: %s; trying again in %d ms", name, error, backoff)
        await asyncio.sleep(backoff / 1_000)
        return min(2 * backoff, BACKOFF_MAX_MS)
