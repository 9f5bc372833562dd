"""Owns the rows of the fault matrix: which fault, on what way, and under which reason failures are to be counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from emitter.outcomes import Withheld
from emitter.transmit.opening import LIMIT_HANDSHAKE_AGE
from tests.faults import server

__all__ = ["ROWS", "Row", "Way"]


class Way(Enum):
    """How the endpoint is reached, and with it what of the fault is not the peer's."""

    ADDRESS = "an address"
    """The peer misbehaves, and nothing else."""
    CABLE = "a cable that swallows everything"
    """The peer is sound, and in another namespace."""
    NO_SUCH_NAME = "a name that does not resolve"
    HANGING_NAME = "a name whose resolver does not return"
    FIRST_REFUSES = "a name with two addresses, of which the first refuses"
    FIRST_SWALLOWS = "a name with two addresses, of which the first swallows"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    Attributes:
        name: What the table calls it.
        fault: The script (or the absence) that the peer plays.
        reasons: What failures are counted under in `Stats.failed`: nothing else, and at least one of them. Empty:
            nothing fails.
        tls: Whether the endpoint is https.
        way: How the endpoint is reached.
        big: Whether a report has more than 300 KB, instead of less than 2, and meets small buffers.
        backs_off: Whether time is waited for after a failure, as it is outside of this matrix.
        withheld: Why flushes that meet the fault are withheld, most of them; `None`: hardly any is.
        delivers: Whether reports are accepted while it lasts: it is a nuisance, and nothing has to be logged.
        stalls: Whether it takes the whole budget of most invocations, which shows that it is what it says.
        later: Seconds that go by, on the emitter's clocks, before each invocation once the fault has ended.
    """

    name: str
    fault: str = "sound"
    reasons: frozenset[str] = field(default_factory=frozenset)
    tls: bool = False
    way: Way = Way.ADDRESS
    big: bool = False
    backs_off: bool = False
    withheld: Withheld | None = None
    delivers: bool = False
    stalls: bool = False
    later: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} (TLS)" if self.tls else self.name


_CONNECT = frozenset(["connect"])
_TLS = frozenset(["tls"])
_ANSWER = frozenset(["answer", "unanswered"])
_LOST = frozenset(["lost", "unanswered"])
_BUDGET = frozenset(["budget", "unanswered"])

_BACK_OFF = 61.0
"""Seconds: more than the longest back-off."""

_STALE = LIMIT_HANDSHAKE_AGE + 1
"""Seconds after which an opening that stalls is given up; its peer never says another word."""

_RETRY_AFTER = 31.0
"""Seconds: what the peer of that row asks for, and one."""


def _no_connection() -> list[Row]:
    return [
        Row("refused", server.REFUSED, _CONNECT),
        Row("SYN swallowed by the network", reasons=_CONNECT, way=Way.CABLE, stalls=True),
        Row("SYN swallowed by a full backlog", server.FULL, _CONNECT, stalls=True),
        Row("name does not resolve", reasons=_CONNECT, way=Way.NO_SUCH_NAME),
        Row("resolver hangs", reasons=_CONNECT, way=Way.HANGING_NAME, stalls=True),
        Row("first of two addresses refuses", way=Way.FIRST_REFUSES, delivers=True),
        Row("first of two addresses swallows", reasons=_CONNECT, way=Way.FIRST_SWALLOWS, delivers=True),
    ]


def _broken_connection(*, tls: bool) -> list[Row]:
    return [
        Row("reset before the request", "reset at once", _LOST if tls else _LOST | _CONNECT, tls=tls),
        Row("reset in the middle of the request", "reset in the middle of the request", _LOST, tls=tls, big=True),
        Row("reset after the request", "reset after the request", _LOST, tls=tls),
        Row("reset in the middle of the answer", "reset in the middle of the answer", _LOST, tls=tls),
        Row("close before the request", "close at once", _LOST, tls=tls),
        Row("close after the request", "close after the request", _LOST, tls=tls),
        Row("close in the middle of the answer", "close in the middle of the answer", _LOST, tls=tls),
        Row("close when idle", "close when idle", tls=tls, delivers=True),
        Row("zero window, 300 KB", "never read", _BUDGET | _LOST, tls=tls, big=True, stalls=True),
        Row("never answers", "never answer", tls=tls, withheld=Withheld.UNANSWERED, later=_BACK_OFF),
    ]


def _odd_answers(*, tls: bool, faults: tuple[str, ...]) -> list[Row]:
    # Who answers and closes before there is a request may be faster than the first byte of it.
    early = "HTTP/2 before the request"
    return [Row(fault, fault, _ANSWER | _LOST if fault == early else _ANSWER, tls=tls) for fault in faults]


_EVERY_ODD_ANSWER = (
    "garbage",
    "no status",
    "control characters in a header",
    "endless headers",
    "one endless header",
    "endless body by length",
    "endless body in chunks",
    "endless body in chunks of one byte",
    "endless body until close",
    "HTTP/2 before the request",
    "HTTP/2 for an answer",
    "a flood of interim answers",
    "101 Switching Protocols",
    "both length and chunks",
    "two different lengths",
)


def _sound_but_odd(*, tls: bool) -> list[Row]:
    return [
        Row("HTTP/1.0", "HTTP/1.0", tls=tls, delivers=True),
        Row("Connection: close on each answer", "ask to close", tls=tls, delivers=True),
        Row("an answer in a trickle", "trickle", tls=tls, withheld=Withheld.UNANSWERED, delivers=True),
        Row("three interim answers each", "three interim answers each", tls=tls, delivers=True),
    ]


def _refusals() -> list[Row]:
    return [
        Row("an answer too many", "an answer too many", delivers=True),
        *(Row(f"status {status}", f"status {status}") for status in (301, 401, 429, 500, 502)),
        Row("status 503, Retry-After: 30", "status 503", withheld=Withheld.BACKING_OFF, later=_RETRY_AFTER),
    ]


def _tls_only() -> list[Row]:
    failing = (
        "certificate of another name",
        "certificate of an unknown authority",
        "expired certificate",
        "TLS 1.1 only",
        "reset after the ClientHello",
        "reset in the server's flight",
        "close after the ClientHello",
        "plain HTTP instead of TLS",
        "garbage in the handshake",
        "endless handshake",
    )
    stalling = (
        "handshake stalls after accept",
        "handshake stalls after the ClientHello",
        "handshake stalls in the server's flight",
    )
    harmless = (
        "a key update with each answer",
        "close with a close alert",
        "close without a close alert",
    )
    lost = (
        "a client certificate is demanded",
        "reset after the server's flight",
        "garbage after the handshake",
        "forged record after the handshake",
        "half a record, then close",
        "a flood of key updates",
        "a flood of key updates that demand others",
    )
    return [
        *(Row(fault, fault, _TLS, tls=True) for fault in failing),
        # Which of the two depends on who is faster.
        Row("reset before the ClientHello", "reset before the ClientHello", _TLS | _CONNECT, tls=True),
        *(Row(fault, fault, _CONNECT, tls=True, stalls=True, later=_STALE) for fault in stalling),
        Row("handshake slower than the budget", "handshake slower than the budget", _CONNECT, tls=True, delivers=True),
        *(Row(fault, fault, _LOST, tls=True) for fault in lost),
        Row("a flood of session tickets", "a flood of session tickets", _LOST, tls=True),
        *(Row(fault, fault, tls=True, delivers=True) for fault in harmless),
    ]


def _backing_off() -> list[Row]:
    patient: dict[str, Any] = {"backs_off": True, "withheld": Withheld.BACKING_OFF, "later": _BACK_OFF}
    return [
        Row("refused, backing off", server.REFUSED, _CONNECT, **patient),
        Row("SYN swallowed by a full backlog, backing off", server.FULL, _CONNECT, **patient),
        Row("zero window, 300 KB, backing off", "never read", _BUDGET | _LOST, big=True, **patient),
        Row("reset after the request, backing off", "reset after the request", _LOST, **patient),
        Row("status 500, backing off", "status 500", **patient),
        Row("expired certificate, backing off", "expired certificate", _TLS, tls=True, **patient),
        Row(
            "handshake stalls after the ClientHello, backing off",
            "handshake stalls after the ClientHello",
            _CONNECT,
            tls=True,
            **patient,
        ),
    ]


ROWS: tuple[Row, ...] = (
    *_no_connection(),
    *_broken_connection(tls=False),
    *_odd_answers(tls=False, faults=_EVERY_ODD_ANSWER),
    *_sound_but_odd(tls=False),
    *_refusals(),
    *_tls_only(),
    *_broken_connection(tls=True),
    *_odd_answers(tls=True, faults=("garbage", "endless body in chunks", "HTTP/2 for an answer")),
    *_sound_but_odd(tls=True),
    *_backing_off(),
)
