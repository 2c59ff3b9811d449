"""The registry of live metrics: one entry says everything about a metric, and adding a metric is adding an entry.

A metric counts parts. Each part is fed by facts, which the core tells while it folds events, put into buckets of the
fact's own time; a window is the sum of its buckets, and a value the quotient of two sums of parts, or one sum alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.engagement.decay import HOUR_MS
from streams.engagement.windows import DAY_MS

MINUTE_MS: Final = 60_000
REVISED_FOR_MS: Final = DAY_MS
"""How long after a window is final a late change is still published."""
MINUTES_PUBLISHED_FOR_MS: Final = HOUR_MS
"""Windows of 60 s are published within this time of the watermark only."""
SINCE_START: Final = "all"


@dataclass(frozen=True, slots=True)
class Window:
    """length_ms: its length (0: since the state began); bucket_ms: the width of its buckets, at whose edges it ends."""

    length_ms: int
    bucket_ms: int


WINDOWS: Final[Mapping[str, Window]] = {
    "60s": Window(MINUTE_MS, MINUTE_MS),
    "24h": Window(DAY_MS, HOUR_MS),
    "7d": Window(7 * DAY_MS, DAY_MS),
    "30d": Window(30 * DAY_MS, DAY_MS),
    "365d": Window(365 * DAY_MS, DAY_MS),
    SINCE_START: Window(0, 0),
}


@dataclass(frozen=True, slots=True)
class Source:
    """What one kind of fact adds to one part. The numbers are positions in the fact.

    time: when it counts; dimensions: the metric's dimensions, none where the part has none; names: what a value is
    called; amount: how much it adds (None: 1). window, edges: only of facts that name the window themselves, whose time
    is the end of the first of `edges` windows in a row.
    """

    fact: str
    part: str
    time: int
    dimensions: tuple[int, ...] = ()
    names: Mapping[Any, str] = field(default_factory=dict)
    amount: int | None = None
    window: int | None = None
    edges: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A live metric. numerator, denominator: parts to be summed; no denominator: the numerator is the value.

    horizon_ms: how long after a bucket's end its numbers may still grow in time; topics: whose watermarks make it
    final; values: the dimensions' values, where they are known beforehand. definition_version: raise it when the
    meaning changes.
    """

    name: str
    meaning: str
    formula: str
    unit: str
    sources: tuple[Source, ...]
    numerator: tuple[str, ...]
    windows: tuple[str, ...]
    topics: tuple[str, ...]
    denominator: tuple[str, ...] | None = None
    dimensions: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] | None = None
    horizon_ms: int = 0
    definition_version: int = 1


_METRICS: Final = (
    Metric(
        name="events",
        meaning="Events that were applied, by topic and type, in the bucket of their own time.",
        formula="events",
        unit="events",
        dimensions=("topic", "type"),
        sources=(Source("event", "events", time=3, dimensions=(1, 2), amount=4),),
        numerator=("events",),
        windows=("60s", "24h", "7d", "30d"),
        topics=("clickstream", "cart", "email", "social"),
    ),
    Metric(
        name="active_customers",
        meaning="Customers who did something themselves in the window, each counted once.",
        formula="distinct customers with an event by the customer",
        unit="customers",
        sources=(Source("active", "customers", time=2, amount=3, window=1, edges=4),),
        numerator=("customers",),
        windows=("24h", "7d", "30d"),
        topics=("clickstream", "cart", "email", "social"),
    ),
    Metric(
        name="average_order_value",
        meaning="What an order is worth on average, net of cancellations and refunds.",
        formula="revenue / orders",
        unit="minor units",
        dimensions=("currency",),
        sources=(
            Source("order", "revenue_minor", time=2, dimensions=(1,), amount=4),
            Source("order", "orders", time=2, dimensions=(1,), amount=3),
        ),
        numerator=("revenue_minor",),
        denominator=("orders",),
        windows=("24h", "7d", "30d", "365d"),
        topics=("cart",),
    ),
    Metric(
        name="cart_abandonment_rate",
        meaning="Share of the carts opened in the window whose first step fired before they ended.",
        formula="carts whose first step fired / carts whose first step fired or that ended before",
        unit="ratio",
        sources=(
            Source("cart_fired", "fired", time=1),
            Source("cart_ended_unfired", "ended_unfired", time=1),
        ),
        numerator=("fired",),
        denominator=("fired", "ended_unfired"),
        windows=("24h", "7d", "30d"),
        topics=("cart",),
        horizon_ms=DAY_MS,
    ),
    Metric(
        name="cart_recovery_rate",
        meaning="Share of the carts first abandoned in the window that were bought later: after a click on a trigger's "
        "email (attributed), or without one (organic).",
        formula="recovered carts / carts with a fired step",
        unit="ratio",
        dimensions=("attribution",),
        values=(("attributed",), ("organic",)),
        sources=(
            Source("cart_fired", "fired", time=2),
            Source("cart_recovered", "recovered", 1, (2,), names={True: "attributed", False: "organic"}, amount=3),
        ),
        numerator=("recovered",),
        denominator=("fired",),
        windows=("24h", "7d", "30d", SINCE_START),
        topics=("cart", "email"),
        horizon_ms=7 * DAY_MS,
    ),
)

REGISTRY: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _METRICS}
