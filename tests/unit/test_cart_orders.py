"""Orders on time: what they close and take over, recovery, totals, tombstones, repeats."""

from typing import Any

import pytest

from tests.support.cart_events import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    T0,
    Play,
    added,
    checkout,
    cleared,
    linked,
    ordered,
    removed,
    updated,
)

FIRST = 15 * MINUTE
WINDOW = 7 * DAY


def test_an_order_closes_every_open_cart_of_the_customer() -> None:
    """order_scope=customer: every open cart, whichever it names."""
    play = Play().fold(added(0), added(1, cart_id="a"), added(2, cart_id="b"), ordered(3, "o-1", cart_id="a"))
    assert [(each.outcome, each.cart_id, each.order_id) for each in play.outcomes] == [
        ("closed", None, "o-1"),
        ("closed", "a", "o-1"),
        ("closed", "b", "o-1"),
    ]
    assert (play.carts, play.advance(DAY).steps) == ([], [])


@pytest.mark.parametrize(("named", "left"), [("a", ["b"]), (None, [])])
def test_with_scope_cart_an_order_closes_the_named_and_the_implicit_one(named: str | None, left: list[str]) -> None:
    """order_scope=cart: the named one and the implicit one, or all if it names none."""
    play = Play(order_scope="cart").fold(added(0), added(1, cart_id="a"), added(2, cart_id="b"))
    assert play.fold(ordered(3, cart_id=named)).open_keys() == left


@pytest.mark.parametrize(
    ("order_ms", "outcome"),
    [(FIRST + 1, "recovered"), (FIRST + WINDOW, "recovered"), (FIRST + WINDOW + 1, "closed")],
)
def test_recovered_within_the_window_after_the_first_due(order_ms: int, outcome: str) -> None:
    """first due < order <= first due + recovery_window; every other order: closed, both with all ids of the cart."""
    play = Play().fold(added(0)).advance(order_ms).fold(ordered(order_ms))
    last = play.outcomes[-1]
    assert (last.outcome, last.reason, last.first_due_ms) == (outcome, None, T0 + FIRST)
    assert last.trigger_ids == [step.trigger_id for step in play.steps]


def test_recovery_counts_from_the_first_due_through_re_arming() -> None:
    """first_due_ms = the first due since the cart opened, not since the last touch."""
    play = Play().fold(added(0)).advance(HOUR).fold(checkout(HOUR)).fold(ordered(HOUR + MINUTE))
    assert [name for name in play.names if name != "15m"] == ["resumed", "recovered"]
    assert play.outcomes[-1].last_touch_ms == T0 + HOUR


# -- totals -----------------------------------------------------------------------------------------------------------


def _totals(play: Play) -> dict[str | None, Any]:
    return {each.cart_id: (each.cart_total_minor, each.order_total_minor, each.currency) for each in play.outcomes}


def test_the_orders_total_stands_on_the_most_recently_touched_cart() -> None:
    """An order's total stands on one outcome only: its most recently touched cart."""
    line: dict[str, Any] = {"unit_price_minor": 5, "currency": "EUR"}
    play = Play().fold(added(0, cart_id="b", **line), added(1, cart_id="a", **line), ordered(2, total_minor=9))
    assert _totals(play) == {"a": (5, 9, "EUR"), "b": (5, None, "EUR")}


@pytest.mark.parametrize(("keys", "bears"), [((None, "a"), "a"), (("a", "b"), "b")])
def test_of_equal_touches_the_greatest_cart_id_bears_the_total(keys: tuple[str | None, str], bears: str) -> None:
    """Equal touches: the greatest cart_id, null counts as smallest."""
    play = Play().fold(*(added(0, cart_id=key) for key in keys), ordered(2, total_minor=9, currency="EUR"))
    assert [key for key, (_, total, _) in _totals(play).items() if total == 9] == [bears]


