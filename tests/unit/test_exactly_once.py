"""The protocol with one transaction a commit: what readers of committed records see, and what a claim makes of it."""

import asyncio
from typing import Any

import pytest

from streams.errors import Fenced, LogUnavailable, OffsetsLost
from tests.support.world import CART, OUTCOMES, REJECTED, SCORES, TRIGGERS, Worker, World
from tests.unit.test_processor import abandoned, crash_before

pytestmark = pytest.mark.asyncio


async def one_trigger(world: World, worker: Worker) -> None:
    """One cart whose first step has been decided and is not committed yet."""
    await abandoned(world, worker)
    await world.poll(worker)


def ids(world: World, topic: str) -> list[bytes]:
    return [dict(record.headers)["ce_id"] for record in world.broker.outputs[topic]]


async def test_outputs_and_offsets_go_out_together() -> None:
    """A commit's one transaction holds its outputs and the position of its cut; nothing else touches the offsets."""
    world = World(exactly_once=True)
    worker = await world.started()
    steps: list[str] = []

    async def note(name: str, partition: int) -> None:
        steps.append(name)

    worker.processor.before_step = note
    world.broker.effects.clear()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    assert steps == ["rejected", "exec", "transaction"]
    assert [effect[0] for effect in world.broker.effects] == ["publish", "offsets"]
    assert world.broker.group["engagement.clickstream.v1", 0] == 1


async def test_a_crash_before_the_transaction_is_made_good_by_the_next_claim() -> None:
    """The successor publishes what `o` holds, once, with the offsets."""
    world = World(exactly_once=True)
    first = await world.started()
    await one_trigger(world, first)
    await crash_before(first, "transaction")
    assert ids(world, TRIGGERS) == []
    second = await world.started()
    assert len(ids(world, TRIGGERS)) == 1
    await world.settle(second)
    assert len(ids(world, TRIGGERS)) == 1


async def test_a_claim_after_a_whole_transaction_publishes_nothing() -> None:
    """No score, trigger or outcome comes twice, however often the task changes hands."""
    world = World(exactly_once=True)
    first = await world.started()
    await one_trigger(world, first)
    await world.settle(first)
    world.send("page_viewed", url="/")
    await world.settle(first)
    before = {topic: ids(world, topic) for topic in (TRIGGERS, SCORES, OUTCOMES)}
    assert before[TRIGGERS]
    assert len(before[SCORES]) == 2
    for _ in range(3):
        await world.started()
    assert {topic: ids(world, topic) for topic in (TRIGGERS, SCORES, OUTCOMES)} == before


async def test_the_transactional_id_alone_fences_a_zombie() -> None:
    """A worker froze after EXEC and wakes when its successor has published; no generation is asked for."""
    world = World(exactly_once=True)
    zombie = await world.started()
    await one_trigger(world, zombie)

    async def freeze(name: str, partition: int) -> None:
        if name == "transaction":
            successor = await world.started()
            await world.settle(successor)

    zombie.processor.before_step = freeze
    await zombie.processor.tick(0)
    assert [type(reason) for reason in zombie.fenced] == [Fenced]
    assert len(ids(world, TRIGGERS)) == 1


@pytest.mark.parametrize("fault", ["transaction", "prepared"])
async def test_a_transaction_that_failed_is_resolved_by_the_worker_itself(fault: str) -> None:
    """Its outcome is unknown to the producer, so the task is claimed again, and K tells once the id is taken over."""
    world = World(exactly_once=True)
    worker = await world.started()
    await one_trigger(world, worker)
    worker.log.fail_next.append(fault)
    await worker.processor.tick(0)
    assert [type(reason) for reason in worker.fenced] == [Fenced]
    assert worker.processor.claim_of(0) is None
    await world.claim(worker)
    await world.settle(worker)
    assert len(ids(world, TRIGGERS)) == 1


async def test_nothing_is_claimed_before_the_predecessor_is_fenced() -> None:
    """Where the transactional id cannot be taken over, neither state nor offsets change hands."""
    world = World(exactly_once=True)
    await world.started()
    before = await world.store.ver(0)
    worker = world.worker()
    worker.log.fail_next.append("take_over")
    with pytest.raises(LogUnavailable):
        await world.claim(worker)
    assert await world.store.ver(0) == before


