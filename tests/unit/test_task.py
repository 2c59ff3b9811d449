"""A task at its edges: what moves a watermark, what is muted, what a bound lets through, what is told of a score."""

from collections.abc import Awaitable, Callable, Collection

import pytest

from streams.engagement.profile import Profile
from streams.errors import StateLost, StoreUnavailable
from streams.processing.book import TopicBook
from streams.processing.task import Task
from streams.processing.timers import Timers
from tests.support.world import CART, CLICK, OUTCOMES, REJECTED, SCORES, TRIGGERS, Worker, World

pytestmark = pytest.mark.asyncio

NEVER = 1 << 60
MINUTE = 60_000


def task_of(worker: Worker) -> Task:
    return worker.processor.tasks[0]


def watermark(worker: Worker, topic: str = CLICK) -> int:
    return task_of(worker).book.topics[topic].watermark_ms


class TestWatermark:
    """wm = max(min(occurred_at, record time)) - lateness, and never back."""

    async def test_an_event_ahead_of_its_record_is_capped(self) -> None:
        """A customer's clock three minutes ahead makes nothing of the others late."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/", occurred_at_ms=world.clock.now_ms + 3 * MINUTE)
        await world.poll(worker)
        assert watermark(worker) == world.clock.now_ms - 2_000

    async def test_an_older_event_moves_nothing_back(self) -> None:
        """What comes late, in a newer record, leaves the watermark where it is."""
        world = World()
        worker = await world.started()
        reached = world.clock.now_ms - 2_000
        world.send("page_viewed", url="/")
        world.clock.advance(1_000)
        world.send("page_viewed", url="/", occurred_at_ms=world.clock.now_ms - MINUTE)
        await world.poll(worker)
        assert watermark(worker) == reached

    async def test_an_older_record_moves_nothing_back(self) -> None:
        """Where the topic keeps the writers' own times, records may come with earlier ones."""
        world = World()
        worker = await world.started()
        reached = world.clock.now_ms - 2_000
        world.send("page_viewed", url="/")
        offset = world.send("page_viewed", url="/", occurred_at_ms=world.clock.now_ms + 1_000)
        world.broker.inputs[CLICK, 0][offset].timestamp -= MINUTE
        await world.poll(worker)
        assert watermark(worker) == reached

    async def test_rubbish_moves_nothing(self) -> None:
        """A rejected record says nothing about time, whatever its own."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        await world.poll(worker)
        reached = watermark(worker)
        world.clock.advance(MINUTE)
        world.raw(CLICK, b"rubbish")
        await world.poll(worker)
        assert watermark(worker) == reached


class TestReading:
    """Each record once, whatever is handed over."""

    async def test_records_below_the_position_are_skipped(self) -> None:
        """A run that overlaps what was applied counts what is new alone."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        await world.poll(worker)
        world.send("page_viewed", url="/")
        claim = worker.processor.claim_of(0)
        assert claim is not None
        await worker.processor.apply(world.broker.fetch(CLICK, 0, 0, 10, claim))
        assert world.account(worker)[CLICK]["applied"] == 2
        assert world.account(worker)[CLICK]["duplicate"] == 0

    async def test_rejected_below_k_is_not_published_again(self) -> None:
        """A replay rejects the record again in the account, and tells nobody twice; at K it is told."""
        world = World()
        worker = await world.started()
        world.raw(CLICK, b"rubbish")
        await world.settle(worker)
        assert len(world.broker.outputs[REJECTED]) == 1
        world.store.fail_over(1)
        await worker.processor.tick(0)
        await world.claim(worker)
        world.raw(CLICK, b"more")
        await world.settle(worker)
        assert [record.value for record in world.broker.outputs[REJECTED]] == [b"rubbish", b"more"]
        assert world.account(worker)[CLICK]["rejected"] == 2

    async def test_a_record_that_failed_is_known_by_its_topic_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The record at the same offset of another topic is none the worse."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", "bad", url="/")
        world.send("cart_viewed", "good")
        apply = Profile.apply

        def broken(self: Profile, *args: object) -> bool:
            if self.customer_id == "bad":
                raise ZeroDivisionError
            return apply(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Profile, "apply", broken)
        await world.poll(worker)
        await world.claim(worker)
        await world.settle(worker)
        account = world.account(worker)
        assert (account[CLICK]["rejected"], account[CART]["rejected"], account[CART]["applied"]) == (1, 0, 1)

    async def test_what_is_no_customer_makes_no_profile(self) -> None:
        """The followers of a network are counted under its name, which nobody scores."""
        world = World()
        worker = await world.started()
        world.send("audience_counted", "n", network="n", followers=5)
        await world.settle(worker)
        assert world.account(worker)["engagement.social.v1"]["applied"] == 1
        assert task_of(worker).profiles == {}
        assert world.published(SCORES) == []

    async def test_what_memory_holds_wins_over_what_is_loaded(self) -> None:
        """A profile in memory is never behind the stored one."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        await world.poll(worker)
        task_of(worker).take({"c-1": (None, None)})
        assert task_of(worker).profiles["c-1"].rev == 1


class TestBounds:
    """When a commit is due before its time, and who may leave memory."""

    async def test_customers(self) -> None:
        """The last customer that fits makes the task full."""
        world = World(dirty_customers_max=2)
        worker = await world.started()
        world.send("page_viewed", "a", url="/")
        await world.poll(worker)
        assert not task_of(worker).full
        world.send("page_viewed", "b", url="/")
        await world.poll(worker)
        assert task_of(worker).full

    async def test_bytes(self) -> None:
        """A rejected record counts as long as it is and 512 bytes more, a decision as 1,024."""
        world = World(pending_bytes_max=512 + 8)
        worker = await world.started()
        world.raw(CLICK, b"rubbish")
        await world.poll(worker)
        assert not task_of(worker).full
        await worker.processor.tick(0)
        world.raw(CLICK, b"rubbish!")
        await world.poll(worker)
        assert task_of(worker).full

    async def test_bytes_of_decisions(self) -> None:
        """A thousand triggers of one watermark are not held back for the interval."""
        world = World(pending_bytes_max=2 * 1_024)
        worker = await world.started()
        for customer in ("a", "b"):
            world.send("product_added", customer, product_id="p")
        await world.poll(worker)
        world.clock.advance(18_000)
        assert not task_of(worker).full
        world.send("cart_viewed", "z")
        await world.poll(worker)
        assert len(task_of(worker).decisions) == 2
        assert task_of(worker).full

    async def test_accumulators_expire(self) -> None:
        """Buckets that no metric needs any more leave memory and store."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        world.send("cart_viewed")
        await world.settle(worker)
        old = set(await world.store.accumulators(0))
        world.clock.advance(400 * 1_440 * MINUTE)
        for kind in ("page_viewed", "cart_viewed"):
            world.send(kind)
        await world.poll(worker)
        task_of(worker).published_watermarks = {"clickstream": world.clock.now_ms, "cart": world.clock.now_ms}
        await world.settle(worker)
        left = await world.store.accumulators(0)
        assert old
        assert not old & left.keys()

    async def test_accumulators_stay_while_nobody_knows_what_was_published(self) -> None:
        """And up to what was published, however far this task is."""
        world = World()
        worker = await world.started()
        published = {"clickstream": world.clock.now_ms - MINUTE}
        world.send("page_viewed", url="/")
        await world.settle(worker)
        old = set(await world.store.accumulators(0))
        for known in (None, published):
            world.clock.advance(200 * 1_440 * MINUTE)
            world.send("page_viewed", url="/")
            await world.poll(worker)
            task_of(worker).published_watermarks = known
            await world.settle(worker)
            assert old <= set(await world.store.accumulators(0))


