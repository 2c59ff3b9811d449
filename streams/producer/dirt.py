"""Bad input on purpose: every reason for which a record is rejected, in several forms."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from models.codec import FUTURE_MS, TOO_OLD_MS
from models.fields import VALUE_BYTES_MAX
from models.outputs import RejectReason

Raw = tuple[str, bytes | None, bytes | None]
"""Topic suffix, key, value."""

Maker = Callable[[dict[str, Any], int], Raw]


def _value(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _changed(**changes: Any) -> Maker:
    """A good cart event of this moment with some fields changed."""

    def make(good: dict[str, Any], timestamp_ms: int) -> Raw:
        return "cart.v1", good["customer_id"].encode(), _value(good | {"occurred_at_ms": timestamp_ms} | changes)

    return make


def _without(name: str) -> Maker:
    def make(good: dict[str, Any], timestamp_ms: int) -> Raw:
        fields = {**good, "occurred_at_ms": timestamp_ms}
        del fields[name]
        return "cart.v1", good["customer_id"].encode(), _value(fields)

    return make


def _bytes(value: bytes | None) -> Maker:
    return lambda good, _timestamp_ms: ("cart.v1", good["customer_id"].encode(), value)


def _shifted(by_ms: int) -> Maker:
    return lambda good, timestamp_ms: _changed(occurred_at_ms=timestamp_ms + by_ms)(good, timestamp_ms)


def _keyed(key: bytes | None) -> Maker:
    return lambda good, timestamp_ms: ("cart.v1", key, _changed()(good, timestamp_ms)[2])


def _page_in_the_cart(good: dict[str, Any], timestamp_ms: int) -> Raw:
    return _changed(type="page_viewed")(good, timestamp_ms)


DIRT: tuple[tuple[RejectReason, Maker], ...] = (
    ("NotJson", _bytes(b'{"type": "product_added", ')),
    ("NotAnObject", _bytes(b'["product_added"]')),
    ("UnknownType", _changed(type="product_admired")),
    ("WrongTopic", _page_in_the_cart),
    ("MissingField", _without("event_id")),
    ("InvalidField", _changed(quantity=10**16)),
    ("KeyMissing", _keyed(None)),
    ("KeyMismatch", _keyed(b"somebody-else")),
    ("NullValue", _bytes(None)),
    ("TooLarge", _changed(comment="x" * VALUE_BYTES_MAX)),
    ("Future", _shifted(FUTURE_MS + 60_000)),
    ("TooOld", _shifted(-TOO_OLD_MS - 60_000)),
    ("NotJson", _bytes(b"\xff\xfe\x00broken")),
    ("NotAnObject", _bytes(b'"product_added"')),
    ("InvalidField", _changed(unit_price_minor=-1)),
    ("MissingField", _without("customer_id")),
    ("InvalidField", _changed(quantity="2")),
    ("NotJson", _changed(quantity=float("nan"))),
    ("InvalidField", _changed(quantity=True)),
    ("InvalidField", _changed(url="https://shop.example/" + "u" * 2_048)),
    ("InvalidField", _changed(quantity=1_000_000, unit_price_minor=10**12)),
    ("Future", _shifted(86_400_000)),
    ("UnknownType", _changed(type=7)),
)


def dirty_record(number: int, rng: Random, good: dict[str, Any], timestamp_ms: int) -> tuple[RejectReason, Raw]:
    """The number-th bad record, after a good cart event; all forms take their turns."""
    reason, make = DIRT[number % len(DIRT)]
    event = good | {"event_id": f"{rng.getrandbits(96):024x}"}
    return reason, make(event, timestamp_ms)
