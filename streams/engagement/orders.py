"""The orders a customer placed lately: recognises a repeated order_id, keeps revenue net of cancellations and refunds.

An order's events may be read in any order, a cancellation before its order too: the total is the largest named, the
time the earliest, and every change is told to the metrics as a difference in the bucket of the order.
"""

from typing import Any, Final

from xxhash import xxh3_64_intdigest

ORDERS_MAX: Final = 128
ORDERS_MAX_AGE_MS: Final = 30 * 86_400_000
CURRENCY_CHARS_MAX: Final = 8
"""More of a currency no metric knows; ISO 4217 has three."""
_REFUNDS_MAX_MINOR: Final = 10**13
_CANCELLED: Final = 1
_REFUNDED: Final = 2

_MENTIONED, _TIME, _TOTAL, _CURRENCY, _FLAGS, _REFUNDS = range(6)
Order = list[Any]
"""[time of its newest event, earliest time placed or None, largest total or None, its currency, flags, sum refunded]"""


class OrderMemory:
    """Orders by hash of their id: the 128 with the newest events, none older than 30 d before the newest."""

    __slots__ = ("newest_ms", "orders")

    def __init__(self, newest_ms: int = 0, orders: dict[int, Order] | None = None) -> None:
        self.newest_ms = newest_ms
        self.orders = {} if orders is None else orders

    def placed(
        self,
        order_id: str,
        occurred_at_ms: int,
        total_minor: int | None,
        currency: str | None,
        facts: list[tuple[Any, ...]],
    ) -> int | None:
        """Take in an order; returns the time it was known to be placed at, None where it was not known."""
        order = self._mention(order_id, occurred_at_ms)
        currency = None if currency is None else currency[:CURRENCY_CHARS_MAX]
        known_ms: int | None = order[_TIME]
        before = _net(order)
        if known_ms is None or occurred_at_ms < known_ms:
            order[_TIME] = occurred_at_ms
        if known_ms is None or _value(total_minor, currency) > _value(order[_TOTAL], order[_CURRENCY]):
            order[_TOTAL], order[_CURRENCY] = total_minor, currency
        _tell(before, _net(order), facts)
        return known_ms

    def cancelled(self, order_id: str, occurred_at_ms: int, facts: list[tuple[Any, ...]]) -> None:
        """Take an order out of the metrics."""
        order = self._mention(order_id, occurred_at_ms)
        before = _net(order)
        order[_FLAGS] |= _CANCELLED
        _tell(before, _net(order), facts)

    def refunded(
        self, order_id: str, occurred_at_ms: int, total_minor: int | None, facts: list[tuple[Any, ...]]
    ) -> None:
        """Take an amount, or all that is left, off an order's revenue."""
        order = self._mention(order_id, occurred_at_ms)
        before = _net(order)
        if total_minor is None:
            order[_FLAGS] |= _REFUNDED
        else:
            order[_REFUNDS] = min(order[_REFUNDS] + total_minor, _REFUNDS_MAX_MINOR)
        _tell(before, _net(order), facts)

    def pack(self) -> list[object] | None:
        """Canonical: [newest_ms, [hash, age of its newest event, time from placed to that, ...], ...], oldest first."""
        if not self.orders:
            return None
        packed: list[object] = [self.newest_ms]
        for digest, (mentioned_ms, time_ms, *rest) in sorted(self.orders.items(), key=_age):
            packed.append(
                [digest, self.newest_ms - mentioned_ms, None if time_ms is None else mentioned_ms - time_ms, *rest]
            )
        return packed

    @classmethod
    def unpack(cls, packed: list[Any] | None) -> "OrderMemory":
        """The memory that was packed."""
        if not packed:
            return cls()
        newest_ms, orders = packed[0], {}
        for digest, age_ms, before_ms, *rest in packed[1:]:
            mentioned_ms = newest_ms - age_ms
            orders[digest] = [mentioned_ms, None if before_ms is None else mentioned_ms - before_ms, *rest]
        return cls(newest_ms, orders)

    def _mention(self, order_id: str, occurred_at_ms: int) -> Order:
        """The order as known; one below the kept range is a new one that is not kept."""
        orders = self.orders
        self.newest_ms = max(self.newest_ms, occurred_at_ms)
        oldest_ms = self.newest_ms - ORDERS_MAX_AGE_MS
        for digest in [digest for digest, order in orders.items() if order[_MENTIONED] < oldest_ms]:
            del orders[digest]
        digest = xxh3_64_intdigest(order_id.encode())
        order = orders.get(digest)
        if order is not None:
            order[_MENTIONED] = max(order[_MENTIONED], occurred_at_ms)
            return order
        order = [occurred_at_ms, None, None, None, 0, 0]
        if occurred_at_ms >= oldest_ms:
            orders[digest] = order
            if len(orders) > ORDERS_MAX:
                del orders[min(orders.items(), key=_age)[0]]
        return order


def _age(item: tuple[int, Order]) -> tuple[int, int]:
    return item[1][_MENTIONED], item[0]


def _net(order: Order) -> tuple[str | None, int, int] | None:
    """(currency, time, revenue) that an order stands for; None where cancelled or not placed yet."""
    _, time_ms, total_minor, currency, flags, refunds_minor = order
    if time_ms is None or flags & _CANCELLED:
        return None
    return currency, time_ms, 0 if flags & _REFUNDED else max((total_minor or 0) - refunds_minor, 0)


def _value(total_minor: int | None, currency: str | None) -> tuple[int, str]:
    return (-1 if total_minor is None else total_minor), currency or ""


def _tell(
    before: tuple[str | None, int, int] | None, after: tuple[str | None, int, int] | None, facts: list[tuple[Any, ...]]
) -> None:
    """Facts of the change: (order, currency, occurred_at_ms, orders, revenue_minor), signed."""
    if before == after:
        return
    if before is not None and after is not None and before[:2] == after[:2]:
        facts.append(("order", *after[:2], 0, after[2] - before[2]))
        return
    if before is not None:
        facts.append(("order", *before[:2], -1, -before[2]))
    if after is not None:
        facts.append(("order", *after[:2], 1, after[2]))
