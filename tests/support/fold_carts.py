"""The carts of one customer, folded from the contract's text in the plainest way.

Every method works in event time; `wm` is the watermark of the cart partition when the record was read. Numbers in
brackets name the lines of docs/decisions/0003-cart-rules.md that are followed where the contract is silent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from json import dumps
from typing import Any

MINUTE_MS = 60_000
DAY_MS = 86_400_000
WAITING_MAX = 64
OPEN_CARTS_MAX = 20
LINES_MAX = 100
TRIGGER_IDS_MAX = 64
TAKE_OVER_MS = 10 * MINUTE_MS
ORDER_QUIET_MS = MINUTE_MS
TOMBSTONE_MS = 30 * DAY_MS
ORDERS_MAX = 128
ENDS_MAX = 64
TOUCHES_MAX = 64
USED_MAX = 2
HEAVY_BYTES, KEPT_BYTES = 32_768, 24_576

OPENING = ("product_added", "cart_updated")
CHECKOUT = ("checkout_started", "checkout_step_completed", "payment_info_entered")
IGNORED = ("cart_viewed", "order_cancelled", "order_refunded")

Event = dict[str, Any]


def identity(*parts: str | int | None) -> str:
    text = dumps(list(parts), separators=(",", ":"), ensure_ascii=False)
    return blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def cart_order(cart_id: str | None) -> tuple[bool, str]:
    """null counts as smallest."""
    return (cart_id is not None, cart_id or "")


def rank(event: Event) -> int:
    """Events at one time: touch < order < clear."""
    if event["type"] == "order_completed":
        return 1
    return 2 if is_clear(event) else 0


def is_clear(event: Event) -> bool:
    return event["type"] == "cart_cleared" or (event["type"] == "cart_updated" and event["items"] == [])


def fold_key(event: Event) -> tuple[int, int, str]:
    return (event["occurred_at_ms"], rank(event), event["event_id"])


@dataclass
class Line:
    product_id: str | None
    name: str | None
    quantity: int
    unit_price_minor: int | None
    currency: str | None
    url: str | None
    image_url: str | None
    newest_add_ms: int


@dataclass
class Cart:
    cart_id: str | None
    opened_ms: int
    last_touch_ms: int
    touches: list[int]
    kind: str = "cart"
    lines: dict[str, Line] = field(default_factory=dict)
    shipping_minor: int | None = None
    checkout_url: str | None = None
    fired: int = 0
    """Steps fired and not re-armed."""
    only_first_due_ms: int | None = None
    """Of a cart that a late touch opened: the due of its first step, though a later one gives the record."""
    first_due_ms: int | None = None
    trigger_ids: list[str] = field(default_factory=list)
    ids_since_touch: list[str] = field(default_factory=list)
    triggered_touches: set[int] = field(default_factory=set)
    """The last touches for which a trigger was made."""


@dataclass
class End:
    """The end of the last cart with its key."""

    at_ms: int
    triggered_touches: set[int]


@dataclass
class Emptied:
    """A cart that an order may take over; `reopened_ms` is when a cart with its key was opened since."""

    at_ms: int
    cart: Cart
    reopened_ms: int | None = None


class CartFold:
    """read() each accepted cart event, release() with every later watermark.

    Decisions collect in `triggers` and `outcomes`, and in `facts` what the metrics count: ("cart_fired", opened_ms,
    first_due_ms), ("cart_ended_unfired", opened_ms), ("cart_recovered", first_due_ms, order_ms, trigger_ids).
    """

    def __init__(self, customer_id: str, policy: dict[str, Any]) -> None:
        self.customer_id = customer_id
        self.policy = policy
        self.open: dict[str | None, Cart] = {}
        self.emptied: list[Emptied] = []
        self.ends: dict[str | None, End] = {}
        self.orders: list[Event] = []
        self.waiting: list[Event] = []
        self.newest_folded_ms = -1
        self.newest_due_ms: int | None = None
        self.triggers: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.facts: list[tuple[Any, ...]] = []
        self.lines_dropped = 0
        self.folded_early = 0
        self.trimmed = 0

    # ---------------------------------------------------------------- time

    def read(self, event: Event, wm: int) -> None:
        if event["type"] in IGNORED:
            return
        clock_ms = max(wm, self.newest_folded_ms)  # the latter is ahead where an event was folded early [2]
        if event["occurred_at_ms"] < clock_ms:
            self.fold(event, late=True, clock_ms=clock_ms)
            self.fire_due(clock_ms)
        else:
            self.waiting = sorted([*self.waiting, event], key=fold_key)
            if len(self.waiting) > WAITING_MAX:
                self.fold_early()
        if self.weight() > HEAVY_BYTES:
            self.trimmed += 1
            for _ in self.drops():
                if self.weight() <= KEPT_BYTES:
                    break

    def fold_early(self) -> None:
        oldest = self.waiting.pop(0)
        self.fire_due(oldest["occurred_at_ms"])
        self.fold(oldest, late=False, clock_ms=oldest["occurred_at_ms"])
        self.folded_early += 1

    # ---------------------------------------------------------------- what the carts weigh (docs/limits.md)

    def weight(self) -> int:
        """Texts in UTF-8, 656 for each open cart, 64 for an emptied one, 14 for a trigger, 48 for a line or event."""
        return sum(
            [
                *(
                    656 + 14 * len(cart.trigger_ids) + utf8(cart.cart_id, cart.checkout_url) + piece_weight(line)
                    for cart in self.open.values()
                    for line in ([vars(line) for line in cart.lines.values()],)
                ),
                *(64 + 14 * len(gone.cart.trigger_ids) + utf8(gone.cart.cart_id) for gone in self.emptied),
                *map(event_weight, self.waiting),
            ]
        )

    def drops(self) -> Iterator[None]:
        """Urls, then names, then what waits, what could be taken over, lines, carts; the longest untouched first."""
        for fields in (("url", "image_url"), ("name",)):
            for cart in self.by_touch():
                cart.checkout_url = None
                for line in cart.lines.values():
                    forget(vars(line), fields)
                yield
            for number, event in enumerate(self.waiting):
                self.waiting[number] = without(event, fields)
                yield
        while self.waiting:
            self.fold_early()
        yield
        for emptied in sorted(self.emptied, key=lambda each: (each.at_ms, cart_order(each.cart.cart_id))):
            self.emptied.remove(emptied)
            yield
        for cart in self.by_touch():
            for key, _ in sorted(cart.lines.items(), key=lambda item: (item[1].newest_add_ms, item[0]))[:-1]:
                del cart.lines[key]
                self.lines_dropped += 1
                yield
        for cart in self.by_touch()[:-1]:
            self.end(cart, "expired", cart.last_touch_ms)
            yield

    def by_touch(self) -> list[Cart]:
        return sorted(self.open.values(), key=lambda cart: (cart.last_touch_ms, cart_order(cart.cart_id)))

    # ---------------------------------------------------------------- time passes

    def release(self, wm: int) -> None:
        """Fold what waited and fire what is due, in event-time order; an event at exactly a due time is in time."""
        while self.waiting and self.waiting[0]["occurred_at_ms"] < wm:
            event = self.waiting.pop(0)
            self.fire_due(event["occurred_at_ms"])
            self.fold(event, late=False, clock_ms=wm)
        self.fire_due(wm)

    def fire_due(self, before_ms: int) -> None:
        """Fire every step and expiry with a time before `before_ms`, in order of time, then of cart."""
        while timers := [(self.next_timer(cart), cart_order(cart.cart_id), cart) for cart in self.open.values()]:
            due_ms, _, cart = min(timers, key=lambda timer: timer[:2])
            if due_ms >= before_ms:
                return
            if cart.fired < len(self.policy["steps"]):
                self.fire_step(cart, due_ms)
            else:
                self.end(cart, "expired", due_ms)

    def next_timer(self, cart: Cart) -> int:
        steps = self.policy["steps"]
        wait_ms: int = steps[cart.fired][1] if cart.fired < len(steps) else self.policy["cart_expiry_ms"]
        return cart.last_touch_ms + wait_ms

    # ---------------------------------------------------------------- steps

    def fire_step(self, cart: Cart, due_ms: int) -> None:
        step = self.policy["steps"][cart.fired][0]
        cart.fired += 1
        first_of_late_ms, cart.only_first_due_ms = cart.only_first_due_ms, None  # of its own record alone [29]
        total_minor, currency = total(cart)
        reason = None
        if total_minor is not None and total_minor < self.policy["min_cart_value_minor"]:
            reason = "below_min_value"
        elif self.cooling(due_ms):
            reason = "cooldown"
        if reason is not None:
            self.outcome("suppressed", cart, due_ms, step=step, due_ms=due_ms, reason=reason)
            return
        trigger_id = identity("v1", self.customer_id, cart.cart_id, cart.last_touch_ms, step)
        cart.trigger_ids = [*cart.trigger_ids, trigger_id][-TRIGGER_IDS_MAX:]
        cart.ids_since_touch = [*cart.ids_since_touch, trigger_id][-TRIGGER_IDS_MAX:]
        self.newest_due_ms = due_ms if self.newest_due_ms is None else max(self.newest_due_ms, due_ms)
        if cart.first_due_ms is None:
            cart.first_due_ms = due_ms if first_of_late_ms is None else first_of_late_ms
            self.facts.append(("cart_fired", cart.opened_ms, cart.first_due_ms))
        cart.triggered_touches.add(cart.last_touch_ms)
        self.triggers.append(
            {
                "trigger_id": trigger_id,
                "kind": cart.kind,
                "step": step,
                "customer_id": self.customer_id,
                "cart_id": cart.cart_id,
                "items": [
                    {
                        name: getattr(line, name)
                        for name in ("product_id", "name", "quantity", "unit_price_minor", "url", "image_url")
                    }
                    for _, line in sorted(cart.lines.items())
                ],
                "items_count": sum(line.quantity for line in cart.lines.values()),
                "total_minor": total_minor,
                "currency": currency,
                "shipping_minor": cart.shipping_minor,
                "checkout_url": cart.checkout_url,
                "last_touch_ms": cart.last_touch_ms,
                "due_ms": due_ms,
            }
        )

    def cooling(self, due_ms: int) -> bool:
        cooldown_ms: int = self.policy["trigger_cooldown_ms"]
        return self.newest_due_ms is not None and cooldown_ms > 0 and due_ms - self.newest_due_ms < cooldown_ms

    # ---------------------------------------------------------------- events

    def fold(self, event: Event, *, late: bool, clock_ms: int) -> None:
        self.newest_folded_ms = max(self.newest_folded_ms, event["occurred_at_ms"])
        if event["type"] == "order_completed":
            self.fold_order(event)
        elif event["type"] == "identity_linked":
            for cart in self.carts_opened_by(event["occurred_at_ms"]):
                self.end_or_split(cart, event["occurred_at_ms"], "merged")
        elif is_clear(event):
            cart_or_none = self.open.get(event["cart_id"])
            if cart_or_none is not None and cart_or_none.opened_ms <= event["occurred_at_ms"]:
                self.end_or_split(cart_or_none, event["occurred_at_ms"], "emptied")
        elif late:
            self.touch_late(event, clock_ms)
        else:
            self.touch(event, clock_ms)

    def touch(self, event: Event, clock_ms: int) -> None:
        at_ms = event["occurred_at_ms"]
        cart = self.open.get(event["cart_id"])
        if cart is None:
            if not self.may_open(event, clock_ms):
                return
            cart = self.open_cart(event)
        else:
            if cart.fired:
                self.outcome("resumed", cart, at_ms, trigger_ids=cart.ids_since_touch)
            cart.fired = 0
            cart.ids_since_touch = []
            cart.last_touch_ms = at_ms
            remember_touch(cart, at_ms)
        self.change(cart, event)
        if not cart.lines:
            self.end(cart, "emptied", at_ms)

    def touch_late(self, event: Event, clock_ms: int) -> None:
        at_ms = event["occurred_at_ms"]
        cart = self.open.get(event["cart_id"])
        if cart is None:
            end = self.ends.get(event["cart_id"])
            if end is not None and (at_ms <= end.at_ms or at_ms in end.triggered_touches):  # [21]
                return
            if not self.may_open(event, clock_ms):
                return
            cart = self.open_cart(event)
            due_already = sum(at_ms + wait_ms < clock_ms for _, wait_ms in self.policy["steps"])
            if due_already:
                cart.fired = due_already - 1
                cart.only_first_due_ms = at_ms + self.policy["steps"][0][1]
            self.change(cart, event)
            return
        changes_lines = event["type"] != "cart_updated" or at_ms >= cart.last_touch_ms
        remember_touch(cart, at_ms)  # an older one does not move the opening [12]
        if at_ms > cart.last_touch_ms and not cart.fired:
            cart.last_touch_ms = at_ms
        self.change(cart, event, lines=changes_lines)
        if not cart.lines:
            self.end(cart, "emptied", cart.last_touch_ms)

    def may_open(self, event: Event, clock_ms: int) -> bool:
        at_ms = event["occurred_at_ms"]
        if event["type"] not in OPENING or (event["type"] == "cart_updated" and not event["items"]):
            return False
        orders_ms = [order["occurred_at_ms"] for order in self.orders]  # of any cart in both scopes [18]
        if any(at_ms <= order_ms and clock_ms <= order_ms + TOMBSTONE_MS for order_ms in orders_ms):
            return False
        soon = any(order_ms <= at_ms <= order_ms + ORDER_QUIET_MS for order_ms in orders_ms)
        return event["type"] == "product_added" or not soon

    def open_cart(self, event: Event) -> Cart:
        at_ms, cart_id = event["occurred_at_ms"], event["cart_id"]
        if len(self.open) == OPEN_CARTS_MAX:
            oldest = min(self.open.values(), key=lambda cart: (cart.last_touch_ms, cart_order(cart.cart_id)))
            self.end(oldest, "expired", at_ms)
        cart = Cart(cart_id, opened_ms=at_ms, last_touch_ms=at_ms, touches=[at_ms])
        self.open[cart_id] = cart
        for emptied in self.emptied:
            if emptied.cart.cart_id == cart_id and emptied.reopened_ms is None:
                emptied.reopened_ms = at_ms
        return cart

    def change(self, cart: Cart, event: Event, *, lines: bool = True) -> None:
        """What a touch changes: the kind, shipping and checkout url, and the lines."""
        if event["type"] in CHECKOUT:
            cart.kind = "checkout"
        if event["shipping_minor"] is not None:
            cart.shipping_minor = event["shipping_minor"]
        if event["checkout_url"] is not None:
            cart.checkout_url = event["checkout_url"]
        if not lines:
            return
        if event["type"] == "product_added":
            self.add(cart, event, event)
        elif event["type"] == "product_removed":
            remove(cart, event)
        elif event["type"] == "cart_updated" and event["items"]:
            cart.lines = {}
            for item in event["items"]:
                self.add(cart, item, event)

    def add(self, cart: Cart, item: dict[str, Any], event: Event) -> None:
        key = line_key(item)
        line = cart.lines.get(key)
        if line is None:
            if len(cart.lines) == LINES_MAX:
                self.lines_dropped += 1
                return
            line = cart.lines[key] = Line(None, None, 0, None, None, None, None, 0)
        line.quantity += item["quantity"] or 1
        for name in ("product_id", "name", "unit_price_minor", "url", "image_url"):
            if item[name] is not None:
                setattr(line, name, item[name])
        if event["currency"] is not None:
            line.currency = event["currency"]
        line.newest_add_ms = max(line.newest_add_ms, event["occurred_at_ms"])

    # ---------------------------------------------------------------- ends

    def fold_order(self, order: Event) -> None:
        at_ms = order["occurred_at_ms"]
        if any(
            known["order_id"] == order["order_id"] and abs(known["occurred_at_ms"] - at_ms) <= TOMBSTONE_MS
            for known in self.orders
        ):
            return
        self.orders = sorted([*self.orders, order], key=lambda known: int(known["occurred_at_ms"]))[-ORDERS_MAX:]
        ended = [
            self.end_or_split(cart, at_ms, "order", order)
            for cart in self.carts_opened_by(at_ms)
            if self.covers(order, cart.cart_id)
        ]
        for emptied in sorted(self.emptied, key=lambda emptied: cart_order(emptied.cart.cart_id)):
            soon = emptied.at_ms <= at_ms <= emptied.at_ms + TAKE_OVER_MS
            alone = emptied.reopened_ms is None or emptied.reopened_ms > at_ms  # a late order finds it as in time [22]
            if soon and alone and self.covers(order, emptied.cart.cart_id):
                self.emptied.remove(emptied)
                ended.append(self.end_by_order(emptied.cart, order, taken_over=True))
        if ended:
            newest = max(ended, key=lambda outcome: (outcome["last_touch_ms"], cart_order(outcome["cart_id"])))
            put_order_total(newest, order)

    def covers(self, order: Event, cart_id: str | None) -> bool:
        if self.policy["order_scope"] == "customer" or order["cart_id"] is None:
            return True
        return cart_id is None or cart_id == order["cart_id"]

    def carts_opened_by(self, at_ms: int) -> list[Cart]:
        carts = [cart for cart in self.open.values() if cart.opened_ms <= at_ms]
        return sorted(carts, key=lambda cart: cart_order(cart.cart_id))

    def end_or_split(self, cart: Cart, at_ms: int, how: str, order: Event | None = None) -> dict[str, Any]:
        """End the cart, or only the part of it that was there by `at_ms` where some line was added later."""
        staying = {key: line for key, line in cart.lines.items() if line.newest_add_ms > at_ms}
        if not staying:
            if order is not None:
                return self.end_by_order(cart, order)
            return self.end(cart, how, at_ms)
        leaving = {key: line for key, line in cart.lines.items() if key not in staying}
        part = Cart(
            cart.cart_id,
            cart.opened_ms,
            max(touch_ms for touch_ms in (cart.opened_ms, *cart.touches) if touch_ms <= at_ms),
            [],
            cart.kind,
            leaving,
        )
        cart.lines = staying
        cart.touches = [touch_ms for touch_ms in cart.touches if touch_ms > at_ms]
        cart.opened_ms = min(cart.touches)
        return self.outcome("closed", part, at_ms, order_id=order and order["order_id"], trigger_ids=[])

    def end_by_order(self, cart: Cart, order: Event, *, taken_over: bool = False) -> dict[str, Any]:
        at_ms, first_ms = order["occurred_at_ms"], cart.first_due_ms
        how, reason = "closed", None
        if first_ms is not None and first_ms < at_ms <= first_ms + self.policy["recovery_window_ms"]:
            how = "recovered"
            self.facts.append(("cart_recovered", first_ms, at_ms, tuple(cart.trigger_ids)))
        elif first_ms is not None and at_ms <= first_ms:
            reason = "ordered_before_due"
        if taken_over:
            return self.outcome(how, cart, at_ms, order_id=order["order_id"], reason=reason)
        return self.end(cart, how, at_ms, order_id=order["order_id"], reason=reason)

    def end(self, cart: Cart, how: str, at_ms: int, **fields: Any) -> dict[str, Any]:
        del self.open[cart.cart_id]
        self.remember_end(cart, at_ms)
        # Only the last cart with its key can be taken over: an end of any kind follows and replaces it.
        self.emptied = [emptied for emptied in self.emptied if emptied.cart.cart_id != cart.cart_id]
        self.emptied = [emptied for emptied in self.emptied if emptied.cart.cart_id in self.ends]
        if how == "emptied":
            cart.lines = {}
            self.emptied.append(Emptied(at_ms, cart))
        if cart.first_due_ms is None:
            self.facts.append(("cart_ended_unfired", cart.opened_ms))
        return self.outcome(how, cart, at_ms, **fields)

    def remember_end(self, cart: Cart, at_ms: int) -> None:
        self.ends.pop(cart.cart_id, None)
        self.ends[cart.cart_id] = End(at_ms, {*sorted(ms for ms in cart.triggered_touches if ms > at_ms)[-USED_MAX:]})
        newest_ms = max(end.at_ms for end in self.ends.values())
        kept = sorted(self.ends.items(), key=lambda entry: entry[1].at_ms)[-ENDS_MAX:]
        self.ends = {cart_id: end for cart_id, end in kept if end.at_ms >= newest_ms - TOMBSTONE_MS}

    def outcome(self, how: str, cart: Cart, at_ms: int, **fields: Any) -> dict[str, Any]:
        total_minor, currency = total(cart)
        outcome = {
            "outcome_id": identity("o1", self.customer_id, cart.cart_id, cart.last_touch_ms, how, fields.get("step")),
            "outcome": how,
            "customer_id": self.customer_id,
            "cart_id": cart.cart_id,
            "kind": cart.kind,
            "step": None,
            "due_ms": None,
            "last_touch_ms": cart.last_touch_ms,
            "trigger_ids": cart.trigger_ids,
            "order_id": None,
            "cart_total_minor": total_minor,
            "order_total_minor": None,
            "currency": currency,
            "occurred_at_ms": at_ms,
            "reason": None,
            "first_due_ms": cart.first_due_ms,
            **fields,
        }
        self.outcomes.append(outcome)
        return outcome

    # ---------------------------------------------------------------- what people see

    def view(self) -> list[dict[str, Any]]:
        return [
            {
                "cart_id": cart.cart_id,
                "kind": cart.kind,
                "opened_ms": cart.opened_ms,
                "last_touch_ms": cart.last_touch_ms,
                "first_due_ms": cart.first_due_ms,
                "fired": [name for name, _ in self.policy["steps"][: cart.fired]],
                "trigger_ids": cart.trigger_ids,
                "lines": [
                    {
                        name: getattr(line, name)
                        for name in (
                            "product_id",
                            "name",
                            "quantity",
                            "unit_price_minor",
                            "currency",
                            "url",
                            "image_url",
                        )
                    }
                    for _, line in sorted(cart.lines.items())
                ],
            }
            for cart in sorted(self.open.values(), key=lambda cart: cart_order(cart.cart_id))
        ]


def line_key(item: dict[str, Any]) -> str:
    key: str = item["product_id"] if item["product_id"] is not None else item["name"]
    return key


def forget(piece: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Forget fields of a line; not the name where no product_id tells the line from others."""
    for name in fields:
        if name != "name" or piece["product_id"] is not None:
            piece[name] = None


