"""What the core decides while it folds events: due steps, outcomes, and facts for the metrics."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from models.outputs import OutcomeName, outcome_id, trigger_id
from streams.engagement.cart_rules import step_name


@dataclass(slots=True)
class DueStep:
    """A step of an abandoned cart that fired; becomes a trigger, or at the cut a suppressed outcome.

    Times in epoch ms, money in minor units; items are dicts of product_id, name, quantity, unit_price_minor, url and
    image_url.
    """

    customer_id: str
    cart_id: str | None
    kind: str
    step: str
    due_ms: int
    last_touch_ms: int
    first_due_ms: int
    items: list[dict[str, Any]]
    total_minor: int | None
    currency: str | None
    shipping_minor: int | None
    checkout_url: str | None
    triggers: list[tuple[int, int]]
    """(last touch, step in ms) of all triggers of the cart up to and with this one (newest 64)."""

    @property
    def trigger_id(self) -> str:
        return trigger_id(self.customer_id, self.cart_id, self.last_touch_ms, self.step)

    @property
    def trigger_ids(self) -> list[str]:
        """Ids of the triggers; only a step that went stale asks for them."""
        return trigger_ids(self.customer_id, self.cart_id, self.triggers)


def trigger_ids(customer_id: str, cart_id: str | None, triggers: Iterable[tuple[int, int]]) -> list[str]:
    """The ids of a cart's triggers, each given by its last touch and its step in ms."""
    return [trigger_id(customer_id, cart_id, touch_ms, step_name(step_ms)) for touch_ms, step_ms in triggers]


@dataclass(slots=True)
class Outcome:
    """How a cart went on or ended; fields as in the contract of engagement.outcomes."""

    outcome: OutcomeName
    customer_id: str
    cart_id: str | None
    kind: str
    last_touch_ms: int
    trigger_ids: list[str]
    occurred_at_ms: int
    step: str | None = None
    due_ms: int | None = None
    order_id: str | None = None
    cart_total_minor: int | None = None
    order_total_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    first_due_ms: int | None = None

    @property
    def outcome_id(self) -> str:
        return outcome_id(self.customer_id, self.cart_id, self.last_touch_ms, self.outcome, self.step)


FACTS = {
    "order": "(order, currency, occurred_at_ms, orders, revenue_minor): signed changes in the bucket of the order",
    "active": "(active, window, edge_ms, customers, edges): signed change of the distinct customers in each of so many "
    "windows in a row, the first of which ends at edge_ms",
    "moved": "(moved, event type, from_ms, to_ms): a repeated order counts at an earlier time",
    "session": "(session, last_ms, duration_ms, events, pages, cart_events, order_events): a session is final",
    "cart_fired": "(cart_fired, opened_ms, first_due_ms): the first step of a cart fired",
    "cart_ended_unfired": "(cart_ended_unfired, opened_ms): a cart ended before its first step fired",
    "cart_recovered": "(cart_recovered, first_due_ms, attributed, carts): signed change of recovered carts",
}


@dataclass(slots=True)
class Decided:
    """What records decided: steps and outcomes, drained by the task after each record, the rest after each run."""

    steps_and_outcomes: list[DueStep | Outcome] = field(default_factory=list)
    facts: list[tuple[Any, ...]] = field(default_factory=list)
    folded_early: int = 0
    lines_dropped: int = 0
    carts_trimmed: int = 0
    """How often a limit of one customer's carts was reached."""
