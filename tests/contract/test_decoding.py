"""What is rejected and why, in which order; control records; messages."""

import json
from typing import Any

import pytest

from models.codec import (
    FUTURE_MS,
    TOO_OLD_MS,
    RecordRejected,
    codec_for,
    control_record,
    encode_event,
    encode_output,
    event_from,
    readable_decode,
)
from models.fields import VALUE_BYTES_MAX
from models.outputs import WatermarkAdvanced
from models.topics import INPUT_TOPICS

NOW_MS = 1_700_000_000_000
EVENT = {"event_id": "e-1", "type": "product_added", "customer_id": "kł-1", "occurred_at_ms": NOW_MS, "name": "Mug"}
KEY = "kł-1".encode()
CONTROL_HEADERS = [("trace", b"1"), ("pl-control", b"watermark_advanced")]


def encoded(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}, ensure_ascii=False).encode()


def rejection(
    value: bytes | None,
    key: bytes | None = KEY,
    timestamp_ms: int = NOW_MS,
    topic: str = "cart.v1",
    headers: list[tuple[str, bytes]] | None = None,
) -> RecordRejected:
    """The rejection of a record; the readable decoder must give the same where there are no headers."""
    codec = codec_for(topic)
    with pytest.raises(RecordRejected) as raised:
        codec.read(key, value, timestamp_ms, headers or [])
    if headers is None:
        with pytest.raises(RecordRejected) as readable:
            codec.read_readably(key, value, timestamp_ms)
        assert str(readable.value) == str(raised.value)
    return raised.value


def test_an_accepted_record_is_the_event() -> None:
    """Key, value and timestamp in order: the event comes out with its values; headers of others are ignored."""
    event = codec_for("cart.v1").read(KEY, encoded(quantity=3), NOW_MS, CONTROL_HEADERS)
    assert (event.type, event.customer_id, event.name, event.quantity) == ("product_added", "kł-1", "Mug", 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("NullValue", None),
        ("TooLarge", encoded(zz="x" * VALUE_BYTES_MAX)),
        ("TooLarge", b"x" * 900_000),
        ("NotJson", b""),
        ("NotJson", b"{"),
        ("NotJson", encoded() + b"x"),
        ("NotJson", b"\xef\xbb\xbf" + encoded()),
        ("NotJson", encoded().replace(b"Mug", b"\xff")),
        ("NotJson", encoded(zz="?").replace(b"?", b"\xff")),
        ("NotJson", encoded(sentiment=float("nan"))),
        ("NotJson", encoded(zz=float("inf"))),
        ("NotJson", encoded().replace(b"Mug", b"\\ud800 alone")),
        ("NotJson", b"[" * 60_000),
        ("NotAnObject", b"[]"),
        ("NotAnObject", b"null"),
        ("NotAnObject", b'"page_viewed"'),
        ("UnknownType", encoded(type="product_eaten")),
        ("UnknownType", encoded(type="")),
        ("UnknownType", encoded(type=None)),
        ("UnknownType", encoded(type=5)),
        ("UnknownType", encoded(type=["product_added"])),
        ("UnknownType", encoded(type="watermark_advanced", watermark_ms=1)),
        ("WrongTopic", encoded(type="page_viewed")),
        ("MissingField", b"{}"),
        ("MissingField", encoded(name=None)),
        ("InvalidField", encoded(quantity="2")),
        ("InvalidField", encoded(quantity=2.0)),
        ("InvalidField", encoded(quantity=10**16)),
        ("InvalidField", encoded(unit_price_minor=-1)),
        ("InvalidField", encoded(occurred_at_ms=NOW_MS + 0.5)),
    ],
)
def test_a_bad_value_has_its_reason(reason: str, value: bytes | None) -> None:
    """Each way a value can be bad, whatever the key and time."""
    assert rejection(value).reason == reason
    assert rejection(value, key=None, timestamp_ms=0).reason == reason


def test_a_value_of_exactly_the_limit_is_read() -> None:
    """65,536 bytes are accepted, one more is TooLarge."""
    room = 65_536 - len(encoded(zz=""))
    assert codec_for("cart.v1").read(KEY, encoded(zz="x" * room), NOW_MS).event_id == "e-1"  # type: ignore[union-attr]
    assert rejection(encoded(zz="x" * (room + 1))).reason == "TooLarge"


