"""Owns the errors that only those see who wait for an answer. Knows nothing of what raises them."""

from __future__ import annotations

from emitter.errors import NetworkError, PeerError

__all__ = ["RefusedError", "UnansweredError"]


class RefusedError(PeerError):
    """The report got there, and was not accepted.

    Attributes:
        status: The HTTP status.
        proxy: Whether it was the proxy that refused to make a way to the receiver.
    """

    reason = "refused"

    def __init__(self, status: int, advice: str, *, proxy: bool = False) -> None:
        super().__init__(f"the {'proxy' if proxy else 'receiver'} answered {status}; {advice}")
        self.status = status
        self.proxy = proxy


class UnansweredError(NetworkError):
    """The time ended before the answer came; the receiver may have the report or not.

    Attributes:
        seconds: How much time there was.
    """

    reason = "unanswered"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer came within {seconds:.2g} s")
        self.seconds = seconds
