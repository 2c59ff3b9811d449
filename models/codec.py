"""Bytes <-> records: a fast decoder derived from the pydantic classes, and the readable one that says why not.

`readable_decode` is the contract: strict JSON, then the pydantic class of the record's type. `TopicCodec.read` gives
the same answer from msgspec structs generated from those classes, and asks the readable decoder wherever the fast one
refuses a record or might understand JSON differently. Structs and pydantic objects carry equal attributes.

Where several reasons apply to a record, the first of this order is given: NullValue, TooLarge, NotJson, NotAnObject,
UnknownType or WrongTopic, MissingField, InvalidField, KeyMissing, KeyMismatch, Future, TooOld. A record without a
`type` is a MissingField; any value of `type` that names no event is an UnknownType. Messages name a field and a rule,
never the customer's value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, reduce
from operator import attrgetter, or_
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from models.events import EVENT_TYPES, EVENTS_OF_TOPIC, Event, EventFields, type_of
from models.fields import VALUE_BYTES_MAX, Record
from models.outputs import CONTROL_HEADER, CONTROL_TYPE, Headers, RejectReason, WatermarkAdvanced, control_headers
from models.topics import TOPICS

FUTURE_MS = 5 * 60_000
TOO_OLD_MS = 400 * 86_400_000

# The two JSON parsers differ in unknown fields only: the readable one refuses nesting beyond 200 levels, integers
# beyond 4,300 digits and broken UTF-8 there too. A value of NESTED_BYTES_MAX bytes is too short for the first two.
NESTING_MAX = 200
DIGITS_MAX = 4_300
NESTED_BYTES_MAX = 2 * NESTING_MAX
_TOO_MANY_DIGITS = b"0" * (DIGITS_MAX + 1)
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")


_Model = TypeVar("_Model", bound=BaseModel)


class RecordRejected(ValueError):
    """A record that is not applied: `reason` is one of the contract's, `message` names the field and the rule."""

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason: RejectReason = reason
        self.message = message


# -- the readable decoder ----------------------------------------------------------------------------------------------


def readable_decode(topic: str, value: bytes | None) -> Event:
    """Return the event in a value of an input topic (its suffix); RecordRejected where the contract refuses it."""
    return event_from(_json_object(value), topic)


def event_from(fields: Mapping[str, Any], topic: str | None = None) -> Event:
    """Return the event with these fields; RecordRejected where the contract, or `topic` where given, refuses it."""
    if "type" not in fields:
        raise RecordRejected("MissingField", "type: Field required")
    name = fields["type"]
    event_type = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if event_type is None:
        raise RecordRejected("UnknownType", "type: not an event type of this contract")
    if topic not in {None, event_type.topic}:
        raise RecordRejected("WrongTopic", f"type: {event_type.name} belongs to {event_type.topic}, not to {topic}")
    return cast(Event, _validated(event_type.model, fields))


