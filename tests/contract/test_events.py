"""The event registry says what the contract says: types, fields, requirements, actors, limits."""

import json
from collections.abc import Callable
from typing import Any, cast, get_args

import msgspec
import pytest

from models.codec import RecordRejected, codec_for, event_from, readable_decode, struct_of
from models.events import (
    EVENT_TYPES,
    EVENTS_OF_TOPIC,
    CartEvent,
    ClickstreamEvent,
    EmailEvent,
    Event,
    EventFields,
    SocialEvent,
)
from models.fields import Line, Record

NOW_MS = 1_700_000_000_000
COMMON = "event_id type customer_id occurred_at_ms session_id anonymous_id device country source"
# The contract's table, word for word.
TYPES = {
    "clickstream.v1": """page_viewed product_list_viewed product_viewed product_clicked products_searched link_clicked
        application_installed application_opened application_uninstalled store_entered experiment_viewed""",
    "cart.v1": """product_added product_removed cart_updated cart_cleared cart_viewed checkout_started
        checkout_step_completed payment_info_entered order_completed order_cancelled order_refunded identity_linked""",
    "email.v1": """email_sent email_delivered email_opened email_link_clicked email_bounced email_marked_as_spam
        email_unsubscribed""",
    "social.v1": """post_liked post_shared post_commented brand_mentioned brand_tagged post_replied account_followed
        account_unfollowed audience_counted""",
}
FIELDS = {
    "clickstream.v1": "url title category product_id query link_id store_id experiment_id variant_id",
    "cart.v1": """cart_id checkout_id product_id name category quantity unit_price_minor total_minor shipping_minor
        currency items order_id step url checkout_url image_url""",
    "email.v1": "email_id campaign_id campaign_name variant_id url machine trigger_id",
    "social.v1": "network post_id campaign_id sentiment followers",
}
BY_BRAND = {
    "email_sent", "email_delivered", "email_bounced", "order_cancelled", "order_refunded", "audience_counted",
}  # fmt: skip
# What each type requires besides event_id, type, customer_id and occurred_at_ms; a tuple: one of these.
REQUIRED: dict[str, list[str | tuple[str, str]]] = {
    "product_viewed": ["product_id"],
    "product_clicked": ["product_id"],
    "experiment_viewed": ["experiment_id", "variant_id"],
    "product_added": [("product_id", "name")],
    "product_removed": [("product_id", "name")],
    "order_completed": ["order_id"],
    "order_cancelled": ["order_id"],
    "order_refunded": ["order_id"],
    "identity_linked": ["to_customer_id"],
    **{name: [("email_id", "campaign_id")] for name in TYPES["email.v1"].split()},
    **{name: ["network"] for name in TYPES["social.v1"].split()},
    "audience_counted": ["network", "followers"],
}
ALL_TYPES = [(topic, name) for topic, types in TYPES.items() for name in types.split()]


def least(name: str) -> dict[str, Any]:
    """An event with what its type requires, and nothing else."""
    event: dict[str, Any] = {"event_id": "e", "type": name, "customer_id": "c", "occurred_at_ms": NOW_MS}
    for field in REQUIRED.get(name, []):
        field = field[0] if isinstance(field, tuple) else field
        event[field] = 5 if field == "followers" else "x"
    return event


def reason(topic: str, event: dict[str, Any]) -> str | None:
    """Why both decoders reject the event, or None."""
    value, customer_id = json.dumps(event).encode(), event.get("customer_id")
    key = customer_id.encode() if isinstance(customer_id, str) else b"c"
    contract = _rejection(lambda: readable_decode(topic, value))
    assert str(_rejection(lambda: codec_for(topic).read(key, value, NOW_MS))) == str(contract)
    return None if contract is None else contract.reason


def _rejection(decode: Callable[[], object]) -> RecordRejected | None:
    try:
        decode()
    except RecordRejected as rejected:
        return rejected
    return None


def test_the_registry_has_the_contracts_types_in_its_order() -> None:
    """Every type of the four topics, no other, each in its topic."""
    assert [(event_type.topic, event_type.name) for event_type in EVENT_TYPES.values()] == ALL_TYPES
    assert {topic: len(models) for topic, models in EVENTS_OF_TOPIC.items()} == {
        topic: len(types.split()) for topic, types in TYPES.items()
    }


def test_the_unions_for_readers_are_the_registry() -> None:
    """Code typed with the unions covers every class of the registry."""
    unions = {
        "clickstream.v1": ClickstreamEvent,
        "cart.v1": CartEvent,
        "email.v1": EmailEvent,
        "social.v1": SocialEvent,
    }
    assert {topic: get_args(union) for topic, union in unions.items()} == EVENTS_OF_TOPIC
    assert get_args(Event) == tuple(event_type.model for event_type in EVENT_TYPES.values())


