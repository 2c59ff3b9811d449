"""A small world for the real processor: log, store and clock in memory, one or two workers, time under control."""

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from streams.engagement.cart import CartPolicy
from streams.engagement.profile import Rules
from streams.engagement.scoring import ScoreModel
from streams.processing.plan import Plan
from streams.processing.processor import Processor
from streams.stores.memory import MemoryStore
from streams.transport.memory import MemoryBroker, MemoryLog

START_MS = 1_700_000_000_000
CART, CLICK = "engagement.cart.v1", "engagement.clickstream.v1"
TRIGGERS, OUTCOMES, SCORES, REJECTED = (
    f"engagement.{name}.v1" for name in ("triggers", "outcomes", "scores", "rejected")
)

POLICY = CartPolicy(
    steps=(("15s", 15_000), ("1m", 60_000)),
    cart_expiry_ms=86_400_000,
    order_scope="customer",
    recovery_window_ms=3_600_000,
    trigger_cooldown_ms=0,
    min_cart_value_minor=0,
)
MODEL = ScoreModel.default()


class ManualClock:
    """Wall and monotonic time that move only when told."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms, self.steady_ms = now_ms, 0

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.steady_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.steady_ms += ms


def make_plan(**changes: Any) -> Plan:
    """A plan with one partition, steps of 15 s and 60 s, two seconds of lateness, and no commit but by hand."""
    values: dict[str, Any] = {
        "app_id": "test",
        "partitions": 1,
        "inputs": {f"engagement.{suffix}": suffix for suffix in ("clickstream.v1", "cart.v1", "email.v1", "social.v1")},
        "cart_topic": CART,
        "clickstream_topic": CLICK,
        "scores_topic": SCORES,
        "triggers_topic": TRIGGERS,
        "outcomes_topic": OUTCOMES,
        "metrics_topic": "engagement.metrics.v1",
        "rejected_topic": REJECTED,
        "rules": Rules(cart=POLICY, score_model=MODEL),
        "lateness_ms": 2_000,
        "commit_interval_ms": 3_600_000,
    }
    return Plan(**(values | changes))


@dataclass
class Worker:
    """One worker: its processor, its side of the log, and how far each topic was fetched."""

    processor: Processor
    log: MemoryLog
    fenced: list[Exception] = field(default_factory=list)
    fatal: list[Exception] = field(default_factory=list)
    fetch_from: dict[str, int] = field(default_factory=dict)


class World:
    """One task (partition 0), a store and a broker that outlive the workers."""

    def __init__(self, **changes: Any) -> None:
        self.clock = ManualClock()
        self.plan = make_plan(**changes)
        self.broker = MemoryBroker(self.clock.wall_ms)
        self.store = MemoryStore()
        self._ids = count()

    def worker(self) -> Worker:
        """A new worker that owns nothing yet."""
        log = MemoryLog(self.broker, list(self.plan.inputs))
        log.generation[0] = self.broker.generation[0]
        worker = Worker(Processor(store=self.store, log=log, clock=self.clock, plan=self.plan), log)
        worker.processor.on_fenced = lambda partition, reason: worker.fenced.append(reason)
        worker.processor.on_fatal = worker.fatal.append
        return worker

    async def claim(self, worker: Worker) -> None:
        """Claim the task and note where to fetch from."""
        worker.fetch_from = await worker.processor.claim(0)

    async def started(self) -> Worker:
        """A new worker that has claimed the task."""
        worker = self.worker()
        await self.claim(worker)
        return worker

    def rebalance(self, worker: Worker) -> None:
        """Make this worker the owner; the old one does not know yet."""
        self.broker.generation[0] += 1
        worker.log.generation[0] = self.broker.generation[0]

    def send(self, kind: str, customer: str = "c-1", *, occurred_at_ms: int | None = None, **fields: Any) -> int:
        """Append an event to its topic, occurring now unless told otherwise; returns its offset."""
        event = {
            "event_id": f"e{next(self._ids)}",
            "type": kind,
            "customer_id": customer,
            "occurred_at_ms": self.clock.now_ms if occurred_at_ms is None else occurred_at_ms,
        } | fields
        return self.broker.append(self.topic_of(kind), 0, customer.encode(), json.dumps(event).encode())

    def raw(self, topic: str, value: bytes | None, key: bytes | None = b"c-1") -> int:
        """Append bytes as they are."""
        return self.broker.append(topic, 0, key, value)

    @staticmethod
    def topic_of(kind: str) -> str:
        """The full topic name of an event type."""
        from models.events import EVENT_TYPES

        return f"engagement.{EVENT_TYPES[kind].topic}"

    async def poll(self, worker: Worker, limit: int = 1_000, topics: tuple[str, ...] | None = None) -> int:
        """Fetch what is there and apply it; returns how many records were fetched."""
        fetched = 0
        for topic in topics or tuple(self.plan.inputs):
            claim = worker.processor.claim_of(0)
            if claim is None:
                break
            run = self.broker.fetch(topic, 0, worker.fetch_from[topic], limit, claim)
            if run.records:
                fetched += len(run.records)
                worker.fetch_from[topic] = run.records[-1].offset + 1
                await worker.processor.apply(run)
        return fetched

    async def settle(self, worker: Worker) -> None:
        """Poll and commit until nothing is left to read."""
        while await self.poll(worker):
            await worker.processor.tick(0)
        await worker.processor.tick(0)

    def published(self, topic: str) -> list[dict[str, Any]]:
        """The values published to an output topic, in order."""
        return [json.loads(record.value) for record in self.broker.outputs[topic] if record.value]

    def account(self, worker: Worker) -> dict[str, dict[str, int]]:
        """The account of each topic as the worker's task keeps it."""
        return {name: book.account() for name, book in worker.processor.tasks[0].book.topics.items()}
