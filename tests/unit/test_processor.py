"""The protocol of consistency, step by step, on the real processor with log and store in memory."""

import json

import pytest

from streams.errors import DeploymentMismatch, Fenced, LogMismatch, NewerSchema, StateGap, StateLost, TooManyFences
from streams.processing.book import unpack_book
from tests.support.world import CART, CLICK, OUTCOMES, REJECTED, SCORES, TRIGGERS, Worker, World

pytestmark = pytest.mark.asyncio


class Crash(Exception):
    """The worker died here."""


async def crash_before(worker: Worker, step: str) -> None:
    """Run one turn of the commit loop that dies just before a step, then lose the worker's memory."""

    async def die(name: str, partition: int) -> None:
        if name == step:
            raise Crash

    worker.processor.before_step = die
    await worker.processor.tick(0)
    assert isinstance(worker.fatal[-1], Crash)
    worker.processor.forget((0,))


async def abandoned(world: World, worker: Worker) -> None:
    """One cart that was left alone until its first step is due and time was punctuated."""
    world.send("product_added", product_id="p", unit_price_minor=500, currency="EUR")
    await world.settle(worker)
    world.clock.advance(18_000)
    await worker.processor.tick(0)


async def test_first_start_commits_the_log_start_before_the_first_record() -> None:
    """Offsets in Kafka and state in Redis begin together, so that neither exists without the other."""
    world = World()
    world.send("page_viewed", url="/")
    worker = await world.started()
    assert world.broker.group == {(topic, 0): 0 for topic in world.plan.inputs}
    assert worker.fetch_from == dict.fromkeys(world.plan.inputs, 0)
    stored = await world.store.read(0)
    assert stored is not None
    assert unpack_book(stored.meta).since_ms == world.clock.now_ms


async def test_silence_fires_a_step_through_a_record_in_the_log() -> None:
    """A cart nobody touches is abandoned by a punctuation record, once, with the id that its facts give."""
    world = World()
    worker = await world.started()
    await abandoned(world, worker)
    assert world.published(TRIGGERS) == []
    await world.settle(worker)
    (trigger,) = world.published(TRIGGERS)
    assert (trigger["action"], trigger["step"], trigger["total_minor"]) == ("send", "15s", 500)
    assert trigger["due_ms"] == trigger["last_touch_ms"] + 15_000
    assert world.account(worker)[CART]["control"] == 1


async def test_an_order_recovers_the_cart_and_cancels_its_trigger() -> None:
    """The outcome names the triggers, and the cancel reaches those who would send them."""
    world = World()
    worker = await world.started()
    await abandoned(world, worker)
    await world.settle(worker)
    world.send("order_completed", order_id="o1", total_minor=500, currency="EUR")
    world.clock.advance(3_000)
    world.send("cart_viewed", "c-2")
    await world.settle(worker)
    send, cancel = world.published(TRIGGERS)
    (outcome,) = world.published(OUTCOMES)
    assert outcome["outcome"] == cancel["reason"] == "recovered"
    assert outcome["trigger_ids"] == cancel["trigger_ids"] == [send["trigger_id"]]


async def test_crash_between_exec_and_publish_loses_no_trigger() -> None:
    """The successor publishes what `o` holds, word for word."""
    world = World()
    first = await world.started()
    await abandoned(world, first)
    await world.poll(first)
    await crash_before(first, "publish")
    assert world.published(TRIGGERS) == []
    second = await world.started()
    assert len(world.published(TRIGGERS)) == 1
    await world.settle(second)
    assert len(world.published(TRIGGERS)) == 1


async def test_crash_before_the_offset_commit_repeats_the_same_record() -> None:
    """A repeat carries the same id and the same content."""
    world = World()
    first = await world.started()
    await abandoned(world, first)
    await world.poll(first)
    await crash_before(first, "offsets")
    await world.settle(await world.started())
    one, two = world.broker.outputs[TRIGGERS]
    assert (one.key, one.value, one.headers) == (two.key, two.value, two.headers)


