"""The numbers of the contract, written down a second time: other tests ask for them by name, whatever they are."""

import pytest

from models import codec, fields, outputs
from streams.engagement import (
    accumulators,
    cart_attribution,
    cart_limits,
    cart_rules,
    decay,
    identity,
    metrics,
    orders,
    scoring,
    sessions,
)
from streams.processing import book, processor, punctuation

MINUTE, DAY = 60_000, 86_400_000
NUMBERS = [
    (fields, {"VALUE_BYTES_MAX": 65_536, "TEXT_CHARS_MAX": 512, "URL_CHARS_MAX": 2_048, "EVENT_ID_CHARS_MAX": 100}),
    (fields, {"CUSTOMER_ID_CHARS_MAX": 128, "ITEMS_MAX": 100, "QUANTITY_MAX": 10**6, "AMOUNT_MINOR_MAX": 10**12}),
    (codec, {"FUTURE_MS": 5 * MINUTE, "TOO_OLD_MS": 400 * DAY}),
    (outputs, {"TRIGGER_IDS_MAX": 64}),
    (identity, {"EVENT_IDS_MAX": 128, "EVENT_IDS_MAX_AGE_MS": DAY}),
    (orders, {"ORDERS_MAX": 128, "ORDERS_MAX_AGE_MS": 30 * DAY}),
    (sessions, {"SESSION_GAP_MS": 30 * MINUTE, "OPEN_SESSIONS_MAX": 128}),
    (cart_rules, {"WAITING_EVENTS_MAX": 64, "OPEN_CARTS_MAX": 20, "LINES_MAX": 100, "TOUCHES_MAX": 64}),
    (cart_rules, {"ENDS_MAX": 64, "ORDERS_MAX": 128, "TAKE_OVER_MS": 10 * MINUTE, "AFTER_ORDER_MS": MINUTE}),
    (cart_rules, {"END_KEY_BYTES_MAX": 36, "USED_MAX": 2}),
    (cart_limits, {"CARTS_BYTES_MAX": 32_768, "CARTS_BYTES_KEPT": 24_576}),
    (cart_rules, {"TOMBSTONE_MS": 30 * DAY, "REPEATED_ORDER_MS": 30 * DAY}),
    (cart_attribution, {"CLICKS_MAX": 64, "RECOVERIES_MAX": 8}),
    (accumulators, {"DIMENSION_VALUES_MAX": 1_000}),
    (metrics, {"REVISED_FOR_MS": DAY, "MINUTES_PUBLISHED_FOR_MS": 60 * MINUTE}),
    (scoring, {"WEIGHT_MAX": 1_000, "HALF_LIFE_HOURS_MAX": 8_760}),
    (decay, {"WINDOW_HALF_LIVES": 16, "UNITS": 2**20}),
    (punctuation, {"CART_EVERY_MS": 1_000, "SESSION_EVERY_MS": MINUTE, "SESSION_OVERDUE_MS": MINUTE}),
    (punctuation, {"CLOCK_JUMP_MS": 2_000, "DISTRUST_MS": MINUTE}),
    (processor, {"PAUSE_MS": 1_000}),
    (book, {"HANDLER_WINDOW_RECORDS": 10_000}),
]


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [(module, name, number) for module, numbers in NUMBERS for name, number in numbers.items()],
)
def test_the_number_is_the_contracts(module: object, name: str, number: int) -> None:
    """Producers, campaign tools and operators rely on it."""
    assert getattr(module, name) == number
