"""Late cart events: folded on arrival, never dropped, by rules of their own."""

from typing import Any

import pytest

from streams.engagement.cart_state import Cart
from tests.support.cart_events import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
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

FIRST = 15 * MINUTE


def _at(last_touch_ms: int = HOUR, *, clock_ms: int = 5 * MINUTE, **policy: Any) -> Play:
    """One cart touched at a time, and the watermark some time after it."""
    return Play(**policy).fold(added(last_touch_ms)).advance(last_touch_ms + clock_ms)


# -- touches of an open cart ------------------------------------------------------------------------------------------


def test_an_event_is_late_if_it_occurred_before_the_watermark() -> None:
    """late = occurred_at < wm when read; at exactly wm it waits."""
    play = _at().read(added(HOUR + 5 * MINUTE - 1, "late"))
    assert (play.quantities, play.book.waiting) == ({"late": 1, "p": 1}, 0)
    assert play.read(added(HOUR + 5 * MINUTE, "waits")).book.waiting == 1


@pytest.mark.parametrize(("touch_ms", "last_ms"), [(HOUR - 1, HOUR), (HOUR + 1, HOUR + 1)])
def test_a_late_touch_moves_the_last_touch_only_if_newer(touch_ms: int, last_ms: int) -> None:
    """Moves last_touch_ms only if newer; changes lines either way."""
    play = _at().read(added(touch_ms))
    assert (play.cart["last_touch_ms"], play.quantities, play.names) == (last_ms, {"p": 2}, [])


def test_a_late_touch_never_re_arms_nor_moves_after_a_step() -> None:
    """Moves last_touch_ms only if no step has fired since, and never re-arms; the lines change all the same."""
    play = _at(clock_ms=20 * MINUTE).read(added(HOUR + 10 * MINUTE, "q"))
    assert (play.names, play.cart["last_touch_ms"], play.cart["fired"]) == (["15m"], HOUR, ["15m"])
    assert play.quantities == {"p": 1, "q": 1}
    assert play.advance(2 * HOUR + 1).names == ["15m", "1h"]
    assert play.steps[1].due_ms == T0 + 2 * HOUR


def test_a_late_touch_leaves_the_opening() -> None:
    """An older touch changes lines; the cart still opened when it opened."""
    assert _at().read(added(0)).cart["opened_ms"] == HOUR


def test_a_late_add_is_newest_to_a_line() -> None:
    """Changes lines as if made at the last touch: its price wins."""
    play = _at().read(added(0, unit_price_minor=7), checkout(1, shipping_minor=3, checkout_url="late"))
    step = play.advance(2 * HOUR).steps[0]
    assert (step.total_minor, step.shipping_minor, step.checkout_url, step.kind) == (14, 3, "late", "checkout")


@pytest.mark.parametrize(("touch_ms", "lines"), [(HOUR - 1, {"p": 1}), (HOUR, {"q": 1}), (HOUR + 1, {"q": 1})])
def test_a_late_update_changes_no_line_if_older_than_the_last_touch(touch_ms: int, lines: dict[str, int]) -> None:
    """cart_updated with items changes none if older than last_touch_ms."""
    assert _at().read(updated(touch_ms, "q")).quantities == lines


def test_a_late_update_newer_than_the_last_touch_replaces_lines_after_a_step_too() -> None:
    """Newer than last_touch_ms: lines are replaced, though the last touch no longer moves."""
    play = _at(clock_ms=20 * MINUTE).read(updated(HOUR + 1, "q"))
    assert (play.quantities, play.cart["last_touch_ms"]) == ({"q": 1}, HOUR)


@pytest.mark.parametrize(("touch_ms", "end_ms"), [(HOUR - 1, HOUR), (HOUR + 1, HOUR + 1)])
def test_a_late_removal_that_empties_closes_at_the_last_touch(touch_ms: int, end_ms: int) -> None:
    """Closes at the last touch's time, which a newer removal has moved first."""
    play = _at().read(removed(touch_ms))
    (emptied,) = play.outcomes
    assert (emptied.outcome, emptied.occurred_at_ms, emptied.last_touch_ms) == ("emptied", T0 + end_ms, T0 + end_ms)


