"""The fast decoder and the pydantic contract are the same function; the standard library's JSON parser is the judge."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.codec import NESTING_MAX, RecordRejected, codec_for, encode_event, event_from, readable_decode
from models.events import EVENT_TYPES, Event, EventFields
from models.fields import VALUE_BYTES_MAX
from models.topics import INPUT_TOPICS
from tests.support.documents import TOKENS, accepted, hostile, joined
from tests.support.strategies import NOW_MS, events

BASE = {"event_id": "e-1", "customer_id": "c-1", "occurred_at_ms": NOW_MS}
# One type of each topic, with what it requires.
COMPLETE: dict[str, dict[str, Any]] = {
    "clickstream.v1": {**BASE, "type": "product_viewed", "product_id": "p"},
    "cart.v1": {**BASE, "type": "product_added", "name": "n", "quantity": 2},
    "email.v1": {**BASE, "type": "email_opened", "email_id": "m"},
    "social.v1": {**BASE, "type": "audience_counted", "network": "n", "followers": 1},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def seen(record: Any) -> str:
    """Everything a reader can see of an event, told apart by type too: 1, 1.0 and True differ."""
    names = EVENT_TYPES[record.type].model.model_fields
    shown = {name: getattr(record, name) for name in names}
    if shown.get("items"):
        shown["items"] = [{name: getattr(item, name) for name in item.__annotations__} for item in record.items]
    return repr((record.by_customer, shown))


def answer(decode: Any, *arguments: Any) -> str:
    """What a decoder gives: the event, or reason and message."""
    try:
        return seen(decode(*arguments))
    except RecordRejected as rejected:
        return str(rejected)


def is_json(value: bytes) -> bool | None:
    """Whether the standard library reads the value as JSON in UTF-8 without lone surrogates.

    None where it has other limits than the contract: nesting beyond 200 levels, numbers beyond 4,300 digits.
    """
    if value.count(b"[") + value.count(b"{") > NESTING_MAX - 5 or re.search(rb"[0-9]{4301}", value):
        return None

    def refuse(token: str) -> None:
        raise ValueError(token)

    try:
        # Pairs, not dicts: a name that is there twice must not hide what came first.
        parsed = json.loads(value.decode(), parse_constant=refuse, object_pairs_hook=list)
        json.dumps(parsed, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def agree(topic: str, value: bytes) -> None:
    codec = codec_for(topic)
    contract = answer(readable_decode, topic, value)
    fast = codec.decode(value)
    if fast is not None:
        assert seen(fast) == contract
    is_event = contract.startswith("(")
    whole = answer(codec.read_readably, b"c-1", value, NOW_MS) if is_event else contract
    assert answer(codec.read, b"c-1", value, NOW_MS) == whole
    json_as_judged = is_json(value) if len(value) <= VALUE_BYTES_MAX else None
    if json_as_judged is not None:
        assert contract.startswith("NotJson") is not json_as_judged


TOPICS = st.sampled_from(INPUT_TOPICS)


@given(topic=TOPICS, data=st.data())
def test_an_accepted_event_is_decoded_fast_and_equal_to_the_contract(topic: str, data: st.DataObject) -> None:
    """However its JSON is written, the fast decoder alone reads it, with the attributes of the pydantic object."""
    value = data.draw(accepted(topic))
    contract = answer(readable_decode, topic, value)
    if len(value) > VALUE_BYTES_MAX:
        assert contract.startswith("TooLarge")
        return
    fast = codec_for(topic).decode(value)
    assert isinstance(fast, msgspec.Struct)
    assert seen(fast) == contract


@given(topic=TOPICS, data=st.data())
def test_hostile_documents_get_the_same_answer_from_both_decoders(topic: str, data: st.DataObject) -> None:
    """Same accepts, same rejects with the same reason and message, same values; and NotJson means not JSON."""
    agree(topic, data.draw(hostile(topic)))


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_every_hostile_value_in_every_field_gets_the_same_answer(topic: str) -> None:
    """Each known field and an unknown one, times each token; and each token as an earlier or later second event_id."""
    event = COMPLETE[topic]
    pairs = {name: json.dumps(value).encode() for name, value in event.items()}
    # The fields common to all events are the same object in every class: once is enough.
    common = EventFields.model_fields.keys() if topic != "cart.v1" else set()
    names = [name for name in [*EVENT_TYPES[event["type"]].model.model_fields, "zz"] if name not in common]
    for token in TOKENS:
        for name in names:
            agree(topic, joined([*{**pairs, name: token}.items()]))
        agree(topic, joined([("event_id", token), *pairs.items()]))
        agree(topic, joined([*pairs.items(), ("event_id", token)]))


@given(
    topic=TOPICS,
    value=st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | JSON.map(json.dumps).map(str.encode),
)
def test_bytes_of_any_kind_get_the_same_answer(topic: str, value: bytes) -> None:
    """Whatever the bytes, both decoders reject them alike, and neither raises anything but RecordRejected."""
    agree(topic, value)


@given(event=events(), unknown=st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_unknown_fields_change_nothing(event: dict[str, Any], unknown: dict[str, Any]) -> None:
    """A field the type does not know is ignored, at any place, without leaving the fast path."""
    fields = EVENT_TYPES[event["type"]].model.model_fields
    others = {name: value for name, value in unknown.items() if name not in fields}
    value = json.dumps({**others, **event, "zz": unknown}, ensure_ascii=False, separators=(",", ":")).encode()
    assume(len(value) <= VALUE_BYTES_MAX)
    fast = codec_for(EVENT_TYPES[event["type"]].topic).decode(value)
    assert fast is not None
    assert seen(fast) == seen(event_from(event))


@given(event=events())
def test_what_the_sdk_encodes_is_read_back_equal(event: dict[str, Any]) -> None:
    """encode_event and read are inverse; a field that is None is not written."""
    model: Event = event_from(event)
    value = encode_event(model)
    assert None not in json.loads(value).values()
    read = codec_for(EVENT_TYPES[model.type].topic).read(model.customer_id.encode(), value, NOW_MS)
    assert seen(read) == seen(model)


SECRET = "Zażółć-gęślą-7391"
SECRETS = st.sampled_from([SECRET, 739_100_000_000_000_000, [SECRET], {SECRET: SECRET}, SECRET * 200, -7391, True])


@given(event=events(), data=st.data())
def test_no_message_tells_a_customers_value(event: dict[str, Any], data: st.DataObject) -> None:
    """Whatever is wrong with whichever fields, the message names fields and rules only."""
    spoilt = {name: data.draw(st.just(value) | SECRETS) for name, value in event.items() if name != "type"}
    spoilt |= {SECRET: SECRET, "type": data.draw(st.sampled_from([event["type"], event["type"], SECRET]))}
    topic = EVENT_TYPES[event["type"]].topic
    said = answer(codec_for(topic).read, b"c-1", json.dumps(spoilt, ensure_ascii=False).encode(), NOW_MS)
    if said.startswith("("):  # accepted: nothing was said
        return
    assert "7391" not in said
