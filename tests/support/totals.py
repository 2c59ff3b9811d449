"""The accumulators of the live metrics against the totals of the independent fold."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from streams.engagement.accumulators import Key, key_of

LEVELS = {"minute": "60s", "hour": "1h", "day": "1d"}
UNKNOWN = "unknown"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
KEPT_MS: Mapping[str, Mapping[str, int]] = {
    "events": {"60s": HOUR_MS + 2 * MINUTE_MS, "1h": 2 * DAY_MS + HOUR_MS, "1d": 32 * DAY_MS},
    "active_customers": {"24h": DAY_MS, "7d": DAY_MS, "30d": DAY_MS},
    "average_order_value": {"1h": 2 * DAY_MS + HOUR_MS, "1d": 367 * DAY_MS},
    "cart_abandonment_rate": {"1h": 3 * DAY_MS + HOUR_MS, "1d": 33 * DAY_MS},
    "cart_recovery_rate": {"1h": 9 * DAY_MS + HOUR_MS, "1d": 39 * DAY_MS},
}
"""How long before a watermark a bucket is still needed: its window, its horizon, a day to be revised (60s: an hour)."""


def totals_of(metrics: Mapping[str, Any], prefix: str) -> dict[Key, int]:
    """What the accumulators of all tasks must add up to; zeroes left out."""
    found: Counter[Key] = Counter()
    for name, flow in metrics["events"].items():
        for (channel, kind, start_ms), number in flow.items():
            found[Key("events", (f"{prefix}.{channel}.v1", kind), "events", LEVELS[name], start_ms)] += number
    for part, source in (("orders", "orders"), ("revenue_minor", "revenue")):
        for name, flow in metrics[source].items():
            for (currency, start_ms), number in flow.items():
                found[Key("average_order_value", (currency or UNKNOWN,), part, LEVELS[name], start_ms)] += number
    for (window, edge_ms), number in metrics["active_customers"].items():
        found[Key("active_customers", (), "customers", window, edge_ms)] += number
    for name, cohorts in metrics["cart_abandonment"].items():
        for start_ms, counts in cohorts.items():
            for part, number in counts.items():
                found[Key("cart_abandonment_rate", (), part, LEVELS[name], start_ms)] += number
    _add_recovery(found, metrics["cart_recovery"])
    return {key: number for key, number in found.items() if number}


def _add_recovery(found: Counter[Key], recovery: Mapping[str, Mapping[int, Mapping[str, int]]]) -> None:
    for name, cohorts in recovery.items():
        for start_ms, counts in cohorts.items():
            for what, number in counts.items():
                part, dimensions = ("fired", ()) if what == "fired" else ("recovered", (what,))
                found[Key("cart_recovery_rate", dimensions, part, LEVELS[name], start_ms)] += number
                if name == "day":
                    found[Key("cart_recovery_rate", dimensions, part, "all", 0)] += number


def summed(tasks: Iterable[Mapping[str, int]]) -> dict[Key, int]:
    """The accumulators of all tasks together, as stored; zeroes left out."""
    found: Counter[Key] = Counter()
    for fields in tasks:
        for field, value in fields.items():
            found[key_of(field)] += value
    return {key: number for key, number in found.items() if number}


def disagreements(wanted: Mapping[Key, int], got: Mapping[Key, int], expired_before_ms: int | None = None) -> list[str]:
    """Lines `key: want x, got y`.

    expired_before_ms: the watermark below which buckets may have expired; those that may are left out.
    """
    return [
        f"{key}: want {wanted.get(key, 0)}, got {got.get(key, 0)}"
        for key in sorted({*wanted, *got})
        if wanted.get(key, 0) != got.get(key, 0) and not _may_have_expired(key, expired_before_ms)
    ]


def _may_have_expired(key: Key, watermark_ms: int | None) -> bool:
    return (
        watermark_ms is not None and key.level != "all" and key.start_ms < watermark_ms - KEPT_MS[key.metric][key.level]
    )
