"""When a task is fenced: claimed again each time, unless that happens too often."""

import pytest

from streams.errors import Fenced, TooManyFences
from tests.support.world import Worker, World

pytestmark = pytest.mark.asyncio


async def fenced(world: World, worker: Worker) -> None:
    """Fence the task once, and claim it again unless the worker stops."""
    world.store.fail_over(1)
    await worker.processor.tick(0)
    if not worker.fatal:
        await world.claim(worker)


async def test_the_fourth_fence_in_a_minute_stops_the_worker() -> None:
    """Three are an accident."""
    world = World()
    worker = await world.started()
    for _ in range(3):
        await fenced(world, worker)
        world.clock.advance(20_000)
    assert (len(worker.fenced), worker.fatal) == (3, [])
    await fenced(world, worker)
    assert isinstance(worker.fatal[-1], TooManyFences)


async def test_fences_of_another_minute_do_not_count() -> None:
    """A worker that is fenced now and then for a year goes on."""
    world = World()
    worker = await world.started()
    for _ in range(12):
        await fenced(world, worker)
        world.clock.advance(20_001)
    assert (len(worker.fenced), worker.fatal) == (12, [])


async def test_a_task_fenced_by_a_load_and_by_its_commit_is_claimed_once() -> None:
    """The second comes from a call that was under way when the task was forgotten."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", "a", url="/")
    await world.poll(worker)
    world.send("page_viewed", "b", url="/")
    tag = worker.processor.claim_of(0)

    async def fail_over(when: str, operation: str, _partition: int) -> None:
        if (when, operation) == ("before", "commit"):
            world.store.on_step = None
            world.store.fail_over(1)
            await world.poll(worker)

    world.store.on_step = fail_over
    await worker.processor.tick(0)
    assert tag is not None
    assert [type(reason) for reason in worker.fenced] == [Fenced]