@pytest.mark.parametrize(
    ("line", "order", "totals"),
    [
        ({"unit_price_minor": 5, "currency": "EUR"}, {"total_minor": 9, "currency": "EUR"}, (5, 9, "EUR")),
        ({"unit_price_minor": 5, "currency": "EUR"}, {"total_minor": 9, "currency": "USD"}, (None, 9, "USD")),
        ({"unit_price_minor": 5, "currency": "EUR"}, {"currency": "USD"}, (5, None, "EUR")),
        ({"unit_price_minor": 5}, {"total_minor": 9, "currency": "EUR"}, (5, 9, "EUR")),
        ({}, {"total_minor": 9}, (None, 9, None)),
    ],
)
def test_one_record_names_one_currency(line: dict[str, Any], order: dict[str, Any], totals: Any) -> None:
    """The order's where its total stands; then a cart total in another currency is null."""
    assert _totals(Play().fold(added(0, **line), ordered(1, **order))) == {None: totals}


def test_an_order_that_ends_no_cart_gives_no_outcome() -> None:
    """An order that ends no cart gives none."""
    assert Play().fold(ordered(0, total_minor=5)).decided == []


# -- taking over emptied carts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_ms", "taken"), [(0, True), (10 * MINUTE, True), (10 * MINUTE + 1, False)])
def test_an_order_takes_over_a_cart_emptied_up_to_ten_minutes_before(after_ms: int, taken: bool) -> None:
    """A cart emptied at most 10 min before (inclusive) is taken over: closed follows, with its last_touch_ms."""
    play = Play().fold(added(0, unit_price_minor=5)).read(removed(MINUTE), ordered(MINUTE + after_ms, total_minor=9))
    play.advance(MINUTE + after_ms + 1)
    assert play.names == ["emptied", "closed"][: 1 + taken]
    if taken:
        closed = play.outcomes[1]
        assert (closed.last_touch_ms, closed.occurred_at_ms) == (T0 + MINUTE, T0 + MINUTE + after_ms)
        assert (closed.cart_total_minor, closed.order_total_minor) == (None, 9)
    assert play.facts == [("cart_ended_unfired", T0)]


def test_a_taken_over_cart_may_be_recovered() -> None:
    """Recovered follows where a step had fired: with the emptied cart's kind, last touch, triggers and first due."""
    play = Play().fold(added(0), checkout(1)).advance(HOUR).fold(cleared(HOUR), ordered(HOUR + MINUTE))
    recovered = play.outcomes[-1]
    assert play.names == ["15m", "emptied", "recovered"]
    assert (recovered.kind, recovered.last_touch_ms, recovered.first_due_ms) == ("checkout", T0 + 1, T0 + 1 + FIRST)
    assert recovered.trigger_ids == [play.steps[0].trigger_id]
    assert play.facts == [("cart_fired", T0, T0 + 1 + FIRST), ("cart_recovered", T0 + 1 + FIRST, False, 1)]


def test_an_emptied_cart_opened_since_is_not_taken_over() -> None:
    """Unless a cart with its key was opened since."""
    play = Play().fold(added(0), cleared(1), added(2), ordered(3))
    assert [(each.outcome, each.last_touch_ms - T0) for each in play.outcomes] == [("emptied", 0), ("closed", 2)]


def test_a_cart_is_taken_over_once() -> None:
    """A second order finds nothing to take over."""
    assert Play().fold(added(0), cleared(1), ordered(2), ordered(3)).names == ["emptied", "closed"]


def test_carts_that_ended_otherwise_are_not_taken_over() -> None:
    """Only emptied carts are taken over, not merged ones."""
    assert Play().fold(added(0), linked(1), ordered(2)).names == ["merged"]


def test_the_total_goes_to_a_taken_over_cart_touched_last() -> None:
    """Taken-over carts count among the order's carts, by their last touch; outcomes of open carts come first."""
    play = Play().fold(added(0, cart_id="z"), added(2, cart_id="a"), cleared(3, cart_id="a"), ordered(4, total_minor=9))
    assert [(each.outcome, each.cart_id, each.order_total_minor) for each in play.outcomes[1:]] == [
        ("closed", "z", None),
        ("closed", "a", 9),
    ]