async def test_crash_before_exec_replays() -> None:
    """Nothing of the cut was visible, so the successor folds the records again."""
    world = World()
    first = await world.started()
    await abandoned(world, first)
    await world.poll(first)
    await crash_before(first, "exec")
    second = await world.started()
    await world.settle(second)
    assert len(world.published(TRIGGERS)) == 1
    assert world.account(second)[CART] == {"applied": 1, "duplicate": 0, "rejected": 0, "control": 1, "erased": 0}


async def test_effects_of_a_commit_come_in_the_order_of_the_protocol() -> None:
    """Rejected, EXEC, outputs, offsets."""
    world = World()
    worker = await world.started()
    steps: list[str] = []

    async def note(name: str, partition: int) -> None:
        steps.append(name)

    worker.processor.before_step = note
    world.broker.effects.clear()
    world.send("page_viewed", url="/")
    world.raw(CLICK, b"rubbish")
    await world.poll(worker)
    await worker.processor.tick(0)
    assert steps == ["rejected", "exec", "publish", "offsets"]
    assert [effect[:2] for effect in world.broker.effects] == [
        ("publish", REJECTED),
        ("publish", SCORES),
        ("offsets", 0),
    ]


async def test_an_idle_task_notices_a_failover() -> None:
    """The stored ver is compared although there is nothing to commit, and the lost events are replayed."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    world.store.fail_over(1)
    await worker.processor.tick(0)
    assert isinstance(worker.fenced[-1], Fenced)
    assert worker.processor.claim_of(0) is None
    await world.claim(worker)
    await world.settle(worker)
    assert world.account(worker)[CLICK]["applied"] == 1


async def test_replay_below_k_publishes_no_decision_again() -> None:
    """After a failover the trigger is decided again in state, but its publication is muted."""
    world = World()
    worker = await world.started()
    await abandoned(world, worker)
    await world.settle(worker)
    world.raw(CART, b"rubbish")
    await world.settle(worker)
    assert len(world.broker.outputs[REJECTED]) == 1
    world.store.fail_over(3)
    await worker.processor.tick(0)
    await world.claim(worker)
    await world.settle(worker)
    assert len(world.published(TRIGGERS)) == 1
    assert world.account(worker)[CART]["rejected"] == 1
    view = worker.processor.tasks[0].profiles["c-1"].view(world.plan.rules.score_model)
    assert view["carts"][0]["fired"] == ["15s"]


async def test_a_zombie_that_commits_after_a_takeover_is_fenced_before_it_publishes() -> None:
    """The successor's ver stands in the store, so the zombie's EXEC writes nothing."""
    world = World()
    zombie = await world.started()
    world.send("page_viewed", url="/")
    await world.poll(zombie)
    owner = world.worker()
    world.rebalance(owner)
    await world.claim(owner)
    await world.settle(owner)
    published = len(world.published(SCORES))
    await zombie.processor.tick(0)
    assert isinstance(zombie.fenced[-1], Fenced)
    assert len(world.published(SCORES)) == published


async def test_a_zombie_that_loads_from_its_successors_branch_is_fenced() -> None:
    """A profile of another branch would be counted twice after a failover."""
    world = World()
    zombie = await world.started()
    owner = world.worker()
    world.rebalance(owner)
    await world.claim(owner)
    world.send("page_viewed", url="/")
    await world.poll(zombie)
    assert isinstance(zombie.fenced[-1], Fenced)


async def test_a_refused_offset_commit_fences() -> None:
    """The group has moved on; the state was written, so the successor goes on from it."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.poll(worker)
    world.broker.generation[0] += 1
    await worker.processor.tick(0)
    assert "generation" in str(worker.fenced[-1])


