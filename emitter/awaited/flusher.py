"""Owns what a flush does that waits for its answer: withhold, encode, post, retry, outcome. Knows nothing of aiohttp.

What may be posted again, and when:

- Running totals: whatever did not get through by the network's fault, and what was answered with 429, 502, 503 or 504
  (OTLP specification, "Retryable Response Codes"). What arrives twice changes nothing.
- Deltas: only what the receiver cannot have counted, because nothing of it was written or because it has said so: 429
  and 503 are its own "not now", while behind a 502 or 504 of a gateway it may have taken the report.
- Neither what was refused for good, nor over TLS that failed: both would be the same a second later.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from emitter import forking
from emitter.awaited.exchange import Body
from emitter.back_off import BackOff, chance
from emitter.clocks import Clocks
from emitter.errors import AnswerError, CredentialsError, NetworkError, PeerError, RefusedError, TlsError
from emitter.outcomes import Flush, Ledger, Outcome, Stats, Verdict, Withheld
from emitter.record.self_metrics import SelfMetrics
from emitter.reports import Reports
from emitter.sharing import Shared
from emitter.transmit.delivery import Delivery
from emitter.transmit.http1 import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from emitter.awaited.exchange import Exchange
    from emitter.errors import EmitterError
    from emitter.record.registry import Registry
    from emitter.settings import Settings

__all__ = ["AwaitedFlusher"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds within which the next attempt of the same flush falls by chance, doubled with each: shorter than between two
flushes, because somebody waits for it."""

_ADVICE = {
    Outcome.DEFERRED: "it takes no reports now; the totals are kept, and go out with a later report",
    Outcome.REJECTED: "it does not take this report; the log of `emitter` says what to do about it",
}

_NOT_NOW = frozenset([429, 503])
"""What a receiver says that has not looked at the report."""

_Outcome = Answer | NetworkError | PeerError


class _Message(NamedTuple):
    body: bytes
    gzip: bool


