"""Output records, identities and headers are the contract's."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from models.outputs import (
    REJECT_REASONS,
    Metric,
    Outcome,
    RejectedHeaders,
    Score,
    TriggerCancelled,
    TriggerItem,
    TriggerSent,
    cloudevent_headers,
    metric_id,
    outcome_id,
    parse_duration,
    rfc3339,
    score_id,
    step_name,
    trigger_id,
)

T = 1_700_000_000_000
ID = "913e221bbf3369fc75e05203c1e1aa02"
CHANNELS = {"clickstream": 1.25, "cart": 0.0, "email": 0.0, "social": 0.0}
SCORE: dict[str, Any] = {
    "customer_id": "c-1", "score": 12.34, "contributions": CHANNELS, "raw": {**CHANNELS, "cart": -1.2345},
    "counters": {"page_viewed": {"1h": 1, "24h": 2, "7d": 2, "30d": 3}}, "last_seen_ms": T, "as_of_ms": T, "rev": 7,
    "model_version": "default-1a2b3c4d",
}  # fmt: skip
ITEM: dict[str, Any] = {
    "product_id": "p", "name": None, "quantity": 2, "unit_price_minor": 999, "url": None, "image_url": None,
}  # fmt: skip
SENT: dict[str, Any] = {
    "action": "send", "trigger_id": ID, "kind": "cart", "step": "15m", "customer_id": "c-1", "cart_id": "A7",
    "items": [ITEM], "items_count": 2, "total_minor": 1998, "currency": "EUR", "shipping_minor": 0, "checkout_url": "u",
    "last_touch_ms": T, "due_ms": T, "emitted_ms": T, "idle_ms": 0, "score": 1.25, "contributions": CHANNELS,
    "model_version": "m",
}  # fmt: skip
CANCELLED: dict[str, Any] = {
    "action": "cancel", "trigger_ids": [ID], "customer_id": "c-1", "cart_id": "A7", "reason": "recovered",
    "occurred_at_ms": T,
}  # fmt: skip
OUTCOME: dict[str, Any] = {
    "outcome_id": ID, "outcome": "suppressed", "customer_id": "c-1", "cart_id": "A7", "kind": "checkout", "step": "1h",
    "due_ms": T, "last_touch_ms": T, "trigger_ids": [ID], "order_id": "o", "cart_total_minor": 1,
    "order_total_minor": 2, "currency": "EUR", "occurred_at_ms": T, "reason": "cooldown", "first_due_ms": T,
}  # fmt: skip
METRIC: dict[str, Any] = {
    "metric": "events", "dimensions": {"topic": "cart.v1"}, "window": "60s", "window_start_ms": T,
    "window_end_ms": T + 60_000, "numerator": 5, "denominator": 2, "value": 2.5, "unit": "count", "final": False,
    "revision": 1, "watermark_ms": T, "state_since_ms": T, "definition_version": 1,
}  # fmt: skip
RECORDS: list[tuple[type[BaseModel], dict[str, Any], set[str]]] = [
    (Score, SCORE, {"last_seen_ms"}),
    (TriggerItem, ITEM, {"product_id", "name", "unit_price_minor", "url", "image_url"}),
    (TriggerSent, SENT, {"cart_id", "total_minor", "currency", "shipping_minor", "checkout_url"}),
    (TriggerCancelled, CANCELLED, {"cart_id"}),
    (
        Outcome,
        {**OUTCOME, "outcome": "closed", "step": None, "due_ms": None},
        {"cart_id", "order_id", "cart_total_minor", "order_total_minor", "currency", "reason", "first_due_ms"},
    ),
    (Metric, METRIC, {"denominator", "value"}),
]


@pytest.mark.parametrize(("model", "record", "nullable"), RECORDS)
def test_an_output_has_exactly_these_fields_and_nulls(
    model: type[BaseModel], record: dict[str, Any], nullable: set[str]
) -> None:
    """Every field is there, no other is, and null is allowed in these alone."""
    assert model.model_validate(record).model_dump() == record
    assert list(model.model_fields) == list(record)
    with pytest.raises(ValidationError, match="extra"):
        model.model_validate({**record, "zz": 1})
    for name, value in record.items():
        if model.model_fields[name].is_required():
            with pytest.raises(ValidationError, match="required"):
                model.model_validate({other: kept for other, kept in record.items() if other != name})
        if name in nullable:
            model.model_validate({**record, name: None})
        elif value is not None:
            with pytest.raises(ValidationError):
                model.model_validate({**record, name: None})


@pytest.mark.parametrize(
    ("model", "record"),
    [
        (Score, {**SCORE, "score": 100.01}),
        (Score, {**SCORE, "score": float("nan")}),
        (Score, {**SCORE, "rev": 0}),
        (Score, {**SCORE, "counters": {"page_viewed": {"2h": 1}}}),
        (TriggerSent, {**SENT, "trigger_id": "x"}),
        (TriggerSent, {**SENT, "kind": "basket"}),
        (TriggerSent, {**SENT, "action": "cancel"}),
        (TriggerCancelled, {**CANCELLED, "trigger_ids": []}),
        (TriggerCancelled, {**CANCELLED, "trigger_ids": [ID] * 65}),
        (TriggerCancelled, {**CANCELLED, "reason": "expired"}),
        (Outcome, {**OUTCOME, "outcome": "lost"}),
        (Outcome, {**OUTCOME, "reason": "because"}),
        (Outcome, {**OUTCOME, "trigger_ids": [ID] * 65}),
        (Metric, {**METRIC, "revision": 0}),
    ],
)
def test_an_output_outside_the_contract_is_refused(model: type[BaseModel], record: dict[str, Any]) -> None:
    """Unknown names, impossible numbers and malformed ids never get out."""
    with pytest.raises(ValidationError):
        model.model_validate(record)


def test_step_and_due_belong_to_suppressed_alone() -> None:
    """Both are given there, and null in every other outcome."""
    Outcome.model_validate(OUTCOME)
    for wrong in ({"step": None}, {"due_ms": None}, {"outcome": "closed"}, {"outcome": "closed", "step": None}):
        with pytest.raises(ValidationError, match="suppressed"):
            Outcome.model_validate({**OUTCOME, **wrong})


def test_trigger_ids_are_the_contracts_vectors() -> None:
    """The two vectors that other systems check their own code with."""
    assert trigger_id("c-1", None, T, "15m") == ID
    assert trigger_id("c|ł", "A7", T, "1h") == "984eeb5a6032ac106940abe03c4ad05d"


def test_each_part_of_an_identity_counts() -> None:
    """No two different decisions share an id: a null cart is not the text null, an outcome no trigger."""
    ids = [
        trigger_id("c", None, T, "15m"),
        trigger_id("c", "null", T, "15m"),
        trigger_id("c", "", T, "15m"),
        trigger_id("d", None, T, "15m"),
        trigger_id("c", None, T + 1, "15m"),
        trigger_id("c", None, T, "1h"),
        outcome_id("c", None, T, "suppressed", "15m"),
        outcome_id("c", None, T, "suppressed", "1h"),
        outcome_id("c", None, T, "closed", None),
        outcome_id("c", None, T, "emptied", None),
    ]
    assert len(set(ids)) == len(ids)


def test_an_outcome_id_is_the_same_hash_of_its_own_array() -> None:
    """["o1", customer, cart, last touch, outcome, step], compact, UTF-8."""
    from hashlib import blake2b

    text = '["o1","c|ł",null,1700000000000,"suppressed","15m"]'
    assert outcome_id("c|ł", None, T, "suppressed", "15m") == blake2b(text.encode(), digest_size=16).hexdigest()


def test_ids_of_scores_and_metrics() -> None:
    """Parts joined by |; dimensions in sorted compact JSON, so that no value can imitate another."""
    assert score_id("c-1", 7, T) == f"c-1|7|{T}"
    assert metric_id("events", {"type": "ł|", "topic": "x"}, "60s", T, 3) == (
        f'events|{{"topic":"x","type":"ł|"}}|60s|{T}|3'
    )
    assert metric_id("sessions", {}, "24h", T) == f"sessions|{{}}|24h|{T}"


def test_cloudevents_headers() -> None:
    """CloudEvents 1.0 in binary mode, each value UTF-8 text."""
    headers = dict(cloudevent_headers("shop", "scores.v1", "c|ł|1", T + 7, "ł"))
    assert {name: value.decode() for name, value in headers.items()} == {
        "ce_specversion": "1.0",
        "ce_id": "c|ł|1",
        "ce_source": "/pulseline/shop",
        "ce_type": "scores.v1",
        "ce_time": "2023-11-14T22:13:20.007Z",
        "ce_subject": "ł",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (999, "1970-01-01T00:00:00.999Z"), (T, "2023-11-14T22:13:20.000Z")],
)
def test_times_are_rfc3339_with_milliseconds(time_ms: int, text: str) -> None:
    """Exact, never rounded through a float."""
    assert rfc3339(time_ms) == text


@pytest.mark.parametrize(
    ("duration_ms", "name"),
    [
        (900_000, "15m"), (3_600_000, "1h"), (86_400_000, "24h"), (60_000, "1m"), (90_000, "90s"), (15_000, "15s"),
        (1, "1ms"), (1_500, "1500ms"), (5_400_000, "90m"), (30 * 86_400_000, "720h"),
    ],
)  # fmt: skip
def test_a_step_is_named_by_the_largest_unit_that_divides_it(duration_ms: int, name: str) -> None:
    """The name is part of every trigger's identity, and reads back as the duration."""
    assert step_name(duration_ms) == name
    assert parse_duration(name) == duration_ms


