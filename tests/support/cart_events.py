"""Cart events in a line each, and a play: one customer's book with a watermark that the test moves."""

from typing import Any

from models import events
from models.codec import struct_of
from models.fields import Line
from streams.engagement.cart import CartBook, CartPolicy
from streams.engagement.decisions import Decided, DueStep, Outcome

T0 = 1_700_000_000_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_TYPES = {event.model_fields["type"].default: struct_of(event) for event in events.EVENTS_OF_TOPIC["cart.v1"]}
_ITEM = struct_of(Line)


def cart_event(type_: str, at_ms: int, event_id: str = "", customer_id: str = "c-1", **fields: Any) -> Any:
    """Return a struct as the codec yields it; at_ms counts from T0, items are dicts."""
    if fields.get("items") is not None:
        fields["items"] = [_ITEM(**item) for item in fields["items"]]
    return _TYPES[type_](
        event_id=event_id or f"{type_}@{at_ms}", customer_id=customer_id, occurred_at_ms=T0 + at_ms, **fields
    )


def added(at_ms: int, product_id: str | None = "p", **fields: Any) -> Any:
    return cart_event("product_added", at_ms, product_id=product_id, **fields)


def removed(at_ms: int, product_id: str | None = "p", **fields: Any) -> Any:
    return cart_event("product_removed", at_ms, product_id=product_id, **fields)


def updated(at_ms: int, *product_ids: str, **fields: Any) -> Any:
    return cart_event("cart_updated", at_ms, items=[{"product_id": each} for each in product_ids], **fields)


def ordered(at_ms: int, order_id: str = "", **fields: Any) -> Any:
    return cart_event("order_completed", at_ms, order_id=order_id or f"o{at_ms}", **fields)


def cleared(at_ms: int, **fields: Any) -> Any:
    return cart_event("cart_cleared", at_ms, **fields)


def linked(at_ms: int, **fields: Any) -> Any:
    return cart_event("identity_linked", at_ms, to_customer_id="c-2", **fields)


def checkout(at_ms: int, **fields: Any) -> Any:
    return cart_event("checkout_started", at_ms, **fields)


class Play:
    """A book, what it decided so far, and the cart watermark, all times counted from T0."""

    def __init__(self, **policy: Any) -> None:
        self.policy = CartPolicy(**policy)
        self.book = CartBook("c-1")
        self.watermark_ms = -1
        self.decided: list[DueStep | Outcome] = []
        self.facts: list[tuple[Any, ...]] = []

    def read(self, *read: Any) -> "Play":
        """Read events at the watermark as it is."""
        for event in read:
            decided = Decided()
            self.book.read(event, self.watermark_ms, self.policy, decided)
            self._take(decided)
        return self

    def advance(self, watermark_ms: int) -> "Play":
        """Move the watermark to a time after T0, and release."""
        self.watermark_ms = T0 + watermark_ms
        decided = Decided()
        self.book.release(self.watermark_ms, self.policy, decided)
        self._take(decided)
        return self

    def fold(self, *read: Any) -> "Play":
        """Read each event in time and move the watermark just past it."""
        for event in read:
            self.read(event)
            self.advance(event.occurred_at_ms - T0 + 1)
        return self

    def _take(self, decided: Decided) -> None:
        self.decided += decided.steps_and_outcomes
        self.facts += decided.facts

    @property
    def steps(self) -> list[DueStep]:
        return [what for what in self.decided if isinstance(what, DueStep)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [what for what in self.decided if isinstance(what, Outcome)]

    @property
    def names(self) -> list[str]:
        """What was decided: the names of steps that fired and of outcomes."""
        return [what.step if isinstance(what, DueStep) else what.outcome for what in self.decided]

    @property
    def carts(self) -> list[dict[str, Any]]:
        """View of the open carts, times counted from T0."""
        times = ("opened_ms", "last_touch_ms", "first_due_ms")
        return [
            cart | {name: None if cart[name] is None else cart[name] - T0 for name in times}
            for cart in self.book.view()
        ]

    @property
    def cart(self) -> dict[str, Any]:
        """View of the only open cart."""
        (cart,) = self.carts
        return cart

    @property
    def quantities(self) -> dict[str, int]:
        """Line key -> quantity of the only open cart."""
        named = ((line["product_id"], line["name"], line["quantity"]) for line in self.cart["lines"])
        return {name if product_id is None else product_id: quantity for product_id, name, quantity in named}

    def open_keys(self) -> list[str | None]:
        return [cart["cart_id"] for cart in self.carts]

    def forget(self) -> "Play":
        """Forget what was decided so far, so that a test can name what follows."""
        self.decided, self.facts = [], []
        return self