@pytest.mark.parametrize(("topic", "name"), ALL_TYPES)
def test_each_type_shows_the_fields_of_its_topic(topic: str, name: str) -> None:
    """Class and struct have the common fields, the topic's, and to_customer_id where an identity is linked."""
    expected = {*COMMON.split(), *FIELDS[topic].split()} | ({"to_customer_id"} if name == "identity_linked" else set())
    model = EVENT_TYPES[name].model
    assert set(model.model_fields) == expected
    struct = struct_of(model)
    assert set(struct.__struct_fields__) | {"type"} == expected
    assert struct.type == name  # type: ignore[attr-defined]


@pytest.mark.parametrize(("topic", "name"), ALL_TYPES)
def test_the_brand_acts_in_six_types(topic: str, name: str) -> None:
    """actor, and by_customer on class and struct, follow the contract's list."""
    event_type = EVENT_TYPES[name]
    assert event_type.actor == ("brand" if name in BY_BRAND else "customer")
    assert event_type.model.by_customer is (name not in BY_BRAND)
    assert codec_for(topic).decode(json.dumps(least(name)).encode()).by_customer is (name not in BY_BRAND)  # type: ignore[union-attr]


@pytest.mark.parametrize(("topic", "name"), ALL_TYPES)
def test_the_required_fields_suffice_and_none_can_be_left_out(topic: str, name: str) -> None:
    """The least event is accepted; without any of its fields it is a MissingField."""
    event = least(name)
    assert reason(topic, event) is None
    for field in event:
        assert reason(topic, {other: event[other] for other in event if other != field}) == "MissingField", field


@pytest.mark.parametrize(
    ("topic", "name"), [(topic, name) for topic, name in ALL_TYPES if isinstance(REQUIRED.get(name, [""])[0], tuple)]
)
def test_either_of_two_alternatives_is_enough_and_null_is_absence(topic: str, name: str) -> None:
    """product_id or name, email_id or campaign_id; both null is a MissingField, an empty string is given."""
    first, second = cast(tuple[str, str], REQUIRED[name][0])
    event = least(name)
    assert reason(topic, {**event, first: None, second: "x"}) is None
    assert reason(topic, {**event, first: ""}) is None
    assert reason(topic, {**event, first: None, second: None}) == "MissingField"


NOT_TEXT: list[Any] = [12, 1.5, True, [], {}]
NOT_INTEGER: list[Any] = ["12", 12.0, 12.5, 1e3, True, [], {}, 10**16, 2**63, 2**64, 10**400]
LINE = {"name": "n"}
NOT_LINES: list[Any] = [[LINE] * 101, LINE, "x", [None], [[]], [{"name": 5}], [{**LINE, "quantity": 0}]]
CUSTOMER = (["x", "ł" * 128, "😀" * 128], ["", "x" * 129, *NOT_TEXT])
URL = (["", "x" * 2048, "😀" * 2048], ["x" * 2049, *NOT_TEXT])
AMOUNT = ([0, 10**12], [-1, 10**12 + 1, *NOT_INTEGER])
TEXT = (["", "x" * 512, "😀" * 512], ["x" * 513, *NOT_TEXT])
# Values at the limits of a field, and values beyond them; all other fields are texts.
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "event_id": (["x", "ł" * 100, "😀" * 100], ["", "x" * 101, *NOT_TEXT]),
    "customer_id": CUSTOMER,
    "to_customer_id": CUSTOMER,
    "url": URL,
    "checkout_url": URL,
    "image_url": URL,
    "occurred_at_ms": ([NOW_MS], [-1, 2**53, *NOT_INTEGER]),
    "unit_price_minor": AMOUNT,
    "total_minor": AMOUNT,
    "shipping_minor": AMOUNT,
    "followers": AMOUNT,
    "quantity": ([1, 1_000_000], [0, -1, 1_000_001, *NOT_INTEGER]),
    "step": ([0, -(2**53) + 1, 2**53 - 1], [2**53, -(2**53), *NOT_INTEGER]),
    "sentiment": ([-1, 1, 0, -1.0, 0.25, 1.0], [1.0000001, -2, "0.5", True, 10**400]),
    "machine": ([True, False], [1, 0, "true"]),
    "items": ([[], [LINE] * 100], NOT_LINES),
}


@pytest.mark.parametrize(("topic", "name"), ALL_TYPES)
def test_every_field_is_strict_and_bounded(topic: str, name: str) -> None:
    """Values at a field's limits are accepted and kept, beyond them rejected as InvalidField; null is absence."""
    model = EVENT_TYPES[name].model
    event = least(name)
    for field in set(model.model_fields) - {"type"}:
        good, bad = LIMITS.get(field, TEXT)
        for value in good:
            assert reason(topic, {**event, field: value}) is None, (field, value)
        for value in bad:
            assert reason(topic, {**event, field: value}) == "InvalidField", (field, value)
        required = model.model_fields[field].is_required()
        alternative = any(field in pair for pair in REQUIRED.get(name, []) if isinstance(pair, tuple))
        if not alternative:
            assert reason(topic, {**event, field: None}) == ("InvalidField" if required else None), field


