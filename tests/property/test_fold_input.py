"""The fold's own reader and the contract's decoder accept and reject the same records, for the same reasons."""

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.codec import RecordRejected, codec_for
from models.topics import INPUT_TOPICS
from tests.support.documents import accepted, hostile
from tests.support.fold import FoldRecord
from tests.support.fold_input import Rejected, by_customer, read_control, read_event
from tests.support.strategies import NOW_MS


def read_by_fold(topic: str, record: FoldRecord) -> Any:
    channel = topic.removesuffix(".v1")
    try:
        control_ms = read_control(record, channel)
        if control_ms is not None:
            return control_ms
        event = read_event(record, channel)
    except Rejected as rejected:
        return rejected.reason
    return {**event, "by_customer": by_customer(event)}


def read_by_contract(topic: str, record: FoldRecord, names: Any) -> Any:
    try:
        event: Any = codec_for(topic).read(record.key, record.value, record.timestamp, record.headers)
    except RecordRejected as rejected:
        return rejected.reason
    if event.type == "watermark_advanced":
        return event.watermark_ms
    fields = {name: getattr(event, name) for name in names if name != "by_customer"}
    if fields.get("items") is not None:
        fields["items"] = [{name: getattr(item, name) for name in ITEM_FIELDS} for item in fields["items"]]
    acted = event.by_customer and getattr(event, "machine", None) is not True
    return {**fields, "by_customer": acted}


ITEM_FIELDS = ("product_id", "name", "category", "url", "image_url", "quantity", "unit_price_minor")


def plain(value: bytes | None) -> bool:
    """Whether no limit of a JSON parser is near: they differ beyond 200 levels and 4,300 digits."""
    return value is None or not (value.count(b"[") + value.count(b"{") > 150 or re.search(rb"[0-9]{4300}", value))


def agree(topic: str, record: FoldRecord) -> None:
    want = read_by_fold(topic, record)
    assert read_by_contract(topic, record, want if isinstance(want, dict) else ()) == want


@pytest.mark.parametrize("topic", INPUT_TOPICS)
@given(data=st.data())
def test_both_readers_see_the_same_event(topic: str, data: st.DataObject) -> None:
    """Every field of an accepted event has one value, and its actor is the same."""
    value = data.draw(accepted(topic))
    agree(topic, FoldRecord(0, NOW_MS, data.draw(KEYS), value))


@pytest.mark.parametrize("topic", INPUT_TOPICS)
@given(data=st.data())
def test_both_readers_reject_for_the_same_reason(topic: str, data: st.DataObject) -> None:
    """The first reason that applies is one and the same."""
    value = data.draw(st.none() | hostile(topic))
    assume(plain(value))
    agree(topic, FoldRecord(0, NOW_MS, data.draw(KEYS), value, data.draw(HEADERS)))


@given(
    topic=st.sampled_from(INPUT_TOPICS),
    kind=st.sampled_from(['"watermark_advanced"', '"page_viewed"', "1"]),
    watermark=st.sampled_from(["0", "1700000000000", "-1", "1.0", '"1"', "null", "9007199254740992"]),
    key=st.none() | st.just(b"c-1"),
    headers=st.sampled_from([(), (("pl-control", b""),)]),
)
def test_both_readers_know_a_control_record(topic: str, kind: str, watermark: str, key: Any, headers: Any) -> None:
    """A null key and the header make one, on the two topics that carry them; nothing else does."""
    value = f'{{"type":{kind},"watermark_ms":{watermark}}}'.encode()
    agree(topic, FoldRecord(0, NOW_MS, key, value, headers))


KEYS = st.sampled_from([b"c-1", b"c-2", b"c-3", "c|ł".encode(), b"k@example.test", b"", b"\xff", None])
HEADERS = st.sampled_from([(), (("other", b"x"),), (("pl-control", b"x"),)])