@pytest.mark.parametrize("duration_ms", [0, -1])
def test_a_step_without_duration_has_no_name(duration_ms: int) -> None:
    """Zero is divided by every unit: it is refused."""
    with pytest.raises(ValueError, match="positive"):
        step_name(duration_ms)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("15m", 900_000), ("500ms", 500), ("900000", 900_000), ("0", 0), ("30d", 2_592_000_000), ("24h", 86_400_000),
     (" 5s ", 5_000)],
)  # fmt: skip
def test_durations(text: str, duration_ms: int) -> None:
    """15m, 24h, 500ms or a number of ms."""
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize("text", ["", "m", "-5m", "1.5h", "15 m", "15M", "1h30m", "²m", "5w", "9" * 16])
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused with the text in the message."""
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_rejected_record_keeps_its_headers_and_says_why() -> None:
    """Kafka Connect's header names, after the record's own, and they read back."""
    why = RejectedHeaders(topic="engagement.cart.v1", partition=3, offset=42, reason="KeyMismatch", message="not ł")
    headers = why.appended_to([("trace", b"\xff")])
    assert headers == [
        ("trace", b"\xff"),
        ("__connect.errors.topic", b"engagement.cart.v1"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.stage", b"KEY_CONVERTER"),
        ("__connect.errors.exception.class.name", b"KeyMismatch"),
        ("__connect.errors.exception.message", "not ł".encode()),
    ]
    assert RejectedHeaders.read_from(headers) == why


def test_a_record_rejected_again_tells_its_last_rejection() -> None:
    """A replayed record keeps its history; the last headers count."""
    first = RejectedHeaders(topic="t", partition=0, offset=1, reason="NotJson", message="first")
    second = RejectedHeaders(topic="t", partition=0, offset=9, reason="HandlerError", message="second")
    assert RejectedHeaders.read_from(second.appended_to(first.appended_to([]))) == second


@pytest.mark.parametrize("reason", REJECT_REASONS)
def test_every_reason_has_a_stage(reason: Any) -> None:
    """Keys fail in the key converter, handlers in the task, all else in the value converter."""
    stage = RejectedHeaders(topic="t", partition=0, offset=0, reason=reason, message="").stage
    assert stage == {"KeyMissing": "KEY_CONVERTER", "KeyMismatch": "KEY_CONVERTER", "HandlerError": "TASK_PUT"}.get(
        reason, "VALUE_CONVERTER"
    )


def test_the_reasons_are_the_contracts() -> None:
    """No other class name may appear in a rejected record."""
    assert set(REJECT_REASONS) == {
        "NotJson", "NotAnObject", "UnknownType", "WrongTopic", "MissingField", "InvalidField", "KeyMissing",
        "KeyMismatch", "NullValue", "TooLarge", "Future", "TooOld", "HandlerError",
    }  # fmt: skip


def test_headers_that_are_not_ours_are_refused() -> None:
    """A record of the rejected topic without its headers, or with malformed ones, is told apart."""
    good = RejectedHeaders(topic="t", partition=0, offset=1, reason="NotJson", message="m").appended_to([])
    with pytest.raises(ValueError, match=r"__connect\.errors\.topic is missing"):
        RejectedHeaders.read_from(good[1:])
    with pytest.raises(ValueError, match="invalid literal"):
        RejectedHeaders.read_from([*good, ("__connect.errors.offset", b"x")])
    with pytest.raises(ValidationError, match="reason"):
        RejectedHeaders.read_from([*good, ("__connect.errors.exception.class.name", b"Because")])


def test_outputs_are_json() -> None:
    """Nothing in an output needs more than JSON has."""
    for model, record, _ in RECORDS:
        assert json.loads(json.dumps(model.model_validate(record).model_dump())) == record
