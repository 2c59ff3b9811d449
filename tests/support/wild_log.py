"""Input logs of one customer with everything the cart contract speaks of, at random: late, repeated, resent, silent."""

import json
from random import Random
from typing import Any

from tests.support.fold import FoldRecord, TopicPartition
from tests.support.log_builder import DAY_MS, HOUR_MS, MINUTE_MS, T0

CART_TYPES = {
    "product_added": 7,
    "product_removed": 3,
    "cart_updated": 3,
    "order_completed": 2,
    **dict.fromkeys(("cart_cleared", "checkout_started", "payment_info_entered", "cart_viewed"), 1),
    **dict.fromkeys(("order_cancelled", "order_refunded", "identity_linked"), 1),
}
OTHER_TYPES = {
    "clickstream": ("page_viewed", "products_searched", "application_uninstalled"),
    "email": ("email_sent", "email_opened", "email_link_clicked", "email_unsubscribed"),
    "social": ("post_liked", "account_followed"),
}
SPREADS_MS = (2_000, 20_000, MINUTE_MS, 10 * MINUTE_MS, HOUR_MS)
PAUSES_MS = (0, 1, MINUTE_MS, 10 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 20 * HOUR_MS)
LATE_MS = (11_000, MINUTE_MS, 5 * MINUTE_MS, 10 * MINUTE_MS, 16 * MINUTE_MS, 61 * MINUTE_MS, 3 * HOUR_MS, 26 * HOUR_MS)
FAR_MS = 28 * DAY_MS  # order ids and tombstones are bounded by 30 d of event time, each in its own way


class WildLog:
    """`logs` of `records` events; the same seed gives the same logs."""

    def __init__(self, seed: int, records: int) -> None:
        self.random = Random(seed)
        self.logs: dict[TopicPartition, list[FoldRecord]] = {}
        self.orders = 0
        now_ms, spread_ms = T0, self.random.choice(SPREADS_MS)
        for number in range(records):
            chosen = self.random.random() < 0.9
            now_ms += int(self.random.expovariate(1) * spread_ms) if chosen else self.random.choice(PAUSES_MS)
            self.event(number, now_ms)
            if self.chance(0.05):
                value = {"type": "watermark_advanced", "watermark_ms": now_ms - self.random.randrange(20_000)}
                self.put(
                    self.random.choice(("cart", "cart", "clickstream")), now_ms, None, value, (("pl-control", b""),)
                )

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def put(self, channel: str, now_ms: int, key: bytes | None, value: dict[str, Any], headers: Any = ()) -> None:
        log = self.logs.setdefault((f"engagement.{channel}.v1", 0), [])
        log.append(FoldRecord(len(log), now_ms, key, json.dumps(value).encode(), headers))

    def event(self, number: int, now_ms: int) -> None:
        channel = self.random.choices(("cart", "clickstream", "email", "social"), (8, 1, 1, 1))[0]
        resent = max(0, number - self.random.randrange(1, 5))
        event = {
            "event_id": f"e{resent if self.chance(0.02) else number}",
            "customer_id": "c",
            "occurred_at_ms": self.occurred_at(now_ms),
        }
        if channel == "cart":
            event |= self.cart_fields()
        else:
            event["type"] = self.random.choice(OTHER_TYPES[channel])
            event |= {"network": "n"} if channel == "social" else {}
            event |= {"email_id": "m", "machine": self.chance(0.2)} if channel == "email" else {}
        self.put(channel, now_ms, b"c", event)

    def occurred_at(self, now_ms: int) -> int:
        kind = self.random.random()
        at_ms = now_ms
        if kind < 0.25:
            at_ms -= self.random.randrange(9_000)
        elif kind < 0.4:
            at_ms -= self.random.choice(LATE_MS) + self.random.randrange(3_000)
        elif kind < 0.41:
            at_ms -= self.random.randrange(FAR_MS)
        elif kind < 0.43:
            at_ms += self.random.randrange(4 * MINUTE_MS)
        return at_ms // 1000 * 1000 if self.chance(0.3) else at_ms

    def cart_fields(self) -> dict[str, Any]:
        kind = self.random.choices(list(CART_TYPES), list(CART_TYPES.values()))[0]
        fields: dict[str, Any] = {"type": kind}
        fields |= {"cart_id": self.random.choice("AB")} if self.chance(0.4) else {}
        fields |= {"currency": self.random.choice(("EUR", "EUR", "PLN"))} if self.chance(0.6) else {}
        fields |= {"shipping_minor": self.random.randrange(9)} if self.chance(0.1) else {}
        fields |= {"checkout_url": self.random.choice("xy")} if self.chance(0.1) else {}
        if kind in ("product_added", "product_removed"):
            fields |= self.line()
        if kind == "cart_updated" and self.chance(0.8):
            fields["items"] = [self.line() for _ in range(self.random.choice((0, 1, 1, 2, 3)))]
        if kind.startswith("order"):
            self.orders += self.chance(0.8)
            fields["order_id"] = f"o{self.orders}"
            fields |= {"total_minor": self.random.randrange(100)} if self.chance(0.8) else {}
        return fields | ({"to_customer_id": "known"} if kind == "identity_linked" else {})

    def line(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"product_id": self.random.choice("pq")} if self.chance(0.9) else {"name": "p"}
        fields |= {"unit_price_minor": self.random.choice((1, 100))} if self.chance(0.6) else {}
        fields |= {"quantity": self.random.choice((1, 2, 3))} if self.chance(0.4) else {}
        fields |= {"url": self.random.choice("uv")} if self.chance(0.2) else {}
        return fields | ({"name": self.random.choice("mn")} if self.chance(0.2) else {})