async def test_offsets_without_state_stop_the_worker() -> None:
    """Starting at K with no state would forget every customer silently."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    world.store.wipe()
    with pytest.raises(StateLost, match="--rebuild"):
        await world.claim(world.worker())


async def test_rebuild_folds_the_retained_log_and_repeats_no_decision() -> None:
    """`--rebuild` begins at the log start, muted below K."""
    world = World(rebuild=True)
    worker = await world.started()
    await abandoned(world, worker)
    await world.settle(worker)
    before = worker.processor.tasks[0].profiles["c-1"].view(world.plan.rules.score_model)
    world.store.wipe()
    again = await world.started()
    await world.settle(again)
    assert len(world.published(TRIGGERS)) == 1
    assert again.processor.tasks[0].profiles["c-1"].view(world.plan.rules.score_model) == before


async def test_a_log_that_starts_after_the_state_stops_the_worker() -> None:
    """A gap is never jumped over silently, and counted where the operator chose to go on."""
    for on_gap in ("stop", "continue"):
        world = World(on_gap=on_gap)
        worker = await world.started()
        for _ in range(3):
            world.send("page_viewed", url="/")
        await world.settle(worker)
        for _ in range(3):
            world.send("page_viewed", url="/")
        del world.broker.inputs[CLICK, 0][:5]
        world.broker.starts[CLICK, 0] = 5
        if on_gap == "stop":
            with pytest.raises(StateGap, match="2 records are gone"):
                await world.claim(world.worker())
        else:
            successor = await world.started()
            await world.settle(successor)
            book = successor.processor.tasks[0].book.topics[CLICK]
            assert (book.gap, book.since, book.applied) == (2, 5, 4)


async def test_a_rebuild_that_has_read_nothing_begins_where_the_log_does_by_now() -> None:
    """What went since had been read before the state was lost; what nobody has read is a gap all the same."""
    for read_before, gap in ((5, False), (3, True)):
        world = World(rebuild=True)
        worker = await world.started()
        for number in range(5):
            if number == read_before:
                await world.settle(worker)
            world.send("page_viewed", url="/")
        if not gap:
            await world.settle(worker)
        world.store.wipe()
        await world.started()
        del world.broker.inputs[CLICK, 0][:4]
        world.broker.starts[CLICK, 0] = 4
        if gap:
            with pytest.raises(StateGap, match="4 records are gone"):
                await world.claim(world.worker())
        else:
            book = (await world.started()).processor.tasks[0].book.topics[CLICK]
            assert (book.position, book.since, book.gap) == (4, 4, 0)


async def test_another_log_stops_the_worker() -> None:
    """A position beyond the end, or another record at the stored position, is another log."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    world.send("page_viewed", url="/")
    await world.settle(worker)
    worker.processor.forget((0,))
    kept = world.broker.inputs[CLICK, 0].pop()
    with pytest.raises(LogMismatch, match="beyond the log end"):
        await world.claim(world.worker())
    kept.timestamp += 1
    world.broker.inputs[CLICK, 0].append(kept)
    successor = await world.started()
    await world.poll(successor)
    assert isinstance(successor.fatal[-1], LogMismatch)


async def test_another_deployment_and_a_newer_schema_stop_the_worker() -> None:
    """State is never read by rules that are not its own."""
    world = World()
    worker = await world.started()
    worker.processor.forget((0,))
    other = World(partitions=2)
    other.store, other.broker = world.store, world.broker
    with pytest.raises(DeploymentMismatch, match="partitions"):
        await other.started()
    stored = await world.store.read(0)
    assert stored is not None
    newer = json.loads(stored.meta) | {"schema": 99}
    with pytest.raises(NewerSchema, match="99"):
        unpack_book(json.dumps(newer).encode())


async def test_a_handler_bug_rejects_its_record_and_nothing_else() -> None:
    """The profiles it may have half changed are forgotten and replayed without it."""
    world = World()
    worker = await world.started()
    for name in ("good", "bad", "good"):
        world.send("page_viewed", name, url="/")

    await world.poll(worker, limit=1)
    from streams.engagement.profile import Profile

    original = Profile.apply

    def broken(self: Profile, *args: object) -> bool:
        if self.customer_id == "bad":
            raise ZeroDivisionError
        return original(self, *args)  # type: ignore[arg-type]

    Profile.apply = broken  # type: ignore[method-assign,assignment]
    try:
        await world.poll(worker)
        assert worker.processor.claim_of(0) is None
        await world.claim(worker)
        await world.settle(worker)
    finally:
        Profile.apply = original  # type: ignore[method-assign]
    assert world.account(worker)[CLICK] == {"applied": 2, "duplicate": 0, "rejected": 1, "control": 0, "erased": 0}
    (record,) = world.broker.outputs[REJECTED]
    assert dict(record.headers)["__connect.errors.exception.class.name"] == b"HandlerError"


