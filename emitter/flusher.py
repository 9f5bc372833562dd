"""Owns what a flush does, step by step: withhold, harvest, reuse or replace, encode, transmit, outcome.

Knows the rooms `record`, `encode` and `transmit`, which do not know one another. Nothing in here is needed before
an emitter is made, so this module, and not `client`, is where everything heavy is imported.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from emitter.errors import BudgetExceededError, ConnectionLostError, NetworkError, PeerError
from emitter.outcomes import Flush, Ledger, Outcome, Stats, Verdict, Withheld
from emitter.sharing import Shared
from emitter.transmit.connection import LIMIT_UNANSWERED, Connection
from emitter.transmit.delivery import Delivery
from emitter.transmit.http1 import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.encode import Encoder
    from emitter.record.registry import Registry
    from emitter.settings import Settings

__all__ = ["Flusher"]

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 1.0, 60.0
"""Seconds within which the next attempt falls by chance ("full jitter"); doubled with each failure in a row."""


class Flusher:
    """Gets the totals of one registry to one endpoint.

    Args:
        registry: The totals.
        encoder: Turns a snapshot into the body of a request.
        settings: Endpoint, headers and the rest.
        clock: Monotonic seconds.
        jitter: A random number from 0 up to 1.
    """

    def __init__(
        self,
        registry: Registry,
        encoder: Encoder,
        settings: Settings,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._encoder = encoder
        self._endpoint = settings.endpoint
        self._disabled = settings.disabled
        self._request = Request(
            settings.endpoint.target,
            settings.endpoint.authority,
            encoder.content_type,
            settings.request_headers,
        )
        self._clock = clock
        self._jitter = jitter
        self._shared: Shared[Flush | None] = Shared()
        self._ledger = Ledger(settings.endpoint.shown)
        self._connection: Connection | None = None
        # The number of the last report, and of the last one that was accepted, as counted by `emitter.flushes`.
        self._reported = 0
        self._accepted = 0
        self._failures_in_a_row = 0
        self._not_before = float("-inf")
        # Self-metrics: they ride along in every report, so that the receiver can tell how many it did not get.
        self._flushes = registry.counter(
            "emitter.flushes", unit="{report}", description="Reports attempted, this one included.", own=True
        ).bind()
        self._failures = registry.counter(
            "emitter.failures",
            unit="{report}",
            description="Reports that did not get as far as asked.",
            own=True,
        ).bind()
        self._withheld = registry.counter(
            "emitter.withheld", unit="{report}", description="Flushes that wrote no report.", own=True
        ).bind()

    @property
    def stats(self) -> Stats:
        """A frozen copy of the counts."""
        return self._ledger.stats(self._reported, self._registry.overflowed)

    async def flush(self, timeout: float, wanted: Delivery, *, last: bool = False) -> Flush:
        """Get one report out; see `Emitter.flush`. A `last` one is not held up by back-off."""
        started = self._clock()
        if self._disabled:
            return self._withhold(Withheld.DISABLED, started)
        flush = await self._shared.run(
            lambda: self._report(started, started + timeout, wanted, last=last),
            lambda other: other is not None and _suffices(other, wanted),
            timeout=timeout,
        )
        return self._withhold(Withheld.BUSY, started) if flush is None else flush

    async def connect(self, timeout: float) -> bool:
        """Open the connection ahead of time; see `Emitter.connect`."""
        deadline = self._clock() + timeout

        async def work() -> None:
            self._harvest()
            if self._connection is None:
                try:
                    await self._open(deadline)
                except NetworkError as error:
                    self._ledger.note_error(error)
                else:
                    self._rest()

        if not self._disabled:
            await self._shared.run(work, lambda _: False, timeout=timeout)
        return self._connection is not None

    async def close(self, timeout: float) -> None:
        """A last report, then an orderly close; see `Emitter.close`."""
        deadline = self._clock() + timeout
        await self.flush(timeout, Delivery.ACKNOWLEDGED, last=True)

        async def work() -> None:
            if self._connection is not None:
                try:
                    await self._connection.close(deadline=deadline)
                finally:
                    self._harvest()

        await self._shared.run(work, lambda _: False, timeout=max(0.0, deadline - self._clock()))

    async def _report(self, started: float, deadline: float, wanted: Delivery, *, last: bool) -> Flush:
        verdicts = self._harvest()  # first: it may tell that nothing has to be written, and it frees places
        reason = self._reason_to_withhold(last=last)
        if reason is not None:
            return self._withhold(reason, started, verdicts)
        self._reported += 1
        self._flushes.add()
        request = b""
        reached: Delivery | None = None
        error: NetworkError | None = None
        try:
            request = self._request.encode(self._encoder.encode(self._registry.snapshot()))
            reached = await self._transmit(request, wanted, deadline, verdicts)
            if reached < wanted and self._clock() >= deadline and self._connection is not None:
                error = BudgetExceededError(0, *self._connection.queues())
        except NetworkError as caught:
            error = caught
        except BaseException as unexpected:  # goes to the caller, but is counted all the same
            self._failures.add()
            cancelled = isinstance(unexpected, asyncio.CancelledError)
            self._ledger.failed["cancelled" if cancelled else "defect"] += 1
            raise
        finally:
            self._rest()
        if wanted is Delivery.ANSWERED:
            verdicts += self._harvest()  # the answer that was waited for
        self._settle(reached, error, len(request))
        written_bytes = len(request) if reached else 0
        return Flush(reached, None, error, written_bytes, self._clock() - started, tuple(verdicts))

    def _reason_to_withhold(self, *, last: bool) -> Withheld | None:
        if not last and self._clock() < self._not_before:
            return Withheld.BACKING_OFF
        if self._accepted == self._reported > 0 and not self._registry.changed:
            return Withheld.UNCHANGED
        if self._connection is not None and self._connection.unanswered >= LIMIT_UNANSWERED:
            return Withheld.UNANSWERED
        return None

    def _withhold(self, reason: Withheld, started: float, verdicts: list[Verdict] | None = None) -> Flush:
        self._ledger.note_withheld(reason)
        self._withheld.add()
        return Flush(None, reason, None, 0, self._clock() - started, tuple(verdicts or ()))

    def _harvest(self) -> list[Verdict]:
        """Read what arrived, without waiting, and give up a connection that has ended."""
        connection = self._connection
        if connection is None:
            return []
        verdicts = [Verdict(number, answer.status) for number, answer in connection.harvest()]
        for verdict in verdicts:
            self._ledger.note_verdict(verdict)
            if verdict.outcome is Outcome.ACCEPTED:
                self._accepted = verdict.report
        if connection.ended is not None:
            self._connection = None
            if connection.unanswered:  # perhaps received, perhaps not: the totals go out again either way
                self._ledger.failed["unanswered"] += connection.unanswered
            if isinstance(connection.ended, PeerError):
                self._ledger.note_error(connection.ended)
        return verdicts

    async def _transmit(self, request: bytes, wanted: Delivery, deadline: float, verdicts: list[Verdict]) -> Delivery:
        connection = self._connection or await self._open(deadline)
        try:
            return await connection.transmit(request, self._reported, wanted, deadline=deadline)
        except ConnectionLostError as error:
            if not error.untouched:
                raise
        # No byte was taken, so nothing can arrive twice: one fresh connection, once.
        verdicts += self._harvest()
        connection = await self._open(deadline)
        return await connection.transmit(request, self._reported, wanted, deadline=deadline)

    async def _open(self, deadline: float) -> Connection:
        endpoint = self._endpoint
        connection = await Connection.open(endpoint.host, endpoint.port, deadline=deadline, clock=self._clock)
        self._connection = connection
        self._ledger.connections_opened += 1
        return connection

    def _rest(self) -> None:
        if self._connection is not None:
            self._connection.rest()

    def _settle(self, reached: Delivery | None, error: NetworkError | None, request_bytes: int) -> None:
        ledger = self._ledger
        if reached is not None:
            ledger.bytes += request_bytes
            ledger.transmitted += reached >= Delivery.TRANSMITTED
        if error is None:
            ledger.note_delivered()
            self._failures_in_a_row = 0
        else:
            # Also when the bytes are on their way: a peer that takes the whole budget each time is not asked each time.
            self._failures.add()
            ledger.note_error(error)
            within = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** min(self._failures_in_a_row, 10))
            self._failures_in_a_row += 1
            self._not_before = self._clock() + within * self._jitter()


def _suffices(other: Flush, wanted: Delivery) -> bool:
    """Whether what became of somebody else's flush, begun after one's own was asked for, will do."""
    return other.withheld is Withheld.UNCHANGED or (other.delivery is not None and other.delivery >= wanted)
