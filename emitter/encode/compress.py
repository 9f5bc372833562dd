"""Owns when and how a body is put into gzip. Knows no format and no header."""

from __future__ import annotations

import zlib

__all__ = ["THRESHOLD_BYTES", "gzipped"]

THRESHOLD_BYTES = 12 * 1024
"""Up to here a request leaves in one flight as it is (ten segments, some 14 KB), and compressing would only cost."""

_FASTEST = 1
"""Level: reports repeat themselves so much that the highest saves little more, at several times the cost."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's way to ask for the gzip format (RFC 1952) and not its own. There is no time in its header, so equal bodies
make equal bytes."""


def gzipped(body: bytes | bytearray) -> bytes | None:
    """A body in gzip format; `None` if it is too small to gain anything, or does not get smaller."""
    if len(body) <= THRESHOLD_BYTES:
        return None
    deflate = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
    packed = deflate.compress(body) + deflate.flush()
    return packed if len(packed) < len(body) else None
