"""Owns the Protocol Buffers wire format, as far as the encoders write it. Knows no message of any protocol.

Source: protobuf.dev, "Encoding". Every function returns one whole field: tag, length if there is one, content.
"""

from __future__ import annotations

from functools import lru_cache
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "I64",
    "LEN",
    "VARINT",
    "double",
    "doubles",
    "fixed64",
    "message",
    "message_head",
    "tag",
    "text",
    "varint",
]

VARINT, I64, LEN = 0, 1, 2
"""Wire types: a number of variable length, eight bytes, and a length followed by that many bytes."""

_UINT64 = (1 << 64) - 1


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as their 64-bit two's complement."""
    number &= _UINT64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(maxsize=64)  # a protocol has few of them, a report has several for each series
def tag(field: int, wire_type: int) -> bytes:
    """What stands before a field's content."""
    return _varint(field << 3 | wire_type)


def varint(field: int, number: int) -> bytes:
    """An `int64`, `uint64`, `bool` or enum field."""
    return tag(field, VARINT) + _varint(number)


def fixed64(field: int, number: int) -> bytes:
    """A `fixed64` field."""
    return tag(field, I64) + pack("<Q", number)


def double(field: int, number: float) -> bytes:
    """A `double` field."""
    return tag(field, I64) + pack("<d", number)


def doubles(field: int, numbers: Iterable[float]) -> bytes:
    """A packed `repeated double` field; nothing at all if there are none."""
    content = b"".join(pack("<d", number) for number in numbers)
    return message(field, content) if content else b""


@lru_cache(maxsize=1_024)  # most lengths of a report are alike; it makes a new layout twice as fast
def message_head(field: int, length_bytes: int) -> bytes:
    """What stands before an embedded message (or string, or packed field) of that length."""
    return tag(field, LEN) + _varint(length_bytes)


def message(field: int, content: bytes) -> bytes:
    """An embedded message, a `bytes` field or a packed field."""
    return message_head(field, len(content)) + content


def text(field: int, content: str) -> bytes:
    """A `string` field; nothing at all if it is empty, as proto3 has it."""
    return message(field, content.encode()) if content else b""
