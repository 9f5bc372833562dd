"""Owns what the reports of a sandbox say: which totals, since when, in how many requests. Never sees a connection.

What a report may say depends on what became of those before it:

- A series of which no receiver has heard is `fresh`: in formats without start times a zero goes before its first
  value, since Prometheus takes the first value of a series for where it has always stood (prometheus/prometheus#1673).
  A report is taken for received as soon as it was written, until its answer or the end of its connection says
  otherwise. Then the zeros go out again, at the time at which they stood: a later one would be a restart to a receiver
  that has the value already. And in a request of their own, each with its value behind it, since Prometheus refuses
  the whole of a request for one sample that is older than the last; so what it knows already costs no report. (A value
  that comes twice with the same time changes nothing.)
- Under deltas, what was written never goes out again, whatever became of it; a divided report counts as a whole.
- A report that was divided is accepted once each of its requests was.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from emitter.encode.compress import gzipped
from emitter.encode.parts import Parts
from emitter.outcomes import Outcome
from emitter.record.deltas import Deltas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emitter.outcomes import Verdict
    from emitter.record.registry import Registry
    from emitter.record.snapshot import Metric, Point, Snapshot
    from emitter.settings import Settings

__all__ = ["Reports"]

_Request = TypeVar("_Request")

_LIMIT_ZERO_AGE_NANO = 300 * 10**9
"""How long before its first value a series is said to have been zero, at most. Prometheus refuses a whole report for a
sample that is an hour older than its newest; a sandbox may have waited for its first invocation for longer."""

_LIMIT_REPEATS = 3
"""How often zeros go out again. Whoever is frozen between rare events may never see an answer, and each time they are
as likely to have been received as the first time."""

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
    zeros: int  # requests, answered before the others, that introduce series again
    unwritten: int  # requests, those included
    unanswered: int  # the same
    written: bool = False  # any of it
    refused: bool = False


class Reports(Generic[_Request]):
    """Makes the reports of one registry, as requests.

    Args:
        registry: The totals.
        settings: The encoder, and how large reports may be.
        as_request: Makes a request of its body, and of whether that is in gzip format; called at once for each body,
            since an encoder may use its buffer again for the next.
    """

    def __init__(
        self, registry: Registry, settings: Settings, as_request: Callable[[bytes | bytearray, bool], _Request]
    ) -> None:
        encoder = settings.encoder
        self._registry = registry
        self._as_request = as_request
        self._encoder = encoder
        self._parts = Parts(encoder, settings.report_limit_bytes)
        coded = any(name.lower() == "content-encoding" for name in encoder.headers)
        self._compress = settings.compress and not coded
        self._with_deltas = settings.deltas
        self._with_zeros = encoder.zeros and not settings.deltas
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a sandbox that nobody has heard of."""
        self._deltas = Deltas() if self._with_deltas else None
        self._latest = _Pending(_NOTHING, _NOTHING, zeros=0, unwritten=0, unanswered=0)  # the one made last
        self._pending: dict[int, _Pending] = {}
        self._confirmed = _NOTHING  # what a receiver has said
        self._assumed = _NOTHING  # what the next report takes for known
        self._written = 0  # how many series were ever in a report that was written
        self._oldest_zero_unix_nano = 0  # of the zeros that nobody has confirmed
        self._repeats = 0  # how often those went out again

    @property
    def divided(self) -> bool:
        """Whether the totals of the last report took several requests."""
        return len(self._parts) > 1

    def make(self, number: int) -> list[_Request]:
        """The requests of one report with the totals as they are now.

        Args:
            number: By which the report is called in what is noted about it.
        """
        known = self._assumed
        snapshot = self._registry.snapshot(
            introduced=known.series if self._with_zeros else sys.maxsize, known_unix_nano=known.time_unix_nano
        )
        repeated = bool(snapshot.fresh) and known.series < self._written  # perhaps it was introduced before
        if snapshot.fresh:
            zero = self._oldest_zero_unix_nano if repeated else self._first_zero(snapshot)
            snapshot = replace(snapshot, zero_time_unix_nano=zero)
        if self._deltas is not None:
            snapshot = self._deltas.of(snapshot)
        bodies = self._parts.encode(replace(snapshot, fresh=()) if repeated else snapshot)
        requests = [self._request(body) for body in bodies]
        # As the report itself is divided, since each part may have been received or not.
        repeats = self._parts.divided(snapshot) if repeated else []
        zeros = [self._request(body) for part in repeats for body in self._zeros(part)]
        requests = zeros + requests
        if not self._latest.written:  # then it never will be, and nobody will ever answer it
            self._pending = {number: each for number, each in self._pending.items() if each.written}
        self._latest = self._pending[number] = _Pending(
            known,
            _Known(self._registry.reported_series, snapshot.time_unix_nano),
            zeros=len(zeros),
            unwritten=len(requests),
            unanswered=len(requests),
        )
        return requests

    def _first_zero(self, snapshot: Snapshot) -> int:
        zero = max(snapshot.zero_time_unix_nano, snapshot.time_unix_nano - _LIMIT_ZERO_AGE_NANO)
        if self._confirmed.series >= self._written:
            self._oldest_zero_unix_nano = zero
            self._repeats = 0
        return zero

    def _zeros(self, snapshot: Snapshot) -> Iterator[bytes | bytearray]:
        """Everything fresh that grows, with its zero and its value; nothing if nothing does."""
        metrics: list[Metric] = []
        points: list[Point] = []
        fresh = set(snapshot.fresh)
        first = 0
        for metric in snapshot.metrics:
            positions = [each for each in range(first, first + len(metric.series)) if each in fresh]
            if positions and metric.kind in {"counter", "histogram"}:
                metrics.append(replace(metric, series=tuple(metric.series[each - first] for each in positions)))
                points += [snapshot.points[each] for each in positions]
            first += len(metric.series)
        if metrics:
            every = tuple(range(len(points)))
            only = replace(snapshot, metrics=tuple(metrics), points=tuple(points), fresh=every)
            yield copy.copy(self._encoder).encode(only)

    def _request(self, body: bytes | bytearray) -> _Request:
        packed = gzipped(body) if self._compress else None
        return self._as_request(body, False) if packed is None else self._as_request(packed, True)

    def note_written(self) -> None:
        """One more request of the report that was made last may have left this process, or a part of it."""
        latest = self._latest
        latest.written = True
        latest.unwritten -= 1
        if not latest.unwritten:
            self._repeats += latest.zeros > 0
            if self._repeats == _LIMIT_REPEATS:
                self._confirmed = latest.known
            self._assumed = latest.known
        self._written = self._registry.reported_series
        if self._deltas is not None:
            self._deltas.settle()

    def note_answer(self, verdict: Verdict) -> Outcome | None:
        """One of its requests was answered.

        Returns:
            What that makes of the whole report: accepted by now, or refused; `None` if it leaves that open.
        """
        number, outcome = verdict.report, verdict.outcome
        refused = outcome is not Outcome.ACCEPTED
        pending = self._pending.get(number)
        if pending is None:
            return outcome if refused else None
        pending.unanswered -= 1
        if pending.zeros:
            pending.zeros -= 1
            refused = refused and verdict.status not in _TOO_OLD  # if it says so, it knows more than zeros
        if refused:
            pending.refused = True
            self._doubt()
        if not pending.unanswered:
            # Answers come in order, so nothing will be heard of an earlier one that was not written in whole.
            self._pending = {other: each for other, each in self._pending.items() if other > number}
            if not pending.refused:
                self._confirmed = max(self._confirmed, pending.known)
                self._assumed = max(self._assumed, self._confirmed)
                return Outcome.ACCEPTED
        return outcome if refused else None

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
