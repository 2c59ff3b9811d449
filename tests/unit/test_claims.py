"""What a claim repeats of its predecessor's outputs, what it does not, and whose runs it takes."""

import pytest

from streams.errors import StoreUnavailable
from tests.support.world import CLICK, REJECTED, TRIGGERS, Worker, World

pytestmark = pytest.mark.asyncio


async def abandoned(world: World) -> Worker:
    """A worker that has read of a cart whose first step is due, and not yet committed it."""
    worker = await world.started()
    world.send("product_added", product_id="p")
    await world.settle(worker)
    world.clock.advance(18_000)
    await worker.processor.tick(0)
    await world.poll(worker)
    assert len(worker.processor.tasks[0].decisions) == 1
    return worker


async def test_what_lies_below_k_was_published_and_is_not_repeated() -> None:
    """The last commit ended as it should: its successor finds its outputs in the store, and leaves them there."""
    world = World()
    worker = await abandoned(world)
    await worker.processor.tick(0)
    assert len(world.published(TRIGGERS)) == 1
    await world.started()
    assert len(world.published(TRIGGERS)) == 1


async def test_what_the_predecessor_commits_during_the_claim_is_not_repeated() -> None:
    """K is asked for after the ver is taken: until then the predecessor may publish and commit."""
    world = World()
    predecessor = await abandoned(world)

    async def commit(when: str, operation: str, _partition: int) -> None:
        if (when, operation) == ("before", "claim"):
            world.store.on_step = None
            await predecessor.processor.tick(0)

    world.store.on_step = commit
    await world.started()
    assert len(world.published(TRIGGERS)) == 1


async def test_a_run_fetched_under_an_earlier_claim_is_dropped() -> None:
    """It may begin beyond where the new claim begins, and would take the position past what lies between."""
    world = World()
    worker = await world.started()
    for _ in range(2):
        world.send("page_viewed", url="/")
    claim = worker.processor.claim_of(0)
    assert claim is not None
    late = world.broker.fetch(CLICK, 0, 1, 10, claim)
    await world.claim(worker)
    await worker.processor.apply(late)
    assert world.account(worker)[CLICK]["applied"] == 0
    await world.settle(worker)
    assert world.account(worker)[CLICK]["applied"] == 2


async def test_a_run_whose_task_went_while_it_waited_for_the_store_is_dropped() -> None:
    """Its customers were never loaded: applying it would fail, and put a good record on the reject list."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")

    async def away(when: str, operation: str, _partition: int) -> None:
        if (when, operation) == ("before", "load"):
            world.store.on_step = None
            worker.processor.forget((0,))
            raise StoreUnavailable("gone")

    world.store.on_step = away
    await world.poll(worker)
    assert worker.fenced == []
    await world.claim(worker)
    await world.settle(worker)
    account = world.account(worker)[CLICK]
    assert (account["applied"], account["rejected"]) == (1, 0)


async def test_exactly_once_a_failover_repeats_no_rejected_record() -> None:
    """What the older commit holds of rejected records lies below their topic's K; that of the lost one is replayed."""
    world = World(exactly_once=True)
    worker = await world.started()
    for value in (b"rubbish", b"more"):
        world.raw(CLICK, value)
        await world.settle(worker)
    world.store.fail_over(1)
    await worker.processor.tick(0)
    await world.claim(worker)
    await world.settle(worker)
    assert [record.value for record in world.broker.outputs[REJECTED]] == [b"rubbish", b"more"]


async def test_a_claim_writes_in_the_schema_that_its_deployment_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next commit on; what was written before stays as it is."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)

    async def raised(_wanted: object) -> int:
        return 2

    monkeypatch.setattr(world.store, "deployment", raised)
    await world.claim(worker)
    world.send("page_viewed", "c-2", url="/")
    await world.settle(worker)
    loaded = await world.store.load(0, worker.processor.tasks[0].vers(), ["c-1", "c-2"])
    assert [(hot or b"")[0] for hot, _ in loaded.values()] == [1, 2]
