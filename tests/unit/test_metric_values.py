"""Published metrics: windows, quotients, finality, revisions."""

from typing import Any

import pytest

from models.outputs import Metric as MetricRecord
from models.outputs import metric_id
from streams.engagement.accumulators import Accumulators
from streams.engagement.metric_values import (
    MetricValue,
    Published,
    Totals,
    evaluate,
    least_watermarks,
    outdated,
    revise,
)

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T0 = 1_760_054_400_000
ALL = ("clickstream", "cart", "email", "social")


def fields(*facts: tuple[Any, ...]) -> dict[str, int]:
    accumulators = Accumulators()
    accumulators.add_facts(facts)
    return {name: value for name, value in accumulators.changed().items() if value is not None}


def evaluated(stored: dict[str, int], watermark_ms: int, since_ms: int | None = None) -> list[MetricValue]:
    since = {} if since_ms is None else dict.fromkeys(ALL, since_ms)
    return evaluate(stored, dict.fromkeys(ALL, watermark_ms), since, T0 - 99 * DAY_MS)


def ended(values: list[MetricValue], metric: str, window: str, end_ms: int, **dimensions: str) -> MetricValue:
    (found,) = [
        value
        for value in values
        if (value.metric.name, value.window, value.window_end_ms, value.dimensions)
        == (metric, window, end_ms, dimensions)
    ]
    return found


def record(value: MetricValue) -> dict[str, Any]:
    (revision,) = revise({}, [value])
    return revision.record(T0)


def order(at_ms: int, minor: int, currency: str = "EUR") -> tuple[Any, ...]:
    return ("order", currency, at_ms, 1, minor)


def test_average_order_value_is_revenue_over_orders_of_the_window() -> None:
    """300 of two orders are 150 each; an hour later the first has left the 24 h; currencies are never summed."""
    stored = fields(order(T0, 100), order(T0 + HOUR_MS, 200), order(T0, 7, "PLN"))
    values = evaluated(stored, T0 + 25 * HOUR_MS)
    both = ended(values, "average_order_value", "24h", T0 + DAY_MS, currency="EUR")
    assert (both.numerator, both.denominator, record(both)["value"]) == (300, 2, 150.0)
    second = ended(values, "average_order_value", "24h", T0 + 25 * HOUR_MS, currency="EUR")
    assert (second.numerator, second.denominator) == (200, 1)
    assert ended(values, "average_order_value", "24h", T0 + DAY_MS, currency="PLN").numerator == 7


def test_a_window_holds_the_bucket_at_its_begin_and_not_that_at_its_end() -> None:
    """So each order is in one window of a day's grid."""
    stored = fields(order(T0, 100), order(T0 + DAY_MS, 7))
    values = evaluated(stored, T0 + 3 * DAY_MS)
    for end_ms, minor in ((T0, 0), (T0 + DAY_MS, 100), (T0 + 2 * DAY_MS, 7)):
        found = [value for value in values if (value.window, value.window_end_ms) == ("24h", end_ms)]
        assert sum(value.numerator for value in found if value.metric.name == "average_order_value") == minor


@pytest.mark.parametrize("watermarks", [(5, 9, -1), (9, 5, -1), (-1, 9, 5)])
def test_the_watermark_of_all_tasks_is_the_least(watermarks: tuple[int, ...]) -> None:
    """Whichever task has it; one that had no record yet holds nothing back."""
    assert least_watermarks([{"cart": watermark_ms} for watermark_ms in watermarks]) == {"cart": 5}


def test_a_bucket_that_comes_to_nothing_is_no_bucket() -> None:
    """What was counted and taken back leaves no window to tell of, nor anything in memory."""
    totals, stored = Totals(), fields(order(T0, 100))
    for sign in (1, -1):
        for name, value in stored.items():
            totals.add(name, sign * value)
    told = totals.values(dict.fromkeys(ALL, T0 + HOUR_MS), {}, T0 - DAY_MS)
    assert [value for value in told if value.metric.name == "average_order_value"] == []


def test_nothing_to_divide_by_is_null() -> None:
    """A window without orders has the value null, not 0."""
    values = evaluated(fields(order(T0, 100)), T0 + 2 * DAY_MS)
    empty = ended(values, "average_order_value", "24h", T0 + 2 * DAY_MS, currency="EUR")
    assert (empty.numerator, empty.denominator, record(empty)["value"]) == (0, 0, None)


def test_the_open_window_is_published_and_final_once_its_end_is_passed() -> None:
    """Windows end at bucket edges; the one the watermark is in is open; at exactly its end it is final."""
    stored = fields(("event", "engagement.cart.v1", "product_added", T0, 3))
    names = {"topic": "engagement.cart.v1", "type": "product_added"}
    values = evaluated(stored, T0 + HOUR_MS - 1)
    assert [value.window_end_ms for value in values if value.window == "24h"] == [T0 + HOUR_MS]
    assert not ended(values, "events", "24h", T0 + HOUR_MS, **names).final
    values = evaluated(stored, T0 + HOUR_MS)
    assert ended(values, "events", "24h", T0 + HOUR_MS, **names).final
    assert not ended(values, "events", "24h", T0 + 2 * HOUR_MS, **names).final
    flow = record(ended(values, "events", "7d", T0 + DAY_MS, **names))
    assert (flow["numerator"], flow["denominator"], flow["value"]) == (3, None, 3)