async def during(worker: Worker, step: str, act: Callable[[], Awaitable[object]]) -> None:
    """Commit once, doing something before one of its steps."""

    async def before(name: str, _partition: int) -> None:
        if name == step:
            worker.processor.before_step = None
            await act()

    worker.processor.before_step = before
    await worker.processor.tick(0)


async def test_who_changed_since_the_cut_stays_in_memory() -> None:
    """The commit in flight does not hold the change, so nothing could be loaded that does."""
    world = World(profiles_max=1)
    worker = await world.started()
    for customer in ("a", "b"):
        world.send("page_viewed", customer, url="/")
    await world.poll(worker)
    for customer in ("a", "b"):
        world.send("page_viewed", customer, url="/")
    await during(worker, "offsets", lambda: world.poll(worker))
    assert set(task_of(worker).profiles) == {"a", "b"}
    world.send("page_viewed", "a", url="/")
    await world.settle(worker)
    assert len(task_of(worker).profiles) == 1
    world.send("page_viewed", "a", url="/")
    await world.poll(worker)
    assert task_of(worker).profiles["a"].rev == 4


async def test_nobody_leaves_memory_before_his_commit_is_confirmed() -> None:
    """Until then the store may still hold him as he was."""
    world = World(profiles_max=1)
    worker = await world.started()
    for customer in ("a", "b"):
        world.send("page_viewed", customer, url="/")
    await world.poll(worker)
    held: list[int] = []

    async def look() -> None:
        held.append(len(task_of(worker).profiles))

    for step in ("exec", "publish"):
        await during(worker, step, look)
        world.send("page_viewed", "a", url="/")
        world.send("page_viewed", "b", url="/")
        await world.poll(worker)
    assert held == [2, 2]


