"""Packed state: one byte that says which schema, then MessagePack of plain, canonically ordered values."""

from typing import Any, Final

from msgspec import msgpack

from streams.errors import NewerSchema

SCHEMA: Final = 1

_PREFIX: Final = bytes([SCHEMA])
_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder().decode


def pack(value: list[Any]) -> bytes:
    """The bytes of a value. Equal values, in the same order, give equal bytes."""
    return _PREFIX + _encode(value)


def unpack(packed: bytes) -> Any:
    """The value that was packed; NewerSchema where a later version wrote it."""
    if packed[0] > SCHEMA:
        raise NewerSchema(f"state is of schema {packed[0]}, this version reads up to {SCHEMA}: upgrade this worker")
    return _decode(packed[1:])
