"""Records that must not be applied, each with its reason, and good ones; every text in them is a marker."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.codec import FUTURE_MS, TOO_OLD_MS
from models.fields import VALUE_BYTES_MAX

MARK = "Zebra7Quagga"
"""Part of every text of every record: it must be in no line of any log."""
PRICE = 918_273_645
"""The price in every record, a marker as well."""

Value = Callable[[int], bytes | None]
"""The record's value, made at a time in epoch ms."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A record of which only `reason` comes out; key ...: the customer of its event."""

    name: str
    reason: str
    value: Value
    topic: str = "cart.v1"
    key: bytes | None = f"{MARK}-bad".encode()


def texts(*names: str) -> dict[str, str]:
    return {name: f"{MARK}-{name}" for name in names}


def added(now_ms: int, customer: str = f"{MARK}-bad", **changes: Any) -> dict[str, Any]:
    """A product_added with every optional field of its kind."""
    return {
        "type": "product_added",
        "event_id": f"{MARK}-{customer}-{now_ms}",
        "customer_id": customer,
        "occurred_at_ms": now_ms,
        "quantity": 2,
        "unit_price_minor": PRICE,
        "currency": "EUR",
        **texts(
            "session_id", "anonymous_id", "device", "country", "source", "cart_id", "product_id", "name", "category"
        ),
        **texts("url", "image_url", "unknown_field"),
    } | changes


def viewed(now_ms: int, customer: str = f"{MARK}-bad", **changes: Any) -> dict[str, Any]:
    return {
        "type": "page_viewed",
        "event_id": f"{MARK}-{customer}-{now_ms}",
        "customer_id": customer,
        "occurred_at_ms": now_ms,
        **texts("session_id", "source", "url", "title", "category"),
    } | changes


def opened(now_ms: int, customer: str = f"{MARK}-bad", **changes: Any) -> dict[str, Any]:
    return {
        "type": "email_opened",
        "event_id": f"{MARK}-{customer}-{now_ms}",
        "customer_id": customer,
        "occurred_at_ms": now_ms,
        **texts("email_id", "campaign_id", "campaign_name", "variant_id", "url", "trigger_id"),
    } | changes


def liked(now_ms: int, customer: str = f"{MARK}-bad", **changes: Any) -> dict[str, Any]:
    return {
        "type": "post_liked",
        "event_id": f"{MARK}-{customer}-{now_ms}",
        "customer_id": customer,
        "occurred_at_ms": now_ms,
        **texts("network", "post_id", "campaign_id"),
    } | changes


GOOD: dict[str, Callable[..., dict[str, Any]]] = {
    "clickstream.v1": viewed,
    "cart.v1": added,
    "email.v1": opened,
    "social.v1": liked,
}


def encoded(fields: dict[str, Any]) -> bytes:
    """As JSON, NaN and Infinity included."""
    return json.dumps(fields, ensure_ascii=False).encode()


def raw(value: bytes | None) -> Value:
    return lambda _: value


def with_(topic: str = "cart.v1", **changes: Any) -> Value:
    return lambda now_ms: encoded(GOOD[topic](now_ms, **changes))


def without(name: str, topic: str = "cart.v1") -> Value:
    return lambda now_ms: encoded({key: field for key, field in GOOD[topic](now_ms).items() if key != name})


def replaced(old: bytes, new: bytes) -> Value:
    """A good value with one piece of its text replaced."""

    def make(now_ms: int) -> bytes:
        value = encoded(added(now_ms))
        assert old in value
        return value.replace(old, new)

    return make


def at(shift_ms: int) -> Value:
    return lambda now_ms: encoded(added(now_ms + shift_ms))


def _not_json() -> Iterator[Bad]:
    broken: dict[str, Value] = {
        "cut short": lambda now_ms: encoded(added(now_ms))[:-1],
        "a comma too many": replaced(b'"EUR"', b'"EUR",'),
        "single quotes": lambda now_ms: encoded(added(now_ms)).replace(b'"', b"'"),
        "two objects": lambda now_ms: encoded(added(now_ms)) * 2,
        "no text": raw(b""),
        "white space": raw(b" \n"),
        "plain text": raw(MARK.encode()),
        "UTF-16": lambda now_ms: encoded(added(now_ms)).decode().encode("utf-16"),
        "broken UTF-8": replaced(b"Quagga-name", b"Quagga-\xff\xfe"),
        "NaN": with_(quantity=float("nan")),
        "Infinity": with_(unit_price_minor=float("inf")),
        "NaN in an unknown field": with_(unknown_field=float("nan")),
        "endless nesting": replaced(f'"{MARK}-unknown_field"'.encode(), b"[" * 5_000 + b"]" * 5_000),
        "bytes that are no text": raw(bytes(range(256))),
    }
    for name, value in broken.items():
        yield Bad(name, "NotJson", value)


def _not_objects() -> Iterator[Bad]:
    for name, value in (("a list", [MARK]), ("a text", MARK), ("a number", PRICE), ("null", None), ("true", True)):
        yield Bad(name, "NotAnObject", raw(json.dumps(value).encode()))


def _types() -> Iterator[Bad]:
    yield Bad("no type", "MissingField", without("type"))
    yield Bad("unknown type", "UnknownType", with_(type=f"{MARK}_type"))
    yield Bad("type in capitals", "UnknownType", with_(type="PRODUCT_ADDED"))
    yield Bad("type is a number", "UnknownType", with_(type=7))
    yield Bad("type is null", "UnknownType", with_(type=None))
    yield Bad("a page in the cart", "WrongTopic", with_("clickstream.v1"))
    yield Bad("a cart in the mail", "WrongTopic", with_(), topic="email.v1")
    yield Bad("a control record without its header", "UnknownType", with_(type="watermark_advanced"))


