"""Packed state: one byte that says which schema, then MessagePack of plain, canonically ordered values."""

from typing import Any, Final

from msgspec import msgpack

from streams.errors import NewerSchema

SCHEMA: Final = 1
"""The newest schema this version knows: it reads all up to it, and writes what it is told to."""

_PREFIXES: Final = [bytes([number]) for number in range(256)]
_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder().decode


def pack(value: list[Any], schema: int = SCHEMA) -> bytes:
    """The bytes of a value. Equal values, in the same order and schema, give equal bytes."""
    return _PREFIXES[schema] + _encode(value)


def unpack(packed: bytes) -> Any:
    """The value that was packed; NewerSchema where a later version wrote it."""
    if packed[0] > SCHEMA:
        raise NewerSchema(f"state is of schema {packed[0]}, this version reads up to {SCHEMA}: upgrade this worker")
    return _decode(packed[1:])
