"""Steps of abandonment: when they are due, when they re-arm, what suppresses them, and their ids."""

import pytest

from streams.engagement.cart import CartBook, CartPolicy
from streams.engagement.decisions import Decided
from tests.support.cart_events import DAY, HOUR, MINUTE, T0, Play, added, cart_event, checkout, ordered

FIRST = 15 * MINUTE


def test_the_trigger_id_is_the_contracts_hash() -> None:
    """["v1","c-1",null,1700000000000,"15m"] gives 913e221bbf3369fc75e05203c1e1aa02."""
    play = Play().fold(added(0)).advance(HOUR)
    assert play.steps[0].trigger_id == "913e221bbf3369fc75e05203c1e1aa02"
    assert play.steps[0].trigger_ids == play.cart["trigger_ids"] == ["913e221bbf3369fc75e05203c1e1aa02"]


def test_the_trigger_id_keeps_other_scripts_as_they_are() -> None:
    """["v1","c|ł","A7",1700000000000,"1h"] gives 984eeb5a6032ac106940abe03c4ad05d."""
    book, decided = CartBook("c|ł"), Decided()
    book.read(added(0, cart_id="A7", customer_id="c|ł"), -1, CartPolicy(), decided)
    book.release(T0 + HOUR + 1, CartPolicy(), decided)
    assert book.view()[0]["trigger_ids"][1] == "984eeb5a6032ac106940abe03c4ad05d"


def test_a_step_fires_once_the_watermark_is_past_its_due_time() -> None:
    """Due at last touch + T; fires when wm > due_ms, not at due_ms."""
    play = Play().fold(added(0)).advance(FIRST)
    assert play.names == []
    assert play.advance(FIRST + 1).names == ["15m"]
    assert play.steps[0].due_ms == T0 + FIRST
    assert play.advance(2 * DAY).names == ["15m", "1h", "24h"]
    assert play.advance(3 * DAY).names == ["15m", "1h", "24h"]


@pytest.mark.parametrize(("touch_ms", "fires"), [(FIRST, False), (FIRST + 1, True)])
def test_a_touch_at_exactly_the_due_time_is_in_time(touch_ms: int, fires: bool) -> None:
    """It fires when no touch has occurred_at_ms <= due_ms."""
    play = Play().fold(added(0)).read(checkout(touch_ms)).advance(touch_ms + 1)
    assert play.names == (["15m", "resumed"] if fires else [])


@pytest.mark.parametrize(("order_ms", "fires"), [(FIRST, False), (FIRST + 1, True)])
def test_an_order_at_exactly_the_due_time_is_in_time(order_ms: int, fires: bool) -> None:
    """It fires when no order has occurred_at_ms <= due_ms."""
    play = Play().fold(added(0)).read(ordered(order_ms)).advance(order_ms + 1)
    assert play.names == (["15m", "recovered"] if fires else ["closed"])


def test_a_touch_before_any_step_fired_only_moves_the_due_times() -> None:
    """No outcome, and every step is due that much later."""
    play = Play().fold(added(0), checkout(10 * MINUTE)).advance(25 * MINUTE)
    assert play.names == []
    assert play.advance(25 * MINUTE + 1).names == ["15m"]


def test_a_touch_after_a_step_re_arms_every_step() -> None:
    """Outcome resumed: of the last touch, at the new one, with the triggers since the last touch only."""
    play = Play().fold(added(0, unit_price_minor=5)).advance(2 * HOUR).fold(added(2 * HOUR, "q", unit_price_minor=6))
    resumed = play.outcomes[0]
    assert (resumed.outcome, resumed.last_touch_ms, resumed.occurred_at_ms) == ("resumed", T0, T0 + 2 * HOUR)
    assert resumed.trigger_ids == [step.trigger_id for step in play.steps]
    assert (resumed.kind, resumed.cart_total_minor, resumed.first_due_ms) == ("cart", 5, T0 + FIRST)
    play.advance(4 * HOUR).fold(checkout(5 * HOUR))
    assert play.names == ["15m", "1h", "resumed", "15m", "1h", "resumed"]
    assert play.outcomes[1].trigger_ids == [step.trigger_id for step in play.steps[2:]]
    assert play.outcomes[1].kind == "cart"
    assert play.cart["trigger_ids"] == [step.trigger_id for step in play.steps]


def test_first_due_is_the_first_since_the_cart_opened() -> None:
    """first_due_ms stays that of the first step through re-arming; a trigger carries all ids of the cart."""
    play = Play().fold(added(0)).advance(HOUR).fold(checkout(HOUR)).advance(3 * HOUR)
    assert [step.first_due_ms for step in play.steps] == [T0 + FIRST] * 3
    assert play.steps[-1].trigger_ids == [step.trigger_id for step in play.steps]
    assert play.facts == [("cart_fired", T0, T0 + FIRST)]


def test_only_the_64_newest_trigger_ids_are_kept() -> None:
    """trigger_ids: the newest 64."""
    play = Play(steps=(("15m", FIRST),))
    for hour in range(66):
        play.fold(checkout(hour * HOUR) if hour else added(0)).advance(hour * HOUR + FIRST + 1)
    assert len(play.steps) == 66
    assert play.cart["trigger_ids"] == [step.trigger_id for step in play.steps[2:]]


def test_timers_of_several_carts_fire_in_the_order_of_their_times() -> None:
    """By due time, then cart_id, the implicit cart first."""
    play = Play(steps=(("15m", FIRST),)).fold(
        added(0, cart_id="b"), added(0, cart_id="a"), added(0), added(5, cart_id="0")
    )
    play.advance(HOUR)
    assert [step.cart_id for step in play.steps] == [None, "a", "b", "0"]