def _missing() -> Iterator[Bad]:
    for name in ("event_id", "customer_id", "occurred_at_ms"):
        for topic in GOOD:
            yield Bad(f"{topic} without {name}", "MissingField", without(name, topic), topic=topic)
    yield Bad("a like nowhere", "MissingField", without("network", "social.v1"), topic="social.v1")
    yield Bad("an order without a number", "MissingField", with_(type="order_completed"))
    yield Bad("a nameless product", "MissingField", with_(product_id=None, name=None))
    yield Bad("an unnamed mail", "MissingField", with_("email.v1", email_id=None, campaign_id=None), topic="email.v1")
    yield Bad("a nameless line", "MissingField", with_(type="cart_updated", items=[{"quantity": 1}]))


def _invalid() -> Iterator[Bad]:
    fields: dict[str, dict[str, Any]] = {
        "quantity as text": {"quantity": "2"},
        "quantity with a fraction": {"quantity": 1.5},
        "quantity as a float": {"quantity": 2.0},
        "quantity true": {"quantity": True},
        "quantity 0": {"quantity": 0},
        "quantity -1": {"quantity": -1},
        "quantity 10^16": {"quantity": 10**16},
        "quantity 1e16": {"quantity": 1e16},
        "quantity of 400 digits": {"quantity": int("9" * 400)},
        "a negative price": {"unit_price_minor": -1},
        "a price as text": {"unit_price_minor": f"{PRICE}"},
        "a price above the limit": {"unit_price_minor": 10**12 + 1},
        "a line above the limit": {"unit_price_minor": 10**12, "quantity": 2},
        "event_id null": {"event_id": None},
        "event_id empty": {"event_id": ""},
        "event_id too long": {"event_id": MARK + "e" * 100},
        "event_id a number": {"event_id": PRICE},
        "customer_id empty": {"customer_id": ""},
        "customer_id too long": {"customer_id": MARK + "c" * 128},
        "customer_id a list": {"customer_id": [MARK]},
        "occurred_at_ms as text": {"occurred_at_ms": "1700000000000"},
        "occurred_at_ms with a fraction": {"occurred_at_ms": 1.7e12 + 0.5},
        "occurred_at_ms negative": {"occurred_at_ms": -1},
        "occurred_at_ms of 10^30": {"occurred_at_ms": 10**30},
        "a url too long": {"url": f"https://{MARK}/" + "u" * 2_048},
        "a text too long": {"name": MARK + "n" * 512},
        "a text that is an object": {"name": {"de": MARK}},
        "items as an object": {"type": "cart_updated", "items": {"product_id": MARK}},
        "items of texts": {"type": "cart_updated", "items": [MARK]},
        "101 items": {"type": "cart_updated", "items": [texts("product_id")] * 101},
        "an item with a bad price": {"type": "cart_updated", "items": [{**texts("name"), "unit_price_minor": -PRICE}]},
    }
    for name, changes in fields.items():
        yield Bad(name, "InvalidField", with_(**changes))
    yield Bad("1e400", "InvalidField", replaced(b": 2,", b": 1e400,"))
    yield Bad("half a surrogate", "NotJson", replaced(f"{MARK}-name".encode(), b"\\ud800"))
    yield Bad("sentiment 1.5", "InvalidField", with_("social.v1", sentiment=1.5), topic="social.v1")
    yield Bad("machine as text", "InvalidField", with_("email.v1", machine="true"), topic="email.v1")


def _keys() -> Iterator[Bad]:
    others: Sequence[tuple[str, bytes]] = (
        ("somebody else's key", f"{MARK}-else".encode()),
        ("a key in capitals", f"{MARK}-bad".upper().encode()),
        ("a key in UTF-16", f"{MARK}-bad".encode("utf-16")),
        ("a key with a zero", f"{MARK}-bad\0".encode()),
        ("an empty key", b""),
        ("a key in JSON", f'"{MARK}-bad"'.encode()),
    )
    for topic in GOOD:
        yield Bad(f"no key in {topic}", "KeyMissing", with_(topic), topic=topic, key=None)
    for name, key in others:
        yield Bad(name, "KeyMismatch", with_(), key=key)


def _nothing_and_too_much() -> Iterator[Bad]:
    for topic in GOOD:
        yield Bad(f"a null value in {topic}", "NullValue", raw(None), topic=topic)
    yield Bad("a byte too many", "TooLarge", lambda now_ms: encoded(added(now_ms)).ljust(VALUE_BYTES_MAX + 1))
    yield Bad("900 KB of text", "TooLarge", with_(unknown_field=MARK * 75_000))
    yield Bad("900 KB of rubbish", "TooLarge", raw(bytes(range(1, 251)) * 3_600), topic="social.v1")


def _times() -> Iterator[Bad]:
    yield Bad("six minutes ahead", "Future", at(FUTURE_MS + 60_000))
    yield Bad("a day ahead", "Future", at(86_400_000))
    yield Bad("in seconds", "TooOld", lambda now_ms: encoded(added(now_ms // 1_000)))
    yield Bad("in microseconds", "Future", lambda now_ms: encoded(added(now_ms * 1_000)))
    yield Bad("400 days and a minute ago", "TooOld", at(-TOO_OLD_MS - 60_000))


BAD: tuple[Bad, ...] = (
    *_not_json(),
    *_not_objects(),
    *_types(),
    *_missing(),
    *_invalid(),
    *_keys(),
    *_nothing_and_too_much(),
    *_times(),
)