async def test_a_load_between_exec_and_its_answer_is_no_fence() -> None:
    """It finds the ver that is being written, which is this worker's own."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", "a", url="/")
    await world.poll(worker)
    world.send("page_viewed", "b", url="/")

    async def load(when: str, operation: str, _partition: int) -> None:
        if (when, operation) == ("after", "commit"):
            world.store.on_step = None
            await world.poll(worker)

    world.store.on_step = load
    await worker.processor.tick(0)
    assert worker.fenced == []
    assert set(task_of(worker).profiles) == {"a", "b"}


async def test_timers_are_paged_in_as_far_as_the_watermark_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However full the pages are; and what the watermark does not reach stays in the store."""
    world = World(timers_page=2, punctuation=False)
    worker = await world.started()
    for number in range(9):
        world.send("product_added", f"c-{number}", product_id="p")
        world.clock.advance(1_000)
    world.clock.advance(3_000)
    world.send("cart_viewed", "z")
    await world.settle(worker)
    successor = await world.started()
    first_ms = task_of(successor).timers.first()
    assert first_ms is not None
    task_of(successor).timers = Timers([("c-0", first_ms)], complete=False)
    fetch, limits = world.store.timers, set[int]()

    async def noted(partition: int, vers: Collection[str], after: int, until: int, limit: int) -> list[tuple[str, int]]:
        limits.add(limit)
        return await fetch(partition, vers, after, until, limit)

    monkeypatch.setattr(world.store, "timers", noted)
    world.clock.advance(9_000)
    world.send("cart_viewed", "z")
    await world.settle(successor)
    assert {trigger["customer_id"] for trigger in world.published(TRIGGERS)} == {f"c-{number}" for number in range(4)}
    assert task_of(successor).timers.horizon_ms == first_ms + 4_000
    assert limits == {2}


async def test_deadlines_in_memory_are_bounded() -> None:
    """Those of carts and those of sessions: beyond the limit the later half is left to the store."""
    world = World(timers_max=4, punctuation=False)
    worker = await world.started()
    for number in range(9):
        world.send("product_added", f"c-{number}", product_id="p")
        world.clock.advance(1_000)
    await world.settle(worker)
    task = task_of(worker)
    assert [len(timers._known) for timers in (task.timers, task.sessions)] == [2, 2]


class TestScores:
    """Which changes of a score are told."""

    async def told(self, world: World, worker: Worker) -> int:
        """How often c-1's score was told so far, after reading everything."""
        await world.settle(worker)
        return len(world.published(SCORES))

    async def changes(self, kinds: tuple[str, str], **limits: int) -> int:
        """How often it was told after two events at one time."""
        world = World(**({"score_max_age_ms": NEVER} | limits))
        worker = await world.started()
        for kind in kinds:
            world.send(kind)
            told = await self.told(world, worker)
        return told

    async def test_a_change_of_exactly_the_least(self) -> None:
        """1.46 points for the first page, 1.39 more for the second."""
        assert await self.changes(("page_viewed", "page_viewed"), score_min_delta_hundredths=139) == 2
        assert await self.changes(("page_viewed", "page_viewed"), score_min_delta_hundredths=140) == 1

    async def test_a_fall(self) -> None:
        """From 7.78 points to none."""
        assert await self.changes(("application_installed", "application_uninstalled")) == 2

    async def test_a_customer_not_told_of_for_long(self) -> None:
        """Told again with the first event at the age, however little has changed."""
        for later_ms, times in ((999, 1), (1_000, 2)):
            world = World(score_min_delta_hundredths=NEVER, score_max_age_ms=1_000)
            worker = await world.started()
            world.send("page_viewed", url="/")
            await self.told(world, worker)
            world.clock.advance(later_ms)
            world.send("page_viewed", url="/")
            assert await self.told(world, worker) == times

    async def test_an_order_once(self) -> None:
        """An order is told of whatever it weighs, and the next page view is not."""
        world = World(score_min_delta_hundredths=NEVER, score_max_age_ms=NEVER)
        worker = await world.started()
        world.send("page_viewed", url="/")
        assert await self.told(world, worker) == 1
        world.send("order_completed", order_id="o")
        assert await self.told(world, worker) == 2
        world.send("page_viewed", url="/")
        assert await self.told(world, worker) == 2


