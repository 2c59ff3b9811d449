"""The shell around the tasks: background loops, back-pressure, paging of timers, what ends a worker."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from streams.engagement.profile import Profile
from streams.errors import LogUnavailable, PulselineError, StoreUnavailable
from streams.processing.metrics_publisher import MetricsPublisher
from streams.processing.ports import Commit
from streams.processing.timers import Timers
from tests.support.world import CART, CLICK, SCORES, TRIGGERS, Worker, World

pytestmark = pytest.mark.asyncio


async def eventually(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; TimeoutError after five seconds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def running(interval_ms: int = 1, **changes: Any) -> World:
    """A world whose background loops turn by themselves."""
    return World(commit_interval_ms=interval_ms, metrics_interval_ms=interval_ms, **changes)


async def test_commits_and_metrics_go_on_by_themselves_until_the_stop() -> None:
    """After a claim nobody has to call for commits or metrics; after the stop there are none."""
    world = running()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.poll(worker)
    await eventually(lambda: bool(world.published(SCORES) and world.published("engagement.metrics.v1")))
    await worker.processor.stop()
    assert worker.processor.tasks == {}
    effects = len(world.broker.effects)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.broker.effects) == effects


async def test_the_stop_of_a_worker_that_never_claimed() -> None:
    """There is nothing to end."""
    await World().worker().processor.stop()


async def test_metrics_that_cannot_be_published_are_tried_again_and_a_bug_stops_the_worker(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away delays; anything else is told aloud."""
    world = running()
    worker = await world.started()
    world.store.fail_next("unavailable", operation="read")
    await eventually(lambda: "metrics were not published" in caplog.text)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MetricsPublisher, "tick", broken)
    await eventually(lambda: bool(worker.fatal))
    assert isinstance(worker.fatal[0], ZeroDivisionError)
    await worker.processor.stop()