def test_the_key_must_be_the_customer_id() -> None:
    """No key, another key, or the same characters in another encoding are rejected."""
    assert rejection(encoded(), key=None).reason == "KeyMissing"
    for key in (b"", b"k", "kł-1 ".encode(), "kł-1".encode("utf-16"), "kł-1".encode("iso-8859-2")):
        assert rejection(encoded(), key=key).reason == "KeyMismatch"


def test_times_are_compared_with_the_records_own_timestamp() -> None:
    """Five minutes ahead and 400 days behind are accepted, a millisecond more is not."""
    codec = codec_for("cart.v1")
    for at_the_limit in (NOW_MS - FUTURE_MS, NOW_MS + TOO_OLD_MS):
        assert codec.read(KEY, encoded(), at_the_limit).occurred_at_ms == NOW_MS  # type: ignore[union-attr]
        assert codec.read_readably(KEY, encoded(), at_the_limit).occurred_at_ms == NOW_MS
    assert rejection(encoded(), timestamp_ms=NOW_MS - FUTURE_MS - 1).reason == "Future"
    assert rejection(encoded(), timestamp_ms=NOW_MS + TOO_OLD_MS + 1).reason == "TooOld"
    assert (FUTURE_MS, TOO_OLD_MS) == (300_000, 34_560_000_000)


def test_the_key_is_looked_at_before_the_time() -> None:
    """A record that is late and wrongly keyed is a KeyMismatch, one without a key a KeyMissing."""
    assert rejection(encoded(), key=b"other", timestamp_ms=0).reason == "KeyMismatch"
    assert rejection(encoded(), key=None, timestamp_ms=0).reason == "KeyMissing"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (encoded(quantity=0), "quantity: Input should be greater than or equal to 1"),
        (encoded(items=[{"name": "a"}, {"name": 5}]), "items[1].name: Input should be a valid string"),
        (encoded(items=[{"name": "a"}, {}]), "items[1]: product_id or name is required"),
        (encoded(name=None), "product_id or name is required"),
        (encoded(type="post_liked"), "type: post_liked belongs to social.v1, not to cart.v1"),
        (encoded(quantity=2, unit_price_minor=10**12), "quantity x unit_price_minor must be at most 1000000000000"),
        (b"{}", "type: Field required"),
        (b'{"type":"cart_viewed"}', "event_id: Field required"),
    ],
)
def test_messages_name_the_path_and_the_rule(value: bytes, message: str) -> None:
    """An operator can tell from the message what to correct."""
    assert rejection(value).message == message


def test_a_repeated_name_counts_by_its_last_value() -> None:
    """Also where only the last one is valid, and where the type is repeated: both decoders agree."""
    for value in (
        encoded().replace(b'"name": "Mug"', b'"name": 5, "name": "Mug"'),
        encoded(type="page_viewed").replace(b'"name"', b'"type": "product_added", "name"'),
    ):
        event = codec_for("cart.v1").read(KEY, value, NOW_MS)
        assert (event.type, event.name) == ("product_added", "Mug")  # type: ignore[union-attr]
    assert rejection(encoded().replace(b'"name": "Mug"', b'"name": "Mug", "name": 5')).reason == "InvalidField"


@pytest.mark.parametrize(("depth", "reason"), [(150, None), (200, None), (201, "NotJson"), (20_000, "NotJson")])
def test_nesting_is_bounded(depth: int, reason: str | None) -> None:
    """An unknown field may be nested, not endlessly; the answer never depends on the reader's own stack."""
    value = encoded(zz=0).replace(b'"zz": 0', b'"zz": ' + b"[" * depth + b"]" * depth)
    if reason is None:
        assert codec_for("cart.v1").read(KEY, value, NOW_MS).event_id == "e-1"  # type: ignore[union-attr]
    else:
        assert rejection(value).reason == reason


@pytest.mark.parametrize(("digits", "reason"), [(4_300, None), (4_301, "NotJson")])
def test_digits_are_bounded(digits: int, reason: str | None) -> None:
    """An integer in an unknown field may be long, not endless: reading it takes the square of its length."""
    value = encoded(zz=0).replace(b'"zz": 0', b'"zz": ' + b"9" * digits)
    if reason is None:
        assert codec_for("cart.v1").read(KEY, value, NOW_MS).event_id == "e-1"  # type: ignore[union-attr]
    else:
        assert rejection(value).reason == reason


