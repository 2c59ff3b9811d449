"""The contract of counters, scores, sessions, duplicates, watermarks and metrics, on logs folded by hand."""

from typing import Any

import pytest

from tests.support.fold import FoldError, fold
from tests.support.fold_profile import CHANNELS, EventIds, ProfileFold
from tests.support.log_builder import DAY_MS, HOUR_MS, T0, LogBuilder, at

DAY = 24 * 60
CART, CLICKS = ("engagement.cart.v1", 0), ("engagement.clickstream.v1", 0)


def log(**policy: Any) -> LogBuilder:
    return LogBuilder(**policy)


# ---------------------------------------------------------------- account, watermarks


def test_every_record_is_accounted_for() -> None:
    """applied + duplicate + rejected + control = read; and the first reason that applies is told."""
    made = log().put("product_added", 0).put("product_added", 0, event_id="e0001").raw("cart", b"{", 1).pass_time(2)
    made.raw("cart", None, 3).put("page_viewed", 10, read=0).put("page_viewed", 0, read=401 * DAY)
    result = made.result
    assert result.account[CART] == {"applied": 1, "duplicate": 1, "rejected": 2, "control": 1, "erased": 0}
    assert result.account[CLICKS] == {"applied": 0, "duplicate": 0, "rejected": 2, "control": 0, "erased": 0}
    assert result.rejected == {
        (*CART, 2): "NotJson",
        (*CART, 4): "NullValue",
        (*CLICKS, 0): "Future",
        (*CLICKS, 1): "TooOld",
    }
    assert list(result.customers) == ["c"]


@pytest.mark.parametrize(("read", "accepted"), [(-5, True), (-5.001, False), (400 * DAY, True), (400 * DAY + 1, False)])
def test_bounds_of_occurred_at(read: float, accepted: bool) -> None:
    """5 min after the record's timestamp and 400 d before it are accepted."""
    made = log().put("page_viewed", 0, read=read)
    assert (made.result.account[CLICKS]["applied"] == 1) is accepted


def test_watermark() -> None:
    """max of min(occurred_at, timestamp) - lateness; never back; duplicates move it, rejected records do not."""
    made = log().put("product_added", 10, read=8)
    assert made.result.watermarks == {CART: at(8) - 10_000}
    made.put("product_added", 7, read=9).put("product_added", 9, read=20, event_id="e0001")
    assert made.result.watermarks == {CART: at(9) - 10_000}
    made.raw("cart", b"{", 99).pass_time(5)
    assert made.result.watermarks == {CART: at(9) - 10_000}
    assert made.pass_time(50).result.watermarks == {CART: at(50)}


def test_a_control_record_is_capped_by_its_timestamp() -> None:
    """It raises the watermark to min(W, timestamp - lateness)."""
    made = log().raw("clickstream", b'{"type":"watermark_advanced","watermark_ms":9999999999999}', 3, key=None,
                     headers=(("pl-control", b""),))  # fmt: skip
    assert made.result.watermarks == {CLICKS: at(3) - 10_000}


def test_a_customer_in_two_tasks_is_an_error_of_the_log() -> None:
    made = log().put("page_viewed", 0)
    with pytest.raises(FoldError):
        fold({CLICKS: made.logs[CLICKS], (CLICKS[0], 1): made.logs[CLICKS]})


# ---------------------------------------------------------------- duplicates


def test_event_ids_are_remembered_per_topic() -> None:
    made = log().put("page_viewed", 0, event_id="x").put("product_added", 0, event_id="x")
    made.put("product_added", 1, event_id="x")
    assert made.result.account[CLICKS]["applied"] == 1
    assert made.result.account[CART] == {"applied": 1, "duplicate": 1, "rejected": 0, "control": 0, "erased": 0}
    assert made.view["rev"] == 2


