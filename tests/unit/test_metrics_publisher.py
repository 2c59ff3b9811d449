"""The publication of live metrics by the owner of task 0, on log and store in memory."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from streams.engagement.accumulators import Key, field_of
from streams.engagement.metric_memory import remembered
from streams.errors import LogUnavailable
from streams.processing.metrics_publisher import HOLD_FIELD, WATERMARKS_FIELD, MetricsPublisher
from streams.processing.ports import Commit
from tests.support.world import CLICK, Worker, World, make_plan

pytestmark = pytest.mark.asyncio
METRICS = "engagement.metrics.v1"


def publisher(world: World, worker: Worker) -> MetricsPublisher:
    """The publisher of a worker."""
    return MetricsPublisher(world.store, worker.log, world.clock, world.plan)


def latest(world: World, metric: str, window: str) -> list[dict[str, Any]]:
    """The records a consumer that obeys the rule ends with, oldest window first."""
    kept: dict[Any, dict[str, Any]] = {}
    for record in world.published(METRICS):
        if (record["metric"], record["window"]) == (metric, window):
            key = (record["window_start_ms"], str(record["dimensions"]))
            before = kept.get(key)
            rank = (record["watermark_ms"], record["revision"])
            if before is None or rank > (before["watermark_ms"], before["revision"]):
                kept[key] = record
    return [kept[key] for key in sorted(kept)]


async def test_events_of_a_minute_are_counted_and_become_final() -> None:
    """The open minute is shown with final false, and final once the watermark passed its end."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    for _ in range(3):
        world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    (minute,) = latest(world, "events", "60s")
    assert minute["dimensions"] == {"topic": "engagement.clickstream.v1", "type": "page_viewed"}
    assert (minute["numerator"], minute["value"], minute["final"], minute["revision"]) == (3, 3, False, 1)
    world.clock.advance(120_000)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    first = latest(world, "events", "60s")[0]
    assert (first["numerator"], first["final"], first["revision"]) == (3, True, 2)


async def test_nothing_changed_publishes_nothing() -> None:
    """A revision is published whenever numbers or finality change, and only then."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    published = len(world.published(METRICS))
    await metrics.tick(worker.processor.tasks)
    assert len(world.published(METRICS)) == published > 0


async def test_a_new_owner_goes_on_with_the_revisions() -> None:
    """What a predecessor remembered but perhaps did not publish is published again, under the same revision."""
    world = World()
    first = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(first)
    await publisher(world, first).tick(first.processor.tasks)
    before = latest(world, "events", "60s")
    published = len(world.published(METRICS))
    second = await world.started()
    await world.settle(second)
    await publisher(world, second).tick(second.processor.tasks)
    assert len(world.published(METRICS)) > published
    assert latest(world, "events", "60s") == before


async def test_who_lost_task_0_publishes_nothing() -> None:
    """The stored ver is the successor's, so nothing is remembered and nothing is sent."""
    world = World()
    zombie = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(zombie)
    await world.started()
    await publisher(world, zombie).tick(zombie.processor.tasks)
    assert world.published(METRICS) == []
    assert await world.store.published() == {}


async def test_average_order_value_comes_with_its_parts() -> None:
    """Revenue over orders, per currency."""
    world = World()
    worker = await world.started()
    for number, total in enumerate((1_000, 2_000)):
        world.send("order_completed", f"c-{number}", order_id=f"o{number}", total_minor=total, currency="EUR")
    await world.settle(worker)
    await publisher(world, worker).tick(worker.processor.tasks)
    average = latest(world, "average_order_value", "24h")[-1]
    assert average["dimensions"] == {"currency": "EUR"}
    assert (average["numerator"], average["denominator"], average["value"]) == (3_000, 2, 1_500)


async def test_every_task_learns_how_far_metrics_are_published() -> None:
    """Also a worker without task 0, so that its accumulators may expire."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    task = worker.processor.tasks[0]
    assert task.published_watermarks is not None
    assert task.published_watermarks["clickstream"] == world.clock.now_ms - 2_000
    await metrics.tick({7: task})
    assert task.published_watermarks is not None
    assert task.published_watermarks["clickstream"] == world.clock.now_ms - 2_000


async def test_what_could_not_be_sent_is_sent_the_next_time() -> None:
    """Remembered, then refused by Kafka: the next turn repeats it under the same revision."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    worker.log.fail_next.append("publish")
    with pytest.raises(LogUnavailable):
        await metrics.tick(worker.processor.tasks)
    remembered = len(await world.store.published()) - 1
    world.broker.outputs[METRICS].clear()
    await metrics.tick(worker.processor.tasks)
    assert len(world.published(METRICS)) == remembered > 0
    assert {record["revision"] for record in world.published(METRICS)} == {1}


async def test_nothing_is_published_before_every_task_was_claimed() -> None:
    """A task that has no state yet may hold anything back, so no window can be told."""
    world = World(partitions=2)
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await publisher(world, worker).tick(worker.processor.tasks)
    assert world.published(METRICS) == []


