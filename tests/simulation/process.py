"""A worker process in the simulation, its clock, and the plan that all of them follow."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from streams.engagement.cart import CartPolicy
from streams.engagement.profile import Rules
from streams.engagement.scoring import ScoreModel
from streams.errors import Fatal
from streams.processing.plan import Plan
from streams.processing.ports import Run
from streams.processing.processor import Processor
from tests.simulation.loop import Gates
from tests.simulation.wire import SimulatedLog
from tests.support.world import ManualClock, make_plan

STEPS = (("3s", 3_000), ("6s", 6_000))
CART_POLICY = CartPolicy(
    steps=STEPS,
    cart_expiry_ms=20_000,
    order_scope="customer",
    recovery_window_ms=3_600_000,
    trigger_cooldown_ms=0,
    min_cart_value_minor=0,
)
RULES = Rules(cart=CART_POLICY, score_model=ScoreModel.default())
COMMIT_STEPS = {"rej": "rejected", "exec": "exec", "pub": "publish", "koff": "offsets"}
HELD_IN_SCHEDULES = frozenset({"claim reply", *(f"step {name}" for name in COMMIT_STEPS.values())})
IN_FLIGHT = frozenset({"offsets", "punctuation", "transaction"})
LOG_CALLS = (
    *("confirmed", "committed", "bounds", "offsets", "publish", "punctuate"),
    *("take_over", "last_transaction", "transaction"),
)
STORE_CALLS = ("deployment", "read", "ver", "claim", "load", "timers", "sessions", "commit")
CALLS = (
    *LOG_CALLS,
    *STORE_CALLS,
    *(
        f"{name} reply"
        for name in ("committed", "bounds", "publish", "take_over", *STORE_CALLS)
        if name not in {"deployment", "read"}
    ),
)
"""Gates of a worker's calls to log and store."""


class Ordered(Fatal):
    """An error that the schedule asked for."""


def simulated_plan(**changes: Any) -> Plan:
    """Steps of 3 s and 6 s, two seconds of lateness, carts that expire after 20 s, and nothing that stops a worker."""
    values = {
        "rules": RULES,
        "lateness_ms": 2_000,
        "trigger_max_staleness_ms": 0,
        "fences_per_minute_max": 1_000_000,
        "metrics_interval_ms": 10**12,
        "rebuild": True,
    }
    return make_plan(**(values | changes))


class SkewedClock:
    """A worker's own clock: wall time off by what `skew_ms` says now."""

    def __init__(self, clock: ManualClock, skew_ms: int) -> None:
        self.clock, self.skew_ms = clock, skew_ms

    def wall_ms(self) -> int:
        return self.clock.now_ms + self.skew_ms

    def monotonic_ms(self) -> int:
        return self.clock.steady_ms


@dataclass
class Worker:
    """A worker process, and the little of the transport around it that matters here: what it fetches, when it claims.

    owns: it believes the task to be its own.
    """

    name: str
    processor: Processor
    log: SimulatedLog
    gates: Gates
    clock: SkewedClock
    owns: bool = False
    fetch_from: dict[str, int] = field(default_factory=dict)
    runs: dict[str, deque[Run]] = field(default_factory=dict)
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """What the worker does besides committing: `claim`, `release`, `stop`, and an agent a topic."""
    fatal: list[Exception] = field(default_factory=list)
    frozen_ms: int = 0
    """Steady time at which it was frozen, where it is."""

    def doing(self, what: str) -> bool:
        task = self.busy.get(what)
        return task is not None and not task.done()