def test_a_late_removal_after_a_step_does_not_resume() -> None:
    """It never re-arms: emptied alone, at the last touch, with all triggers."""
    play = _at(clock_ms=20 * MINUTE).read(removed(HOUR + MINUTE))
    assert play.names == ["15m", "emptied"]
    assert (play.outcomes[0].occurred_at_ms, len(play.outcomes[0].trigger_ids)) == (T0 + HOUR, 1)


# -- late openings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", [added(0), updated(0, "p")])
def test_a_late_opener_opens_a_cart_at_its_own_time(opener: Any) -> None:
    """With no open cart a late product_added or cart_updated with items opens one at its own time."""
    play = Play().advance(10 * MINUTE).read(opener)
    assert (play.cart["opened_ms"], play.cart["last_touch_ms"], play.names) == (0, 0, [])
    assert play.advance(FIRST + 1).names == ["15m"]


def test_other_late_touches_open_nothing() -> None:
    """Only openers open."""
    assert Play().advance(HOUR).read(checkout(0), removed(1), cart_event("cart_updated", 2)).carts == []


@pytest.mark.parametrize(
    ("clock_ms", "names"),
    [
        (FIRST, []),
        (FIRST + 1, ["15m"]),
        (HOUR, ["15m"]),
        (HOUR + 1, ["1h"]),
        (DAY + 1, ["24h"]),
        (30 * DAY, ["24h"]),
        (30 * DAY + 1, ["24h", "expired"]),
    ],
)
def test_of_the_steps_already_due_only_the_last_gives_a_record(clock_ms: int, names: list[str]) -> None:
    """Of the steps already due only the last gives a record and an id in trigger_ids, the others count as fired."""
    play = Play().advance(clock_ms).read(added(0))
    assert play.names == names
    if names:
        step = play.steps[0]
        assert (step.first_due_ms, step.trigger_ids) == (T0 + FIRST, [step.trigger_id])
        assert play.facts == [("cart_fired", T0, T0 + FIRST)]
    if names == ["1h"]:
        assert play.cart["fired"] == ["15m", "1h"]
        assert play.advance(2 * DAY).names == ["1h", "24h"]


def test_a_late_opening_whose_last_step_is_suppressed_has_no_first_due() -> None:
    """A suppressed step counts for nothing, the others count as fired all the same."""
    play = Play(min_cart_value_minor=9).advance(HOUR + 1).read(added(0, unit_price_minor=1))
    assert [(each.outcome, each.step) for each in play.outcomes] == [("suppressed", "1h")]
    assert (play.cart["first_due_ms"], play.cart["fired"]) == (None, ["15m", "1h"])


@pytest.mark.parametrize(("touch_ms", "opens"), [(HOUR - 1, False), (HOUR, False), (HOUR + 1, True)])
@pytest.mark.parametrize("ending", [ordered(HOUR), cleared(HOUR), linked(HOUR)])
def test_a_late_opening_at_or_before_an_order_or_end_opens_nothing(ending: Any, touch_ms: int, opens: bool) -> None:
    """Unless that is at or before an order or the end of the last cart with its key."""
    play = Play().fold(added(30 * MINUTE), ending).advance(2 * HOUR)
    assert bool(play.read(added(touch_ms)).carts) is opens


def test_the_end_of_a_cart_with_another_key_forbids_nothing() -> None:
    """The end of the last cart with its key."""
    play = Play().fold(added(0, cart_id="a"), cleared(2, cart_id="a")).advance(HOUR)
    assert play.read(added(1, cart_id="b"), added(1, cart_id="a", event_id="z")).open_keys() == ["b"]


def test_an_expired_cart_forbids_until_its_expiry() -> None:
    """The end of any kind: expiry too, at last touch + cart_expiry."""
    play = Play(cart_expiry_ms=DAY).fold(added(0)).advance(DAY + HOUR)
    assert play.read(added(DAY)).carts == []
    assert play.read(added(DAY + 1)).cart["opened_ms"] == DAY + 1


@pytest.mark.parametrize(("clock_ms", "opens"), [(30 * DAY, False), (30 * DAY + 1, True)])
def test_a_tombstone_lasts_thirty_days(clock_ms: int, opens: bool) -> None:
    """It leaves a tombstone for 30 d: until then a touch at or before the order's time opens nothing."""
    play = Play(cart_expiry_ms=60 * DAY).fold(ordered(0)).advance(clock_ms)
    assert bool(play.read(added(-1)).carts) is opens