def test_a_fast_replay_skips_no_window() -> None:
    """Every edge passed since the last publication has its record, however far the watermark jumped."""
    stored = fields(*(order(T0 + day * DAY_MS, 1) for day in range(40)))
    values = evaluated(stored, T0 + 40 * DAY_MS, since_ms=T0 + HOUR_MS)
    ends = [value.window_end_ms for value in values if value.window == "24h"]
    assert ends == list(range(T0 + 2 * HOUR_MS, T0 + 40 * DAY_MS + HOUR_MS + 1, HOUR_MS))


def test_windows_that_may_change_are_looked_at_for_a_day() -> None:
    """A cohort's for its horizon and a day more; minutes for an hour."""
    stored = fields(order(T0, 1), ("cart_fired", T0, T0), ("event", "t.cart.v1", "cart_viewed", T0, 1))
    now = T0 + 20 * DAY_MS
    values = evaluated(stored, now, since_ms=now)

    def first_end(metric: str, window: str) -> int:
        return min(value.window_end_ms for value in values if (value.metric.name, value.window) == (metric, window))

    assert first_end("average_order_value", "24h") == now - DAY_MS + HOUR_MS
    assert first_end("cart_abandonment_rate", "24h") == now - 2 * DAY_MS + HOUR_MS
    assert first_end("cart_recovery_rate", "24h") == now - 8 * DAY_MS + HOUR_MS
    assert first_end("events", "60s") == now - HOUR_MS + MINUTE_MS


def test_active_customers_are_read_at_their_edge() -> None:
    """The number told for an edge is the window's; there is nothing to sum."""
    stored = fields(("active", "24h", T0 + HOUR_MS, 5, 2), ("active", "24h", T0 + 2 * HOUR_MS, 2, 1))
    values = evaluated(stored, T0 + 3 * HOUR_MS)
    ends = {value.window_end_ms: (value.numerator, value.final) for value in values}
    assert ends == {
        T0 + HOUR_MS: (5, True),
        T0 + 2 * HOUR_MS: (7, True),
        T0 + 3 * HOUR_MS: (0, True),
        T0 + 4 * HOUR_MS: (0, False),
    }


def test_cart_abandonment_is_of_the_cohort_of_openings_and_final_after_its_horizon() -> None:
    """One of two carts opened in the window; a day after its end it is final, not before."""
    stored = fields(("cart_fired", T0, T0 + DAY_MS), ("cart_ended_unfired", T0 + 1))
    for later_ms, final in ((2 * DAY_MS - 1, False), (2 * DAY_MS, True)):
        value = ended(evaluated(stored, T0 + later_ms), "cart_abandonment_rate", "24h", T0 + DAY_MS)
        assert (value.numerator, value.denominator, value.final) == (1, 2, final)
        assert record(value)["value"] == 0.5


def test_cart_recovery_is_told_for_both_attributions_of_the_same_carts() -> None:
    """13 of 100: the denominator is the cohort of first due, whichever the attribution; also since the start."""
    stored = fields(
        *(("cart_fired", T0, T0) for _ in range(100)),
        *(("cart_recovered", T0, True, 1) for _ in range(13)),
        ("cart_recovered", T0, False, 4),
    )
    values = evaluated(stored, T0 + DAY_MS)
    for attribution, numerator in (("attributed", 13), ("organic", 4)):
        value = ended(values, "cart_recovery_rate", "24h", T0 + DAY_MS, attribution=attribution)
        assert (value.numerator, value.denominator) == (numerator, 100)
        (ever,) = [v for v in values if v.window == "all" and v.dimensions == {"attribution": attribution}]
        assert (ever.numerator, ever.denominator, ever.final) == (numerator, 100, False)
        assert (ever.window_start_ms, ever.window_end_ms) == (T0 - 99 * DAY_MS, T0 + DAY_MS)


def test_a_metric_waits_for_its_own_topics_only() -> None:
    """Carts do not wait for clicks; where a topic is a dimension its own watermark counts; without one, silence."""
    stored = fields(
        order(T0, 1),
        ("event", "x.cart.v1", "cart_viewed", T0, 1),
        ("event", "x.email.v1", "email_sent", T0, 1),
        ("event", "odd", "odd", T0, 1),
    )
    values = evaluate(stored, {"cart": T0 + 5 * DAY_MS, "clickstream": T0}, {}, 0)
    watermarks = {(value.metric.name, value.dimensions.get("topic")): value.watermark_ms for value in values}
    assert watermarks == {
        ("average_order_value", None): T0 + 5 * DAY_MS,
        ("events", "x.cart.v1"): T0 + 5 * DAY_MS,
        ("events", "odd"): T0,
    }


def test_a_watermark_never_goes_back() -> None:
    """After a failover it stays where it was last published."""
    values = evaluated(fields(order(T0, 1)), T0, since_ms=T0 + DAY_MS)
    assert {value.watermark_ms for value in values} == {T0 + DAY_MS}