@pytest.mark.parametrize("name", ["product_added", "product_removed"])
def test_a_lines_amount_is_bounded(name: str) -> None:
    """Quantity x unit price up to 10^12 is accepted; a missing quantity counts as one."""
    event = {**least(name), "quantity": 1_000_000, "unit_price_minor": 1_000_000}
    assert reason("cart.v1", event) is None
    assert reason("cart.v1", {**event, "unit_price_minor": 1_000_001}) == "InvalidField"
    assert reason("cart.v1", {**event, "quantity": None, "unit_price_minor": 10**12}) is None
    line = {"product_id": "p", "quantity": 1_000_000, "unit_price_minor": 1_000_000}
    assert reason("cart.v1", {**least("cart_updated"), "items": [line]}) is None
    assert reason("cart.v1", {**least("cart_updated"), "items": [line, {**line, "quantity": 999_999}]}) is None
    too_much = {**line, "unit_price_minor": 1_000_001}
    assert reason("cart.v1", {**least("order_completed"), "items": [line, too_much]}) == "InvalidField"


def test_a_line_needs_a_product_or_a_name_and_knows_its_own_fields() -> None:
    """Lines are as strict as events, whichever event they are in."""
    assert set(Line.model_fields) == {
        "product_id", "name", "category", "quantity", "unit_price_minor", "url", "image_url",
    }  # fmt: skip
    event = least("cart_updated")
    assert reason("cart.v1", {**event, "items": [{}]}) == "MissingField"
    assert reason("cart.v1", {**event, "items": [{"name": "n"}, {"product_id": None}]}) == "MissingField"
    for field in Line.model_fields:
        good, bad = LIMITS.get(field, TEXT)
        for value in good:
            assert reason("cart.v1", {**event, "items": [{"name": "n", field: value}]}) is None, (field, value)
        for value in bad:
            assert reason("cart.v1", {**event, "items": [{"name": "n", field: value}]}) == "InvalidField", (
                field,
                value,
            )


def test_a_missing_field_is_reported_before_an_invalid_one() -> None:
    """Also where the missing one is one of two, and where it is in a line."""
    assert reason("cart.v1", {**least("cart_updated"), "quantity": 0, "items": [{}]}) == "MissingField"
    event = {**least("product_added"), "quantity": 0, "product_id": None}
    assert reason("cart.v1", event) == "MissingField"


def test_events_are_frozen() -> None:
    """Neither the pydantic object nor the struct can be changed once read."""
    value = json.dumps(least("page_viewed")).encode()
    event = readable_decode("clickstream.v1", value)
    with pytest.raises(ValueError, match="frozen"):
        setattr(event, "event_id", "other")  # noqa: B010  mypy knows better
    struct = codec_for("clickstream.v1").decode(value)
    with pytest.raises(AttributeError):
        setattr(struct, "event_id", "other")  # noqa: B010


def test_python_values_are_as_strict_as_json() -> None:
    """The classes refuse what JSON cannot hold: NaN, infinity, lone surrogates."""
    for sentiment in (float("nan"), float("inf")):
        with pytest.raises(RecordRejected, match="sentiment"):
            event_from({**least("post_liked"), "sentiment": sentiment})
    with pytest.raises(RecordRejected, match="event_id"):
        event_from({**least("post_liked"), "event_id": "\ud800"})


def test_lines_may_be_given_as_objects() -> None:
    """A producer may build items from Line objects as well as from dicts."""
    event = event_from({**least("cart_updated"), "items": [Line(name="n", quantity=2)]})
    assert event == event_from({**least("cart_updated"), "items": [{"name": "n", "quantity": 2}]})


def test_a_field_type_without_a_fast_twin_is_refused_when_the_module_is_imported() -> None:
    """A new field of a kind that the derivation does not know stops at once; it is never decoded loosely."""

    class Unknown(Record):
        mapping: dict[str, str]

    with pytest.raises(TypeError, match="no fast decoder is known"):
        struct_of(Unknown)


def test_a_plain_integer_field_refuses_floats_too() -> None:
    """Integers without limits are derived as strictly as those with limits."""

    class Counted(Record):
        count: int

    struct = struct_of(Counted)
    assert msgspec.json.decode(b'{"count":3}', type=struct).count == 3  # type: ignore[attr-defined]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"count":3.0}', type=struct)


def test_every_class_has_one_sentence_that_says_what_happened() -> None:
    """The catalogue in the docs is made from these."""
    for event_type in EVENT_TYPES.values():
        doc = event_type.model.__doc__ or ""
        assert doc.endswith(".")
        assert doc != EventFields.__doc__
