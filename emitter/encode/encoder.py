"""Owns what an encoder is: the contract, and how a function becomes one. Knows no format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from emitter.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emitter.record.snapshot import Metric, Snapshot

__all__ = ["Encoder", "FunctionEncoder", "as_encoder"]


class Encoder(ABC):
    """What turns a snapshot into the body of one request. Each emitter has one of its own.

    What comes out depends on the snapshot alone; an encoder may remember the layout of the last one, to save time.
    Of a report too large for one request each part is encoded by a `copy.copy` of the encoder.
    """

    content_type: str
    """The media type of what `encode` returns."""

    headers: Mapping[str, str] = {}
    """Further header fields that the format asks for. With a `Content-Encoding` among them a body is never put into
    gzip: it is packed already."""

    deltas: ClassVar[bool] = True
    """Whether the format can carry anything but running totals."""

    zeros: ClassVar[bool] = False
    """Whether a zero goes before the first value of a series, because the format has no start times. Only then are
    series ever `fresh`."""

    tick_nano: ClassVar[int] = 1
    """The smallest step of time that the format can tell, in nanoseconds: reports are at least that far apart."""

    def unpacked_bytes(self, body: bytes | bytearray) -> int:
        """How large a body is to whoever reads it: what the limit of a request's size means."""
        return len(body)

    def names(self, metric: Metric) -> tuple[str, ...]:
        """The names under which the receiver will know a metric, which no other one may have.

        Asked when an instrument is made; the metric has no series then.

        Raises:
            ConfigurationError: The format cannot carry the name; what its rule is.
        """
        return (metric.name,)

    @abstractmethod
    def encode(self, snapshot: Snapshot) -> bytes | bytearray:
        """The body of one request; good until the next call, so that a buffer can be used again."""


class FunctionEncoder(Encoder):
    """An encoder out of a function; see `as_encoder`."""

    def __init__(self, function: Callable[[Snapshot], bytes], content_type: str, headers: Mapping[str, str]) -> None:
        self._function = function
        self.content_type = content_type
        self.headers = headers

    def __repr__(self) -> str:
        return f"<encoder {getattr(self._function, '__name__', 'without a name')!r} of {self.content_type}>"

    def encode(self, snapshot: Snapshot) -> bytes | bytearray:
        """What the function returns."""
        body = self._function(snapshot)
        if not isinstance(body, (bytes, bytearray)):
            raise UsageError(f"{self!r} returned a {type(body).__name__}; expected bytes")
        return body


def as_encoder(
    content_type: str, *, headers: Mapping[str, str] | None = None
) -> Callable[[Callable[[Snapshot], bytes]], FunctionEncoder]:
    """Make an encoder out of a function that takes a `Snapshot` and returns the body of a request as bytes.

        @as_encoder("text/csv")
        def csv(snapshot): ...

        metrics = Emitter("https://metrics.example.com/csv", encoder=csv)

    Args:
        content_type: The media type of what the function returns.
        headers: Further header fields of each request.

    Raises:
        ConfigurationError: What is decorated cannot be called, or the content type is missing.
    """
    if not isinstance(content_type, str):
        raise ConfigurationError(
            f"as_encoder was given a {type(content_type).__name__}; expected a content type, as in "
            "@as_encoder('text/csv')"
        )

    def decorate(function: Callable[[Snapshot], bytes]) -> FunctionEncoder:
        if not callable(function):
            raise ConfigurationError(
                f"as_encoder was put on a {type(function).__name__}; expected a function that takes a snapshot"
            )
        return FunctionEncoder(function, content_type, headers or {})

    return decorate
