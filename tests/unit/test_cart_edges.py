"""Edges of the cart rules that no other test stands on: each was moved once and nothing noticed."""

from typing import Any

import pytest

from streams.engagement.cart import CartBook, CartPolicy
from streams.engagement.cart_attribution import Attribution
from streams.engagement.cart_memory import Carts
from streams.engagement.cart_state import Cart
from streams.engagement.decisions import Decided
from tests.support.cart_events import DAY, HOUR, MINUTE, T0, Play, added, checkout, cleared, ordered, updated


def restarted(play: Play) -> Play:
    """The same play with its book loaded from what was stored."""
    play.book = CartBook.unpack("c-1", play.book.pack())
    return play


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_restart_knows_what_was_folded_early() -> None:
    """An event older than that is late to this customer, whatever the watermark."""
    play = restarted(Play().read(*(added(10 + n, f"p{n:02}") for n in range(65))))
    play.read(added(9, "late"))
    assert (play.quantities, play.book.waiting, play.book.folded_early) == ({"late": 1, "p00": 1}, 64, 1)


def test_a_step_due_between_two_waiting_events_fires_between_them() -> None:
    """Though one watermark passes all three."""
    play = Play().read(added(0), added(30 * MINUTE, event_id="b")).advance(31 * MINUTE)
    assert play.names == ["15m", "resumed"]


def test_events_at_one_time_fold_in_the_order_of_their_ranks() -> None:
    """A touch before an order, an order before a clear; the ids say the opposite."""
    assert Play().read(added(5, event_id="b"), ordered(5, event_id="a")).advance(6).carts == []
    play = Play().read(added(0), ordered(5, event_id="b"), cleared(5, event_id="a")).advance(6)
    assert play.names == ["closed"]


# -- opening ----------------------------------------------------------------------------------------------------------


def test_of_equally_old_carts_the_first_by_id_makes_room() -> None:
    """In whatever order they were opened."""
    opening = [added(0, cart_id=f"c{n:02}", event_id=f"e{20 - n:02}") for n in range(20)]
    play = Play().read(*opening).advance(1).fold(added(1, cart_id="new"))
    assert [outcome.cart_id for outcome in play.outcomes] == ["c00"]


def test_a_checkout_opens_nothing() -> None:
    """Neither in time nor late."""
    assert Play().fold(checkout(0)).carts == []
    assert Play().advance(HOUR).read(checkout(0)).carts == []


def test_an_update_within_a_minute_after_an_order_opens_nothing() -> None:
    """It tells of the cart that was just ordered."""
    assert Play().fold(added(0), ordered(1), updated(1 + MINUTE, "p")).carts == []
    assert Play().fold(added(0), ordered(1), updated(2 + MINUTE, "p")).open_keys() == [None]


def test_before_the_newest_order_nothing_opens_late() -> None:
    """Also where an older order was read after it."""
    play = Play().fold(ordered(HOUR)).read(ordered(10), added(30 * MINUTE))
    assert play.carts == []


# -- lines ------------------------------------------------------------------------------------------------------------


def test_a_price_stays_where_the_next_add_names_none() -> None:
    """Nor the currency."""
    (line,) = Play().fold(added(0, unit_price_minor=5, currency="EUR"), added(1, event_id="b")).cart["lines"]
    assert (line["unit_price_minor"], line["currency"], line["quantity"]) == (5, "EUR", 2)


def test_a_late_add_makes_no_line_older() -> None:
    """A line stays with its newest add, which is after the order."""
    play = Play().fold(added(0, "q"), added(10 * MINUTE)).read(added(2 * MINUTE, event_id="late"))
    play.read(ordered(5 * MINUTE))
    assert play.quantities == {"p": 2}
    assert play.book._carts.open[None].touches == [T0 + 10 * MINUTE]


# -- ends -------------------------------------------------------------------------------------------------------------


def test_an_emptied_cart_is_taken_over_once() -> None:
    """The second order finds nothing to close."""
    assert Play().fold(added(0), cleared(1), ordered(2), ordered(3)).names == ["emptied", "closed"]


