"""One cart, and what is remembered of the last cart with a key once it has ended."""

from bisect import bisect_right, insort
from typing import Any

from models.outputs import TRIGGER_IDS_MAX
from streams.engagement.cart_lines import Lines, in_order, key_of, total, view
from streams.engagement.cart_rules import TOUCHES_MAX, CartPolicy, step_name
from streams.engagement.decisions import trigger_ids

CartKey = str | None


def key_order(key: CartKey) -> tuple[bool, str]:
    """Sort key of cart ids: the implicit cart first, then by code point."""
    return key is not None, key or ""


class Cart:
    """A cart with its lines, steps and triggers; changed in place. Times in epoch ms, steps as durations in ms.

    touches: own times of its touches since it opened, sorted, the TOUCHES_MAX newest; fired: steps fired since the last
    touch, shortest first; triggers: (last touch, step) of each trigger since it opened, the TRIGGER_IDS_MAX newest.
    """

    __slots__ = (
        "checkout",
        "checkout_url",
        "fired",
        "first_due_ms",
        "key",
        "last_touch_ms",
        "lines",
        "lines_bytes",
        "opened_ms",
        "shipping_minor",
        "touches",
        "triggers",
    )

    def __init__(self, key: CartKey, opened_ms: int) -> None:
        self.key = key
        self.opened_ms = opened_ms
        self.last_touch_ms = opened_ms
        self.checkout = False
        self.first_due_ms: int | None = None
        self.shipping_minor: int | None = None
        self.checkout_url: str | None = None
        self.lines: Lines = {}
        self.lines_bytes = -1
        """What the lines weigh, as long as that is known (cart_limits); not part of the state."""
        self.touches: list[int] = []
        self.fired: list[int] = []
        self.triggers: list[tuple[int, int]] = []

    @property
    def kind(self) -> str:
        return "checkout" if self.checkout else "cart"

    def touched(self, touch_ms: int) -> None:
        """Remember the own time of a touch; one before the opening is of no use to any rule."""
        touches = self.touches
        if not touches or touch_ms > touches[-1]:
            touches.append(touch_ms)
        elif touch_ms > self.opened_ms and touch_ms not in touches:
            insort(touches, touch_ms)
        if len(touches) > TOUCHES_MAX:
            del touches[0]

    def newest_touch_until(self, time_ms: int) -> int:
        """Return the newest touch at or before a time that is not before the opening."""
        before = bisect_right(self.touches, time_ms)
        return self.touches[before - 1] if before else self.opened_ms

    def keep_after(self, time_ms: int, lines: Lines) -> None:
        """Go on with these lines only, opened at the oldest touch after the time."""
        self.lines, self.lines_bytes = lines, -1
        del self.touches[: bisect_right(self.touches, time_ms)]
        self.opened_ms = self.touches[0]

    def strip(self) -> None:
        """Forget, once it is emptied, all that an order that takes it over does not ask for."""
        self.lines, self.touches, self.fired = {}, [], []
        self.shipping_minor = self.checkout_url = None

    def due(self, policy: CartPolicy) -> tuple[int, int]:
        """Return when its next timer is due, and the index of the step that it fires; that of expiry is len(steps)."""
        steps = policy.steps
        if not self.fired:
            return self.last_touch_ms + steps[0][1], 0
        longest = self.fired[-1]
        for index, (_, step_ms) in enumerate(steps):
            if step_ms > longest:
                return self.last_touch_ms + step_ms, index
        return self.last_touch_ms + policy.cart_expiry_ms, len(steps)

    def triggered(self, step_ms: int) -> None:
        """Remember the trigger of a step since the last touch."""
        self.triggers.append((self.last_touch_ms, step_ms))
        if len(self.triggers) > TRIGGER_IDS_MAX:
            del self.triggers[0]

    def trigger_ids(self, customer_id: str, since_ms: int = -1) -> list[str]:
        """Return the ids of its triggers, oldest first; of those whose touch is not before `since_ms`."""
        triggers = self.triggers if since_ms < 0 else [pair for pair in self.triggers if pair[0] >= since_ms]
        return trigger_ids(customer_id, self.key, triggers) if triggers else []

    def total(self) -> tuple[int | None, str | None]:
        """Return (total in minor units, currency), None where it has none."""
        return total(self.lines)

    def view(self, customer_id: str) -> dict[str, Any]:
        """Return the cart for people and comparisons."""
        return {
            "cart_id": self.key,
            "kind": self.kind,
            "opened_ms": self.opened_ms,
            "last_touch_ms": self.last_touch_ms,
            "first_due_ms": self.first_due_ms,
            "fired": [step_name(step_ms) for step_ms in self.fired],
            "trigger_ids": self.trigger_ids(customer_id),
            "lines": view(self.lines),
        }

    def pack(self) -> list[Any]:
        """Return a plain canonical value; times as distances from the last touch, which are short."""
        last = self.last_touch_ms
        return [
            self.key,
            last,
            last - self.opened_ms,
            int(self.checkout),
            None if self.first_due_ms is None else last - self.first_due_ms,
            self.shipping_minor,
            self.checkout_url,
            [last - touch_ms for touch_ms in self.touches],
            self.fired[:],
            [value for touch_ms, step_ms in self.triggers for value in (last - touch_ms, step_ms)],
            [[*line[:-1], last - line[-1]] for line in in_order(self.lines)],
        ]

    @classmethod
    def unpack(cls, value: list[Any]) -> "Cart":
        """Return the cart that was packed."""
        key, last, opened, checkout, first_due, shipping_minor, checkout_url, touches, fired, triggers, lines = value
        cart = cls(key, last - opened)
        cart.last_touch_ms = last
        cart.checkout = bool(checkout)
        cart.first_due_ms = None if first_due is None else last - first_due
        cart.shipping_minor, cart.checkout_url = shipping_minor, checkout_url
        cart.touches = [last - before for before in touches]
        cart.fired = fired[:]
        pairs = zip(triggers[::2], triggers[1::2], strict=True)
        cart.triggers = [(last - before, step_ms) for before, step_ms in pairs]
        cart.lines = {key_of(*line[:2]): (*line[:-1], last - line[-1]) for line in lines}
        return cart


class Ended:
    """The last cart with a key, once it has ended: when, and the cart itself if it was emptied.

    used: touches after its end for which a trigger was made; a cart opened at one would make that trigger_id again.
    reopened_ms: when the next cart with the key opened, None if none has.
    """

    __slots__ = ("emptied", "ended_ms", "reopened_ms", "used")

    def __init__(self, ended_ms: int, used: list[int], emptied: Cart | None) -> None:
        self.ended_ms = ended_ms
        self.used = used
        self.emptied = emptied
        self.reopened_ms: int | None = None

    def pack(self) -> list[Any]:
        emptied = None if self.emptied is None else self.emptied.pack()
        return [self.ended_ms, self.used[:], emptied, self.reopened_ms]

    @classmethod
    def unpack(cls, value: list[Any]) -> "Ended":
        ended_ms, used, emptied, reopened_ms = value
        ended = cls(ended_ms, used[:], None if emptied is None else Cart.unpack(emptied))
        ended.reopened_ms = reopened_ms
        return ended