async def test_more_than_three_fences_a_minute_stop_the_worker() -> None:
    """Two workers that fence each other for ever are an operator's problem, not a loop."""
    world = World()
    worker = await world.started()
    for _ in range(4):
        world.store.fail_over(1)
        world.send("page_viewed", url="/")
        await world.poll(worker)
        await worker.processor.tick(0)
        if not worker.fatal:
            await world.claim(worker)
            await world.settle(worker)
    assert isinstance(worker.fatal[-1], TooManyFences)
    assert worker.fatal[-1].exit_code == 75


async def test_every_record_is_accounted_for() -> None:
    """applied + duplicate + rejected + control + erased = read."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", event_id="same", url="/")
    world.send("page_viewed", event_id="same", url="/")
    world.raw(CLICK, b"{")
    world.raw(CLICK, None)
    world.send("product_added", product_id="p")
    world.clock.advance(18_000)
    await world.settle(worker)
    await world.settle(worker)
    account = world.account(worker)
    assert account[CLICK] == {"applied": 1, "duplicate": 1, "rejected": 2, "control": 0, "erased": 0}
    for topic, entry in account.items():
        assert sum(entry.values()) == world.broker.end(topic, 0)


async def test_a_store_that_is_away_delays_and_loses_nothing() -> None:
    """Loads and commits wait and try again."""
    world = World()
    worker = await world.started()
    world.store.fail_next("unavailable")
    world.send("page_viewed", url="/")
    await world.poll(worker)
    world.store.fail_next("reply_lost", operation="commit")
    await worker.processor.tick(0)
    assert worker.fenced == []
    assert worker.fatal == []
    assert len(world.published(SCORES)) == 1


async def test_a_score_is_published_once_per_changed_customer_and_commit() -> None:
    """Ten events of one customer in one commit give one score record, a change that moves nothing none."""
    world = World()
    worker = await world.started()
    for _ in range(10):
        world.send("page_viewed", url="/")
    await world.settle(worker)
    (score,) = world.published(SCORES)
    assert score["rev"] == 10
    world.send("email_delivered", email_id="m")
    world.send("cart_viewed", "c-2")
    await world.settle(worker)
    assert [record["customer_id"] for record in world.published(SCORES)] == ["c-1", "c-2"]


async def test_profiles_leave_memory_only_when_clean() -> None:
    """Beyond the limit the oldest clean profiles are dropped, and come back from the store unchanged."""
    world = World(profiles_max=2)
    worker = await world.started()
    for number in range(5):
        world.send("page_viewed", f"c-{number}", url="/")
    await world.poll(worker)
    assert len(worker.processor.tasks[0].profiles) == 5
    await worker.processor.tick(0)
    assert len(worker.processor.tasks[0].profiles) == 2
    world.send("page_viewed", "c-0", url="/")
    await world.settle(worker)
    assert worker.processor.tasks[0].profiles["c-0"].rev == 2


async def test_release_commits_what_is_held() -> None:
    """A revoke leaves nothing for the successor to replay."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.poll(worker)
    await worker.processor.release((0,), 5_000)
    assert worker.processor.claim_of(0) is None
    assert world.broker.group[CLICK, 0] == 1


async def test_a_step_that_was_due_too_long_ago_is_suppressed_at_the_cut() -> None:
    """Nobody wants a reminder of last week; the outcome says why there was no trigger."""
    world = World(trigger_max_staleness_ms=1_000)
    worker = await world.started()
    await abandoned(world, worker)
    await world.settle(worker)
    assert world.published(TRIGGERS) == []
    (outcome,) = world.published(OUTCOMES)
    assert (outcome["outcome"], outcome["reason"], outcome["step"]) == ("suppressed", "stale", "15s")
    assert outcome["due_ms"] == outcome["occurred_at_ms"] == outcome["first_due_ms"]


async def test_a_stored_position_whose_record_is_gone_stops_the_worker() -> None:
    """The log at the stored position must begin with the record that was applied last."""
    world = World()
    worker = await world.started()
    world.send("page_viewed", url="/")
    await world.settle(worker)
    successor = await world.started()
    del world.broker.inputs[CLICK, 0][0]
    world.broker.starts[CLICK, 0] = 1
    world.send("page_viewed", url="/")
    await world.poll(successor)
    assert isinstance(successor.fatal[-1], LogMismatch)