def _json_object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise RecordRejected("NullValue", "the value is null")
    if len(value) > VALUE_BYTES_MAX:
        raise RecordRejected("TooLarge", f"the value has {len(value)} bytes, at most {VALUE_BYTES_MAX} are read")
    try:
        parsed = from_json(value, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise RecordRejected("NotJson", f"the value is not JSON in UTF-8: {error}") from None
    if not isinstance(parsed, dict):
        raise RecordRejected("NotAnObject", "the value is JSON, but not an object")
    return parsed


def _validated(model: type[_Model], fields: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((problem for problem in problems if problem["type"] == "missing"), problems[0])
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    reason: RejectReason = "MissingField" if first["type"] == "missing" else "InvalidField"
    raise RecordRejected(reason, f"{path}: {first['msg']}" if path else first["msg"])


def _check_key(key: bytes | None, event: Event) -> None:
    if key is None:
        raise RecordRejected("KeyMissing", "the key is null, it must be the customer id")
    if key != event.customer_id.encode():
        raise RecordRejected("KeyMismatch", "the key is not the customer id in UTF-8")


def _check_time(timestamp_ms: int, event: Event) -> None:
    if event.occurred_at_ms > timestamp_ms + FUTURE_MS:
        raise RecordRejected("Future", "occurred_at_ms: more than 5 minutes after the record's timestamp")
    if event.occurred_at_ms < timestamp_ms - TOO_OLD_MS:
        raise RecordRejected("TooOld", "occurred_at_ms: more than 400 days before the record's timestamp")


# -- the fast decoder, derived -----------------------------------------------------------------------------------------


def _fast_type(annotation: Any) -> Any:
    """Return the msgspec type that accepts what pydantic accepts in strict mode; TypeError where none is known."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *infos = get_args(annotation)
        return _constrained(base, infos)
    if origin in {Union, UnionType}:
        return _union(_fast_type(option) for option in get_args(annotation))
    if origin is list:
        (item,) = get_args(annotation)
        return list[_fast_type(item)]  # type: ignore[misc]
    if annotation in {str, int, bool, float, NoneType}:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return struct_of(annotation)
    raise TypeError(f"no fast decoder is known for {annotation!r}")


def _union(types: Iterable[Any]) -> Any:
    return reduce(or_, types)


def _constrained(base: Any, infos: Sequence[FieldInfo]) -> Any:
    # pydantic's constraints (Ge(ge=0), MaxLen(max_length=512), ...) bear msgspec's names; Meta refuses any other.
    limits: dict[str, Any] = {}
    for constraint in (constraint for info in infos for constraint in info.metadata):
        limits |= asdict(constraint)
    return Annotated[_fast_type(base), msgspec.Meta(**limits)]


def _post_init(model: type[Record]) -> Any:
    """Return the check of a struct's fields against each other, or None where the class has none."""
    check = None if model.check is Record.check else model.check
    if not model.one_of:
        return check
    given, nothing = attrgetter(*model.one_of), (None,) * len(model.one_of)

    def post_init(struct: Any) -> None:
        if given(struct) == nothing:
            raise ValueError("missing")
        if check is not None:
            check(struct)

    return post_init


@cache
def struct_of(model: type[Record]) -> type[msgspec.Struct]:
    """Return the frozen struct with the fields, limits and checks of a pydantic class.

    Of an event it has the class attributes `type` and `by_customer` besides, as the pydantic class has.
    """
    hints = get_type_hints(model, include_extras=True)
    namespace: dict[str, Any] = {}
    post_init = _post_init(model)
    if post_init is not None:
        namespace["__post_init__"] = post_init
    name: str | None = None
    if issubclass(model, EventFields):
        name = type_of(model)
        namespace |= {"type": name, "by_customer": model.by_customer}
    fields: list[Any] = [
        (field, _fast_type(hints[field]), msgspec.NODEFAULT if info.is_required() else info.default)
        for field, info in model.model_fields.items()
        if field not in namespace
    ]
    # gc=False: a decoded record refers to nothing that could refer back to it.
    return msgspec.defstruct(
        model.__name__,
        fields,
        namespace=namespace,
        module=__name__,
        tag_field="type" if name else None,
        tag=name,
        frozen=True,
        gc=False,
        kw_only=True,
    )


def _read_alike(value: bytes) -> bool:
    """Whether both JSON parsers are known to agree on the form of a value longer than NESTED_BYTES_MAX."""
    return (
        len(value) <= VALUE_BYTES_MAX
        and value.count(b"[") + value.count(b"{") <= NESTING_MAX
        and (len(value) <= DIGITS_MAX or _TOO_MANY_DIGITS not in value.translate(_DIGITS_AS_ZERO))
    )


class TopicCodec:
    """Reads the records of one input topic; `topic` is its suffix. Get it from `codec_for`."""

    __slots__ = ("_decode", "_has_control", "_structs", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._has_control = TOPICS[topic].control
        self._structs = {type_of(model): struct_of(model) for model in EVENTS_OF_TOPIC[topic]}
        self._decode = msgspec.json.Decoder(_union(self._structs.values())).decode

    def read(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Event | WatermarkAdvanced:
        """Return the event (a struct with the attributes of its pydantic class) or control record of a record.

        timestamp_ms is the record's own. Raises RecordRejected; a control record is not compared with the timestamp.
        """
        if key is not None and value is not None:
            event = self.decode(value)
            if (
                event is not None
                and key == event.customer_id.encode()
                and -TOO_OLD_MS <= event.occurred_at_ms - timestamp_ms <= FUTURE_MS
            ):
                return event
        elif self._has_control and any(name == CONTROL_HEADER for name, _ in headers):
            return _control_record(value)
        readable = self.read_readably(key, value, timestamp_ms)
        return cast(Event, msgspec.convert(readable.model_dump(), self._structs[readable.type]))

    def decode(self, value: bytes) -> Event | None:
        """Return the struct of an event, or None where the readable decoder has to judge."""
        if len(value) > NESTED_BYTES_MAX and not _read_alike(value):
            return None
        try:
            event = self._decode(value)
            if not value.isascii():
                value.decode()
        except (ValueError, RecursionError):
            return None
        return cast(Event, event)

    def read_readably(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> Event:
        """Do what `read` does for events, the readable way: return the pydantic object or say why not."""
        event = readable_decode(self.topic, value)
        _check_key(key, event)
        _check_time(timestamp_ms, event)
        return event


@cache
def codec_for(topic: str) -> TopicCodec:
    """Return the codec of an input topic, by its suffix; KeyError for any other."""
    return TopicCodec(topic)


# -- control records and writing ---------------------------------------------------------------------------------------


def _control_record(value: bytes | None) -> WatermarkAdvanced:
    fields = _json_object(value)
    if "type" not in fields:
        raise RecordRejected("MissingField", "type: Field required")
    if fields["type"] != CONTROL_TYPE:
        raise RecordRejected("UnknownType", "type: not a type of control record")
    return _validated(WatermarkAdvanced, fields)


def control_record(watermark_ms: int) -> tuple[bytes, Headers]:
    """Return value and headers of a control record; its key is null."""
    return encode_output(WatermarkAdvanced(watermark_ms=watermark_ms)), control_headers()


def encode_output(record: Mapping[str, Any] | BaseModel) -> bytes:
    """Return a record as a compact JSON object in UTF-8, fields in their order, null where None."""
    return msgspec.json.encode(record.model_dump() if isinstance(record, BaseModel) else record)


def encode_event(event: Event) -> bytes:
    """Return an event's value for an input topic, without the fields it lacks; RecordRejected where it is too large."""
    value = msgspec.json.encode(event.model_dump(exclude_none=True))
    if len(value) > VALUE_BYTES_MAX:
        raise RecordRejected("TooLarge", f"the value has {len(value)} bytes, at most {VALUE_BYTES_MAX} are read")
    return value
