"""Packed state carries its schema."""

import pytest

from streams.engagement import snapshot
from streams.errors import NewerSchema


def test_a_value_survives() -> None:
    """What is packed comes back, behind the schema byte."""
    value = [1, None, [b"\x00\xff", "ł", 2**63], -5]
    packed = snapshot.pack(value)
    assert packed[0] == snapshot.SCHEMA
    assert snapshot.unpack(packed) == value


def test_an_older_schema_is_written_when_told() -> None:
    """The byte is that of the schema asked for, so that an older version reads it."""
    assert snapshot.pack([1], 0) == b"\x00" + snapshot.pack([1])[1:]
    assert snapshot.unpack(snapshot.pack([1], 0)) == [1]


def test_a_newer_schema_is_refused() -> None:
    """Bytes of a later version stop the worker instead of being misread."""
    with pytest.raises(NewerSchema, match="schema 2, this version reads up to 1"):
        snapshot.unpack(bytes([snapshot.SCHEMA + 1]) + snapshot.pack([1])[1:])