async def test_who_loses_task_0_while_it_writes_publishes_nothing() -> None:
    """The task was forgotten between the read and the write."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    tasks = dict(worker.processor.tasks)

    async def lost(_when: str, operation: str, _partition: int) -> None:
        if operation.startswith("accumulators"):
            tasks.clear()

    world.store.on_step = lost
    await publisher(world, worker).tick(tasks)
    assert world.published(METRICS) == []


async def test_metrics_wait_until_a_rebuild_has_folded_what_was_told() -> None:
    """Not in part: up to the offset that the group had read before, that one included."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    vers = worker.processor.tasks[0].vers()
    await world.store.write_published(vers, {HOLD_FIELD: b'{"0":{"engagement.clickstream.v1":2}}'})
    for folded in (1, 2):
        world.send("page_viewed", url="/")
        await world.settle(worker)
        await metrics.tick(worker.processor.tasks)
        assert bool(world.published(METRICS)) is (folded == 2)
    assert latest(world, "events", "60s")[0]["numerator"] == 2


async def test_a_commit_that_comes_between_delays_no_metrics() -> None:
    """The task goes on committing while its metrics are written: its own newer ver is no other owner's."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)

    async def commit(when: str, operation: str, _partition: int) -> None:
        if (when, operation) == ("before", "write_published"):
            world.store.on_step = None
            world.send("page_viewed", url="/")
            await world.settle(worker)

    world.store.on_step = commit
    await publisher(world, worker).tick(worker.processor.tasks)
    assert latest(world, "events", "60s")[0]["numerator"] == 1


async def test_what_is_gone_when_all_is_read_again_leaves_the_totals() -> None:
    """Another worker claimed a task, so all of it is read: a bucket that came to nothing meanwhile counts no more."""
    world = World(partitions=2)
    worker = await world.started()
    metrics = publisher(world, worker)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    stored = await world.store.read(0)
    assert stored is not None
    now_ms = world.clock.now_ms
    dimensions = ("engagement.clickstream.v1", "page_viewed")
    field = field_of(Key("events", dimensions, "events", "60s", now_ms - now_ms % 60_000))
    await world.store.commit(Commit(1, None, "a", stored.meta, accumulators={field: 5}))
    await metrics.tick(worker.processor.tasks)
    assert latest(world, "events", "60s")[0]["numerator"] == 6
    await world.store.claim(1, "b")
    await world.store.commit(Commit(1, "b", "c", stored.meta, accumulators={field: None}))
    await world.store.claim(1, "d")
    await metrics.tick(worker.processor.tasks)
    assert latest(world, "events", "60s")[0]["numerator"] == 1


async def test_windows_too_old_to_be_revised_are_forgotten() -> None:
    """What is remembered of publications does not grow for ever, nor do the accumulators."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    for _ in range(3):
        world.send("page_viewed", url="/")
        await world.settle(worker)
        await metrics.tick(worker.processor.tasks)
        remembered = set(await world.store.published())
        world.clock.advance(40 * 86_400_000)
    world.send("page_viewed", url="/")
    world.send("cart_viewed", "c-2")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    assert not [key for key in await world.store.published() if key in remembered and "|60s|" in key]


async def test_a_watermark_once_published_is_never_followed_by_a_lower_one() -> None:
    """Also where another topic of the metric has its first record only now, and an older one."""
    world = World()
    worker = await world.started()
    metrics = publisher(world, worker)
    world.clock.advance(60_000)
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    for customer in ("c-2", "c-3"):
        world.send("post_liked", customer, network="n", occurred_at_ms=world.clock.now_ms - 50_000)
        await world.settle(worker)
        await metrics.tick(worker.processor.tasks)
    told = [record for record in world.published(METRICS) if record["metric"] == "active_customers"]
    for before, after in pairwise(told):
        assert after["watermark_ms"] >= before["watermark_ms"]
    assert latest(world, "active_customers", "24h")[-1]["numerator"] == 3


async def test_a_rebuild_goes_on_with_the_revisions_once_it_has_folded_what_was_told() -> None:
    """Numbers folded in part are not told; what stayed as it was keeps its revision, what changes gets the next one."""
    world = World()
    worker = await world.started()
    for _ in range(4):
        world.send("page_viewed", url="/")
        await world.settle(worker)
        await publisher(world, worker).tick(worker.processor.tasks)
        world.clock.advance(1_000)
    before = latest(world, "events", "60s")
    assert max(record["revision"] for record in before) > 1
    told = world.published(METRICS)
    end = world.broker.end(CLICK, 0)
    world.store.wipe()
    world.plan = make_plan(rebuild=True)
    worker = await world.started()
    published, watermarks = remembered(told)
    await world.store.write_published(
        worker.processor.tasks[0].vers(),
        {key: msgspec.msgpack.encode(value) for key, value in published.items()}
        | {
            WATERMARKS_FIELD: msgspec.json.encode(watermarks),
            HOLD_FIELD: msgspec.json.encode({0: {CLICK: end}}),
        },
    )
    metrics = publisher(world, worker)
    await world.poll(worker, limit=2)
    await worker.processor.tick(0)
    await metrics.tick(worker.processor.tasks)
    assert world.published(METRICS) == told
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    assert latest(world, "events", "60s") == before
    world.send("page_viewed", url="/")
    await world.settle(worker)
    await metrics.tick(worker.processor.tasks)
    after = latest(world, "events", "60s")[-1]
    assert (after["numerator"], after["revision"]) == (before[-1]["numerator"] + 1, before[-1]["revision"] + 1)
    assert HOLD_FIELD not in await world.store.published()
