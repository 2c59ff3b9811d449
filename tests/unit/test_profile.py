"""The single customer view: what each kind of event does, duplicates, hot and cold fields, records and views."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from streams.engagement.decisions import DueStep, Outcome
from streams.engagement.profile import Profile, Rules
from streams.engagement.scoring import ScoreModel
from streams.engagement.sessions import OPEN_SESSIONS_MAX
from tests.support.shopper import CUSTOMER, DAY_MS, HOUR_MS, MINUTE_MS, RULES, T0, Shopper


def test_a_page_view_is_counted_scored_and_seen() -> None:
    """One event moves rev, as_of, last_seen, its counter, its channel and a session."""
    shopper = Shopper()
    assert shopper.does("page_viewed", T0 + 5)
    view = shopper.view()
    assert (view["rev"], view["as_of_ms"], view["last_seen_ms"]) == (1, T0 + 5, T0 + 5)
    assert view["counters"] == {"page_viewed": {"1h": 1, "24h": 1, "7d": 1, "30d": 1}}
    assert list(view["channels"]) == ["clickstream"]
    assert (view["score"], view["contributions"]["clickstream"]) == ("1.46", "1.46")
    assert view["sessions"] == [
        {"first_ms": T0 + 5, "last_ms": T0 + 5, "events": 1, "pages": 1, "cart_events": 0, "order_events": 0}
    ]
    assert (shopper.profile.hot_dirty, shopper.profile.cold_dirty) == (True, False)


def test_a_duplicate_changes_nothing() -> None:
    """An event_id that is known is not applied, and makes nothing dirty."""
    shopper = Shopper()
    shopper.does("page_viewed", T0, event_id="x")
    before = shopper.packed()
    assert not shopper.does("page_viewed", T0 + 1, event_id="x")
    assert not shopper.profile.hot_dirty
    assert shopper.packed() == before


def test_event_ids_are_known_per_topic() -> None:
    """The same id in another topic is another event."""
    shopper = Shopper()
    assert shopper.does("page_viewed", T0, event_id="x")
    assert shopper.does("post_liked", T0, event_id="x")
    assert shopper.does("cart_viewed", T0, event_id="x")
    assert shopper.does("email_sent", T0, event_id="x")
    again = shopper.restarted()
    for kind in ("page_viewed", "post_liked", "cart_viewed", "email_sent"):
        assert not again.does(kind, T0, event_id="x")


def test_the_brand_does_not_make_a_customer_seen() -> None:
    """Events by the brand count and score, but set no last_seen and belong to no session."""
    shopper = Shopper()
    shopper.does("email_delivered", T0)
    shopper.does("order_cancelled", T0 + 1)
    view = shopper.view()
    assert (view["rev"], view["last_seen_ms"], view["sessions"]) == (2, None, [])
    assert list(view["channels"]) == ["cart"]
    assert shopper.facts("active") == []
    assert shopper.restarted().view() == view


@pytest.mark.parametrize(
    ("kind", "weighs"), [("email_opened", False), ("email_link_clicked", False), ("email_unsubscribed", True)]
)
def test_a_machine_opens_and_clicks_in_vain(kind: str, weighs: bool) -> None:
    """It is counted, and neither seen nor weighed; its click attributes nothing."""
    shopper = Shopper()
    shopper.does(kind, T0, machine=True, trigger_id="0" * 32)
    view = shopper.view()
    assert view["counters"][kind]["1h"] == 1
    assert (view["last_seen_ms"], "email" in view["channels"], shopper.profile.cold_dirty) == (None, weighs, False)
    shopper.does(kind, T0 + 1, machine=False)
    assert shopper.view()["last_seen_ms"] == T0 + 1
    assert "email" in shopper.view()["channels"]


def test_social_and_email_belong_to_no_session() -> None:
    """Sessions are made of clicks and cart events."""
    shopper = Shopper()
    shopper.does("post_shared", T0)
    shopper.does("email_opened", T0)
    assert shopper.view()["sessions"] == []
    assert shopper.profile.session_deadline() is None


def test_a_late_event_enters_no_session_but_counts() -> None:
    """Late = older than its topic's watermark when read; at exactly the watermark it is in time."""
    shopper = Shopper()
    shopper.does("page_viewed", T0, watermark_ms=T0 + 1)
    assert shopper.view()["sessions"] == []
    assert shopper.view()["counters"]["page_viewed"]["1h"] == 1
    shopper.does("page_viewed", T0 + 1, watermark_ms=T0 + 1)
    assert len(shopper.view()["sessions"]) == 1


