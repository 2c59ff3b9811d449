"""The contract of carts, sentence by sentence, on logs short enough to be folded by hand.

The judge of every other suite is itself judged here: each figure was worked out on paper.
"""

from typing import Any

import pytest

from tests.support.fold import FoldError, add_all, fold
from tests.support.fold_carts import identity
from tests.support.log_builder import DAY_MS, HOUR_MS, MINUTE_MS, LogBuilder, at

DAY = 24 * 60


def log(**policy: Any) -> LogBuilder:
    return LogBuilder(**policy)


# ---------------------------------------------------------------- identities


def test_vectors_of_the_contract() -> None:
    """The two trigger ids that the contract gives."""
    assert identity("v1", "c-1", None, 1700000000000, "15m") == "913e221bbf3369fc75e05203c1e1aa02"
    assert identity("v1", "c|ł", "A7", 1700000000000, "1h") == "984eeb5a6032ac106940abe03c4ad05d"


def test_one_identity_for_two_decisions_is_an_error() -> None:
    """The fold does not hide a contradiction of the contract."""
    with pytest.raises(FoldError, match="twice"):
        add_all({"id": 1}, {"id": 1})


# ---------------------------------------------------------------- opening, lines, totals


def test_adding_opens_a_cart_and_sums_quantities() -> None:
    """Missing quantity is 1; quantities add; the newest non-null price, name and url win."""
    made = log().put("product_added", 0, unit_price_minor=100, currency="EUR", name="old", url="/a", quantity=2)
    made.put("product_added", 1, unit_price_minor=150, name="new").pass_time(2)
    (cart,) = made.view["carts"]
    assert (cart["cart_id"], cart["kind"], cart["opened_ms"], cart["last_touch_ms"]) == (None, "cart", at(0), at(1))
    (line,) = cart["lines"]
    assert line["quantity"] == 3
    assert (line["unit_price_minor"], line["currency"], line["name"], line["url"]) == (150, "EUR", "new", "/a")


def test_removing_takes_a_quantity_or_the_whole_line() -> None:
    """Not below 0; an unknown line is a touch only; a missing quantity takes the line."""
    made = log().put("product_added", 0, quantity=3).put("product_added", 1, product_id="q").pass_time(2)
    made.put("product_removed", 3, quantity=1).put("product_removed", 4, product_id="unknown").pass_time(5)
    (cart,) = made.view["carts"]
    assert [(line["product_id"], line["quantity"]) for line in cart["lines"]] == [("p", 2), ("q", 1)]
    assert cart["last_touch_ms"] == at(4)
    made.put("product_removed", 6, quantity=9).pass_time(7)
    assert [line["product_id"] for line in made.view["carts"][0]["lines"]] == ["q"]


@pytest.mark.parametrize(
    "kind",
    [
        "product_removed",
        "checkout_started",
        "checkout_step_completed",
        "payment_info_entered",
        "cart_updated",
        "cart_viewed",
    ],
)
def test_what_opens_no_cart(kind: str) -> None:
    """A touch of these types on no cart is nothing; cart_updated without items neither."""
    made = log().put(kind, 0).pass_time(60)
    assert made.view["carts"] == []
    assert made.ended() == []


def test_updated_items_replace_all_lines_in_the_events_currency() -> None:
    """cart_updated with items opens a cart, and replaces the lines of an open one."""
    made = log().put("cart_updated", 0, items=[{"name": "n", "unit_price_minor": 5, "quantity": 2}], currency="EUR")
    made.put("product_added", 1).put("cart_updated", 2, items=[{"product_id": "x"}, {"product_id": "x", "quantity": 4}])
    made.pass_time(3)
    (line,) = made.view["carts"][0]["lines"]
    assert (line["product_id"], line["quantity"], line["currency"]) == ("x", 5, None)


def test_looking_at_a_cart_is_no_touch() -> None:
    """cart_viewed moves no due time."""
    made = log().put("product_added", 0).put("cart_viewed", 10).pass_time(16)
    assert made.steps() == [(None, "15m", 15)]


