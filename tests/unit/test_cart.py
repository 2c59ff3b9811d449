"""Carts on time: opening, touches, lines, ends, the order of folding, waiting, packing."""

from typing import Any

import msgspec
import pytest

from streams.engagement.cart import CartBook
from streams.engagement.decisions import Decided
from tests.support.cart_events import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    Play,
    added,
    cart_event,
    checkout,
    cleared,
    linked,
    ordered,
    removed,
    updated,
)

# -- opening and touches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", [added(0), updated(0, "p")])
def test_an_added_product_and_an_update_with_items_open_a_cart(opener: Any) -> None:
    """product_added and cart_updated with items open the cart if none is open; that is a touch."""
    cart = Play().fold(opener).cart
    assert (cart["opened_ms"], cart["last_touch_ms"], cart["kind"]) == (0, 0, "cart")


@pytest.mark.parametrize(
    "type_",
    ["product_removed", "cart_updated", "checkout_started", "checkout_step_completed", "payment_info_entered"],
)
def test_other_touches_need_an_open_cart(type_: str) -> None:
    """They are a touch on an open cart, nothing without one."""
    event = cart_event(type_, MINUTE, product_id="other")
    assert Play().fold(event).carts == []
    assert Play().fold(added(0), event).cart["last_touch_ms"] == MINUTE


@pytest.mark.parametrize("type_", ["cart_viewed", "order_cancelled", "order_refunded"])
def test_views_and_the_brands_events_do_not_touch(type_: str) -> None:
    """cart_viewed is no touch; cancelling and refunding never reopen a cart and do not even wait."""
    extra = {} if type_ == "cart_viewed" else {"order_id": "o"}
    play = Play().fold(added(0)).read(cart_event(type_, MINUTE, **extra))
    assert play.book.waiting == 0
    assert play.advance(2 * MINUTE).cart["last_touch_ms"] == 0


def test_a_customer_has_one_cart_for_each_id_and_an_implicit_one() -> None:
    """The key is (customer, cart_id); without cart_id one implicit cart."""
    play = Play().fold(added(0), added(1, cart_id="b"), added(2, cart_id="a"), added(3, cart_id="b"))
    assert play.open_keys() == [None, "a", "b"]
    assert Play().fold(added(0, cart_id="a"), added(1)).open_keys() == [None, "a"]


@pytest.mark.parametrize("type_", ["checkout_started", "checkout_step_completed", "payment_info_entered"])
def test_a_checkout_event_makes_it_a_checkout(type_: str) -> None:
    """kind = checkout once a checkout event was folded since the cart opened, and only since then."""
    play = Play().fold(added(0), cart_event(type_, 1))
    assert play.cart["kind"] == "checkout"
    assert play.fold(cleared(2), added(3)).cart["kind"] == "cart"


def test_the_21st_cart_expires_the_one_with_the_oldest_touch() -> None:
    """At most 20 open carts; the oldest by touch expires, dated at the opening of the 21st."""
    play = Play().fold(*(added(n, cart_id=f"k{n:02}") for n in range(20)), added(30, cart_id="k00"))
    assert play.outcomes == []
    play.fold(added(40, cart_id="new"))
    (expired,) = play.outcomes
    assert (expired.outcome, expired.cart_id, expired.occurred_at_ms - T0) == ("expired", "k01", 40)
    assert len(play.carts) == 20


def test_of_equally_old_carts_the_smallest_id_expires() -> None:
    """Equal touches: the smallest cart_id, none smallest."""
    play = Play().fold(*(added(5, event_id=f"e{n}", cart_id=f"k{n:02}" if n else None) for n in range(20)))
    assert play.fold(added(6, cart_id="new")).outcomes[0].cart_id is None


# -- lines ------------------------------------------------------------------------------------------------------------


def _line(play: Play) -> dict[str, Any]:
    (line,) = play.cart["lines"]
    return dict(line)


def test_added_quantities_add_and_the_newest_values_win() -> None:
    """Added: quantities add (1 where missing); the newest non-null price, name, url win."""
    play = Play().fold(
        added(0, name="Shoe", unit_price_minor=100, currency="EUR", url="u1", image_url="i1"),
        added(1, quantity=3, unit_price_minor=90, url="u2"),
    )
    assert _line(play) == {
        "product_id": "p",
        "name": "Shoe",
        "quantity": 4,
        "unit_price_minor": 90,
        "currency": "EUR",
        "url": "u2",
        "image_url": "i1",
    }