@pytest.mark.parametrize(("after_ms", "opens"), [(60 * SECOND, False), (60 * SECOND + 1, True)])
def test_a_late_update_just_after_an_order_opens_nothing(after_ms: int, opens: bool) -> None:
    """For 60 s (inclusive) after an order only product_added opens a cart, late or not."""
    play = Play().fold(ordered(0)).advance(5 * MINUTE)
    assert bool(play.read(updated(after_ms, "p")).carts) is opens
    play = Play().fold(ordered(0)).advance(5 * MINUTE)
    assert len(play.read(added(after_ms)).carts) == 1


def test_a_late_opening_may_be_the_21st() -> None:
    """The cart with the oldest touch expires, dated at that opening."""
    play = Play().fold(*(added(n, cart_id=f"k{n:02}") for n in range(10, 30))).advance(MINUTE)
    (expired,) = play.read(added(5)).outcomes
    assert (expired.cart_id, expired.occurred_at_ms) == ("k10", T0 + 5)


# -- late orders, clears and logins -----------------------------------------------------------------------------------


def _order(play: Play, at_ms: int, **fields: Any) -> Any:
    play.forget().read(ordered(at_ms, "o-late", **fields))
    (outcome,) = play.outcomes
    return outcome


def test_a_late_order_before_the_first_due_takes_the_abandonment_back() -> None:
    """Nothing remains and the order occurred at or before the first fired due: closed, ordered_before_due, all ids."""
    play = _at(clock_ms=20 * MINUTE)
    ids = play.cart["trigger_ids"]
    closed = _order(play, HOUR + FIRST)
    assert (closed.outcome, closed.reason, closed.trigger_ids) == ("closed", "ordered_before_due", ids)
    assert (closed.occurred_at_ms, closed.last_touch_ms) == (T0 + HOUR + FIRST, T0 + HOUR)
    assert (play.carts, play.facts) == ([], [])


def test_a_late_order_after_the_first_due_recovers() -> None:
    """It closes what it would have closed in time, in the same way."""
    play = _at(clock_ms=20 * MINUTE)
    recovered = _order(play, HOUR + FIRST + 1)
    assert (recovered.outcome, recovered.reason) == ("recovered", None)


def test_a_late_order_before_the_opening_closes_nothing() -> None:
    """Closes every open cart opened at or before it; but it forbids what is as old."""
    play = _at().read(ordered(HOUR - 1))
    assert (play.names, len(play.carts)) == ([], 1)
    assert play.read(added(HOUR - 1, cart_id="a")).open_keys() == [None]


def test_a_late_order_at_the_opening_closes() -> None:
    """Opened at it: touch before order at one time."""
    assert _at().read(ordered(HOUR)).names == ["closed"]


def test_a_late_order_leaves_lines_added_after_it() -> None:
    """What stays is the same cart: opened at its oldest remaining touch, with its kind, touch, first due, steps."""
    line: dict[str, Any] = {"unit_price_minor": 5, "currency": "EUR"}
    play = Play().fold(
        added(0, **line), checkout(MINUTE), added(2 * MINUTE, "q"), cart_event("cart_updated", 5 * MINUTE)
    )
    play.read(cart_event("cart_updated", 3 * MINUTE)).fold(added(6 * MINUTE, "r")).advance(30 * MINUTE)
    before, closed = play.cart, _order(play, 2 * MINUTE, total_minor=9)
    assert (closed.outcome, closed.trigger_ids, closed.last_touch_ms) == ("closed", [], T0 + 2 * MINUTE)
    assert (closed.kind, closed.first_due_ms, closed.reason) == ("checkout", None, None)
    assert (closed.cart_total_minor, closed.order_total_minor, closed.order_id) == (None, 9, "o-late")
    assert play.quantities == {"r": 1}
    changed = {"lines": play.cart["lines"], "opened_ms": 3 * MINUTE}
    assert play.cart == before | changed
    assert play.facts == []
    assert play.advance(2 * HOUR).names == ["closed", "1h"]


def test_the_closed_part_totals_the_lines_that_leave() -> None:
    """cart_total_minor of the closed part: its own lines."""
    price: dict[str, Any] = {"currency": "EUR", "quantity": 2}
    play = Play().fold(added(0, unit_price_minor=5, **price), added(2, "q", unit_price_minor=9, **price)).advance(HOUR)
    assert _order(play, 1).cart_total_minor == 10