@pytest.mark.parametrize(
    ("second", "want"),
    [
        ({"unit_price_minor": 7, "currency": "EUR"}, (207, "EUR")),
        ({"unit_price_minor": 7, "currency": "PLN"}, (None, None)),
        ({"unit_price_minor": 7}, (None, None)),
        ({"currency": "EUR"}, (None, None)),
    ],
)
def test_total_needs_all_prices_in_one_currency(second: dict[str, Any], want: tuple[int | None, str | None]) -> None:
    """null, with currency null, if a price is missing or currencies differ; a missing one differs from a given one."""
    made = log().put("product_added", 0, unit_price_minor=100, quantity=2, currency="EUR")
    made.put("product_added", 0, product_id="q", **second).pass_time(16)
    (trigger,) = made.result.triggers.values()
    assert (trigger["total_minor"], trigger["currency"]) == want
    assert trigger["items_count"] == 3


def test_total_without_any_currency() -> None:
    """All missing: a total with currency null."""
    (trigger,) = log().put("product_added", 0, unit_price_minor=9).pass_time(16).result.triggers.values()
    assert (trigger["total_minor"], trigger["currency"]) == (9, None)


def test_checkout_makes_the_kind() -> None:
    """kind = checkout once a checkout event was folded since the cart opened; a trigger shows the newest url."""
    made = log().put("product_added", 0).put("checkout_started", 1, checkout_url="/pay", shipping_minor=5).pass_time(17)
    (trigger,) = made.result.triggers.values()
    assert (trigger["kind"], trigger["checkout_url"], trigger["shipping_minor"]) == ("checkout", "/pay", 5)


def test_a_hundred_lines() -> None:
    """One more: the touch counts, the line is dropped and counted."""
    made = log()
    for number in range(101):
        made.put("product_added", number / 100, product_id=f"p{number:03}")
    made.pass_time(2)
    (cart,) = made.view["carts"]
    assert len(cart["lines"]) == 100
    assert cart["last_touch_ms"] == at(1)
    assert made.result.lines_dropped == 1


def test_twenty_carts() -> None:
    """At the opening of the 21st the one with the oldest touch expires, dated at that opening."""
    made = log()
    for number in range(20):
        made.put("product_added", number / 10, cart_id=f"k{number:02}")
    made.put("checkout_started", 2, cart_id="k00").put("product_added", 3, cart_id="new").pass_time(4)
    outcome = made.only_outcome()
    assert (outcome["outcome"], outcome["cart_id"], outcome["occurred_at_ms"]) == ("expired", "k01", at(3))
    assert len(made.view["carts"]) == 20


def test_order_of_events_at_one_time() -> None:
    """touch < order < clear, then event_id by code point."""
    made = log().put("cart_cleared", 5).put("order_completed", 5).put("product_added", 5).pass_time(60)
    assert made.outcomes() == [("closed", 5)]
    made = (
        log().put("product_added", 0, event_id="b", name="second").put("product_added", 0, event_id="B", name="first")
    )
    assert made.pass_time(1).view["carts"][0]["lines"][0]["name"] == "second"


# ---------------------------------------------------------------- steps


def test_every_due_step_fires_once() -> None:
    """A step is due at last touch + T and fires when the watermark has passed it."""
    made = log().put("product_added", 0).pass_time(15)
    assert made.steps() == []
    made.pass_time(15.001)
    assert made.steps() == [(None, "15m", 15)]
    made.pass_time(2 * DAY)
    assert made.steps() == [(None, "15m", 15), (None, "1h", 60), (None, "24h", DAY)]
    assert made.view["carts"][0]["fired"] == ["15m", "1h", "24h"]
    assert made.view["carts"][0]["first_due_ms"] == at(15)