def test_every_value_of_a_line_may_be_replaced() -> None:
    """The newest non-null value wins for name, currency and image_url too, and where the first was null."""
    play = Play().fold(added(0), added(1, name="Boot", unit_price_minor=7, currency="USD", url="u", image_url="i"))
    assert _line(play) == {
        "product_id": "p",
        "name": "Boot",
        "quantity": 2,
        "unit_price_minor": 7,
        "currency": "USD",
        "url": "u",
        "image_url": "i",
    }


def test_a_line_is_known_by_product_id_else_by_name() -> None:
    """Lines: key product_id, else name; an empty string is a given product_id."""
    play = Play().fold(added(0, "p", name="n"), added(1, None, name="n"), added(2, None, name="p"), added(3, ""))
    assert play.quantities == {"": 1, "n": 1, "p": 2}
    assert [line["product_id"] for line in play.cart["lines"]] == ["", None, "p"]


@pytest.mark.parametrize(("quantity", "left"), [(1, 2), (2, 1)])
def test_a_removed_quantity_leaves_the_rest(quantity: int, left: int) -> None:
    """Removed: the quantity given, and a touch."""
    play = Play().fold(added(0, quantity=3), removed(5, quantity=quantity))
    assert play.quantities == {"p": left}
    assert play.cart["last_touch_ms"] == 5


@pytest.mark.parametrize("quantity", [3, 4, None])
def test_a_removed_line_is_gone(quantity: int | None) -> None:
    """Not below 0; a missing quantity removes the whole line."""
    play = Play().fold(added(0, quantity=3), added(1, "q"), removed(5, quantity=quantity))
    assert play.quantities == {"q": 1}


def test_removing_an_unknown_line_is_a_touch_only() -> None:
    """An unknown line is a touch only."""
    play = Play().fold(added(0), removed(5, "unknown"))
    assert (play.quantities, play.cart["last_touch_ms"]) == ({"p": 1}, 5)


def test_an_update_replaces_all_lines() -> None:
    """cart_updated items replace all lines; nothing of the old ones stays; the event's currency is theirs."""
    items = [{"product_id": "p", "quantity": 2}, {"name": "n", "unit_price_minor": 5}, {"product_id": "p"}]
    play = Play().fold(added(0, unit_price_minor=100), added(1, "q"))
    play.fold(cart_event("cart_updated", 2, items=items, currency="EUR"))
    assert play.quantities == {"n": 1, "p": 3}
    assert [(line["unit_price_minor"], line["currency"]) for line in play.cart["lines"]] == [(5, "EUR"), (None, "EUR")]


def test_an_update_without_items_changes_no_line() -> None:
    """cart_updated without items is a touch only."""
    assert Play().fold(added(0), cart_event("cart_updated", 1)).quantities == {"p": 1}


def test_the_101st_line_is_dropped_and_counted_but_touches() -> None:
    """100 lines; one more: the touch counts, the line is dropped and counted; known lines still add."""
    play = Play().fold(updated(0, *(f"p{n:03}" for n in range(100))), added(7, "one more"), added(8, "p000"))
    assert len(play.cart["lines"]) == 100
    assert (play.cart["last_touch_ms"], play.book.lines_dropped, play.quantities["p000"]) == (8, 1, 2)


@pytest.mark.parametrize(
    ("second", "total"),
    [
        ({"unit_price_minor": 5, "currency": "EUR", "quantity": 3}, (115, "EUR")),
        ({"unit_price_minor": 5, "currency": "USD"}, (None, None)),
        ({"unit_price_minor": 5}, (None, None)),
        ({"currency": "EUR"}, (None, None)),
    ],
)
def test_the_total_is_the_sum_of_lines_in_one_currency(second: dict[str, Any], total: Any) -> None:
    """total_minor = sum of lines; null with currency null if a price is missing or currencies differ."""
    play = Play().fold(added(0, unit_price_minor=100, currency="EUR"), added(1, "q", **second)).advance(HOUR)
    step = play.steps[0]
    assert (step.total_minor, step.currency) == total


def test_a_total_without_any_currency_has_none() -> None:
    """All currencies missing: a total with currency null."""
    step = Play().fold(added(0, unit_price_minor=100, quantity=2)).advance(HOUR).steps[0]
    assert (step.total_minor, step.currency) == (200, None)


