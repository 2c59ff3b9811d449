"""Output records, their identities and headers, and the control record of the input topics.

Values are compact JSON objects (`models.codec.encode_output`) whose fields are all present; null where the contract
allows it. They travel with CloudEvents 1.0 binary-mode headers, rejected records with Kafka Connect's error headers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Literal, Self, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.fields import EpochMs

TRIGGER_IDS_MAX = 64
CONTROL_HEADER = "pl-control"
CONTROL_TYPE = "watermark_advanced"
ERRORS_PREFIX = "__connect.errors."

CartKind = Literal["cart", "checkout"]
OutcomeName = Literal["resumed", "recovered", "closed", "emptied", "expired", "merged", "suppressed"]
CancelReason = Literal["resumed", "recovered", "closed", "emptied", "merged"]
OutcomeReason = Literal["below_min_value", "cooldown", "erased", "no_consent", "stale", "ordered_before_due"]
RejectReason = Literal[
    "NullValue",
    "TooLarge",
    "NotJson",
    "NotAnObject",
    "UnknownType",
    "WrongTopic",
    "MissingField",
    "InvalidField",
    "KeyMissing",
    "KeyMismatch",
    "Future",
    "TooOld",
    "HandlerError",
]
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)

Headers = list[tuple[str, bytes]]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
TriggerIds = Annotated[list[Hash], Field(max_length=TRIGGER_IDS_MAX)]
Amount = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Output(BaseModel):
    """Anything written; unknown fields are refused, so that none is published by accident."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Channels(Output):
    """A number for each channel."""

    clickstream: float
    cart: float
    email: float
    social: float


class Score(Output):
    """scores.v1: a customer's score at `as_of_ms`; a reader decays `raw` to any later time."""

    customer_id: str
    score: Annotated[float, Field(ge=0, le=100)]
    contributions: Channels
    raw: Channels
    counters: dict[str, dict[Literal["1h", "24h", "7d", "30d"], Count]]
    last_seen_ms: EpochMs | None
    as_of_ms: EpochMs
    rev: Annotated[int, Field(ge=1)]
    model_version: str


class TriggerItem(Output):
    """A line of the abandoned cart."""

    product_id: str | None
    name: str | None
    quantity: Annotated[int, Field(ge=1)]
    unit_price_minor: Amount | None
    url: str | None
    image_url: str | None


class TriggerSent(Output):
    """triggers.v1, action send: a cart was left alone for the step's time."""

    action: Literal["send"] = "send"
    trigger_id: Hash
    kind: CartKind
    step: str
    customer_id: str
    cart_id: str | None
    items: list[TriggerItem]
    items_count: Count
    total_minor: Amount | None
    currency: str | None
    shipping_minor: Amount | None
    checkout_url: str | None
    last_touch_ms: EpochMs
    due_ms: EpochMs
    emitted_ms: EpochMs
    idle_ms: int
    score: Annotated[float, Field(ge=0, le=100)]
    contributions: Channels
    model_version: str


class TriggerCancelled(Output):
    """triggers.v1, action cancel: what these triggers asked for is no longer wanted; `reason` is the cart's outcome."""

    action: Literal["cancel"] = "cancel"
    trigger_ids: Annotated[list[Hash], Field(min_length=1, max_length=TRIGGER_IDS_MAX)]
    customer_id: str
    cart_id: str | None
    reason: CancelReason
    occurred_at_ms: EpochMs


class Outcome(Output):
    """outcomes.v1: what became of a cart, or of one step of it (suppressed; only then are step and due_ms given)."""

    outcome_id: Hash
    outcome: OutcomeName
    customer_id: str
    cart_id: str | None
    kind: CartKind
    step: str | None
    due_ms: EpochMs | None
    last_touch_ms: EpochMs
    trigger_ids: TriggerIds
    order_id: str | None
    cart_total_minor: Amount | None
    order_total_minor: Amount | None
    currency: str | None
    occurred_at_ms: EpochMs
    reason: OutcomeReason | None
    first_due_ms: EpochMs | None

    @model_validator(mode="after")
    def _step_is_of_suppressed(self) -> Self:
        suppressed = self.outcome == "suppressed"
        if (self.step is not None) is not suppressed or (self.due_ms is not None) is not suppressed:
            raise ValueError("step and due_ms are given if and only if the outcome is suppressed")
        return self


class Metric(Output):
    """metrics.v1: one window of one metric; the highest (watermark_ms, revision) counts."""

    metric: str
    dimensions: dict[str, str]
    window: str
    window_start_ms: int
    window_end_ms: int
    numerator: int | float
    denominator: int | float | None
    value: float | None
    unit: str
    final: bool
    revision: Annotated[int, Field(ge=1)]
    watermark_ms: int
    state_since_ms: int
    definition_version: Annotated[int, Field(ge=1)]