def test_a_trigger_in_full() -> None:
    """Identity and content; items one a line, by line key."""
    made = log().put(
        "product_added", 0, cart_id="A", product_id="z", unit_price_minor=5, currency="EUR", image_url="/i"
    )
    made.put("product_added", 0, cart_id="A", product_id=None, name="b", unit_price_minor=1, currency="EUR").pass_time(
        20
    )
    item = {"product_id": None, "name": None, "quantity": 1, "unit_price_minor": 5, "url": None, "image_url": None}
    assert list(made.result.triggers.values()) == [
        {
            "trigger_id": identity("v1", "c", "A", at(0), "15m"),
            "kind": "cart",
            "step": "15m",
            "customer_id": "c",
            "cart_id": "A",
            "items": [{**item, "name": "b", "unit_price_minor": 1}, {**item, "product_id": "z", "image_url": "/i"}],
            "items_count": 2,
            "total_minor": 6,
            "currency": "EUR",
            "shipping_minor": None,
            "checkout_url": None,
            "last_touch_ms": at(0),
            "due_ms": at(15),
        }
    ]


def test_a_touch_before_any_step_moves_the_due_times() -> None:
    """Also one at exactly the due time: it is in time, and no outcome tells of it."""
    made = log().put("product_added", 0).put("product_added", 15).pass_time(31)
    assert made.steps() == [(None, "15m", 30)]
    assert made.ended() == []


def test_a_touch_after_a_step_rearms_every_step() -> None:
    """Outcome resumed: trigger_ids since the last touch, last_touch_ms that touch, occurred_at_ms the new one."""
    made = log().put("product_added", 0).pass_time(70).put("checkout_started", 75).pass_time(91)
    resumed = made.only_outcome()
    assert (resumed["outcome"], resumed["kind"]) == ("resumed", "cart")
    assert (resumed["last_touch_ms"], resumed["occurred_at_ms"]) == (at(0), at(75))
    assert resumed["trigger_ids"] == [identity("v1", "c", None, at(0), step) for step in ("15m", "1h")]
    assert (resumed["step"], resumed["due_ms"], resumed["first_due_ms"]) == (None, None, at(15))
    assert made.steps() == [(None, "15m", 15), (None, "1h", 60), (None, "15m", 90)]
    (cart,) = made.view["carts"]
    assert (cart["fired"], len(cart["trigger_ids"]), cart["first_due_ms"]) == (["15m"], 3, at(15))
    again = made.put("product_added", 100).pass_time(101).ended()[-1]
    assert again["trigger_ids"] == [identity("v1", "c", None, at(75), "15m")]


def test_expiry_comes_after_the_steps() -> None:
    """wm > last touch + 30 d; a touch at exactly that time is in time; a later one opens a new cart."""
    made = log().put("product_added", 0).pass_time(30 * DAY)
    assert made.outcomes() == []
    kept = log().put("product_added", 0).put("product_added", 30 * DAY).pass_time(30 * DAY + 1)
    assert kept.outcomes() == [("resumed", 30 * DAY)]
    made.put("product_added", 30 * DAY + 5).pass_time(30 * DAY + 6)
    assert made.outcomes() == [("expired", 30 * DAY)]
    assert made.view["carts"][0]["opened_ms"] == at(30 * DAY + 5)
    assert len(made.only_outcome()["trigger_ids"]) == 3