def test_the_memory_holds_the_128_newest_of_24_hours() -> None:
    """An event below the kept range is applied unchecked; one of exactly 24 h is still known."""
    ids = EventIds()
    assert not ids.is_duplicate("first", 0)
    assert not ids.is_duplicate("day", DAY_MS)
    assert ids.is_duplicate("first", 0)
    assert not ids.is_duplicate("later", DAY_MS + 1)
    assert not ids.is_duplicate("first", 0)
    for number in range(128):
        assert not ids.is_duplicate(f"{number}", 2 * DAY_MS + number)
    assert len(ids.kept) == 128
    assert not ids.is_duplicate("one more", 2 * DAY_MS + 128)
    assert not ids.is_duplicate("0", 2 * DAY_MS)
    assert ids.is_duplicate("1", 2 * DAY_MS + 1)


def test_a_repeated_order_moves_and_raises_the_first() -> None:
    """No order, weight, count or rev; the earlier time, the larger total; as_of and last_seen include it."""
    made = log().put("order_completed", 70, order_id="o", total_minor=5, currency="EUR")
    made.put("order_completed", 10, read=71, order_id="o", total_minor=9, currency="EUR").put(
        "order_completed", 130, order_id="o"
    )
    result, view = made.result, made.view
    assert result.account[CART] == {"applied": 1, "duplicate": 2, "rejected": 0, "control": 0, "erased": 0}
    assert (view["rev"], view["as_of_ms"], view["last_seen_ms"]) == (1, at(130), at(130))
    assert view["counters"] == {"order_completed": {"1h": 0, "24h": 1, "7d": 1, "30d": 1}}
    assert result.metrics["orders"]["hour"] == {("EUR", at(0)): 1}
    assert result.metrics["revenue"]["hour"] == {("EUR", at(0)): 9}
    assert result.metrics["events"]["hour"] == {("cart", "order_completed", at(0)): 1}
    alone = log().put("order_completed", 10, order_id="o").put("page_viewed", 130).view
    assert view["channels"]["cart"] == alone["channels"]["cart"]
    assert [session["order_events"] for session in result.profiles["c"].all_sessions()] == [1, 1]  # the late is in none


def test_an_order_id_is_forgotten_after_30_days() -> None:
    made = log().put("order_completed", 0, order_id="o").put("order_completed", 30 * DAY, order_id="o")
    assert made.view["rev"] == 1
    assert made.put("order_completed", 31 * DAY, order_id="o").view["rev"] == 2


# ---------------------------------------------------------------- counters


def test_vector_of_the_counters() -> None:
    """09:04, 09:05, 10:03, as of 10:03: 1h = 2."""
    made = log()
    for minutes in (4, 5, 63):
        made.put("page_viewed", minutes)
    assert made.view["counters"] == {"page_viewed": {"1h": 2, "24h": 3, "7d": 3, "30d": 3}}


def test_windows_lose_at_most_a_bucket() -> None:
    """as_of - W < bucket start <= as_of, relative to the newest event of any type; late events count too."""
    made = log().put("page_viewed", 0).put("link_clicked", DAY - 0.1).put("page_viewed", 1, read=DAY)
    assert made.view["counters"]["page_viewed"] == {"1h": 0, "24h": 2, "7d": 2, "30d": 2}
    made.put("link_clicked", DAY)
    assert made.view["counters"]["page_viewed"] == {"1h": 0, "24h": 0, "7d": 2, "30d": 2}
    made.put("link_clicked", 31 * DAY)
    assert list(made.view["counters"]) == ["link_clicked"]