def test_what_no_metric_knows_is_left_out() -> None:
    """Stored numbers of a metric that was removed are no record."""
    assert evaluated({"gone|[]|part|1d|0": 7}, T0) == []


def test_a_record_is_the_contracts_and_its_key_its_identity() -> None:
    """Validated by the contract's own class; the key is the ce_id without its revision."""
    value = ended(evaluated(fields(order(T0, 100)), T0), "average_order_value", "24h", T0 + HOUR_MS, currency="EUR")
    told = record(value)
    assert MetricRecord.model_validate(told).model_dump() == told
    assert value.key == metric_id("average_order_value", {"currency": "EUR"}, "24h", T0 - 23 * HOUR_MS)
    assert (told["revision"], told["state_since_ms"], told["definition_version"]) == (1, T0, 1)


def test_only_changes_are_published_each_under_the_next_revision() -> None:
    """Same numbers: nothing; other numbers, or final now: one revision more; what was final stays final."""
    stored = fields(order(T0, 100))
    value = ended(evaluated(stored, T0), "average_order_value", "24h", T0 + HOUR_MS, currency="EUR")
    (first,) = revise({}, [value])
    published = {value.key: first.published}
    assert revise(published, [value]) == []
    (second,) = revise(published, [value._replace(numerator=150)])
    assert (second.revision, second.published) == (2, Published(150, 1, False, 2, T0 + HOUR_MS))
    (final,) = revise(published, [value._replace(final=True)])
    published[value.key] = final.published
    assert revise(published, [value]) == []
    (late,) = revise(published, [value._replace(numerator=90)])
    assert (late.revision, late.value.final) == (3, True)


@pytest.mark.parametrize(("before", "told"), [(None, 0), (4, 1)])
def test_an_empty_minute_is_published_only_as_a_correction(before: int | None, told: int) -> None:
    """Else every minute of every type would be a record."""
    stored = fields(("event", "x.cart.v1", "cart_viewed", T0, 1))
    values = [value for value in evaluated(stored, T0 + 3 * MINUTE_MS) if value.window == "60s" and not value.numerator]
    assert len(values) == 3
    published = {} if before is None else {values[0].key: Published(before, None, True, 1, values[0].window_end_ms)}
    assert len(revise(published, values)) == told


def test_windows_beyond_revision_are_forgotten() -> None:
    """A day after its horizon a window is no longer remembered; the one since the start always is."""
    published = {
        metric_id("average_order_value", {"currency": "EUR"}, "24h", T0): Published(1, 1, True, 1, T0 + DAY_MS),
        metric_id("cart_recovery_rate", {"attribution": "organic"}, "24h", T0): Published(1, 1, True, 1, T0 + DAY_MS),
        metric_id("cart_recovery_rate", {"attribution": "organic"}, "all", T0): Published(1, 1, False, 9, T0),
        metric_id("gone", {}, "24h", T0): Published(1, 1, True, 1, T0 + 99 * DAY_MS),
    }
    order_key, cohort_key, all_key, gone_key = published
    assert outdated(published, {"cart": T0 + 2 * DAY_MS}) == [gone_key]
    assert outdated(published, {"cart": T0 + 2 * DAY_MS + 1}) == [order_key, gone_key]
    assert outdated(published, dict.fromkeys(ALL, T0 + 9 * DAY_MS + 1)) == [order_key, cohort_key, gone_key]
    assert outdated(published, {}) == [gone_key]
    assert all_key not in outdated(published, dict.fromkeys(ALL, T0 + 999 * DAY_MS))


def test_the_slowest_task_holds_back() -> None:
    """The least watermark per topic, a topic without records holding nothing back."""
    assert least_watermarks([{"cart": 5, "email": -1}, {"cart": 3, "social": 9}]) == {"cart": 3, "social": 9}
    assert least_watermarks([]) == {}


def test_totals_kept_from_turn_to_turn_equal_totals_from_scratch() -> None:
    """What is told in turns, each only what may have changed, ends as what is told at once."""
    totals = Totals()
    told: dict[str, object] = {}
    stored: dict[str, int] = {}
    for turn in range(50):
        field, amount = f'events|["x.cart.v1","cart_viewed"]|events|1h|{T0 + turn % 7 * HOUR_MS}', turn - 20
        stored[field] = stored.get(field, 0) + amount
        totals.add(field, amount)
        now = dict.fromkeys(ALL, T0 + turn * HOUR_MS // 3)
        told |= {value.key: value[6:9] for value in totals.values(now, {}, T0)}
        assert told == {value.key: value[6:9] for value in evaluate(stored, now, {}, T0)}


def test_totals_tell_nothing_twice() -> None:
    """A window whose numbers and edges are as they were told is left out."""
    totals = Totals()
    for field, value in fields(order(T0, 100)).items():
        totals.add(field, value)
    now = dict.fromkeys(ALL, T0 + HOUR_MS)
    assert totals.values(now, {}, T0)
    assert totals.values(now, {}, T0) == []
    assert totals.values(dict.fromkeys(ALL, T0 + 2 * HOUR_MS), {}, T0)
