"""Totals behind the live metrics, by brute force over all events.

events: {"minute"|"hour"|"day": {(channel, type, bucket start): n}}
orders, revenue: {"hour"|"day": {(currency, bucket start): n or minor units}}, net of cancellations and refunds
active_customers: {(window, edge): distinct customers with an event of their own in [edge - window, edge)}
cart_abandonment: {"hour"|"day": {start of the opening's bucket: {"fired", "ended_unfired"}}}
cart_recovery: {"hour"|"day": {start of the first due's bucket: {"fired", "organic", "attributed"}}}
Zeroes are left out.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.support.fold_profile import ORDER_MEMORY_MS, ProfileFold

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
BUCKETS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
HOUR_AND_DAY = {"hour": HOUR_MS, "day": DAY_MS}
ACTIVE_WINDOWS = {"24h": (DAY_MS, HOUR_MS), "7d": (7 * DAY_MS, DAY_MS), "30d": (30 * DAY_MS, DAY_MS)}


def metrics_of(profiles: Iterable[ProfileFold], other_events: list[dict[str, Any]]) -> dict[str, Any]:
    """All totals of all tasks."""
    everyone = list(profiles)
    orders, revenue = order_flows(everyone)
    abandonment, recovery = cart_cohorts(everyone)
    return {
        "events": event_flows(everyone, other_events),
        "orders": orders,
        "revenue": revenue,
        "active_customers": active_customers(everyone),
        "cart_abandonment": abandonment,
        "cart_recovery": recovery,
    }


def event_flows(profiles: list[ProfileFold], other_events: list[dict[str, Any]]) -> dict[str, dict[Any, int]]:
    counted = [
        (entry["channel"], entry["type"], entry["counted_ms"]) for profile in profiles for entry in profile.counted
    ]
    counted += [("social", event["type"], event["occurred_at_ms"]) for event in other_events]
    return {
        name: dict(Counter((channel, kind, start(at_ms, bucket_ms)) for channel, kind, at_ms in counted))
        for name, bucket_ms in BUCKETS.items()
    }


def order_flows(profiles: list[ProfileFold]) -> tuple[dict[str, dict[Any, int]], dict[str, dict[Any, int]]]:
    orders: dict[str, Counter[Any]] = {name: Counter() for name in HOUR_AND_DAY}
    revenue: dict[str, Counter[Any]] = {name: Counter() for name in HOUR_AND_DAY}
    for profile in profiles:
        for entry in profile.counted:
            if entry["type"] != "order_completed":
                continue
            count, minor = net_order(profile, entry)
            for name, bucket_ms in HOUR_AND_DAY.items():
                key = (entry["currency"], start(entry["counted_ms"], bucket_ms))
                orders[name][key] += count
                revenue[name][key] += minor
    return without_zeroes(orders), without_zeroes(revenue)


def net_order(profile: ProfileFold, order: dict[str, Any]) -> tuple[int, int]:
    """(orders, revenue) of an order after its cancellation and refunds, whichever was read first."""
    minor = order["total_minor"] or 0
    for entry in profile.counted:
        if entry["event"].get("order_id") != order["event"]["order_id"]:
            continue
        if abs(entry["counted_ms"] - order["counted_ms"]) > ORDER_MEMORY_MS:
            continue  # an order id is known for 30 d of event time
        if entry["type"] == "order_cancelled":
            return 0, 0
        if entry["type"] == "order_refunded":
            minor -= minor if entry["total_minor"] is None else entry["total_minor"]
    return 1, max(minor, 0)


def active_customers(profiles: list[ProfileFold]) -> dict[tuple[str, int], int]:
    active: Counter[tuple[str, int]] = Counter()
    for profile in profiles:
        edges = set()
        for entry in profile.history:
            if not entry["by_customer"]:
                continue
            for window, (length_ms, bucket_ms) in ACTIVE_WINDOWS.items():
                bucket_start_ms = start(entry["stated_ms"], bucket_ms)
                edges |= {
                    (window, edge_ms)
                    for edge_ms in range(bucket_start_ms + bucket_ms, bucket_start_ms + length_ms + 1, bucket_ms)
                }
        active.update(edges)
    return dict(active)


def cart_cohorts(profiles: list[ProfileFold]) -> tuple[dict[str, Any], dict[str, Any]]:
    abandonment: dict[str, dict[int, Counter[str]]] = {name: {} for name in HOUR_AND_DAY}
    recovery: dict[str, dict[int, Counter[str]]] = {name: {} for name in HOUR_AND_DAY}

    def count(cohorts: dict[str, dict[int, Counter[str]]], at_ms: int, what: str) -> None:
        for name, bucket_ms in HOUR_AND_DAY.items():
            cohorts[name].setdefault(start(at_ms, bucket_ms), Counter())[what] += 1

    for profile in profiles:
        for fact in profile.carts.facts:
            if fact[0] == "cart_fired":
                count(abandonment, fact[1], "fired")
                count(recovery, fact[2], "fired")
            elif fact[0] == "cart_ended_unfired":
                count(abandonment, fact[1], "ended_unfired")
            else:
                count(recovery, fact[1], "attributed" if is_attributed(profile, fact[2], fact[3]) else "organic")
    return as_dicts(abandonment), as_dicts(recovery)


def is_attributed(profile: ProfileFold, order_ms: int, trigger_ids: tuple[str, ...]) -> bool:
    """An email of one of the triggers was clicked before the order, and read before the email topic had passed it."""
    return any(
        trigger_id in trigger_ids and clicked_ms < order_ms and email_wm_ms <= order_ms
        for trigger_id, clicked_ms, email_wm_ms in profile.clicks
    )


def start(at_ms: int, bucket_ms: int) -> int:
    return at_ms // bucket_ms * bucket_ms


def without_zeroes(flows: dict[str, Counter[Any]]) -> dict[str, dict[Any, int]]:
    return {name: {key: n for key, n in flow.items() if n} for name, flow in flows.items()}


def as_dicts(cohorts: dict[str, dict[int, Counter[str]]]) -> dict[str, Any]:
    return {name: {at_ms: dict(counts) for at_ms, counts in buckets.items()} for name, buckets in cohorts.items()}