# -- ends on time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [cleared(MINUTE), updated(MINUTE)])
def test_clearing_empties_without_touching(event: Any) -> None:
    """cart_cleared and cart_updated with items = [] close it: emptied, with the last touch before and no total."""
    play = Play().fold(added(0, unit_price_minor=1), event)
    (emptied,) = play.outcomes
    assert (emptied.outcome, emptied.last_touch_ms, emptied.occurred_at_ms) == ("emptied", T0, T0 + MINUTE)
    assert (emptied.cart_total_minor, emptied.currency, emptied.trigger_ids, play.carts) == (None, None, [], [])


def test_removing_the_last_line_touches_then_empties() -> None:
    """The last line removed (a touch first) closes it: resumed before emptied where a step had fired."""
    play = Play().fold(added(0)).advance(20 * MINUTE).fold(removed(30 * MINUTE))
    assert play.names == ["15m", "resumed", "emptied"]
    emptied = play.outcomes[1]
    assert (emptied.last_touch_ms, emptied.occurred_at_ms) == (T0 + 30 * MINUTE, T0 + 30 * MINUTE)
    assert emptied.trigger_ids == [play.steps[0].trigger_id]


def test_clearing_reaches_only_the_named_cart() -> None:
    """cart_cleared closes the cart with its key, the implicit one where it has none, and nothing where none is open."""
    play = Play().fold(added(0), added(0, cart_id="a"), cleared(1))
    assert play.open_keys() == ["a"]
    play.fold(cleared(2), cleared(3, cart_id="b"))
    assert (play.open_keys(), play.names) == (["a"], ["emptied"])


def test_a_login_ends_all_carts_of_the_old_key() -> None:
    """identity_linked: its open carts end, merged, and no step survives."""
    play = Play().fold(added(0), added(0, cart_id="a", unit_price_minor=5, currency="EUR"), linked(MINUTE))
    assert [(each.outcome, each.cart_id, each.cart_total_minor) for each in play.outcomes] == [
        ("merged", None, None),
        ("merged", "a", 5),
    ]
    assert play.advance(DAY).steps == []


def test_a_cart_expires_when_the_watermark_is_past_expiry() -> None:
    """wm > last touch + cart_expiry, after its steps: expired, dated at last touch + cart_expiry."""
    play = Play().fold(added(0)).advance(30 * DAY)
    assert play.names == ["15m", "1h", "24h"]
    play.advance(30 * DAY + 1)
    assert play.names == ["15m", "1h", "24h", "expired"]
    assert play.outcomes[0].occurred_at_ms == T0 + 30 * DAY
    assert play.outcomes[0].trigger_ids == [step.trigger_id for step in play.steps]


def test_a_touch_at_exactly_the_expiry_is_in_time() -> None:
    """A touch at exactly last touch + cart_expiry is in time: the cart goes on."""
    play = Play().fold(added(0)).advance(DAY + HOUR).forget()
    play.read(checkout(30 * DAY)).advance(30 * DAY + 1)
    assert (play.names, play.cart["last_touch_ms"]) == (["resumed"], 30 * DAY)


def test_a_later_touch_after_expiry_opens_a_new_cart() -> None:
    """A later touch opens a new cart: opened then, with no trigger."""
    play = Play().fold(added(0)).read(added(30 * DAY + 1)).advance(30 * DAY + 2)
    assert play.names[-1] == "expired"
    assert (play.cart["opened_ms"], play.cart["trigger_ids"], play.quantities) == (30 * DAY + 1, [], {"p": 1})


def test_steps_at_the_expiry_fire_before_it() -> None:
    """After its steps: a step due at the very time of expiry fires first."""
    play = Play(cart_expiry_ms=DAY).fold(added(0)).advance(DAY + 1)
    assert play.names == ["15m", "1h", "24h", "expired"]


# -- order of folding -------------------------------------------------------------------------------------------------


def test_events_at_one_time_fold_touch_then_order_then_clear() -> None:
    """Touch < order < clear at one time, whatever their ids: the order closes, the clear finds nothing."""
    play = Play().read(cleared(9, event_id="a"), ordered(9, event_id="b"), added(9, event_id="c")).advance(10)
    assert play.names == ["closed"]


