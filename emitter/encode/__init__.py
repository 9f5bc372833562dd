"""A snapshot as bytes. Knows nothing of sockets, and of what is counted only its snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from emitter.encode.otlp import OtlpEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emitter.record.snapshot import Snapshot

__all__ = ["ENCODERS", "Encoder"]


class Encoder(Protocol):
    """What turns a snapshot into the body of one request. Each emitter has one of its own."""

    content_type: str
    """The media type of what `encode` returns."""

    def encode(self, snapshot: Snapshot) -> bytes | bytearray:
        """The body of one report; good until the next call, so that a buffer can be used again."""
        ...  # pragma: no cover  a protocol's body is never run


ENCODERS: Mapping[str, type[Encoder]] = {"otlp": OtlpEncoder}
"""The encoders that can be asked for by name."""
