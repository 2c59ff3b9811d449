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