def test_what_the_brand_and_machines_do_counts_but_shows_no_customer() -> None:
    """last_seen and activity are the customer's own; audience_counted makes no profile at all."""
    made = log().put("email_sent", 1).put("email_opened", 2, machine=True).put("order_cancelled", 3, order_id="o")
    assert (made.view["rev"], made.view["as_of_ms"], made.view["last_seen_ms"]) == (3, at(3), None)
    assert made.view["counters"]["email_opened"]["30d"] == 1
    assert list(made.view["channels"]) == ["cart"]
    assert made.result.metrics["active_customers"] == {}
    assert made.put("email_opened", 2).view["last_seen_ms"] == at(2)
    audience = log().put("audience_counted", 0, followers=5).result
    assert audience.customers == {}
    assert audience.account["engagement.social.v1", 0]["applied"] == 1
    assert audience.metrics["events"]["day"] == {("social", "audience_counted", T0 // DAY_MS * DAY_MS): 1}


# ---------------------------------------------------------------- score


def profile_of(*events: tuple[str, int]) -> ProfileFold:
    profile = ProfileFold("c", {"order_scope": "customer", "steps": ()})
    for number, (kind, at_ms) in enumerate(events):
        event = {
            "event_id": f"e{number}",
            "type": kind,
            "customer_id": "c",
            "occurred_at_ms": at_ms,
            "order_id": f"o{number}",
        }
        profile.apply(event, "cart" if kind.startswith("order") else "email", -1)
    return profile


@pytest.mark.parametrize(("days", "want"), [(7, -5), (14, -2.5)])
def test_vectors_of_the_decay(days: int, want: float) -> None:
    """10 points after one half-life of 7 d are 5, after two 2.5 (here of a cancellation, which weighs -10)."""
    profile = profile_of(("order_cancelled", 3 * HOUR_MS), ("email_sent", 3 * HOUR_MS + days * DAY_MS))
    assert profile.raw()["cart"] == pytest.approx(want, abs=1e-5)


def test_decay_is_independent_of_order() -> None:
    """10 at day 0 and 10 at day 7, read at day 7 = 15, in either order, to the last bit."""
    start = 112 * DAY_MS * 150  # a window's first day
    first, second = ("order_cancelled", start), ("order_cancelled", start + 7 * DAY_MS)
    forward, backward = profile_of(first, second), profile_of(second, first)
    assert forward.raw()["cart"] == pytest.approx(-15, abs=1e-5)
    assert forward.channels() == backward.channels()
    assert forward.channels() == {"cart": {"window": 150, "current": -(10 + 20) * 2**20, "previous": 0}}


def test_two_windows_are_kept() -> None:
    """A window is 16 half-lives; J and J - 1 stay, older ones are dropped."""
    window = 112 * DAY_MS
    profile = profile_of(*(("order_refunded", number * window) for number in (150, 151, 152)))
    assert profile.channels()["cart"] == {"window": 152, "current": -10 * 2**20, "previous": -10 * 2**20}


def test_score_adds_hundredths() -> None:
    """contribution = cap x (1 - exp(-v/k)); a negative sum gives 0; the score is the sum of the parts."""
    made = log().put("page_viewed", 0).put("product_added", 0).put("email_unsubscribed", 0)
    view = made.view
    # 30 x (1 - e^(-1/20)) = 1.4631, 35 x (1 - e^(-5/30)) = 5.3731
    assert view["contributions"] == {"clickstream": "1.46", "cart": "5.37", "email": "0.00", "social": "0.00"}
    assert view["score"] == "6.83"


def test_weights_are_the_contracts() -> None:
    """Caps sum to 100; half-lives and k as in the table."""
    assert [(cap, h, k) for cap, h, k, _ in CHANNELS.values()] == [(30, 2, 20), (35, 7, 30), (20, 14, 15), (15, 14, 15)]
    assert sum(cap for cap, _, _, _ in CHANNELS.values()) == 100
    assert [len(weights) for _, _, _, weights in CHANNELS.values()] == [10, 9, 4, 8]


# ---------------------------------------------------------------- sessions


def test_a_gap_of_more_than_30_minutes_starts_a_session() -> None:
    """Exactly 30 min does not; clickstream and cart events join; two sessions are joined by an event between."""
    made = log().put("page_viewed", 0).put("product_viewed", 30).put("product_added", 60.001).put("link_clicked", 1)
    assert made.view["sessions"] == [
        {"first_ms": at(0), "last_ms": at(30), "events": 2, "pages": 2, "cart_events": 0, "order_events": 0},
        {"first_ms": at(60.001), "last_ms": at(60.001), "events": 1, "pages": 0, "cart_events": 1, "order_events": 0},
    ]
    joined = log(lateness_ms=HOUR_MS).put("page_viewed", 0).put("page_viewed", 50).put("page_viewed", 25)
    (session,) = joined.view["sessions"]
    assert (session["first_ms"], session["last_ms"], session["pages"]) == (at(0), at(50), 3)


def test_a_session_is_final_when_both_watermarks_have_passed() -> None:
    """min(wm of clickstream, wm of cart) > last + 30 min; without a cart log nothing is final."""
    made = log().put("page_viewed", 0).put("page_viewed", 100)
    assert len(made.view["sessions"]) == 2
    made.pass_time(30)
    assert len(made.view["sessions"]) == 2
    made.pass_time(30.001)
    assert [session["first_ms"] for session in made.view["sessions"]] == [at(100)]


def test_a_late_event_enters_no_session() -> None:
    """By its own topic's watermark when read; it is counted everywhere else."""
    made = log().put("page_viewed", 10).put("page_viewed", 9, read=10).put("product_added", 9, read=10)
    (session,) = made.view["sessions"]
    assert (session["first_ms"], session["events"], session["pages"], session["cart_events"]) == (at(9), 2, 1, 1)
    assert made.view["counters"]["page_viewed"]["30d"] == 2


def test_no_session_from_mails_or_the_brand() -> None:
    made = log().put("email_opened", 0).put("post_liked", 0).put("order_cancelled", 0, order_id="o")
    assert made.view["sessions"] == []


# ---------------------------------------------------------------- metrics


def test_event_flows() -> None:
    """By topic, type and bucket of occurred_at; duplicates count once, late events in their own bucket."""
    made = log().put("page_viewed", 0).put("page_viewed", 61).put("page_viewed", 0.9, read=61)
    made.put("page_viewed", 0, event_id="e0001")
    events = made.result.metrics["events"]
    assert events["minute"] == {("clickstream", "page_viewed", at(0)): 2, ("clickstream", "page_viewed", at(61)): 1}
    assert events["hour"] == {("clickstream", "page_viewed", at(0)): 2, ("clickstream", "page_viewed", at(60)): 1}


def test_cancellations_and_refunds_go_into_the_orders_bucket() -> None:
    """A cancellation takes the order out, a refund its total_minor or the rest, in any order of reading."""
    made = log().put("order_refunded", 0, order_id="a", total_minor=30)
    for order_id in ("a", "b", "c"):
        made.put("order_completed", 10, order_id=order_id, total_minor=100, currency="EUR")
    made.put("order_cancelled", 100, order_id="b").put("order_refunded", 200, order_id="c")
    assert made.result.metrics["orders"]["hour"] == {("EUR", at(0)): 2}
    assert made.result.metrics["revenue"]["hour"] == {("EUR", at(0)): 70}


def test_active_customers_at_every_edge() -> None:
    """Distinct customers with an event of their own in the window that ends at the edge, by hours and by days."""
    made = log().put("page_viewed", 0).put("email_opened", 121).put("page_viewed", 121, customer="d")
    active = made.result.metrics["active_customers"]
    assert [active.get(("24h", at(60 * hour)), 0) for hour in (0, 1, 2, 3, 24, 26, 27)] == [0, 1, 1, 2, 2, 2, 0]
    midnight = T0 // DAY_MS * DAY_MS
    assert {edge: count for (window, edge), count in active.items() if window == "7d"} == {
        midnight + DAY_MS: 1,
        **{midnight + day * DAY_MS: 2 for day in range(2, 8)},
        midnight + 8 * DAY_MS: 2,
    }
    assert sum(window == "30d" for window, _ in active) == 31