def test_an_emptying_update_folds_as_a_clear() -> None:
    """items = [] too: it folds after the order of its time."""
    play = Play().read(updated(9, event_id="a"), ordered(9, event_id="b"), added(9, event_id="c")).advance(10)
    assert play.names == ["closed"]


def test_a_login_folds_among_the_touches() -> None:
    """Removal, checkout and identity_linked are of the rank of touches: before the order of their time."""
    play = Play().read(ordered(9, event_id="a"), linked(9, event_id="z"), added(9, event_id="b")).advance(10)
    assert play.names == ["merged"]


def test_events_of_one_rank_fold_by_event_id_by_code_point() -> None:
    """Then event_id by code point: Z before a before ł."""
    adds = [added(9, event_id=name, name=name) for name in ("ł", "a", "Z")]
    assert Play().read(*adds).advance(10).cart["lines"][0]["name"] == "ł"
    assert Play().read(*adds[1:]).advance(10).cart["lines"][0]["name"] == "a"


def test_an_event_waits_until_the_watermark_has_passed_it() -> None:
    """An event waits until wm > occurred_at."""
    play = Play().read(added(5))
    assert (play.advance(5).carts, play.book.waiting) == ([], 1)
    assert (len(play.advance(6).carts), play.book.waiting) == (1, 0)


def test_the_65th_waiting_event_folds_the_oldest_early() -> None:
    """At most 64 wait, then the oldest is folded early and counted."""
    play = Play().read(*(added(n, f"p{n:02}") for n in range(64, 0, -1)))
    assert (play.book.waiting, play.book.folded_early, play.carts) == (64, 0, [])
    play.read(added(65, "p65"))
    assert (play.book.waiting, play.book.folded_early, play.quantities) == (64, 1, {"p01": 1})


def test_what_is_older_than_an_event_folded_early_is_late() -> None:
    """Older than the customer's last folded cart event: folded on arrival; at its very time it still waits."""
    play = Play().read(*(added(10 + n, f"p{n:02}") for n in range(65)))
    assert play.quantities == {"p00": 1}
    play.read(added(9, "late"))
    assert (play.quantities, play.book.waiting) == ({"late": 1, "p00": 1}, 64)
    play.read(added(10, "p00", event_id="z"))
    assert (play.quantities, play.book.waiting, play.book.folded_early) == ({"late": 1, "p00": 2}, 64, 2)


def test_folding_early_fires_what_was_due_before() -> None:
    """To this customer the watermark has reached the event folded early: steps due before it have fired."""
    play = Play().read(added(0), *(checkout(HOUR, event_id=f"e{n:02}") for n in range(63)))
    play.read(checkout(HOUR, event_id="f"), checkout(HOUR, event_id="g"))
    assert play.book.folded_early == 2
    assert play.names == ["15m", "resumed"]


# -- what a trigger carries -------------------------------------------------------------------------------------------


def test_a_trigger_carries_the_cart() -> None:
    """items one a line by line key, totals, and the newest shipping and checkout url of its touches."""
    play = Play().fold(
        added(0, "q", quantity=2, unit_price_minor=5, currency="EUR", shipping_minor=1, checkout_url="c1"),
        added(1, "p", unit_price_minor=7, currency="EUR", url="u", image_url="i", name="n"),
        checkout(2, shipping_minor=9, checkout_url="c2"),
        checkout(3, event_id="again", cart_id=None),
    )
    (step,) = play.advance(20 * MINUTE).steps
    assert step.items == [
        {"product_id": "p", "name": "n", "quantity": 1, "unit_price_minor": 7, "url": "u", "image_url": "i"},
        {"product_id": "q", "name": None, "quantity": 2, "unit_price_minor": 5, "url": None, "image_url": None},
    ]
    assert (step.kind, step.total_minor, step.currency) == ("checkout", 17, "EUR")
    assert (step.shipping_minor, step.checkout_url) == (9, "c2")
    assert (step.customer_id, step.cart_id, step.step) == ("c-1", None, "15m")
    assert (step.last_touch_ms, step.due_ms, step.first_due_ms) == (T0 + 3, T0 + 3 + 900_000, T0 + 3 + 900_000)


# -- deadline, packing, view ------------------------------------------------------------------------------------------


