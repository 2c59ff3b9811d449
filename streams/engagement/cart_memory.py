"""All that is remembered of one customer's carts once events are folded."""

from typing import Any

import xxhash

from streams.engagement.cart_attribution import Attribution
from streams.engagement.cart_rules import (
    AFTER_ORDER_MS,
    END_KEY_BYTES_MAX,
    ENDS_MAX,
    ORDERS_MAX,
    REPEATED_ORDER_MS,
    TAKE_OVER_MS,
    TOMBSTONE_MS,
    USED_MAX,
)
from streams.engagement.cart_state import Cart, CartKey, Ended, key_order


class Carts:
    """Open carts, ended ones, orders and recoveries of one customer; changed in place. Times in epoch ms.

    ends: by short key, of the last cart with a key, unless the newest order says as much; orders: hash of order_id ->
    time first folded; ordered_ms: time of the newest order; last_due_ms: largest due time of a trigger; lines_dropped:
    beyond LINES_MAX, or of carts too heavy.
    """

    __slots__ = (
        "attribution",
        "customer_id",
        "ends",
        "last_due_ms",
        "lines_dropped",
        "open",
        "ordered_ms",
        "orders",
    )

    def __init__(self, customer_id: str) -> None:
        self.customer_id = customer_id
        self.open: dict[CartKey, Cart] = {}
        self.ends: dict[CartKey, Ended] = {}
        self.orders: dict[int, int] = {}
        self.ordered_ms: int | None = None
        self.last_due_ms: int | None = None
        self.lines_dropped = 0
        self.attribution = Attribution()

    def in_order(self) -> list[Cart]:
        """Return the open carts by cart_id, the implicit one first."""
        if len(self.open) < 2:
            return list(self.open.values())
        return [self.open[key] for key in sorted(self.open, key=key_order)]

    def order_forbids(self, time_ms: int, clock_ms: int, *, after_order: bool) -> bool:
        """Whether the newest order forbids a cart to open at a time: one at or after it, or just before it.

        after_order: whether the event may open a cart within AFTER_ORDER_MS after an order.
        """
        ordered_ms = self.ordered_ms
        if ordered_ms is None:
            return False
        if time_ms > ordered_ms:
            return not after_order and time_ms <= ordered_ms + AFTER_ORDER_MS
        return clock_ms <= ordered_ms + TOMBSTONE_MS

    def end_forbids(self, key: CartKey, time_ms: int) -> bool:
        """Whether the end of the last cart with the key forbids a late event to open one at its own time."""
        ended = self.ends.get(_short(key))
        return ended is not None and (time_ms <= ended.ended_ms or time_ms in ended.used)

    def repeats(self, order_id: str, time_ms: int) -> bool:
        """Whether an order with the id was folded within REPEATED_ORDER_MS; remember it if not."""
        known = xxhash.xxh3_64_intdigest(order_id.encode())
        first_ms = self.orders.get(known)
        if first_ms is not None and abs(time_ms - first_ms) <= REPEATED_ORDER_MS:
            return True
        self.orders[known] = time_ms if first_ms is None else max(time_ms, first_ms)
        oldest_ms = max(self.orders.values()) - REPEATED_ORDER_MS
        newest = sorted((folded_ms, order) for order, folded_ms in self.orders.items() if folded_ms >= oldest_ms)
        self.orders = {order: folded_ms for folded_ms, order in newest[-ORDERS_MAX:]}
        return False

    def ordered(self, time_ms: int) -> None:
        """Leave the tombstone of an order; ends it makes superfluous are forgotten."""
        self.ordered_ms = time_ms if self.ordered_ms is None else max(time_ms, self.ordered_ms)
        self._forget_ends()

    def opened(self, key: CartKey, opened_ms: int) -> Cart:
        """Open a cart."""
        ended = self.ends.get(_short(key))
        if ended is not None:
            ended.reopened_ms = opened_ms
        cart = self.open[key] = Cart(key, opened_ms)
        return cart

    def ended(self, cart: Cart, ended_ms: int, *, emptied: bool) -> None:
        """Close an open cart and remember its end."""
        del self.open[cart.key]
        before = self.ends.get(_short(cart.key))
        used = {touch_ms for touch_ms, _ in cart.triggers}
        if before is not None:
            used.update(before.used)
        used_later = sorted(used_ms for used_ms in used if used_ms > ended_ms)[-USED_MAX:]
        if emptied:
            cart.strip()
        self.ends[_short(cart.key)] = Ended(ended_ms, used_later, cart if emptied else None)
        self._forget_ends()

    def take_over(self, order_ms: int, keys: set[CartKey] | None) -> list[Cart]:
        """Return the carts with these keys (None: any) emptied shortly before an order and not opened since.

        They have ended with the order now, so that none is taken over twice.
        """
        found = []
        for short, ended in list(self.ends.items()):
            cart = ended.emptied
            if (
                cart is not None
                and ended.ended_ms <= order_ms <= ended.ended_ms + TAKE_OVER_MS
                and (keys is None or cart.key in keys)
                and (ended.reopened_ms is None or ended.reopened_ms > order_ms)
            ):
                found.append(cart)
                self.ends[short] = Ended(order_ms, [used_ms for used_ms in ended.used if used_ms > order_ms], None)
        return sorted(found, key=lambda cart: key_order(cart.key))

    def _forget_ends(self) -> None:
        ends, ordered_ms = self.ends, self.ordered_ms
        if not ends:
            return
        times = [ended.ended_ms for ended in ends.values()]
        oldest_ms = max(times) - TOMBSTONE_MS
        if ordered_ms is not None or min(times) < oldest_ms:
            for key, ended in list(ends.items()):
                told_by_order = (
                    ordered_ms is not None and ended.ended_ms <= ordered_ms and ended.emptied is None and not ended.used
                )
                if told_by_order or ended.ended_ms < oldest_ms:
                    del ends[key]
        if len(ends) > ENDS_MAX:
            oldest_ms = min(ended.ended_ms for ended in ends.values())
            del ends[min((key for key in ends if ends[key].ended_ms == oldest_ms), key=key_order)]

    def pack(self) -> list[Any]:
        """Return plain canonical values."""
        return [
            [cart.pack() for cart in self.in_order()],
            self.ordered_ms,
            [value for pair in sorted(self.orders.items()) for value in pair],
            [[key, *self.ends[key].pack()] for key in sorted(self.ends, key=key_order)],
            self.last_due_ms,
            *self.attribution.pack(),
            self.lines_dropped,
        ]

    @classmethod
    def unpack(cls, customer_id: str, value: list[Any]) -> "Carts":
        """Return the carts that were packed."""
        carts = cls(customer_id)
        opened, carts.ordered_ms, orders, ends, carts.last_due_ms, clicks, recoveries, carts.lines_dropped = value
        for packed in opened:
            cart = Cart.unpack(packed)
            carts.open[cart.key] = cart
        carts.orders = dict(zip(orders[::2], orders[1::2], strict=True))
        carts.ends = {key: Ended.unpack(rest) for key, *rest in ends}
        carts.attribution = Attribution.unpack(clicks, recoveries)
        return carts


def _short(key: CartKey) -> CartKey:
    """The key of an end: of a long cart_id its hash, which takes less room."""
    if key is None or (len(key) <= END_KEY_BYTES_MAX and key.isascii()):
        return key
    return xxhash.xxh3_128_hexdigest(key.encode())
