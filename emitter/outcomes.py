"""Owns what is known of reports: the nouns that tell the user, the counts, and the log lines.

Nothing here decides anything. Every report that is lost or withheld raises a count with a reason, and each change
of state is logged once, never once for every invocation.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from emitter.errors import BudgetExceededError, PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emitter.errors import EmitterError
    from emitter.transmit.delivery import Delivery

__all__ = ["Flush", "Ledger", "Outcome", "Stats", "Verdict", "Withheld"]

_log = logging.getLogger("emitter")

_MANY_IN_A_ROW = 3
"""Flushes without delivery that are too many to be chance: the budget is smaller than the way."""

_DEFERRED = frozenset([429, 502, 503, 504])  # OTLP specification, "Retryable Response Codes"


class Outcome(Enum):
    """What an answer says of the report that it answers."""

    ACCEPTED = "accepted"
    """2xx: the receiver has the totals."""
    DEFERRED = "deferred"
    """429, 502, 503 or 504: not now; the next report carries the totals again."""
    REJECTED = "rejected"
    """Anything else: the receiver will not take reports like this one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the receiver said of one earlier report.

    Attributes:
        report: The number of that report, as in the self-metric `emitter.flushes`.
        status: The HTTP status.
    """

    report: int
    status: int

    @property
    def outcome(self) -> Outcome:
        """What the status means."""
        if 200 <= self.status < 300:
            return Outcome.ACCEPTED
        return Outcome.DEFERRED if self.status in _DEFERRED else Outcome.REJECTED


class Withheld(Enum):
    """Why a flush wrote no report. The totals stay, and go out with a later one."""

    DISABLED = "disabled"
    """The emitter is switched off."""
    BACKING_OFF = "backing off"
    """The last attempt failed, or the receiver did not take the report, and it is too early for the next."""
    INTERVAL = "interval"
    """The interval that was asked for has not passed since the last report."""
    UNCHANGED = "unchanged"
    """Nothing was recorded since a report that was accepted."""
    UNANSWERED = "unanswered"
    """Too many reports on the connection wait for their answer."""
    BUSY = "busy"
    """Another flush took up the whole budget of this one."""


@dataclass(frozen=True, slots=True)
class Flush:
    """What became of one flush.

    Attributes:
        delivery: How far the report got, at least; `None` if it was not even buffered.
        withheld: Why no report was written; `None` if one was.
        error: Why the delivery asked for was not reached; `None` if it was, or if the report was withheld.
        bytes: Size of the request, head included; 0 if none was written.
        seconds: How long the flush took.
        verdicts: What arrived meanwhile about earlier reports, oldest first.
    """

    delivery: Delivery | None
    withheld: Withheld | None
    error: EmitterError | None
    bytes: int
    seconds: float
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the emitter was made.

    Attributes:
        flushes: Attempts to get a report out; the self-metric `emitter.flushes`.
        transmitted: Those that got at least as far as TRANSMITTED.
        withheld: By reason, flushes that wrote no report.
        failed: By reason, what went wrong with the network or with an answer: the `reason` of an error, `unanswered`
            reports of a connection that ended, a dropped `cookie`, a flush that was `cancelled`, a `defect`.
        verdicts: By HTTP status, answers harvested.
        connections_opened: How many connections were opened.
        bytes: Sizes of all requests that were written, heads included.
        overflowed: How often a recording, or a binding, was given an overflow series.
        last_error: The last thing that went wrong; `None` if nothing ever did.
    """

    flushes: int
    transmitted: int
    withheld: Mapping[Withheld, int]
    failed: Mapping[str, int]
    verdicts: Mapping[int, int]
    connections_opened: int
    bytes: int
    overflowed: int
    last_error: EmitterError | None


