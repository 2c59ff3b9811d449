"""Carts of one customer: events wait until the watermark has passed them, then fold in the order of their times."""

from bisect import insort
from operator import itemgetter
from typing import Any

from models.events import CartEvent
from streams.engagement.cart_fold import fold
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_rules import WAITING_EVENTS_MAX, CartPolicy, Entry, compact
from streams.engagement.cart_steps import fire, next_due
from streams.engagement.decisions import Decided

__all__ = ["CartBook", "CartPolicy"]

_fold_order = itemgetter(0, 1, 2)


class CartBook:
    """All cart state of one customer. Times in epoch ms.

    Equal folds give equal packed values: what lies within the lateness may arrive in any order.
    """

    __slots__ = ("_carts", "_deadline", "_early_ms", "_known", "_waiting", "folded_early")

    def __init__(self, customer_id: str) -> None:
        self._carts = Carts(customer_id)
        self._waiting: list[Entry] = []
        self._early_ms = -1
        """Newest event folded early: to this customer the watermark has passed everything before it."""
        self._deadline: int | None = None
        self._known = True
        """Whether _deadline is up to date."""
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
        """Number of lines dropped because their cart was full."""
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
        self._known = False
        clock_ms = max(watermark_ms, self._early_ms)
        if entry[0] < clock_ms:
            fold(self._carts, entry, clock_ms, policy, decided)
            fire(self._carts, clock_ms, policy, decided)
            return
        waiting = self._waiting
        if not waiting or entry[0] > waiting[-1][0]:
            waiting.append(entry)
        else:
            insort(waiting, entry, key=_fold_order)
        if len(waiting) > WAITING_EVENTS_MAX:
            self._fold_early(policy, decided)

    def release(self, watermark_ms: int, policy: CartPolicy, decided: Decided) -> None:
        """Fold the waiting events before the watermark and fire the timers due before it, in the order of time."""
        deadline_ms = self.deadline(policy)
        if deadline_ms is None or deadline_ms >= watermark_ms:
            return
        self._known = False
        carts, waiting = self._carts, self._waiting
        ready = 0
        for entry in waiting:
            if entry[0] >= watermark_ms:
                break
            fire(carts, entry[0], policy, decided)
            fold(carts, entry, None, policy, decided)
            ready += 1
        del waiting[:ready]
        fire(carts, watermark_ms, policy, decided)

    def _fold_early(self, policy: CartPolicy, decided: Decided) -> None:
        entry = self._waiting.pop(0)
        self._early_ms = entry[0]
        self.folded_early += 1
        fire(self._carts, entry[0], policy, decided)
        fold(self._carts, entry, None, policy, decided)

    def deadline(self, policy: CartPolicy) -> int | None:
        """Return the earliest of next due step, expiry and oldest waiting event; `release` is needed once wm > it."""
        if not self._known:
            due_ms = next_due(self._carts, policy)
            if self._waiting and (due_ms is None or self._waiting[0][0] < due_ms):
                due_ms = self._waiting[0][0]
            self._deadline, self._known = due_ms, True
        return self._deadline

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
            book._waiting = [tuple(entry) for entry in waiting]
            book._known = False
        return book


_NOTHING = [*Carts("").pack(), [], -1, 0]
