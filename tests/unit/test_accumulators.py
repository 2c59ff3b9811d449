"""Accumulators: absolute integers by name, bounded in dimensions and in time, the same after a restart."""

import pytest

from streams.engagement.accumulators import Accumulators, Key, field_of, key_of
from streams.engagement.metrics import REGISTRY, WINDOWS

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T0 = 1_760_054_400_000
TOPIC = "engagement.clickstream.v1"


def test_an_event_is_counted_in_its_minute_hour_and_day() -> None:
    """The buckets of its own time; only what changed since is told again, as absolute values."""
    accumulators = Accumulators()
    at_ms = T0 + 5 * HOUR_MS + 7 * MINUTE_MS + 1
    accumulators.count_events(TOPIC, [("page_viewed", at_ms // 60_000)])
    accumulators.count_events(TOPIC, [("page_viewed", (at_ms + 1) // 60_000)])
    name = f'events|["{TOPIC}","page_viewed"]|events'
    assert accumulators.changed() == {
        f"{name}|60s|{T0 + 5 * HOUR_MS + 7 * MINUTE_MS}": 2,
        f"{name}|1h|{T0 + 5 * HOUR_MS}": 2,
        f"{name}|1d|{T0}": 2,
    }
    assert accumulators.changed() == {}
    accumulators.count_events(TOPIC, [("page_viewed", (at_ms + HOUR_MS) // 60_000)])
    assert accumulators.changed()[f"{name}|1d|{T0}"] == 3


def test_an_order_feeds_two_parts() -> None:
    """Revenue and orders, by currency; what is taken back wholly leaves nothing."""
    accumulators = Accumulators()
    accumulators.add_facts([("order", "EUR", T0 + 1, 1, 4_990)])
    assert accumulators.changed() == {
        f'average_order_value|["EUR"]|{part}|{level}|{T0}': value
        for part, value in (("revenue_minor", 4_990), ("orders", 1))
        for level in ("1h", "1d")
    }
    accumulators.add_facts([("order", "EUR", T0 + 1, -1, -4_990)])
    assert set(accumulators.changed().values()) == {None}
    accumulators.add_facts([("order", None, T0 + 1, 1, 1)])
    assert all('["unknown"]' in name for name in accumulators.changed())


def test_active_customers_are_counted_at_each_edge() -> None:
    """One fact may stand for several windows in a row."""
    accumulators = Accumulators()
    accumulators.add_facts([("active", "24h", T0, 1, 2)])
    accumulators.add_facts([("active", "7d", T0, 1, 1)])
    assert accumulators.changed() == {
        f"active_customers|[]|customers|24h|{T0}": 1,
        f"active_customers|[]|customers|24h|{T0 + HOUR_MS}": 1,
        f"active_customers|[]|customers|7d|{T0}": 1,
    }


def test_cart_facts_go_to_their_cohorts() -> None:
    """Abandonment by the opening, recovery by the first due and since the start; other facts are ignored."""
    accumulators = Accumulators()
    accumulators.add_facts([("cart_fired", T0, T0 + DAY_MS)])
    accumulators.add_facts([("cart_ended_unfired", T0)])
    accumulators.add_facts([("cart_recovered", T0 + DAY_MS, False, 1)])
    accumulators.add_facts([("cart_recovered", T0 + DAY_MS, False, -1)])
    accumulators.add_facts([("cart_recovered", T0 + DAY_MS, True, 1)])
    accumulators.add_facts([("session", T0, 1, 1, 1, 0, 0)])
    changed = accumulators.changed()
    assert {name: value for name, value in changed.items() if "|1d|" in name or "|all|" in name} == {
        f"cart_abandonment_rate|[]|fired|1d|{T0}": 1,
        f"cart_abandonment_rate|[]|ended_unfired|1d|{T0}": 1,
        f"cart_recovery_rate|[]|fired|1d|{T0 + DAY_MS}": 1,
        "cart_recovery_rate|[]|fired|all|0": 1,
        f'cart_recovery_rate|["organic"]|recovered|1d|{T0 + DAY_MS}': None,
        'cart_recovery_rate|["organic"]|recovered|all|0': None,
        f'cart_recovery_rate|["attributed"]|recovered|1d|{T0 + DAY_MS}': 1,
        'cart_recovery_rate|["attributed"]|recovered|all|0': 1,
    }  # fmt: skip


def test_a_moved_event_changes_its_buckets() -> None:
    """A repeated order counts at its earlier time; also after a restart, from what is stored."""
    cart = "engagement.cart.v1"
    stored = Accumulators()
    stored.count_events(cart, [("order_completed", (T0 + DAY_MS) // 60_000)])
    fields = {name: value for name, value in stored.changed().items() if value is not None}
    for accumulators in (stored, Accumulators.load(fields)):
        accumulators.add_facts([("moved", "order_completed", T0 + DAY_MS, T0)])
        changed = accumulators.changed()
        name = f'events|["{cart}","order_completed"]|events|1d'
        assert (changed[f"{name}|{T0}"], changed[f"{name}|{T0 + DAY_MS}"]) == (1, None)
    unknown = Accumulators()
    unknown.add_facts([("moved", "order_completed", T0 + DAY_MS, T0)])
    assert unknown.changed() == {}


def test_a_restart_goes_on_counting() -> None:
    """Loaded values are added to, and are no changes by themselves."""
    first = Accumulators()
    first.count_events(TOPIC, [("page_viewed", T0 // 60_000)])
    first.add_facts([("cart_ended_unfired", T0)])
    stored = {name: value for name, value in first.changed().items() if value is not None}
    second = Accumulators.load(stored)
    assert second.changed() == {}
    second.count_events(TOPIC, [("page_viewed", T0 // 60_000)])
    second.add_facts([("cart_ended_unfired", T0)])
    assert set(second.changed().values()) == {2}


def test_what_a_dropped_metric_left_is_removed() -> None:
    """A metric no longer in the registry keeps no bytes."""
    accumulators = Accumulators.load({"gone|[]|part|1d|0": 7})
    assert accumulators.changed() == {"gone|[]|part|1d|0": None}


def test_too_many_values_of_a_dimension_are_other() -> None:
    """1,000 values are told apart, what comes after is counted together, and counted."""
    accumulators = Accumulators()
    for number in range(1_002):
        accumulators.add_facts([("order", f"C{number}", T0, 1, 1)])
    accumulators.add_facts([("order", "C0", T0, 1, 1)])
    changed = accumulators.changed()
    assert changed[f'average_order_value|["other"]|orders|1d|{T0}'] == 2
    assert changed[f'average_order_value|["C0"]|orders|1d|{T0}'] == 2
    assert f'average_order_value|["C999"]|orders|1d|{T0}' in changed
    assert f'average_order_value|["C1000"]|orders|1d|{T0}' not in changed
    assert accumulators.others == 4


def test_buckets_expire_behind_what_may_still_be_published() -> None:
    """Length + horizon + 24 h + a bucket behind the metric's own watermarks; the total since the start never."""
    accumulators = Accumulators()
    accumulators.add_facts([("cart_fired", T0, T0)])
    accumulators.changed()
    accumulators.expire({"clickstream": T0 + 900 * DAY_MS, "email": T0 + 900 * DAY_MS})
    assert accumulators.changed() == {
        field_of(Key("cart_recovery_rate", (), "fired", level, T0)): None for level in ("1h", "1d")
    }
    accumulators.expire({"cart": T0 + 33 * DAY_MS, "social": -1})
    assert accumulators.changed() == {field_of(Key("cart_abandonment_rate", (), "fired", "1h", T0)): None}
    accumulators.expire({"cart": T0 + 33 * DAY_MS + HOUR_MS - 1})
    assert accumulators.changed() == {}
    accumulators.expire({"cart": T0 + 33 * DAY_MS + HOUR_MS})
    assert accumulators.changed() == {field_of(Key("cart_abandonment_rate", (), "fired", "1d", T0)): None}
    accumulators.expire({"cart": T0 + 999 * DAY_MS})
    assert accumulators.changed() == {}
    accumulators.add_facts([("cart_fired", T0 + 999 * DAY_MS, T0 + 999 * DAY_MS)])
    assert accumulators.changed()["cart_recovery_rate|[]|fired|all|0"] == 2


def test_expired_dimension_values_make_room() -> None:
    """What is no longer stored no longer counts towards the limit."""
    accumulators = Accumulators()
    for number in range(1_000):
        accumulators.add_facts([("order", f"C{number}", T0, 1, 1)])
    accumulators.expire({"cart": T0 + 400 * DAY_MS})
    accumulators.add_facts([("order", "new", T0 + 400 * DAY_MS, 1, 1)])
    accumulators.changed()
    assert accumulators.others == 0


def test_a_metric_of_two_topics_expires_behind_the_slower_one() -> None:
    """A click may come that attributes a recovery, until the email topic has passed it as well."""
    accumulators = Accumulators()
    accumulators.add_facts([("cart_recovered", T0, True, 1)])
    accumulators.changed()
    accumulators.expire({"cart": T0 + 900 * DAY_MS, "email": T0})
    assert accumulators.changed() == {}


@pytest.mark.parametrize("value", ["EUR", "a|b", 'q"uote', "ł", "", "x,y"])
def test_a_name_reads_back_whatever_a_value_holds(value: str) -> None:
    """Separators inside a dimension's value do no harm."""
    key = Key("average_order_value", (value,), "orders", "1d", T0)
    assert key_of(field_of(key)) == key


def test_every_metric_says_what_it_is() -> None:
    """The registry is complete: known windows, parts that are fed, a sentence, and dimensions that sources name."""
    for metric in REGISTRY.values():
        parts = {source.part for source in metric.sources}
        assert set(metric.windows) <= set(WINDOWS)
        assert set(metric.numerator) <= parts
        assert set(metric.denominator or ()) <= parts
        assert metric.meaning.endswith(".")
        assert metric.definition_version >= 1
        assert all(len(source.dimensions) in {0, len(metric.dimensions)} for source in metric.sources)
        assert all(len(values) == len(metric.dimensions) for values in metric.values or ())