async def test_lost_offsets_stop_the_worker() -> None:
    """Whether the last outputs went out is written in the offsets; at_least_once publishes them again and goes on."""
    world = World(exactly_once=True)
    first = await world.started()
    await one_trigger(world, first)
    await world.settle(first)
    world.broker.group.clear()
    with pytest.raises(OffsetsLost, match="at_least_once"):
        await world.started()
    at_least_once = World()
    at_least_once.broker, at_least_once.store, at_least_once.clock = world.broker, world.store, world.clock
    await at_least_once.started()
    await world.settle(await world.started())
    assert world.broker.group[CART, 0] == world.broker.end(CART, 0)


async def test_a_first_start_cut_short_is_no_loss() -> None:
    """State was begun but its offsets were not committed, and nothing was read: the next claim commits them."""
    world = World(exactly_once=True)
    worker = world.worker()
    worker.log.fail_next.append("offsets")
    with pytest.raises(LogUnavailable):
        await world.claim(worker)
    assert world.broker.group == {}
    world.send("page_viewed", url="/")
    second = await world.started()
    assert world.broker.group == {(topic, 0): 0 for topic in world.plan.inputs}
    await one_trigger(world, second)
    await crash_before(second, "transaction")
    await world.settle(await world.started())
    assert len(ids(world, TRIGGERS)) == 1


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_failover_replays_without_publishing_again(lost: int) -> None:
    """State goes back behind the offsets: what it holds, or decides anew, below them is muted."""
    world = World(exactly_once=True)
    first = await world.started()
    await one_trigger(world, first)
    await world.settle(first)
    world.send("page_viewed", url="/")
    await world.settle(first)
    assert len(ids(world, TRIGGERS)) == 1
    world.store.fail_over(lost)
    second = await world.started()
    await world.settle(second)
    assert len(ids(world, TRIGGERS)) == 1


async def test_rejected_records_come_once_as_well() -> None:
    """They go out in the transaction; a claim finds in `o` those that did not, by the offsets of their own topic."""
    world = World(exactly_once=True)
    first = await world.started()
    world.raw(CART, b"rubbish")
    await world.settle(first)
    assert len(world.broker.outputs[REJECTED]) == 1
    headers: list[Any] = [("trace", b"1"), ("empty", None)]
    world.broker.append(CART, 0, None, b"more rubbish", headers)
    await world.poll(first)
    await crash_before(first, "transaction")
    assert len(world.broker.outputs[REJECTED]) == 1
    second = await world.started()
    await world.settle(second)
    _, record = world.broker.outputs[REJECTED]
    assert (record.key, record.value, list(record.headers[:2])) == (None, b"more rubbish", headers)
    world.store.fail_over(1)
    await world.settle(await world.started())
    assert len(world.broker.outputs[REJECTED]) == 2


async def test_a_replay_that_ends_at_the_offsets_is_not_taken_for_a_whole_transaction() -> None:
    """A commit that a failover took back had published so far; the last score in the log is the newest all the same."""
    world = World(exactly_once=True)
    first = await world.started()
    for _ in range(2):
        world.send("page_viewed", url="/")
        world.clock.advance(100)
        await world.settle(first)
    world.store.fail_over(1)
    second = await world.started()
    await world.poll(second)
    await crash_before(second, "transaction")
    assert world.broker.group["engagement.clickstream.v1", 0] == 2
    await world.started()
    assert [score["rev"] for score in world.published(SCORES)] == [1, 2, 1, 2]


async def test_a_commit_that_waits_is_not_begun_after_a_last_one_that_failed() -> None:
    """It would overwrite, in `o`, outputs that were not published."""
    world = World(exactly_once=True)
    worker = await world.started()
    await one_trigger(world, worker)
    reached, go = asyncio.Event(), asyncio.Event()

    async def wait(name: str, partition: int) -> None:
        if name == "transaction":
            reached.set()
            await go.wait()

    worker.processor.before_step = wait
    releasing = asyncio.create_task(worker.processor.release((0,), 5_000))
    await reached.wait()
    world.send("page_viewed", url="/")
    await world.poll(worker)
    waiting = asyncio.create_task(worker.processor.tick(0))
    await asyncio.sleep(0)
    worker.log.fail_next.append("transaction")
    go.set()
    await asyncio.gather(releasing, waiting)
    assert ids(world, TRIGGERS) == []
    await world.settle(await world.started())
    assert len(ids(world, TRIGGERS)) == 1
