"""Small events whose every field follows from a label."""

from collections.abc import Callable
from typing import Any

from tests.support.world import START_MS

SECOND_MS = 1_000
TOPIC_OF = {name: f"engagement.{name}.v1" for name in ("cart", "clickstream", "email", "social")}


def event(kind: str, customer: str, at_s: float, number: int) -> dict[str, Any]:
    """Event `number`: all of its fields follow from its label."""
    return {
        "event_id": f"e{number}",
        "type": kind,
        "customer_id": customer,
        "occurred_at_ms": START_MS + round(at_s * SECOND_MS),
        **FIELDS.get(kind, lambda _: {})(number),
    }


def _cart(number: int) -> dict[str, Any]:
    return {"cart_id": "k"} if number % 6 == 5 else {}


def _product(number: int) -> dict[str, Any]:
    return {"product_id": f"p{number % 3}", "quantity": 1 + number % 2, "unit_price_minor": 500, "currency": "EUR"}


FIELDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "product_added": lambda number: _product(number) | _cart(number),
    "product_removed": lambda number: {"product_id": f"p{number % 3}"} | _cart(number),
    "cart_updated": lambda number: {"items": [_product(number)] if number % 4 else []} | _cart(number),
    "cart_cleared": _cart,
    "checkout_started": _cart,
    "order_completed": lambda number: {
        "order_id": f"o{number % 5}",
        "total_minor": 100 * (number % 7),
        "currency": "EUR",
    },
    "order_cancelled": lambda number: {"order_id": f"o{number % 5}"},
    "order_refunded": lambda number: {"order_id": f"o{number % 5}", "total_minor": 50},
    "identity_linked": lambda number: {"to_customer_id": "c9"},
    "email_link_clicked": lambda number: {"email_id": f"m{number % 3}"},
    "email_opened": lambda number: {"email_id": f"m{number % 3}", "machine": number % 2 == 0},
    "post_liked": lambda number: {"network": "n"},
    "audience_counted": lambda number: {"network": "n", "followers": number},
}