def test_with_scope_cart_only_carts_in_scope_are_taken_over() -> None:
    """order_scope=cart: the named one and the implicit one, emptied ones too."""
    play = Play(order_scope="cart").fold(added(0, cart_id="a"), cleared(1, cart_id="a"), added(2), cleared(3))
    assert play.forget().fold(ordered(4, cart_id="b")).open_keys() == []
    assert [(each.outcome, each.cart_id) for each in play.outcomes] == [("closed", None)]


# -- after an order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_ms", "opens"), [(1, False), (60 * SECOND, False), (60 * SECOND + 1, True)])
def test_for_a_minute_after_an_order_an_update_opens_nothing(after_ms: int, opens: bool) -> None:
    """For 60 s (inclusive) after an order only product_added opens a cart."""
    play = Play().fold(added(0), ordered(HOUR), updated(HOUR + after_ms, "p"))
    assert bool(play.carts) is opens
    assert Play().fold(added(0), ordered(HOUR), added(HOUR + after_ms)).quantities == {"p": 1}


def test_a_touch_at_the_very_time_of_an_order_belongs_before_it() -> None:
    """A touch at or before an order's time opens nothing, also where the order was folded early."""
    play = Play().read(ordered(0), *(checkout(n) for n in range(1, 65)))
    assert play.book.folded_early == 1
    play.read(added(0)).advance(1)
    assert play.carts == []


# -- repeated orders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("again_ms", "closes"), [(HOUR, False), (30 * DAY, False), (30 * DAY + 1, True)])
def test_a_repeated_order_does_nothing_to_carts(again_ms: int, closes: bool) -> None:
    """A repeated order_id (30 d of event time, inclusive) closes nothing."""
    play = Play(steps=(("15m", FIRST),)).fold(added(-1), ordered(0, "o"), added(again_ms - 1), ordered(again_ms, "o"))
    assert play.names.count("closed") == 1 + closes


def test_the_first_in_fold_order_closes_whatever_the_order_of_reading() -> None:
    """Carts decide repeats when folding: both wait, the first in fold order closes and bears its own total."""
    first, second = ordered(5, "o", total_minor=1), ordered(6, "o", total_minor=2)
    plays = [Play().read(added(0), *pair).advance(10) for pair in ((first, second), (second, first))]
    assert [each.order_total_minor for play in plays for each in play.outcomes] == [1, 1]
    assert plays[0].book.pack() == plays[1].book.pack()


def test_a_repeat_moves_no_tombstone() -> None:
    """An update a minute after the repeat of an order opens a cart: the repeat is no order to carts."""
    play = Play().fold(ordered(0, "o"), ordered(2 * MINUTE, "o"), updated(2 * MINUTE + 1, "p"))
    assert len(play.carts) == 1


def test_only_the_newest_128_orders_are_remembered() -> None:
    """A limit on everything: the id of the 129th newest order is forgotten."""
    play = Play().fold(*(ordered(n, f"o{n}") for n in range(129)))
    play.fold(added(200), ordered(201, "o1"))
    assert play.names == []
    assert play.fold(ordered(202, "o0")).names == ["closed"]


def test_an_order_is_known_for_exactly_thirty_days_whatever_follows() -> None:
    """Other orders do not make it forgotten early; a much older one with its id does not make it older."""
    play = Play(order_scope="cart").fold(ordered(0, "o"), added(30 * DAY - 1, cart_id="a"))
    play.fold(ordered(30 * DAY, "x", event_id="a", cart_id="b"))
    play.read(ordered(30 * DAY, "o", event_id="z", cart_id="a"))
    assert play.open_keys() == ["a"]
    play = Play().fold(ordered(40 * DAY, "o")).read(ordered(0, "o")).fold(added(50 * DAY))
    assert play.fold(ordered(50 * DAY + 1, "o")).outcomes == []


def test_orders_older_than_thirty_days_are_forgotten() -> None:
    """State stays small: what can no longer be repeated is not packed."""
    one = Play().fold(ordered(40 * DAY, "new")).book.pack()
    assert Play().fold(ordered(0, "old"), ordered(40 * DAY, "new")).book.pack() == one