def test_a_line_stays_whole_if_its_newest_add_is_after_the_order() -> None:
    """Even what was added before it; then nothing leaves, and a closed tells of the order all the same."""
    play = Play().fold(added(0), added(2 * MINUTE)).advance(5 * MINUTE)
    closed = _order(play, MINUTE, total_minor=5)
    assert (closed.outcome, closed.cart_total_minor, closed.order_total_minor) == ("closed", None, 5)
    assert (closed.last_touch_ms, play.quantities, play.cart["opened_ms"]) == (T0, {"p": 2}, 2 * MINUTE)


@pytest.mark.parametrize("order_ms", [2 * MINUTE, 3 * MINUTE])
def test_a_cart_only_looked_at_after_the_order_ends_with_it(order_ms: int) -> None:
    """Nothing remains if no line was added after it, whatever else touched the cart since."""
    play = Play().fold(added(2 * MINUTE), checkout(4 * MINUTE)).advance(5 * MINUTE)
    closed = _order(play, order_ms)
    assert (closed.last_touch_ms, closed.occurred_at_ms, play.carts) == (T0 + 4 * MINUTE, T0 + order_ms, [])


def test_a_late_add_counts_at_its_own_time_for_a_late_order() -> None:
    """A line's newest add is when it was made, not when the last touch was."""
    play = Play().fold(added(0), added(10, "q")).advance(MINUTE).read(added(4, "late"))
    _order(play, 5)
    assert play.quantities == {"q": 1}


def test_a_late_touch_that_did_not_move_the_last_touch_still_remains() -> None:
    """The oldest remaining touch may be newer than last_touch_ms, which is kept as it was."""
    play = _at(clock_ms=20 * MINUTE).read(added(HOUR + 2 * MINUTE, "q"), added(HOUR + MINUTE, "r"))
    _order(play, HOUR + 30 * SECOND)
    assert (play.cart["opened_ms"], play.cart["last_touch_ms"]) == (HOUR + MINUTE, HOUR)


def test_two_late_orders_split_one_cart_twice() -> None:
    """Each closes its part, with its own newest touch, and the rest stays one cart."""
    play = Play().fold(added(0, "a"), added(10, "b"), added(20, "c")).advance(MINUTE)
    play.read(ordered(15), ordered(5))
    assert [each.last_touch_ms - T0 for each in play.outcomes] == [10]
    assert (play.quantities, play.cart["opened_ms"]) == ({"c": 1}, 20)


def test_touches_at_one_time_are_one() -> None:
    """Own times since the opening, sorted, each once."""
    cart = Cart(None, 0)
    for touch_ms in (0, 5, 5, 3, 3, 0, -1):
        cart.touched(touch_ms)
    assert cart.touches == [0, 3, 5]


def test_only_the_newest_64_touches_are_told_apart() -> None:
    """Beyond them a part's newest touch is the opening, and the oldest remaining touch the oldest one known."""
    play = Play().fold(added(0, "a"), *(added(n, "b") for n in range(10, 90))).advance(MINUTE)
    assert _order(play, 15).last_touch_ms == T0
    assert play.cart["opened_ms"] == 26


@pytest.mark.parametrize(("late", "whole"), [(cleared(MINUTE), "emptied"), (linked(MINUTE), "merged")])
def test_late_clears_and_logins_are_alike(late: Any, whole: str) -> None:
    """Closes what it would have closed in time; the part of a cart that leaves is closed, a whole one ends by name."""
    play = Play().fold(added(0), added(2 * MINUTE, "q")).advance(HOUR).forget().read(late)
    (part,) = play.outcomes
    assert (part.outcome, part.order_id, part.trigger_ids, play.quantities) == ("closed", None, [], {"q": 1})
    play = Play().fold(added(0), checkout(2 * MINUTE)).advance(HOUR).forget().read(late)
    (end,) = play.outcomes
    assert (end.outcome, end.occurred_at_ms, end.last_touch_ms) == (whole, T0 + MINUTE, T0 + 2 * MINUTE)
    assert (end.reason, len(end.trigger_ids)) == (None, 1)


