"""Owns every exception of the project. Knows nothing of what raises them.

    EmitterError
    |-- UsageError                    you misused us: raised where the mistake is made
    |   |-- ConfigurationError        an endpoint, a header, a setting, an environment variable
    |   |-- InstrumentConflictError   one name, two different instruments
    |   `-- RecordingError            a value or an attribute that cannot be counted
    |-- PeerError                     the peer misbehaved
    |   |-- AnswerError               what arrived is not an HTTP answer we can accept
    |   `-- RefusedError              it answered, and does not take the report; for those who wait for the answer
    `-- NetworkError                  the network failed
        |-- CredentialsError          it has brought nothing that a report could be signed with
        |-- ConnectError              no connection could be opened
        |   `-- TlsError              the TLS handshake failed
        |-- ConnectionLostError       an open connection broke
        |-- BudgetExceededError       the time allowed ended before the delivery asked for was reached
        `-- UnansweredError           it ended before the answer came; for those who wait for it

Usage errors are raised to the caller. The other two branches never are, unless an emitter is `strict`:
they travel in `Flush.error` and in `Stats.last_error`.
"""

from __future__ import annotations

__all__ = [
    "AnswerError",
    "BudgetExceededError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "CredentialsError",
    "EmitterError",
    "InstrumentConflictError",
    "NetworkError",
    "PeerError",
    "RecordingError",
    "RefusedError",
    "TlsError",
    "UnansweredError",
    "UsageError",
]


class EmitterError(Exception):
    """The root of everything that this project raises.

    Attributes:
        reason: One word under which the error is counted in `Stats.failed`.
    """

    reason = "error"


class UsageError(EmitterError):
    """The caller asked for something that cannot be done; nothing was changed."""


class ConfigurationError(UsageError, ValueError):
    """A setting is missing, malformed or contradicts another one."""


class InstrumentConflictError(UsageError, ValueError):
    """A name that already belongs to an instrument was asked for with another kind, unit or boundaries."""


class RecordingError(UsageError, ValueError):
    """A value or an attribute was refused; no total was changed."""


class PeerError(EmitterError):
    """The peer did something that the protocol does not allow."""

    reason = "peer"


class AnswerError(PeerError):
    """What the peer wrote back is not an HTTP/1.1 answer within our limits; the connection is given up."""

    reason = "answer"


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


class NetworkError(EmitterError):
    """The network, or the machine at its other end, failed."""

    reason = "network"


class CredentialsError(NetworkError):
    """There are no credentials to sign a report with, or they have expired; the totals are kept."""

    reason = "credentials"


class ConnectError(NetworkError):
    """No connection could be opened.

    Attributes:
        host: The name or address that was tried.
        port: The TCP port that was tried.
        cause: What the operating system said, in words.
        unfinished: Whether only the budget ended: opening goes on where it stopped at the next flush.
    """

    reason = "connect"

    def __init__(self, host: str, port: int, cause: str, *, unfinished: bool = False) -> None:
        super().__init__(f"no connection to {host} port {port}: {cause}")
        self.host = host
        self.port = port
        self.cause = cause
        self.unfinished = unfinished


class TlsError(ConnectError):
    """The TLS handshake failed: the certificate was not accepted, or there was nothing to agree on."""

    reason = "tls"


class ConnectionLostError(NetworkError):
    """An open connection broke.

    Attributes:
        cause: What was seen of it, in words.
        untouched: Whether the kernel had taken no byte of the report, so that it can safely be written anew.
        retired: Whether it was we who gave it up, for its age or because it was idle: no fault of the peer.
    """

    reason = "lost"

    def __init__(self, cause: str, *, untouched: bool, retired: bool = False) -> None:
        super().__init__(f"the connection was {'given up' if retired else 'lost'}: {cause}")
        self.cause = cause
        self.untouched = untouched
        self.retired = retired


class BudgetExceededError(NetworkError):
    """The budget of a flush ended before the delivery that was asked for.

    Attributes:
        unwritten_bytes: How much of the report was still in this process (it was dropped with the connection).
        untransmitted_bytes: How much the kernel held that had not left the machine (it stays on its way).
        unacknowledged_bytes: How much the peer had not acknowledged, what had not left included.
    """

    reason = "budget"

    def __init__(self, unwritten_bytes: int, untransmitted_bytes: int, unacknowledged_bytes: int) -> None:
        super().__init__(
            f"the budget ended with {unwritten_bytes} bytes still in this process, "
            f"{untransmitted_bytes} not transmitted by the kernel and {unacknowledged_bytes} not acknowledged"
        )
        self.unwritten_bytes = unwritten_bytes
        self.untransmitted_bytes = untransmitted_bytes
        self.unacknowledged_bytes = unacknowledged_bytes


class UnansweredError(NetworkError):
    """The time ended before the answer came; the receiver may have the report or not.

    Attributes:
        seconds: How much time there was.
    """

    reason = "unanswered"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer came within {seconds:.2g} s")
        self.seconds = seconds