def test_a_restart_knows_that_a_key_was_opened_again() -> None:
    """The order closes the new cart, and takes the emptied one over no more."""
    play = restarted(Play().fold(added(0), cleared(1), added(2, event_id="b"))).fold(ordered(5 * MINUTE))
    assert play.names == ["emptied", "closed"]


def test_an_emptied_cart_keeps_no_lines() -> None:
    """An order that takes it over asks for its triggers and times alone."""
    emptied = Play().fold(added(0), cleared(1)).book._carts.ends[None].emptied
    assert emptied is not None
    assert (emptied.lines, emptied.touches) == ({}, [])


def test_no_trigger_is_made_twice_after_a_late_take_over() -> None:
    """A touch for which there was a trigger opens nothing, though it is after the order."""
    play = Play().fold(added(0), checkout(10 * MINUTE)).advance(30 * MINUTE)
    play.read(cleared(5 * MINUTE), ordered(6 * MINUTE), added(10 * MINUTE, event_id="again"))
    assert play.carts == []


def test_an_end_of_which_the_order_tells_is_forgotten() -> None:
    """Also where the cart had a trigger: its touch lies before the end."""
    play = Play().fold(added(0)).advance(20 * MINUTE).fold(ordered(21 * MINUTE))
    assert play.steps
    assert play.book._carts.ends == {}


def test_an_end_of_exactly_30_days_is_remembered() -> None:
    """A millisecond more is not."""
    for more, keys in ((0, {"a", "b"}), (1, {"b"})):
        play = Play().fold(ordered(0), added(1, cart_id="a"), cleared(2, cart_id="a"))
        play.fold(added(DAY, cart_id="b"), cleared(2 + 30 * DAY + more, cart_id="b"))
        assert set(play.book._carts.ends) == keys


@pytest.mark.parametrize(("oldest", "gone"), [(["z"], "z"), (["b", "a"], "a")])
def test_the_oldest_end_makes_room(oldest: list[str], gone: str) -> None:
    """Of those that ended at one time the first by id, in whatever order they ended."""
    carts = Carts("c-1")
    for key in (*oldest, *(f"k{number:02}" for number in range(65 - len(oldest)))):
        carts.ended(carts.opened(key, 1), 5 if key in oldest else 6, emptied=False)
    assert len(carts.ends) == 64
    assert gone not in carts.ends


def test_an_end_keeps_two_used_touches_and_a_short_key() -> None:
    """The newest two, and of a cart_id of more than 36 bytes a hash of 32."""
    carts = Carts("c-1")
    for key in ("k" * 36, "k" * 37, "ł"):
        cart: Cart = carts.opened(key, 1)
        cart.triggers = [(10, 1), (20, 1), (30, 1)]
        carts.ended(cart, 5, emptied=False)
    assert [ended.used for ended in carts.ends.values()] == [[20, 30]] * 3
    assert [len(key or "") for key in carts.ends] == [36, 32, 32]


def test_an_order_repeated_at_an_earlier_time_closes_nothing() -> None:
    """Whichever of the two is read first."""
    play = Play(order_scope="cart").fold(added(0, cart_id="a"), added(1, cart_id="b"), ordered(10, "o", cart_id="a"))
    assert play.read(ordered(5, "o", cart_id="b", event_id="again")).open_keys() == ["b"]


# -- settings and clicks ----------------------------------------------------------------------------------------------


def test_a_step_of_no_length_is_refused() -> None:
    """A cart is not abandoned the moment it is touched."""
    with pytest.raises(ValueError, match="named by their durations"):
        CartPolicy(steps=(("0h", 0),))


@pytest.mark.parametrize("text", ["", "ab", "abc", "a" * 31, "a" * 34])
def test_text_of_another_length_is_no_trigger_id(text: str) -> None:
    """It is not remembered, nor is it an error."""
    attribution, decided = Attribution(), Decided()
    attribution.clicked(text, 1, -1, decided)
    packed: Any = attribution.pack()
    assert packed == ([], [])