def test_many_brackets_in_text_are_no_nesting() -> None:
    """A value whose texts hold hundreds of brackets is read all the same."""
    assert codec_for("cart.v1").read(KEY, encoded(name="[{" * 250), NOW_MS).name == "[{" * 250  # type: ignore[union-attr]


@pytest.mark.parametrize("topic", ["cart.v1", "clickstream.v1"])
def test_a_control_record_is_read_on_the_topics_that_have_a_clock(topic: str) -> None:
    """Null key, header pl-control; unknown fields are ignored; the record's timestamp plays no part."""
    value, headers = control_record(NOW_MS)
    assert json.loads(value) == {"type": "watermark_advanced", "watermark_ms": NOW_MS}
    expected = WatermarkAdvanced(watermark_ms=NOW_MS)
    assert codec_for(topic).read(None, value, 0, headers) == expected
    value = b'{"zz":1,"type":"watermark_advanced","watermark_ms":%d}' % NOW_MS
    assert codec_for(topic).read(None, value, NOW_MS, CONTROL_HEADERS) == expected


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("NullValue", None),
        ("TooLarge", b"x" * 70_000),
        ("NotJson", b"{"),
        ("NotAnObject", b"1"),
        ("UnknownType", b'{"type":"watermark"}'),
        ("MissingField", b'{"watermark_ms":1}'),
        ("MissingField", b'{"type":"watermark_advanced"}'),
        ("InvalidField", b'{"type":"watermark_advanced","watermark_ms":"1"}'),
        ("InvalidField", b'{"type":"watermark_advanced","watermark_ms":1.0}'),
        ("InvalidField", b'{"type":"watermark_advanced","watermark_ms":-1}'),
        ("InvalidField", b'{"type":"watermark_advanced","watermark_ms":9007199254740992}'),
        ("UnknownType", encoded()),
    ],
)
def test_a_malformed_control_record_is_rejected(reason: str, value: bytes | None) -> None:
    """It moves no watermark, and its reason is told like an event's."""
    assert rejection(value, key=None, headers=CONTROL_HEADERS).reason == reason


@pytest.mark.parametrize("topic", ["email.v1", "social.v1"])
def test_other_topics_carry_no_control_records(topic: str) -> None:
    """There it is a record of unknown type like any other."""
    value, headers = control_record(NOW_MS)
    assert rejection(value, key=None, topic=topic, headers=headers).reason == "UnknownType"


def test_a_control_record_needs_null_key_and_header() -> None:
    """With a key, or without the header, it is judged as an event."""
    value, headers = control_record(NOW_MS)
    assert rejection(value, key=b"c", headers=headers).reason == "UnknownType"
    assert rejection(value, key=None).reason == "UnknownType"


def test_there_is_one_codec_for_each_input_topic_and_none_for_others() -> None:
    """codec_for returns the same object again, and refuses topics that carry no events."""
    for topic in INPUT_TOPICS:
        assert codec_for(topic) is codec_for(topic)
        assert codec_for(topic).topic == topic
    with pytest.raises(KeyError):
        codec_for("scores.v1")


def test_an_event_is_encoded_compactly_without_what_it_lacks() -> None:
    """UTF-8, no white space, type first; too many long lines are refused before they are sent."""
    event = event_from({**EVENT, "name": "Książka", "quantity": None})
    assert (
        encode_event(event)
        == (
            '{"type":"product_added","event_id":"e-1","customer_id":"kł-1","occurred_at_ms":1700000000000,"name":"Książka"}'
        ).encode()
    )
    assert readable_decode("cart.v1", encode_event(event)) == event
    large = event_from({**EVENT, "type": "cart_updated", "items": [{"name": "n" * 512, "url": "u" * 2048}] * 100})
    with pytest.raises(RecordRejected) as raised:
        encode_event(large)
    assert raised.value.reason == "TooLarge"


def test_an_output_is_encoded_compactly_with_its_nulls() -> None:
    """Dicts and objects give the same bytes."""
    record = WatermarkAdvanced(watermark_ms=5)
    assert encode_output(record) == encode_output(record.model_dump())
    assert encode_output({"a": None, "b": [1, 12.5], "c": "ł"}) == '{"a":null,"b":[1,12.5],"c":"ł"}'.encode()