async def test_a_full_task_waits_for_the_commit_in_flight() -> None:
    """Applying goes on beside a commit, but no further than one commit's worth of customers."""
    world = World(dirty_customers_max=2)
    worker = await world.started()
    let_go = asyncio.Event()

    async def hold(name: str, _partition: int) -> None:
        if name == "exec":
            await let_go.wait()

    worker.processor.before_step = hold
    for number in range(2):
        world.send("page_viewed", f"a-{number}", url="/")
    await world.poll(worker)
    await eventually(lambda: worker.processor.tasks[0].in_flight is not None)
    for number in range(3):
        world.send("page_viewed", f"b-{number}", url="/")
    await world.poll(worker, limit=2, topics=(CLICK,))
    third = asyncio.create_task(world.poll(worker, topics=(CLICK,)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not third.done()
    let_go.set()
    await third
    await eventually(lambda: worker.processor.tasks[0].in_flight is None)
    assert len(worker.processor.tasks[0].profiles) == 5


async def test_a_run_that_waited_while_its_task_was_taken_away_is_dropped() -> None:
    """Its claim is not the task's any more."""
    world = World(dirty_customers_max=1)
    worker = await world.started()

    async def hold(name: str, _partition: int) -> None:
        if name == "exec":
            await asyncio.Event().wait()

    worker.processor.before_step = hold
    world.send("page_viewed", "a", url="/")
    await world.poll(worker)
    await eventually(lambda: worker.processor.tasks[0].in_flight is not None)
    world.send("page_viewed", "b", url="/")
    await world.poll(worker)
    world.send("page_viewed", "c", url="/")
    waiting = asyncio.create_task(world.poll(worker))
    for _ in range(20):
        await asyncio.sleep(0)
    worker.processor.forget((0,))
    await asyncio.wait_for(waiting, 5)
    assert worker.processor.claim_of(0) is None


async def test_timers_beyond_the_first_page_are_fetched_before_they_are_due() -> None:
    """A claim reads a page of deadlines; the others come when the watermark nears, however many are at one time."""
    world = World(timers_page=2)
    first = await world.started()
    for number in range(9):
        world.send("product_added", f"c-{number}", product_id="p")
    await world.settle(first)
    second = await world.started()
    task = second.processor.tasks[0]
    task.timers = Timers([("c-0", world.clock.now_ms)], complete=False)
    world.clock.advance(20_000)
    world.send("cart_viewed", "z")
    await world.settle(second)
    await world.settle(second)
    assert {trigger["customer_id"] for trigger in world.published(TRIGGERS)} == {f"c-{number}" for number in range(9)}


async def test_silence_does_not_hide_the_timers_beyond_memory() -> None:
    """Where memory ends something may be due: time that passes alone fires what only the store knows of."""
    world = World()
    worker = await world.started()
    world.send("product_added", product_id="p")
    await world.settle(worker)
    task = worker.processor.tasks[0]
    task.timers, task.sessions = Timers([], complete=False), Timers([], complete=True)
    world.clock.advance(20_000)
    for _ in range(3):
        await world.settle(worker)
    assert [trigger["step"] for trigger in world.published(TRIGGERS)] == ["15s"]


async def test_with_more_carts_than_deadlines_in_memory_all_fire_in_time() -> None:
    """The later ones leave memory and come back before their time."""
    world = World(timers_page=2, timers_max=4)
    worker = await world.started()
    for number in range(13):
        world.send("product_added", f"c-{number}", product_id="p")
        world.clock.advance(1_000)
        await world.settle(worker)
    assert len(worker.processor.tasks[0].timers._known) < 13
    for _ in range(40):
        world.clock.advance(2_000)
        await world.settle(worker)
    fired = [trigger for trigger in world.published(TRIGGERS) if trigger["step"] == "15s"]
    assert sorted(trigger["customer_id"] for trigger in fired) == sorted(f"c-{number}" for number in range(13))
    assert max(trigger["emitted_ms"] - trigger["due_ms"] for trigger in fired) < 8_000


async def test_a_release_that_cannot_end_in_time_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """The deadline of a revoke holds whatever hangs; what was not committed is replayed by the successor."""
    world = World()
    worker = await world.started()

    async def hang(_name: str, _partition: int) -> None:
        await asyncio.Event().wait()

    worker.processor.before_step = hang
    world.send("page_viewed", url="/")
    await world.poll(worker)
    await worker.processor.release((0, 5), 10)
    assert "1 tasks were released before" in caplog.text
    assert worker.processor.claim_of(0) is None


async def test_a_released_task_is_forgotten_as_soon_as_its_own_last_commit_is_done() -> None:
    """While others end theirs it takes no more records: a commit of these would be cut off between EXEC and offsets."""
    world, topic = World(partitions=2), World.topic_of("page_viewed")
    worker = await world.started()
    processor, held = worker.processor, asyncio.Event()
    await processor.claim(1)

    async def hold(_name: str, partition: int) -> None:
        if partition == 1:
            await held.wait()

    processor.before_step = hold
    world.broker.append(topic, 1, b"c-2", b"{")
    await processor.apply(world.broker.fetch(topic, 1, 0, 1, processor.claim_of(1) or ""))
    world.send("page_viewed", url="/")
    await world.poll(worker)
    releasing = asyncio.create_task(processor.release((0, 1), 5_000))
    await asyncio.sleep(0.05)
    assert [processor.claim_of(task) is None for task in (0, 1)] == [True, False]
    assert (await worker.log.committed(0))[topic] == 1
    held.set()
    await releasing
    assert processor.claim_of(1) is None


async def test_a_release_that_is_fenced_or_broken_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A fence at the last commit is no error; a bug stops the worker."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.poll(worker)
    world.store.fail_over(1)
    await worker.processor.release((0,), 1_000)
    assert "fenced at its last commit" in caplog.text
    again = await world.started()

    async def broken(_name: str, _partition: int) -> None:
        raise ZeroDivisionError

    again.processor.before_step = broken
    await world.poll(again)
    await again.processor.release((0,), 1_000)
    assert isinstance(again.fatal[0], ZeroDivisionError)


async def fail_on(worker: Worker, world: World, bad: set[str]) -> None:
    """Poll until everything is read or the worker stops, with a handler that fails for some customers."""
    original = Profile.apply

    def broken(self: Profile, *what: Any) -> bool:
        if self.customer_id in bad:
            raise ZeroDivisionError
        return original(self, *what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Profile, "apply", broken)
        while not worker.fatal and sum(world.account(worker).get(CLICK, {}).values()) < world.broker.end(CLICK, 0):
            await world.poll(worker, limit=1, topics=(CLICK,))
            await worker.processor.tick(0)
            if worker.processor.claim_of(0) is None and not worker.fatal:
                await world.claim(worker)


async def test_too_many_records_that_fail_in_the_handler_stop_the_worker() -> None:
    """In a row or among good ones: a broken handler must not empty the log as rejected, nor after a restart."""
    for good_between in (0, 5):
        world = World(handler_failures_max=4)
        worker = await world.started()
        for _ in range(10):
            world.send("page_viewed", "bad", url="/")
            for _ in range(good_between):
                world.send("page_viewed", "good", url="/")
        await fail_on(worker, world, {"bad"})
        assert isinstance(worker.fatal[0], PulselineError)
        assert "4 of the last 10000 records failed in the handler" in str(worker.fatal[0])
        await worker.processor.release((0,), 1_000)
        again = await world.started()
        await fail_on(again, world, {"bad"})
        assert again.fatal
        await again.processor.release((0,), 1_000)
        assert len(world.broker.outputs["engagement.rejected.v1"]) == 3


async def test_failures_that_are_few_are_rejected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies further back than the last records counts no more, and a replay counts nothing twice."""
    monkeypatch.setattr("streams.processing.task.HANDLER_WINDOW_RECORDS", 20)
    world = World(handler_failures_max=3)
    worker = await world.started()
    for _ in range(8):
        world.send("page_viewed", "bad", url="/")
        for _ in range(9):
            world.send("page_viewed", "good", url="/")
    await fail_on(worker, world, {"bad"})
    assert not worker.fatal
    assert world.account(worker)[CLICK] | {"rejected": 8} == world.account(worker)[CLICK]


async def test_an_error_nobody_foresaw_drops_the_task_and_reaches_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is applied on top of a run that was half applied."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.store, "load", broken)
    with pytest.raises(ZeroDivisionError):
        await world.poll(worker)
    assert worker.processor.claim_of(0) is None


async def test_a_load_repeats_where_a_commit_came_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ver that a load expects may be one behind when a commit of the same task is answered meanwhile."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", "a", url="/")
    await world.poll(worker)
    load = world.store.load

    async def late(*arguments: Any) -> Any:
        monkeypatch.setattr(world.store, "load", load)
        await worker.processor.tick(0)
        return await load(*arguments)

    monkeypatch.setattr(world.store, "load", late)
    world.send("page_viewed", "b", url="/")
    await world.poll(worker)
    assert worker.fenced == []
    assert set(worker.processor.tasks[0].profiles) == {"a", "b"}


async def test_the_profile_of_a_customer_in_memory() -> None:
    """What the customers table shows of a task that this worker owns."""
    world = World()
    worker = await world.started()
    assert worker.processor.profile("c-1") is None
    world.send("page_viewed", url="/")
    await world.poll(worker)
    found = worker.processor.profile("c-1")
    assert found is not None
    assert found.rev == 1


async def test_a_tick_of_a_task_that_is_not_ours_does_nothing() -> None:
    """The loop of a task may outlive it by one turn."""
    await World().worker().processor.tick(3)


class TestSilence:
    """When the owner of a task writes the passing of time into the log."""

    async def abandoned(self, world: World) -> Worker:
        """A cart whose first step is due."""
        worker = await world.started()
        world.send("product_added", product_id="p")
        await world.settle(worker)
        world.clock.advance(18_000)
        return worker

    async def test_not_while_something_is_unread(self) -> None:
        """Records on their way may be events of the time that would be passed over."""
        world = World()
        worker = await self.abandoned(world)
        world.send("cart_viewed", "z")
        await worker.processor.tick(0)
        assert world.broker.end(CART, 0) == 2

    async def test_at_most_once_a_second_and_one_in_flight(self) -> None:
        """One that was not read yet is enough."""
        world = World()
        worker = await self.abandoned(world)
        await worker.processor.tick(0)
        assert world.broker.end(CART, 0) == 2
        await world.poll(worker)
        world.send("product_added", product_id="q")
        await world.poll(worker)
        world.clock.advance(300)
        await worker.processor.tick(0)
        assert world.broker.end(CART, 0) == 3

    async def test_not_where_the_setting_is_off(self) -> None:
        """While history is loaded, silence must not make the rest of it late."""
        world = World(punctuation=False)
        worker = await self.abandoned(world)
        await worker.processor.tick(0)
        assert world.broker.end(CART, 0) == 1

    async def test_a_refusal_of_kafka_delays_it(self, caplog: pytest.LogCaptureFixture) -> None:
        """The next turn tries again."""
        world = World()
        worker = await self.abandoned(world)
        worker.log.fail_next.append("punctuate")
        await worker.processor.tick(0)
        assert "no punctuation for task 0" in caplog.text
        assert world.broker.end(CART, 0) == 1
        world.clock.advance(10_000)
        await worker.processor.tick(0)
        assert world.broker.end(CART, 0) == 2

    async def test_an_overdue_session_is_closed_through_both_logs(self) -> None:
        """A customer who only browsed and left: both topics' silence is written down, and the session becomes final."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        await world.settle(worker)
        world.clock.advance(30 * 60_000 + 60_000 + 2_001)
        await worker.processor.tick(0)
        await world.settle(worker)
        await world.settle(worker)
        assert (world.broker.end(CART, 0), world.broker.end(CLICK, 0)) == (1, 2)
        assert worker.processor.tasks[0].profiles["c-1"].sessions == []

    async def test_what_was_written_is_forgotten_with_the_task(self) -> None:
        """A new claim begins anew."""
        world = World()
        worker = await self.abandoned(world)
        await worker.processor.tick(0)
        worker.processor.forget((0,))
        assert worker.processor._punctuator._written == {}


async def test_a_first_start_that_another_worker_won_is_tried_again() -> None:
    """Two workers may begin the same task; one of them is fenced and claims what the other began."""
    world = World()
    await world.store.commit(Commit(0, base=None, new="theirs", meta=b"{}"))
    with pytest.raises(Exception, match=r"required|missing"):
        await world.started()


async def test_errors_of_log_and_store_reach_whoever_claims() -> None:
    """A claim is retried by the transport, with its own patience."""
    world = World()
    worker = world.worker()
    worker.log.fail_next.append("committed")
    with pytest.raises(LogUnavailable):
        await world.claim(worker)
    world.store.fail_next("unavailable")
    with pytest.raises(StoreUnavailable):
        await world.claim(worker)
    await world.claim(worker)
    assert worker.processor.claim_of(0) is not None
