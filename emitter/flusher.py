"""Owns what a flush does, step by step: withhold, harvest, reuse or replace, encode, transmit, outcome.

Knows the rooms `record`, `encode` and `transmit`, which do not know one another. Nothing in here is needed before
an emitter is made, so this module, and not `client`, is where everything heavy is imported.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from emitter import forking
from emitter.back_off import BackOff, chance
from emitter.clocks import Clocks
from emitter.errors import BudgetExceededError, ConnectError, ConnectionLostError, NetworkError, PeerError, TlsError
from emitter.link import Link
from emitter.outcomes import Flush, Ledger, Outcome, Stats, Verdict, Withheld
from emitter.posting import Posting
from emitter.record.self_metrics import SelfMetrics
from emitter.reports import Reports
from emitter.sharing import Shared
from emitter.transmit.connection import LIMIT_UNANSWERED
from emitter.transmit.cookies import CookieStore
from emitter.transmit.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.clocks import Moment
    from emitter.errors import EmitterError
    from emitter.record.registry import Registry
    from emitter.settings import Settings
    from emitter.transmit.connection import Connection
    from emitter.transmit.http1 import Answer

__all__ = ["Flusher"]


class Flusher:
    """Gets the totals of one registry to one endpoint.

    Args:
        registry: The totals.
        settings: Endpoint, encoder, headers and the rest.
        clocks: Both clocks.
        jitter: A random number from 0 up to 1.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        clocks: Clocks | None = None,
        jitter: Callable[[], float] = chance,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._endpoint = settings.endpoint
        self._clocks = clocks or Clocks()
        self._clock = self._clocks.monotonic
        self._jitter = jitter
        self._cookies = CookieStore(
            settings.sticky_cookies, target=settings.endpoint.target, secure=settings.endpoint.secure
        )
        posting = Posting(settings, self._cookies, self._clocks.wall)
        self._reports = Reports(registry, settings, posting.request)
        self._link = Link(settings.endpoint, settings.ssl_context, self._clocks)
        self._own = SelfMetrics(registry)
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        """What a sandbox has when it begins: no connection, no cookies, nothing reported, nothing known."""
        self._shared: Shared[Flush | None] = Shared()
        self._ledger = Ledger(self._endpoint.shown)
        # The number of the last report, and of the last one that was accepted, as counted by `emitter.flushes`.
        self._reported = 0
        self._accepted = 0
        # Apart, since the one can be well while the other is not.
        self._network = BackOff(self._clocks, self._jitter)
        self._receiver = BackOff(self._clocks, self._jitter)
        self._fruitless = 0  # connections in a row that were lost without a single answer
        self._one_by_one = False  # whether the requests of a divided report wait for one another's answers
        self._early: list[Verdict] = []  # what was harvested before a flush, for the next one to tell
        self._last: Moment | None = None  # when the last report was written
        self.cold_start = iter((1,))  # yields once: for the first invocation, whichever handler it is of

    def after_fork(self) -> None:
        """Go on as a new sandbox, in a forked child or after a restore, and leave the other's connection untouched."""
        self._registry.restart()
        self._reports.restart()
        self._cookies.clear()
        self._link.restart()
        self._begin()

    @property
    def stats(self) -> Stats:
        """A frozen copy of the counts."""
        self._ledger.connections_opened = self._link.opened
        return self._ledger.stats(self._reported, self._registry.overflowed)

    async def flush(self, timeout: float, wanted: Delivery, *, last: bool = False, every: float = 0.0) -> Flush:
        """Get one report out; see `Emitter.flush`.

        Args:
            timeout: Seconds for everything together.
            wanted: How far it is to get.
            last: Whether nothing is to hold it up but having nothing to say.
            every: Seconds that have to have passed since the last report.
        """
        started = self._clock()
        if self._settings.disabled:
            return self._withhold(Withheld.DISABLED, started)
        if self._too_early(every):
            return self._withhold(Withheld.INTERVAL, started)
        flush = await self._shared.run(
            lambda: self._report(started, timeout, wanted, last=last),
            lambda other: other is not None and _suffices(other, wanted),
            timeout=timeout,
        )
        return self._withhold(Withheld.BUSY, started) if flush is None else flush

    def _too_early(self, every: float) -> bool:
        return every > 0 and self._last is not None and self._clocks.since(self._last) < every

    def prepare(self) -> None:
        """Read the trust store, which takes longer than any budget, if the endpoint is https."""
        if not self._settings.disabled:
            with contextlib.suppress(TlsError):  # it fails again at the next handshake, which counts it
                self._link.prepare()

    async def freshen(self, *, every: float = 0.0) -> None:
        """Begin to replace a connection that cannot be used again, in a thread, and wait for nothing.

        Args:
            every: As for the flush that follows: while that would be withheld, nothing is begun.
        """

        async def work() -> None:
            self._early += self._harvest()
            if self._link.connection is None:
                waiting = self._network.waiting or self._receiver.waiting or self._too_early(every)
                self._link.go_ahead(anew=not waiting)

        if not self._settings.disabled:
            await self._shared.run(work, lambda _: False, timeout=0.0)

    async def connect(self, timeout: float) -> bool:
        """Open the connection ahead of time; see `Emitter.connect`."""
        deadline = self._clock() + timeout

        async def work() -> None:
            self._early += self._harvest()
            if self._link.connection is None:
                self.prepare()
                try:
                    connection = await self._link.open(deadline)
                except NetworkError as error:
                    self._ledger.note_error(error)
                else:
                    self._network.succeed()
                    await connection.prepare()
                    connection.rest()

        if not self._settings.disabled:
            await self._shared.run(work, lambda _: False, timeout=timeout)
        return self._link.connection is not None and self._link.connection.ended is None

    @property
    def disabled(self) -> bool:
        """Whether it does nothing at all."""
        return self._settings.disabled

    @property
    def has_news(self) -> bool:
        """Whether anything was recorded that no report has told, as far as is known."""
        return self._registry.recorded and (self._registry.changed or self._accepted < self._reported)

    async def close(self, timeout: float, *, report: bool = True) -> None:
        """A last report, if it is asked for, then an orderly close; see `Emitter.close`."""
        deadline = self._clock() + timeout
        if report:
            await self.flush(timeout, Delivery.ACKNOWLEDGED, last=True)

        async def work() -> None:
            self._link.come_back()
            self._link.abandon()
            if self._link.connection is not None:
                try:
                    await self._link.connection.close(deadline=deadline)
                finally:
                    self._early += self._harvest()

        await self._shared.run(work, lambda _: False, timeout=max(0.0, deadline - self._clock()))

    async def _report(self, started: float, timeout: float, wanted: Delivery, *, last: bool) -> Flush:
        verdicts, self._early = self._early, []
        verdicts += self._harvest()  # first: it may tell that nothing has to be written, and it frees places
        reason = await self._reason_to_withhold(last=last)
        if reason is not None:
            if self._link.opening is not None:  # what an earlier budget cut short is still under way
                self._note_undelivered(timeout)
            return self._withhold(reason, started, verdicts)
        self._reported += 1
        self._own.flushes.add()
        deadline = started + timeout
        request_bytes = 0
        reached: Delivery | None = None
        error: NetworkError | None = None
        try:
            requests = self._reports.make(self._reported)
            request_bytes = sum(map(len, requests))
            reached = await self._transmit_all(requests, wanted, deadline, verdicts)
            if reached < wanted and self._clock() >= deadline and self._link.connection is not None:
                error = BudgetExceededError(0, *self._link.connection.queues())
        except NetworkError as caught:
            error = caught
        except GeneratorExit:  # destroyed with its loop, or as a forked child's copy: nobody's flush any more
            raise
        except BaseException as unexpected:  # goes to the caller, but is counted all the same
            self._own.failures.add()
            # Cancelled, or Ctrl-C: neither is an `Exception`.
            self._ledger.failed["defect" if isinstance(unexpected, Exception) else "cancelled"] += 1
            self._rest()
            raise
        self._rest()
        if wanted is Delivery.ANSWERED:
            verdicts += self._harvest()  # the answer that was waited for
        self._settle(reached, error, request_bytes, timeout)
        written_bytes = request_bytes if reached else 0
        return Flush(reached, None, error, written_bytes, self._clock() - started, tuple(verdicts))

    def _rest(self) -> None:
        if self._link.connection is not None:
            self._link.connection.rest()

    async def _reason_to_withhold(self, *, last: bool) -> Withheld | None:
        if not last and self._receiver.waiting:
            return Withheld.BACKING_OFF
        if not last and self._network.waiting and not await self._went_on_opening():
            return Withheld.BACKING_OFF
        if self._accepted == self._reported > 0 and not self._registry.changed:
            return Withheld.UNCHANGED
        if not last and self._link.connection is not None and self._link.connection.unanswered >= LIMIT_UNANSWERED:
            return Withheld.UNANSWERED
        return None

    def _withhold(self, reason: Withheld, started: float, verdicts: list[Verdict] | None = None) -> Flush:
        self._ledger.note_withheld(reason)
        self._own.withheld.add()
        return Flush(None, reason, None, 0, self._clock() - started, tuple(verdicts or ()))

    def _harvest(self) -> list[Verdict]:
        """Read what arrived, without waiting, and give up a connection that has ended."""
        self._link.come_back()
        connection = self._link.connection
        if connection is None:
            return []
        harvested = connection.harvest(idle_limit=self._settings.idle_limit, age_limit=self._settings.age_limit)
        verdicts = [Verdict(number, answer.status) for number, answer in harvested]
        if harvested:
            self._network.succeed()  # whatever the budget said: it has brought a report there, and an answer back
            now = self._clocks.wall()
            self._heed(verdicts, [answer for _, answer in harvested], connection.unanswered, now)
            for _, answer in harvested:
                self._cookies.learn(answer.headers, now)
            if self._cookies.dropped:
                self._ledger.failed["cookie"] = self._cookies.dropped
        if connection.ended is not None:
            self._give_up(connection, connection.ended)
        return verdicts

    def _heed(self, verdicts: list[Verdict], answers: list[Answer], unanswered: int, now: float) -> None:
        """Act on what a receiver has said of whole reports. Its last word counts: a pipeline of refusals is one."""
        refusal: Answer | None = None
        accepted = False
        for verdict, answer in zip(verdicts, answers, strict=True):
            whole = self._reports.note_answer(verdict)
            self._ledger.note_verdict(verdict, whole, far_behind=unanswered > LIMIT_UNANSWERED // 2)
            if whole is Outcome.ACCEPTED:
                self._accepted = verdict.report
                accepted, refusal = True, None
            elif whole is not None:
                refusal = answer
        if refusal is not None:
            self._receiver.fail(refusal.retry_after(now))
        elif accepted:
            self._receiver.succeed()

    def _give_up(self, connection: Connection, why: EmitterError) -> None:
        self._link.connection = None
        if connection.unanswered:  # the totals go out again
            self._ledger.note_unanswered(connection.unanswered, why)
            self._reports.note_lost()
            if self._reports.divided and not (isinstance(why, ConnectionLostError) and why.retired):
                self._one_by_one = True  # it may be somebody who takes only so many requests on a connection
        if isinstance(why, PeerError):
            self._ledger.note_error(why)
        elif isinstance(why, ConnectionLostError) and why.retired:
            # Tells nothing of the peer: whoever is frozen between rare events never sees an answer.
            return
        # A connection that is lost costs its reports, and the next goes out at once. Somebody who takes connections
        # and never answers on any, or not in HTTP, is another matter.
        fruitless = connection.unanswered > 0 and connection.answered == 0
        self._fruitless = self._fruitless + 1 if fruitless else 0
        if self._fruitless > 1:
            if not isinstance(why, PeerError):
                self._ledger.note_fruitless(why)
            self._receiver.fail()

    async def _transmit_all(
        self, requests: list[bytes], wanted: Delivery, deadline: float, verdicts: list[Verdict]
    ) -> Delivery:
        *first, last = requests
        used = set()
        for request in first:
            between = Delivery.ANSWERED if self._one_by_one else Delivery.BUFFERED
            await self._transmit(request, between, deadline, verdicts)
            used.add(self._link.connection)
        # What is written last gets there last, so the others have got at least as far.
        reached = await self._transmit(last, wanted, deadline, verdicts)
        if first and used == {self._link.connection}:
            self._one_by_one = False
        return reached

    async def _transmit(self, request: bytes, wanted: Delivery, deadline: float, verdicts: list[Verdict]) -> Delivery:
        connection = self._link.connection or await self._link.open(deadline)
        try:
            return await self._write(connection, request, wanted, deadline)
        except ConnectionLostError as error:
            # With a part of the same report unanswered there, the rest alone would be no report.
            if not error.untouched or connection.awaits(self._reported):
                raise
        # No byte was taken, so nothing can arrive twice: one fresh connection, once.
        verdicts += self._harvest()
        return await self._write(await self._link.open(deadline), request, wanted, deadline)

    async def _write(self, connection: Connection, request: bytes, wanted: Delivery, deadline: float) -> Delivery:
        before = connection.written
        try:
            return await connection.transmit(request, self._reported, wanted, deadline=deadline)
        finally:
            if connection.written > before:
                self._reports.note_written()

    async def _went_on_opening(self) -> bool:
        """Whether a connection that was being opened is open by now; looks, without waiting."""
        link = self._link
        if link.connection is not None:
            return not link.connection.written  # it is new, so it is not what failed
        if link.opening is None:
            return False
        try:
            await link.finish(link.opening, self._clock())
        except ConnectError as error:
            if not error.unfinished:
                self._ledger.note_error(error)
                self._network.fail()
            return False
        return True

    def _settle(self, reached: Delivery | None, error: NetworkError | None, request_bytes: int, timeout: float) -> None:
        ledger = self._ledger
        if reached is not None:
            self._last = self._clocks.now()
            ledger.bytes += request_bytes
            ledger.transmitted += reached >= Delivery.TRANSMITTED
        if error is None:
            ledger.note_delivered()
            self._network.succeed()
            return
        # Also when the bytes are on their way: a peer that takes the whole budget each time is not asked each time.
        self._own.failures.add()
        ledger.note_error(error)
        self._network.fail()
        if isinstance(error, BudgetExceededError) or (isinstance(error, ConnectError) and error.unfinished):
            self._note_undelivered(timeout)

    def _note_undelivered(self, timeout: float) -> None:
        way = self._link.connection or self._link.opening
        if way is not None:
            self._ledger.note_undelivered(timeout, way.round_trip, way.age)


def _suffices(other: Flush, wanted: Delivery) -> bool:
    """Whether what became of somebody else's flush, begun after one's own was asked for, will do."""
    return other.withheld is Withheld.UNCHANGED or (other.delivery is not None and other.delivery >= wanted)