def test_a_small_cart_is_suppressed_and_rearmed() -> None:
    """below_min_value counts for no first due, no ids; the touch after it is a resumed all the same."""
    made = log(min_cart_value_minor=100).put("product_added", 0, unit_price_minor=99, currency="EUR").pass_time(16)
    suppressed = made.only_outcome()
    assert (suppressed["outcome"], suppressed["reason"], suppressed["step"]) == ("suppressed", "below_min_value", "15m")
    assert (suppressed["due_ms"], suppressed["occurred_at_ms"]) == (at(15), at(15))
    assert (suppressed["trigger_ids"], suppressed["first_due_ms"]) == ([], None)
    assert suppressed["outcome_id"] == identity("o1", "c", None, at(0), "suppressed", "15m")
    made.put("product_added", 20, unit_price_minor=99).pass_time(36)
    assert made.outcomes() == [("resumed", 20)]
    assert made.ended()[1]["trigger_ids"] == []
    assert made.steps() == [(None, "15m", 35)]
    made.put("order_completed", 36).pass_time(40)
    assert made.outcomes()[-1] == ("recovered", 36)
    unknown = log(min_cart_value_minor=100).put("product_added", 0).pass_time(16)
    assert unknown.steps() == [(None, "15m", 15)]  # a null total passes


def test_cooldown() -> None:
    """due_ms less than the cooldown after the due_ms of the customer's last step not suppressed by these two."""
    made = log(trigger_cooldown_ms=HOUR_MS).put("product_added", 0, cart_id="A").put("product_added", 10, cart_id="B")
    made.pass_time(3 * 60)
    assert made.steps() == [("A", "15m", 15)]
    found = sorted((one["cart_id"], one["step"], one["reason"]) for one in made.ended())
    assert found == [("A", "1h", "cooldown"), ("B", "15m", "cooldown"), ("B", "1h", "cooldown")]
    exactly = log(trigger_cooldown_ms=45 * MINUTE_MS).put("product_added", 0).pass_time(61)
    assert exactly.steps() == [(None, "15m", 15), (None, "1h", 60)]


# ---------------------------------------------------------------- ends


def test_clearing_empties() -> None:
    """cart_cleared and cart_updated with no items close the cart; cart_total_minor of emptied is null."""
    ways: list[tuple[str, dict[str, Any]]] = [("cart_cleared", {}), ("cart_updated", {"items": []})]
    for kind, fields in ways:
        made = log().put("product_added", 0, unit_price_minor=5).put(kind, 20, **fields).pass_time(21)
        emptied = made.only_outcome()
        assert (emptied["outcome"], emptied["occurred_at_ms"], emptied["last_touch_ms"]) == ("emptied", at(20), at(0))
        assert (emptied["cart_total_minor"], emptied["trigger_ids"]) == (
            None,
            [identity("v1", "c", None, at(0), "15m")],
        )
        assert made.view["carts"] == []


def test_removing_the_last_line_touches_first() -> None:
    """The removal is a touch, so it resumes; then the cart is emptied."""
    made = log().put("product_added", 0).put("product_removed", 20).pass_time(21)
    assert made.outcomes() == [("resumed", 20), ("emptied", 20)]
    assert made.ended()[1]["last_touch_ms"] == at(20)


def test_logging_in_merges() -> None:
    """identity_linked under the old key ends its open carts; no step survives."""
    made = log().put("product_added", 0).put("product_added", 1, cart_id="A").put("identity_linked", 10).pass_time(DAY)
    assert made.outcomes() == [("merged", 10), ("merged", 10)]
    assert made.steps() == []


def test_an_order_closes_every_cart() -> None:
    """Its total stands on the most recently touched cart only, the greatest cart_id among equals, null smallest."""
    made = log().put("product_added", 0, unit_price_minor=5, currency="EUR").put("product_added", 3, cart_id="A")
    made.put("product_added", 3, cart_id="B", unit_price_minor=6, currency="PLN")
    made.put("order_completed", 10, order_id="o-1", total_minor=70, currency="EUR").pass_time(11)
    found = {one["cart_id"]: one for one in made.ended()}
    assert [(one["outcome"], one["order_id"]) for one in made.ended()] == [("closed", "o-1")] * 3
    assert [found[key]["order_total_minor"] for key in (None, "A", "B")] == [None, None, 70]
    assert (found[None]["cart_total_minor"], found[None]["currency"]) == (5, "EUR")
    assert (found["B"]["cart_total_minor"], found["B"]["currency"]) == (None, "EUR")  # one record, one currency