# -- suppressed in state ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("price", "reasons"), [(999, ["below_min_value"] * 3), (1_000, []), (None, [])])
def test_a_cart_below_the_least_value_is_suppressed(price: int | None, reasons: list[str]) -> None:
    """below_min_value: a total less than MIN_CART_VALUE_MINOR; exactly that passes, a null total passes."""
    play = Play(min_cart_value_minor=1_000).fold(added(0, unit_price_minor=price)).advance(2 * DAY)
    assert [outcome.reason for outcome in play.outcomes] == reasons
    assert len(play.steps) == 3 - len(reasons)


def test_a_suppressed_step_counts_for_nothing() -> None:
    """Not for trigger_ids, first_due_ms, metrics, cooldown or recovery; it is marked fired, and re-arms."""
    play = Play(min_cart_value_minor=10, trigger_cooldown_ms=DAY)
    play.fold(added(0, unit_price_minor=9, currency="EUR")).advance(20 * MINUTE)
    (suppressed,) = play.outcomes
    assert (suppressed.outcome, suppressed.step, suppressed.due_ms) == ("suppressed", "15m", T0 + FIRST)
    assert (suppressed.occurred_at_ms, suppressed.last_touch_ms) == (T0 + FIRST, T0)
    assert (suppressed.trigger_ids, suppressed.first_due_ms, suppressed.cart_total_minor) == ([], None, 9)
    assert play.cart["fired"] == ["15m"]
    play.fold(added(30 * MINUTE, "q", unit_price_minor=1, currency="EUR"))
    assert (play.names[-1], play.outcomes[-1].trigger_ids) == ("resumed", [])
    assert play.facts == []
    play.advance(46 * MINUTE)
    assert play.names[-1] == "15m"
    assert play.steps[0].first_due_ms == T0 + 45 * MINUTE


def test_a_cart_whose_steps_were_all_suppressed_is_closed_not_recovered() -> None:
    """recovered needs a step that fired and was not suppressed by value or cooldown; its end counts as unfired."""
    play = Play(min_cart_value_minor=10).fold(added(0, unit_price_minor=9)).advance(HOUR).fold(ordered(HOUR))
    assert (play.outcomes[-1].outcome, play.outcomes[-1].reason) == ("closed", None)
    assert play.facts == [("cart_ended_unfired", T0)]


@pytest.mark.parametrize(("cooldown_ms", "names"), [(45 * MINUTE, ["15m", "1h"]), (45 * MINUTE + 1, ["15m", "supp"])])
def test_cooldown_counts_from_the_customers_last_step(cooldown_ms: int, names: list[str]) -> None:
    """cooldown: due_ms less than the cooldown after the due_ms of the last step not suppressed; exactly that passes."""
    play = Play(trigger_cooldown_ms=cooldown_ms).fold(added(0)).advance(2 * HOUR)
    assert [name[:4] for name in play.names] == names
    assert [outcome.reason for outcome in play.outcomes] == ["cooldown"] * names.count("supp")


def test_cooldown_spans_carts() -> None:
    """The customer's last step, of whatever cart; equal due times count too."""
    play = Play(trigger_cooldown_ms=1).fold(added(0, cart_id="a"), added(0, cart_id="b")).advance(16 * MINUTE)
    assert [(what.cart_id, name) for what, name in zip(play.decided, play.names, strict=True)] == [
        ("a", "15m"),
        ("b", "suppressed"),
    ]


def test_cooldown_suppresses_what_was_due_even_earlier() -> None:
    """A cart opened late whose step was due before the last one is less than the cooldown after it."""
    play = Play(trigger_cooldown_ms=HOUR, steps=(("15m", FIRST),)).fold(added(10, cart_id="a")).advance(HOUR)
    play.read(added(0, cart_id="b"))
    assert [outcome.reason for outcome in play.outcomes] == ["cooldown"]
    play.fold(added(HOUR + 10, cart_id="c")).advance(2 * HOUR)
    assert len(play.steps) == 2


def test_the_last_step_is_the_one_due_last() -> None:
    """Not the one decided last, where a cart was opened late."""
    play = Play(steps=(("15m", FIRST),)).fold(added(HOUR, cart_id="a")).advance(2 * HOUR).read(added(0, cart_id="b"))
    play.policy = CartPolicy(steps=(("15m", FIRST),), trigger_cooldown_ms=HOUR)
    play.fold(added(2 * HOUR - 1, event_id="late"), added(2 * HOUR - 1, cart_id="c")).advance(3 * HOUR)
    assert play.names == ["15m", "15m", "suppressed", "suppressed"]


def test_value_is_told_before_cooldown() -> None:
    """Reasons in this order: below_min_value, cooldown."""
    play = Play(min_cart_value_minor=10, trigger_cooldown_ms=DAY, steps=(("15m", FIRST),))
    play.fold(added(0, cart_id="a"), added(1, cart_id="b", unit_price_minor=1)).advance(HOUR)
    assert [outcome.reason for outcome in play.outcomes] == ["below_min_value"]


def test_longer_steps_are_still_to_come_when_the_settings_change() -> None:
    """Only steps longer than the longest fired one fire under new settings."""
    play = Play().fold(added(0)).advance(2 * HOUR)
    play.policy = CartPolicy(steps=(("30m", 30 * MINUTE), ("3h", 3 * HOUR)))
    assert play.advance(30 * DAY).names == ["15m", "1h", "3h"]


def test_an_event_of_another_cart_does_not_stop_a_step() -> None:
    """No touch of the same cart: steps of other carts fire on."""
    play = Play().fold(added(0), added(10 * MINUTE, cart_id="a")).read(cart_event("cart_updated", FIRST, cart_id="a"))
    assert play.advance(FIRST + 1).names == ["15m"]