class TestSessions:
    """A session is final once both topics have passed it."""

    async def over(self, world: World, worker: Worker, kind: str) -> int:
        """How many sessions c-1 has open after a record of one topic two hours on."""
        world.clock.advance(120 * MINUTE)
        world.send(kind, "z")
        await world.settle(worker)
        return len(task_of(worker).profiles["c-1"].sessions)

    @pytest.mark.parametrize("kinds", [("page_viewed", "cart_viewed"), ("cart_viewed", "page_viewed")])
    async def test_one_topic_is_not_enough(self, kinds: tuple[str, str]) -> None:
        """Whichever moves first."""
        world = World(punctuation=False)
        worker = await world.started()
        for kind in kinds:
            world.send(kind)
        await world.settle(worker)
        assert await self.over(world, worker, kinds[0]) == 1
        assert await self.over(world, worker, kinds[1]) == 0

    async def test_each_session_in_its_time_and_for_good(self) -> None:
        """Of two open ones the first goes, the second later; what is gone stays gone after a crash."""
        world = World(punctuation=False)
        worker = await world.started()
        for minutes_ago in (40, 0):
            world.send("page_viewed", url="/", occurred_at_ms=world.clock.now_ms - minutes_ago * MINUTE)
        world.send("cart_viewed", "z")
        await world.settle(worker)
        assert len(task_of(worker).profiles["c-1"].sessions) == 1
        successor = await world.started()
        world.clock.advance(31 * MINUTE)
        for kind in ("page_viewed", "cart_viewed"):
            world.send(kind, "z")
        await world.settle(successor)
        assert task_of(successor).profiles["c-1"].sessions == []
        stored = await world.store.load(0, task_of(successor).vers(), ["c-1"])
        assert Profile.unpack("c-1", *stored["c-1"]).sessions == []
        again = await world.started()
        world.send("email_sent", email_id="m")
        await world.settle(again)
        assert task_of(again).profiles["c-1"].sessions == []
        assert task_of(again).sessions.first() == world.clock.now_ms + 30 * MINUTE


@pytest.mark.parametrize(("limit_ms", "sent"), [(3_000, 1), (2_999, 0), (0, 1)])
async def test_a_step_as_old_as_the_limit_is_sent(limit_ms: int, sent: int) -> None:
    """Due three seconds before its cut; without a limit it is never too old."""
    world = World(trigger_max_staleness_ms=limit_ms)
    worker = await world.started()
    world.send("product_added", product_id="p")
    await world.settle(worker)
    world.clock.advance(18_000)
    await world.settle(worker)
    await world.settle(worker)
    assert len(world.published(TRIGGERS)) == sent
    assert len(world.published(OUTCOMES)) == 1 - sent


async def test_one_committed_topic_without_state_stops_the_worker() -> None:
    """Each topic's offset says that there was a state once."""
    world = World()
    world.broker.group[CLICK, 0] = 1
    with pytest.raises(StateLost):
        await world.started()
    world.broker.group.clear()
    assert (await world.started()).processor.claim_of(0) is not None


async def test_what_failed_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the book nor the reject list grows with the failures of a year."""
    book = TopicBook(position=0, since=0)
    for offset in (0, 1, 10_000):
        book.handler_failed(offset)
    assert book.failed == [1, 10_000]
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")

    def broken(*_: object) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Profile, "apply", broken)
        await world.poll(worker)
    await world.claim(worker)
    assert worker.processor._rejects[0] == {(CLICK, 0)}
    await world.settle(worker)
    await world.claim(worker)
    assert worker.processor._rejects[0] == set()


async def test_the_backoff_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Kafka or Redis is away, it is asked again soon after it is back."""
    monkeypatch.setattr("streams.processing.processor.BACKOFF_MAX_MS", 3)
    processor = World().worker().processor
    waits = [1]
    for _ in range(3):
        waits.append(await processor._back_off(waits[-1], "load", StoreUnavailable("away")))
    assert waits == [1, 2, 3, 3]