def test_an_order_that_ends_no_cart_gives_none() -> None:
    assert log().put("order_completed", 0).pass_time(DAY).ended() == []


@pytest.mark.parametrize(
    ("named", "left"), [({"cart_id": "A"}, ["B"]), ({"cart_id": None}, []), ({"cart_id": "Z"}, ["A", "B"])]
)
def test_order_scope_cart(named: dict[str, Any], left: list[str]) -> None:
    """The named cart and the implicit one, or all if it names none."""
    made = log(order_scope="cart").put("product_added", 0).put("product_added", 1, cart_id="A")
    made.put("product_added", 2, cart_id="B").put("order_completed", 10, **named).pass_time(11)
    assert [cart["cart_id"] for cart in made.view["carts"]] == left


@pytest.mark.parametrize(
    ("order", "want"),
    [(15, "closed"), (15.001, "recovered"), (15 + 7 * DAY, "recovered"), (15.001 + 7 * DAY, "closed")],
)
def test_recovery_window(order: float, want: str) -> None:
    """first due < order <= first due + 7 d; an order at exactly the due time comes before the step."""
    made = log().put("product_added", 0).put("order_completed", order).pass_time(order + 1)
    assert made.outcomes() == [(want, order)]
    assert made.only_outcome()["first_due_ms"] == (None if order == 15 else at(15))


@pytest.mark.parametrize(("order", "want"), [(20, ["emptied", "closed"]), (20.001, ["emptied"])])
def test_an_order_takes_over_an_emptied_cart(order: float, want: list[str]) -> None:
    """Emptied at most 10 min before, inclusive; with the emptied cart's last_touch_ms; once."""
    made = log().put("product_added", 0).put("cart_cleared", 10).put("order_completed", order, total_minor=5)
    made.put("order_completed", order).pass_time(order + 1)
    assert [one["outcome"] for one in made.ended()] == want
    if len(want) == 2:
        closed = made.ended()[1]
        assert (closed["last_touch_ms"], closed["order_total_minor"], closed["cart_total_minor"]) == (at(0), 5, None)


def test_a_reopened_cart_is_not_taken_over() -> None:
    """Unless a cart with its key was opened since: then that one closes."""
    made = log().put("product_added", 0).put("cart_cleared", 10).put("product_added", 11).put("order_completed", 12)
    assert made.pass_time(13).outcomes() == [("emptied", 10), ("closed", 12)]
    other = log().put("product_added", 0).put("cart_cleared", 10).put("product_added", 11, cart_id="A")
    assert len(other.put("order_completed", 12).pass_time(13).outcomes()) == 3


def test_a_recovered_cart_taken_over() -> None:
    """emptied after its first step, then ordered: recovered follows."""
    made = log().put("product_added", 0).put("cart_cleared", 20).put("order_completed", 25).pass_time(26)
    assert made.outcomes() == [("emptied", 20), ("recovered", 25)]


@pytest.mark.parametrize(
    ("kind", "minutes", "opens"), [("cart_updated", 11, 0), ("cart_updated", 11.001, 1), ("product_added", 10.5, 1)]
)
def test_after_an_order_only_adding_opens(kind: str, minutes: float, opens: int) -> None:
    """For 60 s, inclusive."""
    fields: dict[str, Any] = {"items": [{"name": "n"}]} if kind == "cart_updated" else {}
    made = log().put("order_completed", 10).put(kind, minutes, **fields)
    assert len(made.pass_time(12).view["carts"]) == opens


@pytest.mark.parametrize("kind", ["order_cancelled", "order_refunded"])
def test_taking_an_order_back_reopens_nothing(kind: str) -> None:
    made = (
        log().put("product_added", 0).put("order_completed", 1, order_id="o").put(kind, 2, order_id="o").pass_time(DAY)
    )
    assert made.view["carts"] == []
    assert made.steps() == []