def test_cart_events_and_orders_are_told_apart_in_a_session() -> None:
    """cart_events are the cart topic's but orders; a repeated order belongs to its session too."""
    shopper = Shopper()
    shopper.does("product_added", T0)
    shopper.does("cart_viewed", T0 + 1)
    shopper.does("order_completed", T0 + 2)
    assert not shopper.does("order_completed", T0 + 3, event_id="again")
    session = shopper.view()["sessions"][0]
    assert (session["events"], session["cart_events"], session["order_events"]) == (4, 2, 2)


def test_final_sessions_leave_with_a_fact() -> None:
    """Closed by the watermark: (session, last, duration, events, pages, cart events, orders)."""
    shopper = Shopper()
    for at_ms in (T0, T0 + MINUTE_MS, T0 + 3 * HOUR_MS):
        shopper.does("page_viewed", at_ms)
    assert shopper.profile.session_deadline() == T0 + 31 * MINUTE_MS
    shopper.profile.pack_hot()
    shopper.profile.close_sessions(T0 + 31 * MINUTE_MS, RULES, shopper.decided)
    assert not shopper.profile.hot_dirty
    shopper.profile.close_sessions(T0 + 31 * MINUTE_MS + 1, RULES, shopper.decided)
    assert shopper.facts("session") == [("session", T0 + MINUTE_MS, MINUTE_MS, 2, 2, 0, 0)]
    assert shopper.profile.hot_dirty
    assert shopper.profile.session_deadline() == T0 + 3 * HOUR_MS + 30 * MINUTE_MS


def test_open_sessions_are_bounded() -> None:
    """While the watermark stands still, the oldest of too many sessions is taken as final."""
    shopper = Shopper()
    for number in range(OPEN_SESSIONS_MAX + 1):
        shopper.does("page_viewed", T0 + number * HOUR_MS)
    assert len(shopper.view()["sessions"]) == OPEN_SESSIONS_MAX
    assert [fact[1] for fact in shopper.facts("session")] == [T0]


def test_hot_and_cold_are_written_apart() -> None:
    """A click, an email and a like touch the hot field alone; cart events and clicks on a trigger's email both."""
    shopper = Shopper()
    shopper.does("product_added", T0)
    stored = shopper.packed()
    assert stored[1] is not None
    for kind in ("page_viewed", "email_link_clicked", "post_liked"):
        again = Shopper(profile=Profile.unpack(CUSTOMER, *stored))
        again.does(kind, T0 + 1)
        assert (again.profile.hot_dirty, again.profile.cold_dirty) == (True, False)
        assert again.profile.pack_cold() == stored[1]
    both: list[tuple[str, dict[str, Any]]] = [("cart_viewed", {}), ("email_link_clicked", {"trigger_id": "0" * 32})]
    for kind, fields in both:
        again = Shopper(profile=Profile.unpack(CUSTOMER, *stored))
        again.does(kind, T0 + 1, **fields)
        assert (again.profile.hot_dirty, again.profile.cold_dirty) == (True, True)
        assert again.packed()[1] != stored[1]
        assert (again.profile.hot_dirty, again.profile.cold_dirty) == (False, False)


