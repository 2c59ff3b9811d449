"""Events to the bytes that are sent: checked against the contract, before anything leaves."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from models.codec import RecordRejected, event_from
from models.events import EVENT_TYPES, EventFields
from models.fields import VALUE_BYTES_MAX
from streams.errors import PulselineError


class InvalidEvent(PulselineError, ValueError):
    """The event breaks the contract: the message names the field and the rule, never the customer's value."""


def encode(event: EventFields | Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    """(topic suffix, key, value) of an event; InvalidEvent where the contract, or its limit of bytes, refuses it."""
    event = event if isinstance(event, EventFields) else checked(event)
    value = event.model_dump_json(exclude_none=True).encode()
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidEvent(f"{event.type}: the event has {len(value)} bytes, {VALUE_BYTES_MAX} are allowed")
    return EVENT_TYPES[event.type].topic, event.customer_id.encode(), value


def checked(fields: Mapping[str, Any]) -> EventFields:
    """The event with these fields; InvalidEvent where the contract refuses it or does not know a field."""
    try:
        event = event_from(fields)
    except RecordRejected as refusal:
        raise InvalidEvent(f"{fields.get('type', 'event')}: {refusal.message}") from None
    # Readers ignore what they do not know, so a mistyped name would be lost without a word.
    for name in fields.keys() - type(event).model_fields.keys():
        near = get_close_matches(name, type(event).model_fields, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise InvalidEvent(f"{event.type}: {name}: no such field{hint}")
    return event
