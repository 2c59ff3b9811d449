"""When silence is written down, to the millisecond; whom it concerns, how often, and by which clock."""

import json

import pytest

from models.codec import control_record
from streams.processing.punctuation import ClockGuard
from tests.support.world import CART, CLICK, ManualClock, Worker, World

LATENESS = 2_000
GAP = 30 * 60_000
MINUTE = 60_000


def written(world: World, topic: str = CART) -> list[int]:
    """The watermarks written into a topic, in order."""
    return [
        json.loads(record.value)["watermark_ms"]
        for record in world.broker.inputs[topic, 0]
        if record.key is None and record.value is not None
    ]


async def waiting(world: World, *customers: str) -> Worker:
    """A worker, and cart events half a second apart that wait for the watermark to pass them."""
    worker = await world.started()
    for customer in customers:
        world.send("product_added", customer, product_id="p")
        world.clock.advance(500)
    world.clock.advance(-500)
    await world.settle(worker)
    return worker


class TestDue:
    """A timer, a waiting event or a session that W would release, and nothing else."""

    async def test_a_timer_at_w_itself_is_not_released_by_it(self) -> None:
        """A timer fires when the watermark is greater; W is the lateness behind the clock."""
        world = World()
        worker = await waiting(world, "a")
        due_ms = world.clock.now_ms
        world.clock.advance(LATENESS)
        await worker.processor.tick(0)
        assert written(world) == []
        world.clock.advance(1)
        await worker.processor.tick(0)
        assert written(world) == [due_ms + 1]

    async def test_a_session_overdue_by_exactly_a_minute_waits(self) -> None:
        """Sessions are in no hurry: nobody is waiting for their end."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        await world.settle(worker)
        world.clock.advance(GAP + MINUTE + LATENESS)
        await worker.processor.tick(0)
        assert (written(world, CLICK), written(world)) == ([], [])
        world.clock.advance(1)
        await worker.processor.tick(0)
        assert len(written(world, CLICK)) == len(written(world)) == 1

    @pytest.mark.parametrize(("beyond_ms", "clicks"), [(0, 1), (1, 0)])
    async def test_only_the_topic_that_holds_the_session_back(self, beyond_ms: int, clicks: int) -> None:
        """One whose watermark has passed the session's end needs no record; one that stands at the end does."""
        world = World()
        worker = await world.started()
        world.send("page_viewed", url="/")
        world.clock.advance(GAP + LATENESS + beyond_ms)
        world.send("page_viewed", "z", url="/")
        await world.settle(worker)
        world.clock.advance(2 * MINUTE)
        await worker.processor.tick(0)
        assert (len(written(world, CLICK)), len(written(world))) == (clicks, 1)


class TestHowOften:
    """At most one a second, one in flight, and one that never arrives is written again."""

    async def test_one_a_second(self) -> None:
        """The second event is due half a second after the first, and waits for the rest of the second."""
        world = World()
        worker = await waiting(world, "a", "b")
        world.clock.advance(LATENESS - 499)
        await world.settle(worker)
        assert len(written(world)) == 1
        world.clock.advance(999)
        await world.settle(worker)
        assert len(written(world)) == 1
        world.clock.advance(1)
        await world.settle(worker)
        assert len(written(world)) == 2

    async def test_one_in_flight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where the log end known here is older than the record that was written."""
        world = World()
        worker = await waiting(world, "a")
        monkeypatch.setattr(worker.log, "caught_up", lambda *_: True)
        world.clock.advance(LATENESS + 1)
        await worker.processor.tick(0)
        world.clock.advance(9_999)
        await worker.processor.tick(0)
        assert len(written(world)) == 1
        world.clock.advance(1)
        await worker.processor.tick(0)
        assert len(written(world)) == 2


class TestClock:
    """A wall clock that moved against the monotonic one is not written into the log."""

    async def test_nothing_is_written_after_a_jump(self) -> None:
        """Until a minute later."""
        world = World()
        worker = await waiting(world, "a")
        world.clock.now_ms += 10_000
        await worker.processor.tick(0)
        assert written(world) == []
        world.clock.advance(MINUTE)
        await worker.processor.tick(0)
        assert len(written(world)) == 1

    @pytest.mark.parametrize(("moved_ms", "trusted"), [(2_000, True), (2_001, False), (-2_000, True), (-2_001, False)])
    def test_two_seconds_are_drift(self, moved_ms: int, trusted: bool) -> None:
        """One more is a jump, in either direction."""
        clock = ManualClock()
        guard = ClockGuard(clock)
        assert guard.trusted()
        clock.now_ms += moved_ms
        assert guard.trusted() is trusted


async def test_a_punctuation_of_the_past_moves_nothing_back() -> None:
    """Whoever wrote it, it is harmless."""
    world = World()
    worker = await world.started()
    world.send("cart_viewed")
    await world.poll(worker)
    reached = worker.processor.tasks[0].book.topics[CART].watermark_ms
    value, headers = control_record(reached - 1)
    world.broker.append(CART, 0, None, value, headers)
    await world.poll(worker)
    book = worker.processor.tasks[0].book.topics[CART]
    assert (book.watermark_ms, book.control) == (reached, 1)