def test_a_repeated_order_closes_nothing() -> None:
    """The first in fold order closes, whichever was read first; a cart opened since stays."""
    made = log().put("product_added", 0).put("order_completed", 6, read=6, order_id="o")
    made.put("order_completed", 5.9, read=6, order_id="o").pass_time(7)
    assert made.outcomes() == [("closed", 5.9)]
    made.put("product_added", 8).put("order_completed", 9, order_id="o").pass_time(10)
    assert len(made.outcomes()) == 1
    assert len(made.view["carts"]) == 1


# ---------------------------------------------------------------- late


def test_late_is_before_the_watermark() -> None:
    """occurred_at < wm when read is folded on arrival; at the watermark it waits until wm > occurred_at."""
    made = log().put("product_added", 10).put("product_added", 9.9, read=10, product_id="q")
    assert made.view["waiting"] == 2  # the watermark is at 9 min 50 s
    made.put("product_added", 9.8, read=10, product_id="late")
    assert (made.view["waiting"], [line["product_id"] for line in made.view["carts"][0]["lines"]]) == (2, ["late"])
    made.pass_time(9.9).put("product_added", 9.9, read=10, product_id="r")
    assert made.view["waiting"] == 3
    made.pass_time(9.95)
    assert [line["product_id"] for line in made.view["carts"][0]["lines"]] == ["late", "q", "r"]


def test_a_late_touch_moves_the_last_touch_only_before_any_step() -> None:
    """It changes lines as if made at the last touch, and never re-arms."""
    made = (
        log().put("product_added", 0, name="a").pass_time(12).put("product_added", 10, read=12, name="late", quantity=2)
    )
    (cart,) = made.view["carts"]
    assert (cart["last_touch_ms"], cart["lines"][0]["name"], cart["lines"][0]["quantity"]) == (at(10), "late", 3)
    made.pass_time(26).put("checkout_started", 25.5, read=26)
    (cart,) = made.view["carts"]
    assert (cart["last_touch_ms"], cart["kind"], cart["fired"]) == (at(10), "checkout", ["15m"])
    assert made.ended() == []


def test_a_late_update_older_than_the_last_touch_changes_no_lines() -> None:
    made = log().put("product_added", 10).pass_time(12).put("cart_updated", 9, read=12, items=[{"name": "n"}])
    assert [line["product_id"] for line in made.view["carts"][0]["lines"]] == ["p"]
    made.put("cart_updated", 11, read=12, items=[{"name": "n"}])
    assert [line["name"] for line in made.view["carts"][0]["lines"]] == ["n"]


def test_a_late_add_opens_a_cart_of_which_only_the_last_due_step_gives_a_record() -> None:
    """The others count as fired, first_due_ms is the first step's; later steps fire as ever."""
    made = log().pass_time(70).put("product_added", 0, read=70)
    assert made.steps() == [(None, "1h", 60)]
    (cart,) = made.view["carts"]
    assert (cart["fired"], cart["first_due_ms"]) == (["15m", "1h"], at(15))
    assert cart["trigger_ids"] == [identity("v1", "c", None, at(0), "1h")]
    made.pass_time(DAY + 1)
    assert made.steps() == [(None, "1h", 60), (None, "24h", DAY)]
    made.put("order_completed", DAY + 2).pass_time(DAY + 3)
    assert made.outcomes() == [("recovered", DAY + 2)]


def test_a_late_touch_opens_nothing_at_or_before_an_order_or_the_end_of_its_last_cart() -> None:
    """Nor does a late touch of another kind."""
    for minutes, carts in ((19, 0), (20, 0), (20.1, 1)):
        ordered = log().put("order_completed", 20).pass_time(30).put("product_added", minutes, read=30)
        cleared = log().put("product_added", 0).put("cart_cleared", 20).pass_time(30)
        cleared.put("product_added", minutes, read=30)
        assert (len(ordered.view["carts"]), len(cleared.view["carts"])) == (carts, carts)
    assert log().pass_time(30).put("checkout_started", 20, read=30).view["carts"] == []
    other = (
        log()
        .put("product_added", 0)
        .put("cart_cleared", 20)
        .pass_time(30)
        .put("product_added", 19, read=30, cart_id="A")
    )
    assert len(other.view["carts"]) == 1