class AwaitedFlusher:
    """Gets the totals of one registry to one endpoint, and waits until it has said what it makes of them.

    Args:
        registry: The totals.
        settings: Endpoint, encoder and the rest.
        exchange: What posts them.
        clocks: Both clocks.
        jitter: A random number from 0 up to 1.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        exchange: Exchange,
        *,
        clocks: Clocks | None = None,
        jitter: Callable[[], float] = chance,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._exchange = exchange
        self._clocks = clocks or Clocks()
        self._clock = self._clocks.monotonic
        self._jitter = jitter
        self._sleep = sleep
        self._reports = Reports(registry, settings, lambda body, gzip: _Message(bytes(body), gzip))
        self._own = SelfMetrics(registry)
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        """What a sandbox has when it begins: nothing reported, nothing known."""
        self._shared: Shared[Flush | None] = Shared()
        self._ledger = Ledger(self._settings.endpoint.shown)
        self._back_off = BackOff(self._clocks, self._jitter)
        # The number of the last report, and of the last one that was accepted, as counted by `emitter.flushes`.
        self._reported = 0
        self._accepted = 0

    def after_fork(self) -> None:
        """Go on as a new sandbox, in a forked child, and leave the other's connections untouched."""
        self._registry.restart()
        self._reports.restart()
        self._exchange.after_fork()
        self._begin()

    @property
    def stats(self) -> Stats:
        """A frozen copy of the counts."""
        return self._ledger.stats(self._reported, self._registry.overflowed)

    async def flush(self, timeout: float, *, last: bool = False) -> Flush:
        """Get one report out; see `AwaitedEmitter.flush`.

        Args:
            timeout: Seconds for everything together.
            last: Whether nothing is to hold it up but having nothing to say.
        """
        started = self._clock()
        if self._settings.disabled:
            return self._withhold(Withheld.DISABLED, started)
        flush = await self._shared.run(
            lambda: self._report(started, timeout, last=last),
            lambda other: other is not None and _suffices(other),
            timeout=timeout,
        )
        return self._withhold(Withheld.BUSY, started) if flush is None else flush

    async def close(self, timeout: float) -> Flush:
        """A last report, then the end of the running loop's connections; see `AwaitedEmitter.close`."""
        deadline = self._clock() + timeout

        async def work() -> None:
            await self._exchange.close()

        try:
            return await self.flush(timeout, last=True)
        finally:
            await self._shared.run(work, lambda _: False, timeout=max(0.0, deadline - self._clock()))

    async def _report(self, started: float, timeout: float, *, last: bool) -> Flush:
        reason = self._reason_to_withhold(last=last)
        if reason is not None:
            return self._withhold(reason, started)
        self._reported += 1
        self._own.flushes.add()
        answered: list[Answer] = []
        error: EmitterError | None = None
        complete = False
        body_bytes = 0
        try:
            messages = self._reports.make(self._reported)
            body_bytes = sum(len(message.body) for message in messages)
            error = await self._deliver_all(messages, started + timeout, answered)
            complete = len(answered) == len(messages)
        except (NetworkError, PeerError) as caught:
            error = caught
        except GeneratorExit:  # destroyed with its loop, or as a forked child's copy: nobody's flush any more
            raise
        except BaseException as unexpected:  # goes to the caller, but is counted all the same
            self._own.failures.add()
            # Cancelled, or Ctrl-C: neither is an `Exception`.
            self._ledger.failed["defect" if isinstance(unexpected, Exception) else "cancelled"] += 1
            raise
        self._settle(error, answered, body_bytes if complete else 0)
        verdicts = tuple(Verdict(self._reported, answer.status) for answer in answered)
        return Flush(
            Delivery.ANSWERED if complete else None,
            None,
            error,
            body_bytes if complete else 0,
            self._clock() - started,
            verdicts,
        )

    def _reason_to_withhold(self, *, last: bool) -> Withheld | None:
        if not last and self._back_off.waiting:
            return Withheld.BACKING_OFF
        if self._accepted == self._reported > 0 and not self._registry.changed:
            return Withheld.UNCHANGED
        return None

    def _withhold(self, reason: Withheld, started: float) -> Flush:
        self._ledger.note_withheld(reason)
        self._own.withheld.add()
        return Flush(None, reason, None, 0, self._clock() - started, ())

    async def _deliver_all(
        self, messages: list[_Message], deadline: float, answered: list[Answer]
    ) -> RefusedError | None:
        """One after the other, each after the answer to the one before; what was refused first, if anything was."""
        refusal: RefusedError | None = None
        for message in messages:
            answer = await self._deliver(message, deadline)
            answered.append(answer)
            verdict = Verdict(self._reported, answer.status)
            whole = self._reports.note_answer(verdict)
            self._ledger.note_verdict(verdict, whole, far_behind=False)
            if whole is Outcome.ACCEPTED:
                self._accepted = self._reported
            elif whole is not None:
                refusal = refusal or RefusedError(answer.status, _ADVICE[whole])
                if whole is Outcome.DEFERRED:
                    break  # it wants to be left alone; each part is complete in itself
        return refusal

    async def _deliver(self, message: _Message, deadline: float) -> Answer:
        """Post one request until it is answered for good, or until there is no time for another attempt.

        Raises:
            NetworkError: It was not answered.
            PeerError: As above, by the peer's fault.
        """
        written = answered = False
        attempts = 0
        try:
            while True:
                body = Body(message.body)
                begun = self._clock()
                outcome: _Outcome | None = None
                try:
                    outcome = await self._attempt(body, message, deadline)
                finally:  # after a cancellation too
                    written = written or self._may_count(body, outcome)
                now = self._clock()
                pause = self._pause(attempts, outcome)
                # One with less time than this one took would be cut off, and hide what the receiver has said.
                in_time = now + pause + (now - begun) < deadline
                if in_time and self._repeatable(body, outcome):
                    self._note_repeated(outcome)
                    attempts += 1
                    await self._sleep(pause)
                elif isinstance(outcome, Answer):
                    answered = True
                    return outcome
                else:
                    raise outcome
        finally:
            if written:
                self._reports.note_written()
                if not answered:
                    self._reports.note_lost()

    async def _attempt(self, body: Body, message: _Message, deadline: float) -> _Outcome:
        try:
            return await self._exchange.post(body, gzip=message.gzip, seconds=deadline - self._clock())
        except (NetworkError, PeerError) as error:
            return error

    def _may_count(self, body: Body, outcome: _Outcome | None) -> bool:
        """Whether the receiver may have counted it: what was deltas must not go out again then."""
        if self._settings.deltas and isinstance(outcome, Answer) and outcome.status in _NOT_NOW:
            return False
        return body.begun or isinstance(outcome, Answer)

    def _repeatable(self, body: Body, outcome: _Outcome) -> bool:
        if isinstance(outcome, (Answer, RefusedError)):
            deferred = Verdict(self._reported, outcome.status).outcome is Outcome.DEFERRED
            return deferred and not self._may_count(body, outcome) if self._settings.deltas else deferred
        if isinstance(outcome, (AnswerError, CredentialsError, TlsError)):
            return False
        return not (self._settings.deltas and body.begun)

    def _pause(self, attempts: int, outcome: _Outcome) -> float:
        """Seconds until the next attempt: by chance ("full jitter"), and no less than the receiver has asked for.

        It may ask for nothing, or by a clock that is behind for a time that is over: that is no leave to flood it.
        """
        by_chance = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts, 10)) * self._jitter()
        return max(by_chance, self._retry_after(outcome) or 0.0)

    def _retry_after(self, outcome: _Outcome) -> float | None:
        return outcome.retry_after(self._clocks.wall()) if isinstance(outcome, Answer) else None

    def _note_repeated(self, outcome: _Outcome) -> None:
        """Count an attempt that another one follows. It is no change of state, so nothing is logged."""
        if isinstance(outcome, Answer):
            self._ledger.note_verdict(Verdict(self._reported, outcome.status), None, far_behind=False)
        else:
            self._ledger.failed[outcome.reason] += 1
            self._ledger.last_error = outcome

    def _settle(self, error: EmitterError | None, answered: list[Answer], body_bytes: int) -> None:
        ledger = self._ledger
        ledger.connections_opened = self._exchange.opened
        if self._exchange.cookies.dropped:
            ledger.failed["cookie"] = self._exchange.cookies.dropped
        if body_bytes:
            ledger.bytes += body_bytes
            ledger.transmitted += 1
        if error is None:
            ledger.note_delivered()
            self._back_off.succeed()
        elif isinstance(error, RefusedError) and not error.proxy:
            ledger.last_error = error  # the verdict was counted, and logged with what to do about it
            self._back_off.fail(self._retry_after(answered[-1]))
        else:
            self._own.failures.add()
            ledger.note_error(error)
            self._back_off.fail()


def _suffices(other: Flush) -> bool:
    """Whether what became of somebody else's flush, begun after one's own was asked for, will do."""
    return other.withheld is Withheld.UNCHANGED or (other.delivery is not None and other.error is None)
