"""A planned history through the real processor in memory, ready to be held against the independent fold."""

from collections.abc import Iterable
from random import Random
from typing import Any

from streams.engagement.cart import CartPolicy
from streams.engagement.profile import Profile, Rules
from streams.engagement.scoring import ScoreModel
from streams.processing.book import unpack_book
from streams.producer.plan import HARSH, Planned, Script
from tests.support.fold import FoldRecord, Result, fold
from tests.support.judge import Outputs, Verdict, compare
from tests.support.world import OUTCOMES, REJECTED, SCORES, TRIGGERS, Worker, World

STEPS = (("15m", 900_000), ("1h", 3_600_000), ("24h", 86_400_000))
CART_POLICY = CartPolicy(
    steps=STEPS,
    cart_expiry_ms=30 * 86_400_000,
    order_scope="customer",
    recovery_window_ms=7 * 86_400_000,
    trigger_cooldown_ms=0,
    min_cart_value_minor=0,
)


def harsh_script(seed: int, events: int | None, **changes: Any) -> Script:
    """A history of two days of nothing but difficult carts, dirt, duplicates and disorder."""
    values: dict[str, Any] = {
        "seed": seed,
        "events": events,
        "stories": HARSH,
        "shoppers": max(40, (events or 0) // 20),
        "duration_ms": 2 * 86_400_000,
        "dirty": 0.01,
        "duplicates": 0.02,
        "out_of_order": 0.05,
    }
    return Script(**(values | changes))


def history_world(**changes: Any) -> World:
    """A world with the settings of the contract, staleness off."""
    rules = Rules(cart=CART_POLICY, score_model=ScoreModel.default())
    return World(**({"rules": rules, "lateness_ms": 10_000, "trigger_max_staleness_ms": 0} | changes))


def load(world: World, records: Iterable[Planned]) -> int:
    """Append the records with their own send times as timestamps (CreateTime); returns how many."""
    loaded = 0
    for record in records:
        topic = f"engagement.{record.topic}"
        world.broker.append(topic, 0, record.key, record.value, timestamp_ms=record.send_ms)
        loaded += 1
    return loaded


def unread(world: World, worker: Worker) -> bool:
    """Whether the log holds records that the worker has not fetched."""
    return any(world.broker.end(topic, 0) > worker.fetch_from[topic] for topic in world.plan.inputs)


async def drain(world: World, worker: Worker, rng: Random) -> None:
    """Read everything in runs of random length, topics interleaved at random, committing now and then."""
    topics = list(world.plan.inputs)
    while unread(world, worker):
        await world.poll(worker, limit=rng.randint(1, 700), topics=(rng.choice(topics),))
        if rng.random() < 0.3:
            await worker.processor.tick(0)
    await worker.processor.tick(0)


def inputs_of(world: World) -> dict[tuple[str, int], list[FoldRecord]]:
    """The input log as the fold takes it."""
    return {
        key: [FoldRecord(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log]
        for key, log in world.broker.inputs.items()
    }


def fold_of(world: World) -> Result:
    """The independent fold of the input log."""
    return fold(inputs_of(world), {"lateness_ms": world.plan.lateness_ms, "steps": STEPS})


async def verdict_of(world: World, result: Result | None = None) -> Verdict:
    """Hold the stored state, the stored account and the outputs against the fold of the log."""
    stored = await world.store.read(0)
    assert stored is not None
    loaded = await world.store.load(0, (stored.ver,), sorted(world.store._task(0).hot))
    model = world.plan.rules.score_model
    views = {customer: Profile.unpack(customer, *packed).view(model) for customer, packed in loaded.items()}
    account = {(name, 0): book.account() for name, book in unpack_book(stored.meta).topics.items()}
    outputs = Outputs(*({0: published(world, topic)} for topic in (TRIGGERS, OUTCOMES, REJECTED, SCORES)))
    return compare(result or fold_of(world), inputs_of(world), outputs, views, account=account)


def published(world: World, topic: str) -> list[FoldRecord]:
    """An output topic as a log."""
    return [
        FoldRecord(number, 0, record.key, record.value, record.headers)
        for number, record in enumerate(world.broker.outputs[topic])
    ]