def test_a_late_clear_before_the_opening_does_nothing() -> None:
    """In time there was no such cart."""
    assert _at().read(cleared(HOUR - 1), linked(HOUR - 1)).names == []


def test_a_late_order_takes_over_what_it_would_have_taken_over() -> None:
    """A cart emptied at most 10 min before it; one opened after the order does not prevent it, nor is it closed."""
    play = Play().fold(added(0), cleared(MINUTE), added(5 * MINUTE, "q")).advance(10 * MINUTE)
    play.forget().read(ordered(2 * MINUTE))
    assert [(each.outcome, each.last_touch_ms) for each in play.outcomes] == [("closed", T0)]
    assert play.quantities == {"q": 1}
    play = Play().fold(added(0), cleared(MINUTE), added(5 * MINUTE)).advance(10 * MINUTE)
    assert _order(play, 5 * MINUTE).last_touch_ms == T0 + 5 * MINUTE


def test_opened_since_means_the_opening_not_what_a_late_order_left_of_it() -> None:
    """A cart opened since prevents taking over from its opening on, also once a part of it has ended."""
    play = Play().fold(added(0), cleared(MINUTE), added(5 * MINUTE, "q"), added(8 * MINUTE, "r")).advance(HOUR).forget()
    play.read(ordered(7 * MINUTE), ordered(6 * MINUTE), ordered(5 * MINUTE - 1))
    assert [each.last_touch_ms - T0 for each in play.outcomes] == [5 * MINUTE, 0]


def test_a_late_order_before_a_clear_takes_nothing_over() -> None:
    """The cart was emptied after it: its one ending stands."""
    assert Play().fold(added(0), cleared(2)).advance(HOUR).read(ordered(1)).names == ["emptied"]


def test_an_emptied_cart_taken_over_before_its_due_was_ordered_before_due() -> None:
    """Taken over by a late order at or before its first fired due: closed, ordered_before_due."""
    play = Play().fold(added(0)).advance(20 * MINUTE).read(cleared(MINUTE), ordered(2 * MINUTE))
    assert [(each.outcome, each.reason) for each in play.outcomes] == [
        ("emptied", None),
        ("closed", "ordered_before_due"),
    ]


def test_a_late_order_may_close_the_past_of_one_cart_and_all_of_another() -> None:
    """The total stands on the outcome with the newest touch."""
    play = Play().fold(added(0, cart_id="a"), added(1, cart_id="b"), added(10, "q", cart_id="b")).advance(MINUTE)
    play.read(ordered(5, total_minor=7))
    assert [(each.cart_id, each.last_touch_ms - T0, each.order_total_minor) for each in play.outcomes] == [
        ("a", 0, None),
        ("b", 1, 7),
    ]
    assert play.open_keys() == ["b"]


def test_no_trigger_id_is_made_twice() -> None:
    """A late opening at a touch whose trigger was made by a cart that ended before it opens nothing."""
    play = Play().fold(added(0), checkout(2 * MINUTE)).advance(HOUR)
    play.read(ordered(MINUTE))
    assert play.names == ["15m", "closed"]
    assert play.read(added(2 * MINUTE)).carts == []
    assert play.read(added(2 * MINUTE - 1)).names == ["15m", "closed", "15m"]
    play.read(cleared(2 * MINUTE - 1))
    assert play.read(added(2 * MINUTE, event_id="again")).carts == []


def test_only_the_newest_ends_are_remembered() -> None:
    """64 ends, none older than 30 d before the newest."""
    carts = [event for n in range(66) for event in (added(n, cart_id=f"k{n:02}"), cleared(n, cart_id=f"k{n:02}"))]
    play = Play().fold(*carts).advance(HOUR)
    play.read(*(added(0, cart_id=f"k{n:02}") for n in range(4)))
    assert play.open_keys() == ["k00", "k01"]
    play = Play().fold(added(0, cart_id="a"), cleared(1, cart_id="a"), added(31 * DAY), cleared(31 * DAY + 1))
    assert play.read(added(0, cart_id="a", event_id="z")).outcomes[-1].cart_id == "a"
    play = Play(steps=(("15m", FIRST),)).fold(added(0, cart_id="a"), cleared(1, cart_id="a"))
    play.fold(added(30 * DAY), cleared(30 * DAY + 1)).forget()
    assert play.read(added(1, cart_id="a", event_id="z")).decided == []
