"""Carts of one customer: events wait until the watermark has passed them, then fold in the order of their times."""

from bisect import bisect_right
from operator import itemgetter
from typing import Any

from models.events import CartEvent
from streams.engagement.cart_fold import fold
from streams.engagement.cart_limits import CART_BYTES, CARTS_BYTES_MAX, TRIGGER_BYTES, fit, weigh_entry
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import OPEN_CARTS_MAX, WAITING_EVENTS_MAX, CartPolicy, Entry, compact, unpack_entry
from streams.engagement.cart_steps import fire, next_due
from streams.engagement.decisions import Decided

__all__ = ["CartBook", "CartPolicy"]

_fold_order = itemgetter(0, 1, 2)


class CartBook:
    """All cart state of one customer. Times in epoch ms.

    Equal folds give equal packed values: what lies within the lateness may arrive in any order.
    """

    __slots__ = ("_carts", "_early_ms", "_folded", "_room", "_timer_ms", "_waiting", "_weights", "folded_early")

    def __init__(self, customer_id: str) -> None:
        self._carts = Carts(customer_id)
        self._waiting: list[Entry] = []
        self._weights: list[int] = []
        """Of each event that waits."""
        self._early_ms = -1
        """Newest event folded early: to this customer the watermark has passed everything before it."""
        self._timer_ms: int | None = None
        self._folded = False
        """Whether something was folded since _timer_ms, the earliest timer, was looked up."""
        self._room = CARTS_BYTES_MAX
        """Events that weigh no more than this together cannot make the carts too heavy, so they are not weighed."""
        self.folded_early = 0

    @property
    def customer_id(self) -> str:
        return self._carts.customer_id

    @property
    def waiting(self) -> int:
        """Number of events that wait."""
        return len(self._waiting)

    @property
    def lines_dropped(self) -> int:
        """Number of lines dropped because their cart was full, or all carts too heavy."""
        return self._carts.lines_dropped

    def read(self, event: CartEvent, watermark_ms: int, policy: CartPolicy, decided: Decided) -> None:
        """Take in an accepted cart event, read when the cart watermark was `watermark_ms` (-1: none yet).

        It waits, or is folded at once where it is late. At most WAITING_EVENTS_MAX wait: one more, and the oldest is
        folded early. Events that do not concern carts are ignored.
        """
        entry = compact(event)
        if entry is None:
            return
        self.release(watermark_ms, policy, decided)
        weight = weigh_entry(entry)
        self._take(entry, weight, watermark_ms, policy, decided)
        self._room -= weight + CART_BYTES + TRIGGER_BYTES * len(policy.steps)
        if self._room < 0:
            weight = fit(self._carts, self._waiting, self._weights, lambda: self._fold_early(policy, decided), decided)
            self._room, self._folded = CARTS_BYTES_MAX - weight - self._growth(policy), True

    def _growth(self, policy: CartPolicy) -> int:
        """How much heavier the carts can become by what waits and by their triggers, without another event."""
        waiting, carts = len(self._waiting), len(self._carts.open)
        triggers = TRIGGER_BYTES * len(policy.steps) * (waiting + carts)
        return CART_BYTES * min(waiting, OPEN_CARTS_MAX - carts) + triggers

    def _take(self, entry: Entry, weight: int, watermark_ms: int, policy: CartPolicy, decided: Decided) -> None:
        clock_ms = max(watermark_ms, self._early_ms)
        if entry[0] < clock_ms:
            fold(self._carts, entry, clock_ms, policy, decided)
            self._folded = True
            self._fire(clock_ms, policy, decided)
            return
        waiting = self._waiting
        at = len(waiting)
        if waiting and entry[0] <= waiting[-1][0]:
            at = bisect_right(waiting, _fold_order(entry), key=_fold_order)
        waiting.insert(at, entry)
        self._weights.insert(at, weight)
        if len(waiting) > WAITING_EVENTS_MAX:
            self._fold_early(policy, decided)

    def release(self, watermark_ms: int, policy: CartPolicy, decided: Decided) -> None:
        """Fold the waiting events before the watermark and fire the timers due before it, in the order of time."""
        waiting = self._waiting
        while waiting and waiting[0][0] < watermark_ms:
            self._fold_oldest(policy, decided)
        self._fire(watermark_ms, policy, decided)

    def _fold_early(self, policy: CartPolicy, decided: Decided) -> None:
        self._early_ms = self._waiting[0][0]
        self.folded_early += 1
        decided.folded_early += 1
        self._fold_oldest(policy, decided)

    def _fold_oldest(self, policy: CartPolicy, decided: Decided) -> None:
        entry = self._waiting.pop(0)
        del self._weights[0]
        self._fire(entry[0], policy, decided)
        fold(self._carts, entry, None, policy, decided)
        self._folded = True

    def _fire(self, clock_ms: int, policy: CartPolicy, decided: Decided) -> None:
        if self._folded:
            self._timer_ms, self._folded = next_due(self._carts, policy), False
        if self._timer_ms is not None and self._timer_ms < clock_ms:
            fire(self._carts, clock_ms, policy, decided)
            self._folded = True

    def deadline(self, policy: CartPolicy) -> int | None:
        """Return the earliest of next due step, expiry and oldest waiting event; `release` is needed once wm > it."""
        if self._folded:
            self._timer_ms, self._folded = next_due(self._carts, policy), False
        timer_ms, waiting = self._timer_ms, self._waiting
        if waiting and (timer_ms is None or waiting[0][0] < timer_ms):
            return waiting[0][0]
        return timer_ms

    def clicked(self, trigger_id: str, clicked_ms: int, email_watermark_ms: int, decided: Decided) -> None:
        """Take in a click of an email that carries a trigger_id, read at this email watermark (-1: none yet)."""
        self._carts.attribution.clicked(trigger_id, clicked_ms, email_watermark_ms, decided)

    def view(self) -> list[dict[str, Any]]:
        """Return the open carts for people and comparisons, the implicit one first, then by cart_id."""
        return [cart.view(self.customer_id) for cart in self._carts.in_order()]

    def pack(self) -> list[Any] | None:
        """Return a plain canonical value that msgpack can hold, None where nothing is remembered."""
        values = [*self._carts.pack(), self._waiting[:], self._early_ms, self.folded_early]
        while values and values[-1] == _NOTHING[len(values) - 1]:
            values.pop()
        return values or None

    @classmethod
    def unpack(cls, customer_id: str, value: list[Any] | None) -> "CartBook":
        """Return the book that was packed; the value may have gone through msgpack."""
        book = cls(customer_id)
        if value is not None:
            *folded, waiting, book._early_ms, book.folded_early = [*value, *_NOTHING[len(value) :]]
            book._carts = Carts.unpack(customer_id, folded)
            book._waiting = [unpack_entry(entry) for entry in waiting]
            book._weights = [weigh_entry(entry) for entry in book._waiting]
            book._folded, book._room = True, 0
        return book


_NOTHING = [*Carts("").pack(), [], -1, 0]