class RejectedHeaders(Output):
    """rejected.v1: the headers added to a rejected record, whose key, value and headers stay untouched."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    reason: RejectReason
    message: str

    @property
    def stage(self) -> str:
        """Kafka Connect's name of the stage that failed."""
        if self.reason == "HandlerError":
            return "TASK_PUT"
        return "KEY_CONVERTER" if self.reason in {"KeyMissing", "KeyMismatch"} else "VALUE_CONVERTER"

    def appended_to(self, headers: Sequence[tuple[str, bytes]]) -> Headers:
        """Return the record's own headers followed by these; where a name is there twice, the last one counts."""
        added = {
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "stage": self.stage,
            "exception.class.name": self.reason,
            "exception.message": self.message,
        }
        return [*headers, *((ERRORS_PREFIX + name, text.encode()) for name, text in added.items())]

    @classmethod
    def read_from(cls, headers: Sequence[tuple[str, bytes]]) -> Self:
        """Return what the headers of a rejected record say; ValueError where one is missing or malformed."""
        found = {name: value for name, value in headers if name.startswith(ERRORS_PREFIX)}
        names = ("topic", "partition", "offset", "exception.class.name", "exception.message")
        try:
            topic, partition, offset, reason, message = (found[ERRORS_PREFIX + name].decode() for name in names)
        except KeyError as error:
            raise ValueError(f"header {error.args[0]} is missing") from None
        return cls.model_validate(
            {"topic": topic, "partition": int(partition), "offset": int(offset), "reason": reason, "message": message}
        )


class WatermarkAdvanced(BaseModel):
    """The control record of the cart and clickstream topics: null key, header pl-control; silent time, in the log."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    type: Literal["watermark_advanced"] = "watermark_advanced"
    watermark_ms: EpochMs


def control_headers() -> Headers:
    """Return the headers that mark a control record."""
    return [(CONTROL_HEADER, CONTROL_TYPE.encode())]


_compact = msgspec.json.Encoder().encode


def _hash_of(parts: tuple[str | int | None, ...]) -> str:
    return blake2b(_compact(parts), digest_size=16).hexdigest()


def trigger_id(customer_id: str, cart_id: str | None, last_touch_ms: int, step: str) -> str:
    """Return the identity of a step of a cart: a function of these four alone, so that no repetition changes it.

    >>> trigger_id("c-1", None, 1700000000000, "15m")
    '913e221bbf3369fc75e05203c1e1aa02'
    """
    return _hash_of(("v1", customer_id, cart_id, last_touch_ms, step))


def outcome_id(
    customer_id: str, cart_id: str | None, last_touch_ms: int, outcome: OutcomeName, step: str | None
) -> str:
    """Return the identity of an outcome; step is None unless it is suppressed."""
    return _hash_of(("o1", customer_id, cart_id, last_touch_ms, outcome, step))


def score_id(customer_id: str, rev: int, as_of_ms: int) -> str:
    """Return the ce_id of a score."""
    return f"{customer_id}|{rev}|{as_of_ms}"


def metric_id(
    metric: str, dimensions: Mapping[str, str], window: str, window_start_ms: int, revision: int | None = None
) -> str:
    """Return the ce_id of a metric record, or without a revision what all revisions of it share.

    Dimensions are written as compact JSON with sorted names: a value may hold any character.
    """
    written = json.dumps(dimensions, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    shared = f"{metric}|{written}|{window}|{window_start_ms}"
    return shared if revision is None else f"{shared}|{revision}"


@lru_cache(maxsize=1024)
def rfc3339(time_ms: int) -> str:
    """Return epoch ms as RFC 3339 in UTC with milliseconds.

    >>> rfc3339(1700000000007)
    '2023-11-14T22:13:20.007Z'
    """
    seconds, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def cloudevent_headers(app_id: str, topic_suffix: str, ce_id: str, ce_time_ms: int, subject: str) -> Headers:
    """Return the CloudEvents 1.0 binary-mode headers of an output record; ce_time_ms is when it was decided."""
    source, kind, time = _shared_headers(app_id, topic_suffix, ce_time_ms)
    return [
        _SPEC_VERSION,
        ("ce_id", ce_id.encode()),
        source,
        kind,
        time,
        ("ce_subject", subject.encode()),
        _CONTENT_TYPE,
    ]


_SPEC_VERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", b"application/json")


@lru_cache(maxsize=1024)
def _shared_headers(app_id: str, topic_suffix: str, ce_time_ms: int) -> Headers:
    """Return the headers that all records of one kind share that were decided together."""
    return [
        ("ce_source", f"/pulseline/{app_id}".encode()),
        ("ce_type", topic_suffix.encode()),
        ("ce_time", rfc3339(ce_time_ms).encode()),
    ]


_UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"([0-9]{1,15})(d|h|m|s|ms|)")


def step_name(duration_ms: int) -> str:
    """Return a step's name: its duration in the largest of h, m, s and ms that divides it.

    >>> step_name(86_400_000), step_name(90_000)
    ('24h', '90s')
    """
    if duration_ms <= 0:
        raise ValueError(f"a step's duration must be positive, not {duration_ms} ms")
    unit = next(unit for unit, unit_ms in _UNITS_MS.items() if duration_ms % unit_ms == 0)
    return f"{duration_ms // _UNITS_MS[unit]}{unit}"


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration such as 30d, 24h, 15m, 90s, 500ms or 900000 (ms); ValueError if it is none.

    >>> parse_duration("15m")
    900000
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write 30d, 24h, 15m, 90s, 500ms or a number of milliseconds")
    number, unit = match.groups()
    return int(number) * {**_UNITS_MS, "d": 86_400_000, "": 1}[unit]
