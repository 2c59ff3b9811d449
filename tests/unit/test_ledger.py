"""The simulator's ledger: which triggers its own log speaks against."""

from pathlib import Path
from typing import Any

import pytest

from streams.producer.ledger import Entry, Ledger, entry_of, read_ledger

LATENESS_MS = 2_000
TOUCH_MS, DUE_MS = 100_000, 115_000
TRIGGER = {"customer_id": "c-1", "cart_id": "a", "last_touch_ms": TOUCH_MS, "due_ms": DUE_MS}


def ledger_of(*events: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    touch = {"type": "product_added", "occurred_at_ms": TOUCH_MS, "cart_id": "a"}
    for number, event in enumerate((touch, *events)):
        appended_ms = event.pop("appended_ms", event["occurred_at_ms"] + 10)
        fields = {"event_id": f"e-{number}", "customer_id": "c-1"} | event
        ledger.write(entry_of("engagement.cart.v1", "", fields, (0, number, appended_ms)))
    return ledger


def test_a_trigger_of_an_untouched_cart_is_right():
    """A touch at last_touch_ms and nothing after it: no contradiction."""
    assert ledger_of().contradictions(TRIGGER, LATENESS_MS) == []


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"type": "order_completed", "occurred_at_ms": DUE_MS, "order_id": "o"}, "ordered"),
        ({"type": "order_completed", "occurred_at_ms": TOUCH_MS, "order_id": "o", "cart_id": "b"}, "ordered"),
        ({"type": "product_added", "occurred_at_ms": DUE_MS, "cart_id": "a"}, "touched"),
        ({"type": "cart_updated", "occurred_at_ms": TOUCH_MS + 1, "cart_id": "a"}, "touched"),
        ({"type": "checkout_started", "occurred_at_ms": TOUCH_MS + 1, "cart_id": "a"}, "touched"),
        ({"type": "cart_cleared", "occurred_at_ms": TOUCH_MS, "cart_id": "a"}, "emptied"),
        ({"type": "cart_updated", "occurred_at_ms": DUE_MS, "cart_id": "a", "items": []}, "emptied"),
        ({"type": "identity_linked", "occurred_at_ms": TOUCH_MS + 1}, "logged in"),
    ],
)
def test_what_happened_in_time_contradicts(event, word):
    """An order, a touch, a clear or a login up to due_ms that Kafka had in time means: no trigger."""
    (reason,) = ledger_of(event).contradictions(TRIGGER, LATENESS_MS)
    assert word in reason


@pytest.mark.parametrize(
    "event",
    [
        {"type": "order_completed", "occurred_at_ms": DUE_MS + 1, "order_id": "o"},
        {"type": "order_completed", "occurred_at_ms": TOUCH_MS - 1, "order_id": "o"},
        {
            "type": "order_completed",
            "occurred_at_ms": DUE_MS,
            "order_id": "o",
            "appended_ms": DUE_MS + LATENESS_MS + 1,
        },
        {"type": "product_added", "occurred_at_ms": DUE_MS, "cart_id": "b"},
        {"type": "product_added", "occurred_at_ms": DUE_MS, "cart_id": "a", "customer_id": "c-2"},
        {"type": "cart_viewed", "occurred_at_ms": TOUCH_MS + 1, "cart_id": "a"},
        {"type": "cart_cleared", "occurred_at_ms": TOUCH_MS + 1, "cart_id": "b"},
    ],
)
def test_what_was_later_late_or_elsewhere_does_not(event):
    """After due_ms, too late to be in time, another cart, another customer, no touch: the trigger stands."""
    assert ledger_of(event).contradictions(TRIGGER, LATENESS_MS) == []


def test_a_trigger_needs_the_touch_it_names():
    """A trigger for a cart that was never touched at last_touch_ms is made up."""
    (reason,) = ledger_of().contradictions(TRIGGER | {"last_touch_ms": TOUCH_MS + 1}, LATENESS_MS)
    assert "no touch" in reason


def test_an_order_reported_twice_proves_nothing():
    """Which of two reports of one order counts is decided elsewhere."""
    order = {"type": "order_completed", "occurred_at_ms": DUE_MS, "order_id": "o"}
    assert ledger_of(dict(order), dict(order)).contradictions(TRIGGER, LATENESS_MS) == []


def test_a_ledger_is_read_back_as_it_was_written(tmp_path: Path):
    """The file holds every entry, dirty ones too."""
    path = tmp_path / "sent.jsonl"
    with Ledger(path) as ledger:
        ledger.write(Entry("t.cart.v1", 1, 2, 3, "late_order", "order_completed", "e", "c-1", 4, None, "o"))
        ledger.write(entry_of("t.cart.v1", "dirty:NotJson", None, (1, 3, 4)))
    again = read_ledger(path)
    assert again.records == ledger.records == 2
    assert again.counts == ledger.counts == {"late_order": 1, "dirty": 1}
    trigger = TRIGGER | {"last_touch_ms": 1, "due_ms": 5, "cart_id": None}
    assert "the customer had ordered" in again.contradictions(trigger, 0)
