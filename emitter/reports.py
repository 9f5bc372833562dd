"""Owns what the reports of a sandbox say: which totals, since when, in how many requests. Never sees a connection.

What a report may say depends on what became of those before it:

- A series of which no receiver has heard is `fresh`: in formats without start times a zero goes before its first
  value, since Prometheus takes the first value of a series for where it has always stood (prometheus/prometheus#1673).
  It must not go out again once it was received: a sample older than the last one spoils a whole report. So a report is
  taken for received as soon as it was written, until its answer or the end of its connection says otherwise.
- Under deltas, what was written never goes out again, whatever became of it.
- A report that was divided is accepted once each of its requests was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from emitter.encode.compress import gzipped
from emitter.encode.parts import Parts
from emitter.outcomes import Outcome
from emitter.record.deltas import Deltas
from emitter.transmit.http1 import Request

if TYPE_CHECKING:
    from emitter.outcomes import Verdict
    from emitter.record.registry import Registry
    from emitter.record.snapshot import Snapshot
    from emitter.settings import Settings

__all__ = ["Reports"]

_LIMIT_ZERO_AGE_NANO = 300 * 10**9
"""How long before its first value a series is said to have been zero, at most. Prometheus refuses a whole report for a
sample that is an hour older than its newest; a sandbox may have waited for its first invocation for longer."""

_TOO_OLD = frozenset([400, 409])
"""What is said to a sample that comes before the last one: by Prometheus, Mimir and Amazon Managed Prometheus, and by
Thanos."""


class _Known(NamedTuple):
    """Of how many series a receiver has heard, and when last."""

    series: int
    time_unix_nano: int


_NOTHING = _Known(0, 0)


@dataclass(slots=True)
class _Pending:
    """A report that was made, and not yet answered in whole."""

    base: _Known  # what it takes for known
    known: _Known  # what is known once it was received
    repeated: bool  # whether it introduces series that an earlier report may have introduced already
    unwritten: int  # requests
    unanswered: int  # requests
    written: bool = False  # any of it
    refused: bool = False
    heard_of: bool = False  # a request was refused for telling again what the receiver knew


class Reports:
    """Makes the reports of one registry, as requests.

    Args:
        registry: The totals.
        settings: The encoder, where reports go and how large they may be.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        encoder = settings.encoder
        self._registry = registry
        self._request = Request(
            settings.endpoint.target,
            settings.endpoint.authority,
            encoder.content_type,
            settings.request_headers,
            encoder.headers,
        )
        self._parts = Parts(encoder, settings.report_limit_bytes)
        coded = any(name.lower() == "content-encoding" for name in encoder.headers)
        self._compress = settings.compress and not coded
        self._with_deltas = settings.deltas
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a sandbox that nobody has heard of."""
        self._deltas = Deltas() if self._with_deltas else None
        self._latest = _Pending(_NOTHING, _NOTHING, repeated=False, unwritten=0, unanswered=0)  # the one made last
        self._pending: dict[int, _Pending] = {}
        self._confirmed = _NOTHING  # what a receiver has said
        self._assumed = _NOTHING  # what the next report takes for known
        self._written = 0  # how many series were ever in a report that was written
        self._oldest_zero_unix_nano = 0  # of the zeros that nobody has confirmed

    def make(self, number: int, cookies: bytes) -> list[bytes]:
        """The requests of one report with the totals as they are now.

        Args:
            number: By which the report is called in what is noted about it.
            cookies: The whole field, its line break included; empty for none.
        """
        known = self._assumed
        repeated = known.series < self._written
        snapshot = self._registry.snapshot(introduced=known.series, known_unix_nano=known.time_unix_nano)
        if snapshot.fresh:
            snapshot = replace(snapshot, zero_time_unix_nano=self._zero_time(snapshot, repeated=repeated))
        if self._deltas is not None:
            snapshot = self._deltas.of(snapshot)
        requests = [self._as_request(body, cookies) for body in self._parts.encode(snapshot)]
        if not self._latest.written:  # then it never will be, and nobody will ever answer it
            self._pending = {number: each for number, each in self._pending.items() if each.written}
        self._latest = self._pending[number] = _Pending(
            known,
            _Known(self._registry.reported_series, snapshot.time_unix_nano),
            repeated,
            unwritten=len(requests),
            unanswered=len(requests),
        )
        return requests

    def _zero_time(self, snapshot: Snapshot, *, repeated: bool) -> int:
        if repeated:
            # Where it stood, however long ago: a receiver may have the value that came after it, and would take a zero
            # behind that for a restart. One that has it says so (Prometheus), or sees nothing new (the others).
            return self._oldest_zero_unix_nano
        zero = max(snapshot.zero_time_unix_nano, snapshot.time_unix_nano - _LIMIT_ZERO_AGE_NANO)
        if self._confirmed.series >= self._written:
            self._oldest_zero_unix_nano = zero
        return zero

    def _as_request(self, body: bytes | bytearray, cookies: bytes) -> bytes:
        packed = gzipped(body) if self._compress else None
        return self._request.encode(body if packed is None else packed, cookies, gzip=packed is not None)

    def note_written(self) -> None:
        """One more request of the report that was made last may have left this process, or a part of it."""
        latest = self._latest
        latest.written = True
        latest.unwritten -= 1
        if not latest.unwritten:
            self._assumed = latest.known
        self._written = self._registry.reported_series
        if self._deltas is not None:
            self._deltas.settle()

    def note_answer(self, verdict: Verdict) -> bool:
        """One of its requests was answered.

        Returns:
            Whether the whole report is accepted by now.
        """
        number = verdict.report
        pending = self._pending.get(number)
        if pending is None:
            return False
        pending.unanswered -= 1
        if verdict.outcome is not Outcome.ACCEPTED:
            if verdict.status in _TOO_OLD and pending.repeated:
                pending.heard_of = True
            else:
                pending.refused = True
            self._doubt()
        if pending.unanswered:
            return False
        # Answers come in order, so nothing will be heard of an earlier one that was not written in whole.
        self._pending = {other: each for other, each in self._pending.items() if other > number}
        if pending.refused:
            return False
        self._confirmed = max(self._confirmed, pending.known)
        self._assumed = max(self._assumed, self._confirmed)
        return not pending.heard_of

    def note_lost(self) -> None:
        """The connection has ended: nobody will ever answer what was written and is unanswered."""
        self._pending = {number: each for number, each in self._pending.items() if not each.written}
        self._doubt()

    def _doubt(self) -> None:
        """Perhaps nobody has heard of what is not confirmed: it is to be introduced again."""
        self._assumed = self._confirmed
        for each in (*self._pending.values(), self._latest):
            if each.base > self._confirmed:  # it took for known what it should have introduced
                each.known = self._confirmed