def test_a_click_that_concerns_no_cart_leaves_no_cold_field() -> None:
    """Text that is no trigger_id is remembered nowhere, nor is a mail that was opened only."""
    shopper = Shopper()
    shopper.does("email_link_clicked", T0, trigger_id="none of ours")
    shopper.does("email_opened", T0, trigger_id="a" * 32)
    assert shopper.profile.pack_cold() is None


def test_a_new_customer_packs_and_unpacks() -> None:
    """Nothing known, nothing stored, no timer."""
    profile = Profile.unpack(CUSTOMER, None, None)
    assert profile.deadline(RULES) is None
    assert profile.pack_cold() is None
    assert Profile.unpack(CUSTOMER, profile.pack_hot(), None).pack_hot() == profile.pack_hot()
    assert (profile.published_score, profile.published_as_of_ms, profile.order_since_published) == (None, 0, False)


def test_an_abandoned_cart_fires_on_release() -> None:
    """The deadline is the cart's; release tells the step, and a click on its email later attributes the recovery."""
    shopper = Shopper()
    shopper.does("product_added", T0)
    assert shopper.profile.deadline(RULES) == T0
    shopper.profile.release(T0 + 1, RULES, shopper.decided)
    shopper = shopper.restarted()
    assert shopper.profile.deadline(RULES) == T0 + 15 * MINUTE_MS
    shopper.profile.release(T0 + 15 * MINUTE_MS + 1, RULES, shopper.decided)
    (step,) = shopper.decided.steps_and_outcomes
    assert isinstance(step, DueStep)
    assert shopper.profile.cold_dirty
    shopper.does("email_link_clicked", T0 + 20 * MINUTE_MS, trigger_id=step.trigger_id)
    shopper.does("order_completed", T0 + 25 * MINUTE_MS, total_minor=1_000, currency="EUR")
    shopper.profile.release(T0 + 26 * MINUTE_MS, RULES, shopper.decided)
    outcome = shopper.decided.steps_and_outcomes[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.outcome == "recovered"
    assert [fact[2:] for fact in shopper.facts("cart_recovered")] == [(True, 1)]
    assert shopper.view()["carts"] == []


def test_a_repeated_order_moves_its_count_and_weight_to_the_earlier_time() -> None:
    """As if it had been placed then: counter, channel, revenue; no rev; as_of and last_seen include both."""
    late, early = T0 + 3 * HOUR_MS, T0
    repeated, other = Shopper(), Shopper()
    assert repeated.does("order_completed", late, total_minor=900, currency="EUR", event_id="a")
    assert not repeated.does("order_completed", early, total_minor=1_000, currency="EUR", event_id="b")
    assert other.does("order_completed", early, total_minor=1_000, currency="EUR", event_id="b")
    assert not other.does("order_completed", late, total_minor=900, currency="EUR", event_id="a")
    assert repeated.packed() == other.packed()
    view = repeated.view()
    assert (view["rev"], view["as_of_ms"], view["last_seen_ms"]) == (1, late, late)
    assert view["counters"]["order_completed"] == {"1h": 0, "24h": 1, "7d": 1, "30d": 1}
    assert repeated.facts("moved") == [("moved", "order_completed", late, early)]
    assert other.facts("moved") == []
    assert sum(fact[3] for fact in repeated.facts("order")) == 1


def test_a_repeated_order_moves_the_window_of_its_channel_on() -> None:
    """Of 16 half-lives the newest window is kept and the one before; a repeat is an event as any other in that."""
    window_ms = 16 * 7 * DAY_MS
    early, late = 180 * window_ms - 1, 180 * window_ms
    one, other = Shopper(), Shopper()
    for shopper, times in ((one, (early, late)), (other, (late, early))):
        for at_ms in times:
            shopper.does("order_completed", at_ms)
    assert one.packed() == other.packed()
    assert one.view()["channels"]["cart"]["window"] == 180


def test_only_an_applied_order_calls_for_a_score_record() -> None:
    """A cancellation, a refund and a repeat do not."""
    shopper = Shopper()
    shopper.does("order_cancelled", T0)
    shopper.does("order_refunded", T0)
    assert not shopper.profile.order_since_published
    shopper.does("order_completed", T0)
    assert shopper.profile.order_since_published
    shopper.profile.order_since_published = False
    shopper.does("order_completed", T0, event_id="again")
    assert not shopper.profile.order_since_published


def test_a_model_without_weight_for_orders_still_takes_repeats() -> None:
    """The counter moves, the channel stays absent."""
    model = ScoreModel("bare-0", RULES.score_model.channels, {})
    shopper = Shopper(Rules(RULES.cart, model))
    shopper.does("order_completed", T0 + DAY_MS)
    shopper.does("order_completed", T0, event_id="again")
    assert shopper.view()["channels"] == {}
    assert shopper.view()["counters"]["order_completed"]["24h"] == 0


def test_a_changed_half_life_restarts_its_channel_alone() -> None:
    """Old windows cannot be read with another half-life: the channel is 0 and starts anew with its next event."""
    shopper = Shopper()
    shopper.does("page_viewed", T0)
    shopper.does("post_liked", T0)
    text = ScoreModel.default()
    channels = (text.channels[0]._replace(half_life_ms=3 * DAY_MS), *text.channels[1:])
    weights = text.weights | {"page_viewed": (0, 3 * DAY_MS, 1)}
    changed = Shopper(Rules(RULES.cart, ScoreModel("new-0", channels, weights)), shopper.restarted().profile)
    assert changed.profile.score(changed.rules.score_model).contributions["clickstream"] == 0
    assert changed.profile.score(changed.rules.score_model).contributions["social"] > 0
    changed.does("page_viewed", T0 + 1)
    assert changed.profile.score(changed.rules.score_model).raw["clickstream"] == pytest.approx(1.0)


def test_the_score_record_is_the_contracts() -> None:
    """Every field of engagement.scores, scores with two decimals, raw values with four, and it encodes as JSON."""
    shopper = Shopper()
    shopper.does("page_viewed", T0)
    shopper.does("product_added", T0 + HOUR_MS)
    record = shopper.profile.score_record(RULES.score_model)
    assert list(record) == [
        "customer_id",
        "score",
        "contributions",
        "raw",
        "counters",
        "last_seen_ms",
        "as_of_ms",
        "rev",
        "model_version",
    ]
    assert record["raw"] == {"clickstream": round(2 ** (-1 / 48), 4), "cart": 5.0, "email": 0.0, "social": 0.0}
    assert record["score"] == round(sum(record["contributions"].values()), 2)
    assert record["counters"]["page_viewed"] == {"1h": 0, "24h": 1, "7d": 1, "30d": 1}
    assert record["model_version"] == RULES.score_model.version
    assert json.loads(msgspec.json.encode(record)) == record


def test_a_typical_customer_is_small() -> None:
    """Ten events of a visit with a cart take at most 350 bytes, 128 per topic over a month at most 8 KiB hot."""
    shopper = Shopper()
    kinds = ["page_viewed", "product_viewed", "product_viewed", "page_viewed", "product_added", "products_searched"]
    for number, kind in enumerate([*kinds, "product_viewed", "page_viewed", "cart_viewed", "page_viewed"]):
        shopper.does(kind, T0 + number * 40_000)
    hot, cold = shopper.packed()
    assert cold is not None
    assert len(hot) + len(cold) <= 350
    for number in range(2_000):
        shopper.does(kinds[number % 4], T0 + number * 20 * MINUTE_MS)
    assert len(shopper.profile.pack_hot()) <= 8_192


def test_rules_are_a_value() -> None:
    """A setting is changed by making other rules."""
    assert replace(RULES, score_model=ScoreModel.default()).cart == RULES.cart