def test_a_late_removal_that_empties_closes_at_the_last_touch() -> None:
    made = log().put("product_added", 0).pass_time(16).put("product_removed", 10, read=16)
    assert made.outcomes() == [("emptied", 0)]
    early = log().put("product_added", 0).pass_time(12).put("product_removed", 10, read=12)
    assert early.outcomes() == [("emptied", 10)]


def test_a_late_order_before_the_first_due() -> None:
    """If nothing remains: closed, reason ordered_before_due; the trigger that went out stands in trigger_ids."""
    made = log().put("product_added", 0).pass_time(70).put("order_completed", 15, read=70)
    closed = made.only_outcome()
    assert (closed["outcome"], closed["reason"], closed["occurred_at_ms"]) == ("closed", "ordered_before_due", at(15))
    assert len(closed["trigger_ids"]) == 2
    late = log().put("product_added", 0).pass_time(70).put("order_completed", 16, read=70)
    assert (late.only_outcome()["outcome"], late.only_outcome()["reason"]) == ("recovered", None)


def test_a_late_order_leaves_what_was_added_after_it() -> None:
    """A line stays whole if its newest add is after the order; what stays is the same cart, nothing fires twice."""
    made = log().put("product_added", 0, unit_price_minor=7, currency="EUR").put("product_added", 2, product_id="q")
    made.put("product_removed", 3, product_id="x").put("product_added", 6, product_id="q").pass_time(25)
    made.put("order_completed", 5, read=25, order_id="o", total_minor=9, currency="EUR")
    closed = made.only_outcome()
    assert (closed["outcome"], closed["trigger_ids"], closed["reason"]) == ("closed", [], None)
    assert (closed["last_touch_ms"], closed["occurred_at_ms"]) == (at(3), at(5))
    assert (closed["cart_total_minor"], closed["order_total_minor"], closed["order_id"]) == (7, 9, "o")
    (cart,) = made.view["carts"]
    assert [(line["product_id"], line["quantity"]) for line in cart["lines"]] == [("q", 2)]
    assert (cart["opened_ms"], cart["last_touch_ms"]) == (at(6), at(6))
    assert (cart["fired"], cart["first_due_ms"], len(cart["trigger_ids"])) == (["15m"], at(21), 1)
    made.put("order_completed", 30).pass_time(31)
    assert made.outcomes() == [("closed", 5), ("recovered", 30)]


def test_a_late_order_closes_no_cart_opened_after_it() -> None:
    made = log().put("product_added", 10).pass_time(12).put("order_completed", 9, read=12)
    assert made.ended() == []
    assert len(made.view["carts"]) == 1


@pytest.mark.parametrize(("kind", "want"), [("cart_cleared", "emptied"), ("identity_linked", "merged")])
def test_a_late_clear_or_link_closes_alike(kind: str, want: str) -> None:
    """What it would have closed in time; what was added since stays."""
    whole = log().put("product_added", 0).pass_time(12).put(kind, 5, read=12)
    assert whole.outcomes() == [(want, 5)]
    part = log().put("product_added", 0).put("product_added", 6, product_id="q").pass_time(12).put(kind, 5, read=12)
    assert part.outcomes() == [("closed", 5)]
    assert [line["product_id"] for line in part.view["carts"][0]["lines"]] == ["q"]


def test_a_late_order_takes_over_as_in_time() -> None:
    """A cart opened after the order does not prevent it."""
    made = log().put("product_added", 0).put("cart_cleared", 10).put("product_added", 30).pass_time(31)
    made.put("order_completed", 15, read=31)
    assert made.outcomes() == [("emptied", 10), ("closed", 15)]
    assert len(made.view["carts"]) == 1