class Ledger:
    """The counts, and the state that was last logged."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._undelivered_in_a_row = 0
        # By whose it is, what was logged since it was last well: two troubles that take turns are two lines.
        self._troubles: dict[str, set[str]] = {"network": set(), "receiver": set()}
        self.transmitted = 0
        self._lock = threading.Lock()
        self._withheld: Tally[Withheld] = Tally()
        self.failed: Tally[str] = Tally()
        self.verdicts: Tally[int] = Tally()
        self.connections_opened = 0
        self.bytes = 0
        self.last_error: EmitterError | None = None

    def note_withheld(self, reason: Withheld) -> None:
        """Count a flush that wrote no report; the one count that flushes come to at the same time."""
        with self._lock:
            self._withheld[reason] += 1
        if reason is Withheld.UNANSWERED:
            self._note("receiver", reason.value, "too many wait for their answer; the receiver may be overloaded")
        if reason is Withheld.BUSY:
            self._note(
                "network",
                reason.value,
                "another flush took up the whole budget of this one (is one left in a loop that no longer runs?)",
            )

    def note_delivered(self) -> None:
        """A report got as far as asked."""
        self._undelivered_in_a_row = 0
        self._note_well("network", "get through", {BudgetExceededError.reason, Withheld.BUSY.value})

    def note_unanswered(self, reports: int, why: EmitterError) -> None:
        """A connection ended with reports that nobody will answer: perhaps received, perhaps not."""
        self.failed["unanswered"] += reports
        self.last_error = why

    def note_fruitless(self, why: EmitterError) -> None:
        """Another connection in a row ended without a single answer; log it once."""
        self._note("receiver", "fruitless", f"nothing is answered; {why}")

    def note_undelivered(self, budget: float, round_trip: float, waited: float) -> None:
        """A flush whose budget ended too early, or that was withheld after one; the third in a row is logged.

        Args:
            budget: Seconds that the flush had.
            round_trip: Seconds, as TCP has measured them; 0.0 if nothing came back so far.
            waited: Seconds since the connection began to be opened.
        """
        self._undelivered_in_a_row += 1
        if self._undelivered_in_a_row == _MANY_IN_A_ROW:
            measured = (
                f"the round trip takes {round_trip * 1e3:.0f} ms"
                if round_trip
                else f"nothing has come back in {waited * 1e3:.0f} ms"
            )
            _log.warning(
                "reports to %s: %d flushes in a row have delivered nothing. The budget is %.0f ms, and %s; a new "
                "connection takes one round trip, two or three with TLS. Raise timeout= or EMITTER_TIMEOUT, or open "
                "the connection ahead of time with connect_sync()",
                self._endpoint,
                _MANY_IN_A_ROW,
                budget * 1e3,
                measured,
            )

    def note_error(self, error: EmitterError) -> None:
        """Count what went wrong; log it if things went right before, or went wrong in another way."""
        self.failed[error.reason] += 1
        self.last_error = error
        whose = "receiver" if isinstance(error, PeerError) else "network"
        self._note(whose, error.reason, str(error))

    def note_verdict(self, verdict: Verdict, whole: Outcome | None, *, far_behind: bool) -> None:
        """Count an answer; log it if the receiver changed its mind.

        Args:
            verdict: What the answer says.
            whole: What it makes of the whole report; `None` if it leaves that open.
            far_behind: Whether many are unanswered yet; then it is not well again.
        """
        status = verdict.status
        self.verdicts[status] += 1
        self._undelivered_in_a_row = 0
        # Only an answer shows that they get there; but not that they do so within the budget.
        troubles = self._troubles["network"] - {BudgetExceededError.reason, Withheld.BUSY.value}
        self._note_well("network", "get through", troubles)
        if whole is Outcome.ACCEPTED:
            if not far_behind:
                self._note_well("receiver", "are accepted", set(self._troubles["receiver"]))
        elif whole is not None:
            advice = _ADVICE.get(status, "see what the receiver logs about it")
            self._note("receiver", str(status), f"answered {status} ({verdict.outcome.value}); {advice}")

    def _note(self, whose: str, trouble: str, text: str) -> None:
        """Log a change of state. Network and receiver are apart, since each can be well while the other is not."""
        if trouble not in self._troubles[whose]:
            self._troubles[whose].add(trouble)
            _log.warning("reports to %s: %s. Totals are kept and go out with a later report", self._endpoint, text)

    def _note_well(self, whose: str, text: str, over: set[str]) -> None:
        """Some troubles are over; log it once there is none left."""
        troubles = self._troubles[whose]
        if troubles & over:
            troubles -= over
            if not troubles:
                _log.info("reports to %s %s again", self._endpoint, text)

    def stats(self, flushes: int, overflowed: int) -> Stats:
        """A frozen copy of the counts."""
        return Stats(
            flushes,
            self.transmitted,
            MappingProxyType(dict(self._withheld)),
            MappingProxyType(dict(self.failed)),
            MappingProxyType(dict(self.verdicts)),
            self.connections_opened,
            self.bytes,
            overflowed,
            self.last_error,
        )


_CREDENTIALS = (
    "the credentials were refused: check headers= or EMITTER_HEADERS; with a signer, what the role may do, the region, "
    "the service and the clock"
)
_MOVED = "it is elsewhere, and redirects are not followed: put the address it names into the endpoint"
_NO_SUCH_PATH = (
    "nothing takes reports under this path: check the endpoint (/v1/metrics for OTLP; Prometheus takes remote write "
    "only with --web.enable-remote-write-receiver, and InfluxDB only into a database that exists)"
)
_UNWELL = "it is not well, or what stands behind it is not: see its log"

_ADVICE = {
    301: _MOVED,
    302: _MOVED,
    307: _MOVED,
    308: _MOVED,
    400: "it did not understand the report: check that the endpoint takes this encoder's format",
    401: _CREDENTIALS,
    403: _CREDENTIALS,
    404: _NO_SUCH_PATH,
    405: _NO_SUCH_PATH,
    407: "the proxy wants to know who asks: put user and password into its URL",
    411: "something on the way has dropped Content-Length: a proxy that rewrites requests, most likely",
    413: "the report is too large for it: drop attributes that take many values, or raise its limit",
    415: "it takes another format: check the endpoint and encoder=",
    429: "it gets too many reports: flush less often, or raise its limit",
    500: _UNWELL,
    502: _UNWELL,
    503: _UNWELL,
    504: _UNWELL,
}