def test_the_deadline_is_the_earliest_of_waiting_step_and_expiry() -> None:
    """deadline(): oldest waiting event, next due step, expiry; None where nothing is to come."""
    play = Play()
    book, policy = play.book, play.policy
    assert book.deadline(policy) is None
    play.read(added(9), added(5))
    assert book.deadline(policy) == T0 + 5
    play.advance(10)
    assert book.deadline(policy) == T0 + 9 + 15 * MINUTE
    play.read(checkout(20 * MINUTE))
    assert book.deadline(policy) == T0 + 9 + 15 * MINUTE
    play.advance(2 * DAY)
    assert book.deadline(policy) == T0 + 20 * MINUTE + 30 * DAY
    play.fold(added(3 * DAY, cart_id="a"))
    assert book.deadline(policy) == T0 + 3 * DAY + 15 * MINUTE


def test_reading_releases_first() -> None:
    """A late event finds everything fired that the watermark had passed, released or not."""
    play = Play().fold(added(0))
    decided = Decided()
    play.book.read(checkout(10 * MINUTE), T0 + 16 * MINUTE, play.policy, decided)
    assert [type(what).__name__ for what in decided.steps_and_outcomes] == ["DueStep"]


def test_an_empty_book_packs_to_nothing() -> None:
    """pack() is None for a customer without carts, and unpacks to an empty book."""
    assert CartBook("c").pack() is None
    assert CartBook.unpack("c", None).pack() is None
    assert CartBook.unpack("c", None).customer_id == "c"


def test_a_packed_book_goes_on_as_if_it_had_stayed() -> None:
    """Everything a book knows survives packing through msgpack: carts, waiting events, ends, orders, clicks."""
    play = Play().fold(
        added(0, cart_id="a"), cleared(1, cart_id="a"), added(2, cart_id="b"), ordered(3, "o"), added(4, cart_id="k")
    )
    play.advance(20 * MINUTE).read(ordered(30 * MINUTE), checkout(25 * MINUTE, cart_id="k"))
    play.book.clicked(play.steps[0].trigger_id, T0 + 21 * MINUTE, T0, Decided())
    packed = msgspec.msgpack.encode(play.book.pack())
    play.book = CartBook.unpack("c-1", msgspec.msgpack.decode(packed))
    assert msgspec.msgpack.encode(play.book.pack()) == packed
    play.forget().advance(40 * MINUTE)
    assert play.names == ["resumed", "recovered"]
    assert play.facts == [("cart_recovered", T0 + 4 + 15 * MINUTE, True, 1)]


def test_the_ends_of_carts_survive_packing() -> None:
    """An emptied cart can still be taken over, and a used touch is still forbidden, after packing."""
    play = Play().fold(added(0, cart_id="a"), checkout(2, cart_id="a"), added(3)).advance(HOUR)
    play.read(cleared(1, cart_id="a")).fold(cleared(HOUR)).forget()
    packed = msgspec.msgpack.encode(play.book.pack())
    play.book = CartBook.unpack("c-1", msgspec.msgpack.decode(packed))
    assert msgspec.msgpack.encode(play.book.pack()) == packed
    assert play.read(added(2, cart_id="a")).carts == []
    assert play.fold(ordered(HOUR + MINUTE)).names == ["recovered"]


def test_a_packed_book_is_small() -> None:
    """An ordinary cart of one line takes less than 130 bytes, a customer who has ordered less than 32."""
    line = {"name": "Trail shoe", "quantity": 1, "unit_price_minor": 8_990, "currency": "EUR", "url": "/p/trail-shoe"}
    play = Play().fold(added(0, "sku-1234", **line), checkout(MINUTE))
    assert len(msgspec.msgpack.encode(play.book.pack())) < 130
    play.fold(ordered(2 * MINUTE))
    assert len(msgspec.msgpack.encode(play.book.pack())) < 32


def test_the_view_names_what_fired() -> None:
    """fired: the steps fired and not re-armed; trigger_ids: all of the cart; carts by id, the implicit one first."""
    play = Play().fold(added(0, cart_id="a")).advance(2 * HOUR)
    assert play.cart["fired"] == ["15m", "1h"]
    assert play.cart["trigger_ids"] == [step.trigger_id for step in play.steps]
    play.fold(checkout(2 * HOUR, cart_id="a"))
    assert (play.cart["fired"], len(play.cart["trigger_ids"])) == ([], 2)