def test_the_65th_waiting_event_folds_the_oldest_early() -> None:
    """Counted; from then on what is older than it is late."""
    made = log(lateness_ms=HOUR_MS)
    for number in range(65):
        made.put("product_added", 10 + number / 100)
    view = made.view
    assert (view["waiting"], made.result.folded_early) == (64, 1)
    assert view["carts"][0]["opened_ms"] == at(10)
    made.put("product_added", 9, read=11)  # after wm, before the last folded: late, so it does not wait
    assert (made.view["waiting"], made.view["carts"][0]["lines"][0]["quantity"]) == (64, 2)


def test_nothing_depends_on_the_order_of_reading_within_the_lateness() -> None:
    """Two logs of the same events in another order give the same decisions."""
    events = [("product_added", 0.0), ("cart_cleared", 0.05), ("product_added", 0.1), ("order_completed", 0.12)]

    def read(order: list[int]) -> LogBuilder:
        made = log()
        for index in order:
            made.put(
                events[index][0],
                events[index][1],
                read=0.15,
                event_id=f"e{index}",
                **({"order_id": "o"} if index == 3 else {}),
            )
        return made.pass_time(60)

    forward, backward = read([0, 1, 2, 3]), read([3, 2, 1, 0])
    assert forward.result.outcomes == backward.result.outcomes
    assert forward.view == backward.view


# ---------------------------------------------------------------- cohorts


def test_abandonment_and_recovery_cohorts() -> None:
    """Abandonment by the hour of opening, recovery by that of the first due, attributed if a mail was clicked."""
    made = log().put("product_added", 0, customer="a").put("product_added", 1, customer="b").put("product_added", 2)
    made.put("order_completed", 10, customer="a").pass_time(70)
    trigger_id = identity("v1", "b", None, at(1), "15m")
    made.put("email_link_clicked", 40, customer="b", trigger_id=trigger_id)
    made.put("order_completed", 80, customer="b").put("order_completed", 81).pass_time(90)
    metrics = made.result.metrics
    assert metrics["cart_abandonment"]["hour"] == {at(0): {"fired": 2, "ended_unfired": 1}}
    assert metrics["cart_recovery"]["hour"] == {at(0): {"fired": 2, "organic": 1, "attributed": 1}}
    assert metrics["cart_recovery"]["day"] == {at(0) // DAY_MS * DAY_MS: {"fired": 2, "organic": 1, "attributed": 1}}


def test_a_click_after_the_order_attributes_nothing() -> None:
    """Nor does one that was read after the email topic had passed the order, or one by a machine."""
    trigger_id = identity("v1", "c", None, at(0), "15m")
    for minutes, machine in ((20, None), (19, True)):
        made = log().put("product_added", 0).put("order_completed", 20).pass_time(30)
        made.put("email_link_clicked", minutes, trigger_id=trigger_id, machine=machine)
        assert made.result.metrics["cart_recovery"]["hour"][at(0)] == {"fired": 1, "organic": 1}
    passed = log().put("product_added", 0).put("order_completed", 20).pass_time(30).put("email_opened", 25)
    passed.put("email_link_clicked", 19, read=25, trigger_id=trigger_id)
    assert passed.result.metrics["cart_recovery"]["hour"][at(0)] == {"fired": 1, "organic": 1}


def test_the_one_known_collision_of_outcome_ids() -> None:
    """A late line newer than the last touch outlives a late order: part and whole are `closed` at one last_touch_ms."""
    made = log().put("product_added", 0).pass_time(30).put("product_added", 20, read=30, product_id="q")
    made.put("order_completed", 10, read=30).put("order_completed", 9 * DAY).pass_time(9 * DAY + 1)
    with pytest.raises(FoldError, match="one id"):
        _ = made.result
    (contents,) = fold(made.logs, strict=False).collisions.values()
    assert [content["occurred_at_ms"] for content in contents] == [at(9 * DAY)]
