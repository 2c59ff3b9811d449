"""Orders: repeats, and revenue net of cancellations and refunds, in any order."""

import itertools
from collections import Counter
from typing import Any

import pytest

from streams.engagement.orders import ORDERS_MAX, OrderMemory

DAY_MS = 86_400_000
T = 1_760_054_400_000

Fact = tuple[Any, ...]


def net(facts: list[Fact]) -> dict[tuple[str | None, int], tuple[int, int]]:
    """(orders, revenue) by currency and time, zeroes left out."""
    orders: Counter[Any] = Counter()
    revenue: Counter[Any] = Counter()
    for _, currency, time_ms, count, minor in facts:
        orders[currency, time_ms] += count
        revenue[currency, time_ms] += minor
    return {key: (orders[key], revenue[key]) for key in orders if orders[key] or revenue[key]}


def after(*steps: tuple[Any, ...]) -> tuple[OrderMemory, list[Fact]]:
    memory, facts = OrderMemory(), list[Fact]()
    for what, *arguments in steps:
        getattr(memory, what)(*arguments, facts)
    return memory, facts


PLACED = ("placed", "o", T, 10_000, "EUR")
CASES: list[tuple[list[tuple[Any, ...]], dict[Any, Any]]] = [
    ([PLACED], {("EUR", T): (1, 10_000)}),
    ([PLACED, ("placed", "o", T - 5, 9_000, "EUR")], {("EUR", T - 5): (1, 10_000)}),
    ([PLACED, ("placed", "o", T, 12_000, "EUR")], {("EUR", T): (1, 12_000)}),
    ([PLACED, ("placed", "o", T, None, None)], {("EUR", T): (1, 10_000)}),
    ([PLACED, ("placed", "o", T, 10_000, "PLN")], {("PLN", T): (1, 10_000)}),
    ([("placed", "o", T, None, "EUR")], {("EUR", T): (1, 0)}),
    ([PLACED, ("cancelled", "o", T + 9)], {}),
    ([PLACED, ("refunded", "o", T + 9, 2_500), ("refunded", "o", T + 8, 500)], {("EUR", T): (1, 7_000)}),
    ([PLACED, ("refunded", "o", T + 9, None), ("refunded", "o", T + 8, 500)], {("EUR", T): (1, 0)}),
    ([PLACED, ("refunded", "o", T + 9, 99_999)], {("EUR", T): (1, 0)}),
    ([PLACED, ("refunded", "o", T + 9, 500), ("cancelled", "o", T + 10)], {}),
    ([("cancelled", "o", T)], {}),
    ([PLACED, ("placed", "p", T + 1, 1, "EUR"), ("cancelled", "o", T + 2)], {("EUR", T + 1): (1, 1)}),
]


@pytest.mark.parametrize(("steps", "expected"), CASES)
def test_facts_add_up_in_any_order(steps: list[tuple[Any, ...]], expected: dict[Any, Any]) -> None:
    """The largest total at the earliest time, less what was taken back; the memory is the same whatever came first."""
    packed = set()
    for order in itertools.permutations(steps):
        memory, facts = after(*order)
        assert net(facts) == expected
        packed.add(str(memory.pack()))
    assert len(packed) == 1


def test_a_repeat_is_told_by_the_time_it_was_known_at() -> None:
    """None for a new order, else the earliest time so far; a cancellation alone does not make it known."""
    memory, facts = OrderMemory(), list[Fact]()
    memory.cancelled("o", T + 9, facts)
    assert memory.placed("o", T, 1, "EUR", facts) is None
    assert memory.placed("o", T - 3, 1, "EUR", facts) == T
    assert memory.placed("o", T + 3, 1, "EUR", facts) == T - 3
    assert OrderMemory.unpack(memory.pack()).placed("o", T, 1, "EUR", facts) == T - 3


def test_orders_are_known_for_30_days() -> None:
    """Exactly 30 d before the newest is known; older ones are forgotten, and late ones of that age not remembered."""
    memory, facts = OrderMemory(), list[Fact]()
    assert memory.placed("o", T, 1, "EUR", facts) is None
    assert memory.placed("p", T + 30 * DAY_MS, 1, "EUR", facts) is None
    assert memory.placed("o", T, 1, "EUR", facts) == T
    assert memory.placed("q", T + 30 * DAY_MS + 1, 1, "EUR", facts) is None
    assert memory.placed("o", T, 1, "EUR", facts) is None
    assert memory.placed("o", T, 1, "EUR", facts) is None


def test_an_order_too_old_beside_the_newest_is_not_kept() -> None:
    """Whichever is read first; one of exactly 30 d is."""
    for too_old_ms, known in ((1, 1), (0, 2)):
        times = (T, T + 30 * DAY_MS + too_old_ms)
        packed = [
            after(*(("placed", f"o{time_ms}", time_ms, 1, "EUR") for time_ms in order))[0].pack()
            for order in (times, times[::-1])
        ]
        assert packed[0] == packed[1]
        assert len(packed[0] or ()) == 1 + known


def test_the_memory_is_bounded() -> None:
    """Of more than 128 orders the newest are known."""
    memory, facts = OrderMemory(), list[Fact]()
    for number in range(ORDERS_MAX + 1):
        memory.placed(f"o{number}", T + number, 1, "EUR", facts)
    assert len(memory.orders) == ORDERS_MAX
    assert memory.placed("o1", T + 1, 1, "EUR", facts) == T + 1
    assert memory.placed("o0", T, 1, "EUR", facts) is None


def test_packing_keeps_what_is_known() -> None:
    """Cancelled, refunded and not yet placed orders survive; nothing known packs to nothing."""
    memory, _ = after(*CASES[9][0], ("cancelled", "x", T + 1), ("refunded", "y", T + 2, None))
    assert OrderMemory.unpack(memory.pack()).orders == memory.orders
    assert OrderMemory().pack() is None
    assert OrderMemory.unpack(None).orders == {}


def test_refunds_of_an_order_are_bounded() -> None:
    """A refund named again and again takes no more room than the largest orders need."""
    memory, facts = after(PLACED, *(("refunded", "o", T + number, 10**12) for number in range(20)))
    assert net(facts) == {("EUR", T): (1, 0)}
    assert memory.pack() == after(PLACED, *(("refunded", "o", T + number, 10**12) for number in range(9, 20)))[0].pack()


def test_a_long_currency_is_cut() -> None:
    """To the first eight characters: ISO 4217 has three, and what has more takes no room for it."""
    memory, facts = after(("placed", "o", T, 100, "EUR of 512 characters"))
    assert net(facts) == {("EUR of 5", T): (1, 100)}
    assert memory.pack() == after(("placed", "o", T, 100, "EUR of 5"))[0].pack()
