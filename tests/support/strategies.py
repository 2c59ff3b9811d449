"""Hypothesis strategies made from the event registry: a new event type is generated without a line here."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from models.codec import encode_output
from models.events import EVENT_TYPES
from models.fields import AMOUNT_MINOR_MAX, VALUE_BYTES_MAX, Record

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000

# Every character a JSON document can hold: all but lone surrogates.
CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = ["", "p-1", "p-2", "EUR", "Książka", "a b", '"quoted\\"', "\x00\t\x7f", "<&>", "null", "12"]
CUSTOMERS = st.sampled_from(["c-1", "c-2", "c-3", "c|ł", "k@example.test"])
TIMES_MS = st.integers(NOW_MS - 30 * DAY_MS, NOW_MS)


@cache
def events(
    topic: str | None = None,
    type: str | None = None,  # noqa: A002  the event's own word
    *,
    customers: st.SearchStrategy[str] = CUSTOMERS,
    times_ms: st.SearchStrategy[int] = TIMES_MS,
) -> st.SearchStrategy[dict[str, Any]]:
    """Accepted events as dicts, of one topic (its suffix) or one type where given; optional fields come and go."""
    chosen = [
        event_type
        for event_type in EVENT_TYPES.values()
        if topic in {None, event_type.topic} and type in {None, event_type.name}
    ]
    given = {"customer_id": customers, "occurred_at_ms": times_ms}
    accepted = {
        event_type.name: records(event_type.model, {"type": st.just(event_type.name), **given}) for event_type in chosen
    }
    # By name, not one_of: a failing test prints its strategy, and this one would fill pages.
    return st.sampled_from(sorted(accepted)).flatmap(accepted.__getitem__).filter(_fits)


def _fits(event: dict[str, Any]) -> bool:
    return len(encode_output(event)) <= VALUE_BYTES_MAX


def records(
    model: type[Record], given: dict[str, st.SearchStrategy[Any]] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts that the class accepts; `given` replaces the strategies of some fields, which are then always there."""
    given = given or {}
    fields = _fields(model) | given
    required = {name for name, info in model.model_fields.items() if info.is_required()} | given.keys()
    shapes = [_dicts(fields, required | {name}).filter(_has(name)) for name in model.one_of]
    return st.one_of(shapes or [_dicts(fields, required)]).map(_affordable)


def _has(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: record[name] is not None


def _dicts(fields: dict[str, st.SearchStrategy[Any]], required: set[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in fields.items() if name in required},
        optional={name: strategy for name, strategy in fields.items() if name not in required},
    )


@cache
def _fields(model: type[Record]) -> dict[str, st.SearchStrategy[Any]]:
    hints = get_type_hints(model, include_extras=True)
    return {name: values(hints[name]) for name in model.model_fields if name != "type"}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type: ordinary ones, and its limits."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits: dict[str, Any] = {}
        for constraint in (constraint for info in arguments[1:] for constraint in info.metadata):
            limits |= asdict(constraint)
        return _limited(arguments[0], limits)
    if arguments:
        return st.one_of([values(argument) for argument in arguments])
    if isinstance(hint, type) and issubclass(hint, Record):
        return records(hint)
    return {bool: st.booleans(), type(None): st.none()}[hint]


def _limited(base: Any, limits: dict[str, Any]) -> st.SearchStrategy[Any]:
    if base is str:
        shortest, longest = limits.get("min_length", 0), limits["max_length"]
        words = st.sampled_from([word for word in WORDS if shortest <= len(word)])
        any_text = st.text(CHARACTERS, min_size=shortest, max_size=8)
        return st.one_of(words, words, any_text, st.sampled_from("ał😀").map(lambda character: character * longest))
    if base is int:
        low, high = limits["ge"], limits["le"]
        return st.one_of(st.integers(max(low, 0), min(high, 10_000)), st.sampled_from([low, high]))
    if base is float:
        return st.floats(limits["ge"], limits["le"])
    return st.lists(values(get_args(base)[0]), max_size=4)


def _affordable(record: dict[str, Any]) -> dict[str, Any]:
    """Lower the unit price where quantity x price would be refused."""
    price, quantity = record.get("unit_price_minor"), record.get("quantity")
    if price is not None and quantity is not None and price * quantity > AMOUNT_MINOR_MAX:
        return {**record, "unit_price_minor": AMOUNT_MINOR_MAX // quantity}
    return record