def without(event: Event, fields: tuple[str, ...]) -> Event:
    event = {**event, "checkout_url": None}
    if event["type"] in ("product_added", "product_removed"):
        forget(event, fields)
    elif event["type"] == "cart_updated" and event["items"]:
        event["items"] = [dict(item) for item in event["items"]]
        for item in event["items"]:
            forget(item, fields)
    return event


def utf8(*texts: str | None) -> int:
    return sum(len((text or "").encode()) for text in texts)


def piece_weight(pieces: list[dict[str, Any]], currency: str | None = None) -> int:
    return sum(
        48
        + utf8(*(piece.get(name) for name in ("product_id", "name", "url", "image_url")))
        + utf8(piece.get("currency", currency))
        for piece in pieces
    )


def event_weight(event: Event) -> int:
    weight = 48 + utf8(event["event_id"], event["cart_id"], event["checkout_url"])
    if event["type"] == "order_completed":
        return weight + utf8(event["order_id"], event["currency"])
    if event["type"] in ("product_added", "product_removed"):
        return weight + piece_weight([event])
    return weight + piece_weight(event["items"] or [], event["currency"]) if event["type"] == "cart_updated" else weight


def remember_touch(cart: Cart, at_ms: int) -> None:
    """The opening is known besides [13]."""
    cart.touches = sorted([*cart.touches, at_ms])[-TOUCHES_MAX:]


def put_order_total(outcome: dict[str, Any], order: Event) -> None:
    """One record speaks of one currency [24]."""
    outcome["order_total_minor"] = order["total_minor"]
    if order["total_minor"] is None or order["currency"] is None:
        return
    if outcome["currency"] not in (None, order["currency"]):
        outcome["cart_total_minor"] = None
    outcome["currency"] = order["currency"]


def remove(cart: Cart, event: Event) -> None:
    line = cart.lines.get(line_key(event))
    if line is None:
        return
    line.quantity -= line.quantity if event["quantity"] is None else event["quantity"]
    if line.quantity <= 0:
        del cart.lines[line_key(event)]


def total(cart: Cart) -> tuple[int | None, str | None]:
    """Sum of the lines and its currency; nothing of both where a price is missing or currencies differ."""
    prices = [line.unit_price_minor for line in cart.lines.values()]
    currencies = {line.currency for line in cart.lines.values()}
    if not cart.lines or None in prices or len(currencies) > 1:
        return None, None
    return sum((line.unit_price_minor or 0) * line.quantity for line in cart.lines.values()), currencies.pop()
