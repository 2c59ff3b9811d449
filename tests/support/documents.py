"""JSON documents that nobody should send: accepted events, then broken on purpose as text and as bytes."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from models.events import EVENTS_OF_TOPIC
from models.fields import Line
from tests.support.strategies import events

Pairs = Sequence[tuple[str, bytes]]

NUMBERS = [
    b"0", b"-0", b"-0.0", b"1", b"12.0", b"1e3", b"1E2", b"0e0", b"0.5", b"-0.5", b"-1", b"-1.0", b"1.0000000000000001",
    b"1e400", b"-1e400", b"1e-400", b"9007199254740991", b"9007199254740992", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551616", b"1000000000000", b"1000000000001", b"10000000000000000",
    b"1" * 400, b"1" * 4300, b"1" * 4301, b"-" + b"1" * 4301, b"1" * 4301 + b".5",
    b"0." + b"1" * 4301, b"1e" + b"1" * 4301,
]  # fmt: skip
NOT_NUMBERS = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1e",
    b"1e+",
    b"0x10",
    b"1_0",
]
STRINGS = [
    b'""', b'"12"', b'"x"', b'"\\u0041\\/\\n\\u0000"', b'"\\ud83d\\ude00"', b'"\\ud800 alone, and more"',
    b'"\\udc00 alone, and more"', b'"\\ud800\\u0041 and more"', b'"\\ud83d\\ud83d\\ude00"', b'"\\q"', b'"\\u12"',
    b'"\\u12g4"', b'"\x01"', b'"\n"', b'"\x7f"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"',
    b'"\xef\xbf\xbf"', b"'x'", b'"x', b'"' + b"x" * 512 + b'"', b'"' + b"x" * 513 + b'"', b'"' + b"x" * 2049 + b'"',
    b'"' + "😀".encode() * 512 + b'"', b'"' + "😀".encode() * 513 + b'"',
]  # fmt: skip
ITEMS = [
    b"[]", b"[{}]", b"[null]", b"[1]", b'[{"product_id":"p"}]', b'[{"name":null}]', b'[{"name":"n","zz":[{}]}]',
    b'[{"name":"n","quantity":1000000,"unit_price_minor":1000000}]',
    b'[{"name":"n","quantity":1000000,"unit_price_minor":1000001}]',
    b'[{"name":"n","unit_price_minor":1000000000000}]', b'[{"quantity":"x"},{"name":"n"}]', b'[{"name":"n"},]',
    b'[{"name":"n","name":5}]', b'[{"name":5,"name":"n"}]',
    b"[" + b",".join([b'{"name":"n"}'] * 100) + b"]", b"[" + b",".join([b'{"name":"n"}'] * 101) + b"]",
]  # fmt: skip
OTHERS = [
    b"true", b"false", b"null", b"tru", b"nulll", b"True", b"", b"{}", b'{"a":1}', b'{"a":1,}', b"{1:2}", b'{"a"}',
    b"[1,]", b"/* */ 1", b"1 2", b'{"\xff":1}', b'{"\\ud800 alone, and more":1}', b'{"type":"page_viewed"}',
    *(b"[" * depth + b"]" * depth for depth in (2, 190, 199, 200, 201, 202, 900, 5000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (190, 199, 200, 201, 202, 900)),
]  # fmt: skip
TOKENS = [*NUMBERS, *STRINGS, *ITEMS, *OTHERS, *NOT_NUMBERS]
# By index: a failing test prints its strategy, and these tokens would fill pages.
_ANY_TOKEN = st.integers(0, len(TOKENS) - 1).map(TOKENS.__getitem__)
NAMES = sorted(
    {name for models in EVENTS_OF_TOPIC.values() for model in models for name in model.model_fields}
    | {"zz", "Type", "event_id ", "", *Line.model_fields}
)


def _token(value: Any) -> st.SearchStrategy[bytes]:
    """The value as JSON, escaped or not, close or loose."""
    return st.sampled_from(
        [
            json.dumps(value).encode(),
            json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
            b" \t\r\n" + json.dumps(value, indent=1).encode() + b" ",
        ]
    )


@st.composite
def _pairs(draw: st.DrawFn, event: dict[str, Any]) -> Pairs:
    return draw(st.permutations([(name, draw(_token(value))) for name, value in event.items()]))


def _escaped(name: str) -> str:
    return name if name.startswith("\\") else "".join(f"\\u{ord(character):04x}" for character in name)


@st.composite
def _mutated(draw: st.DrawFn, before: Pairs) -> Pairs:
    pairs = list(before)
    place = draw(st.integers(0, len(pairs) - 1))
    name, token = pairs[place]
    kind = draw(st.sampled_from(["replace", "replace", "remove", "add", "repeat before", "repeat after", "escape"]))
    if kind == "replace":
        pairs[place] = (name, draw(_ANY_TOKEN))
    elif kind == "remove" and len(pairs) > 1:
        del pairs[place]
    elif kind == "add":
        pairs.insert(place, (draw(st.sampled_from(NAMES)), draw(_ANY_TOKEN)))
    elif kind == "repeat before":
        pairs.insert(0, (name, draw(_ANY_TOKEN)))
    elif kind == "repeat after":
        pairs.append((name, draw(_ANY_TOKEN)))
    else:
        pairs[place] = (_escaped(name), token)
    return pairs


@st.composite
def _damaged(draw: st.DrawFn, value: bytes) -> bytes:
    place = draw(st.integers(0, len(value)))
    damage = draw(st.sampled_from([b"\xff", b"\x00", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"]", b",", b" ", b"1", b"e"]))
    kind = draw(st.sampled_from(["insert", "cut", "overwrite", "before", "after", "utf-16"]))
    return {
        "insert": value[:place] + damage + value[place:],
        "cut": value[:place],
        "overwrite": value[:place] + damage + value[place + len(damage) :],
        "before": damage + value,
        "after": value + damage,
        "utf-16": value.decode(errors="replace").encode("utf-16"),
    }[kind]


def joined(pairs: Pairs) -> bytes:
    """An object of these names (as JSON writes them between quotes) and values (JSON, or what should have been)."""
    return b"{" + b",".join(b'"' + name.encode() + b'":' + token for name, token in pairs) + b"}"


@st.composite
def accepted(draw: st.DrawFn, topic: str) -> bytes:
    """Events in every way JSON can be written: order, white space, escapes."""
    return joined(draw(_pairs(draw(events(topic)))))


@st.composite
def hostile(draw: st.DrawFn, topic: str) -> bytes:
    """Events with one to three fields replaced, removed, added or repeated, and sometimes damaged bytes."""
    pairs = draw(_pairs(draw(events(topic))))
    for _ in range(draw(st.integers(1, 3))):
        pairs = draw(_mutated(pairs))
    value = joined(pairs)
    return draw(_damaged(value)) if draw(st.integers(0, 4)) == 0 else value
