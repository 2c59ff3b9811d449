"""A planned history through the real processor in memory, ready to be held against the independent fold."""

from collections import defaultdict
from collections.abc import Iterable
from random import Random
from typing import Any

from streams.engagement.cart import CartPolicy
from streams.engagement.profile import Rules
from streams.engagement.scoring import ScoreModel
from streams.producer.plan import Planned
from tests.support.fold import FoldRecord, fold
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


async def drain(world: World, worker: Worker, rng: Random) -> None:
    """Read everything in runs of random length, topics interleaved at random, committing now and then."""
    topics = list(world.plan.inputs)
    while any(world.broker.end(topic, 0) > worker.fetch_from[topic] for topic in topics):
        await world.poll(worker, limit=rng.randint(1, 700), topics=(rng.choice(topics),))
        if rng.random() < 0.3:
            await worker.processor.tick(0)
    await worker.processor.tick(0)


def verdict_of(world: World, worker: Worker) -> Verdict:
    """Hold state, account and outputs against the fold of the log."""
    task = worker.processor.tasks[0]
    inputs = {
        key: [FoldRecord(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log]
        for key, log in world.broker.inputs.items()
    }
    outputs = Outputs(*({0: published(world, topic)} for topic in (TRIGGERS, OUTCOMES, REJECTED, SCORES)))
    policy = {"lateness_ms": world.plan.lateness_ms, "steps": STEPS}
    account = {(name, 0): book.account() for name, book in task.book.topics.items()}
    views = {customer: profile.view(world.plan.rules.score_model) for customer, profile in task.profiles.items()}
    return compare(fold(inputs, policy), inputs, outputs, views, account=account)


def published(world: World, topic: str) -> list[FoldRecord]:
    """An output topic as a log."""
    numbers: dict[str, int] = defaultdict(int)
    return [
        FoldRecord(number, 0, record.key, record.value, record.headers)
        for number, record in enumerate(world.broker.outputs[topic], numbers[topic])
    ]
