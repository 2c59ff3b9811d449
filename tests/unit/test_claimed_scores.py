"""What a claim publishes of the scores of its predecessor."""

from tests.support.world import SCORES, World

CRASH_AT = "publish"


class Died(Exception):
    """The worker died here."""


async def die(step: str, partition: int) -> None:
    if step == CRASH_AT:
        raise Died


async def test_a_score_of_a_replay_is_not_left_behind_by_a_crash() -> None:
    """After a failover K is ahead of the state, and still the last score in the log is that of the newest state."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    for _ in range(4):
        world.send("page_viewed", url="/")
    await world.settle(worker)
    world.store.fail_over(1)
    await worker.processor.tick(0)
    await world.claim(worker)
    await world.poll(worker, limit=2)  # the record compared, and one to be folded again
    await worker.processor.tick(0)
    assert world.published(SCORES)[-1]["rev"] == 2
    await world.poll(worker)
    worker.processor.before_step = die
    await worker.processor.tick(0)
    await world.started()
    assert world.published(SCORES)[-1]["rev"] == 5


async def test_a_worker_frozen_behind_its_exec_does_not_overtake_its_successor() -> None:
    """Woken after its session, it finds another ver and publishes nothing: the last score stays the newest."""
    world = World()
    frozen, others = await world.started(), []
    world.send("page_viewed", url="/")
    await world.poll(frozen)

    async def sleep_beyond_the_session(when: str, operation: str, partition: int) -> None:
        if (when, operation) == ("after", "commit"):
            world.store.on_step = None
            world.clock.advance(11_000)
            others.append(world.worker())
            world.rebalance(others[0])
            await world.claim(others[0])
            world.send("page_viewed", url="/")
            await world.settle(others[0])

    world.store.on_step = sleep_beyond_the_session
    await frozen.processor.tick(0)
    assert [score["rev"] for score in world.published(SCORES)] == [1, 2]
    assert len(frozen.fenced) == 1
