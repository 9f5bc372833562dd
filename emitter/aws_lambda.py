"""Owns the way into a Lambda handler: the decorator, and what it counts. Knows nothing of how a flush works.

The stock Python runtime calls `handler(event, context)` from synchronous code and cannot await what comes back
(awslambdaric, `bootstrap.handle_event_request`). So an `async def` handler is run here, in the loop that lives as
long as the process, and its connections survive from one invocation to the next.
"""

from __future__ import annotations

from functools import update_wrapper
from time import perf_counter

from emitter.callbacks import CALLED_LAST, call_each, nothing_raised
from emitter.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any

    from emitter.flusher import Flusher
    from emitter.guard import Guard
    from emitter.meter import Meter
    from emitter.transmit.delivery import Delivery

    Handler = Callable[[Any, Any], Any]


__all__ = ["Policy", "wait_for", "wrap_handler"]

_MARGIN = 0.05
"""Seconds of an invocation's time that no flush takes: the runtime still has to hand over the result."""

_FOR_EVER_MS = 1e10
"""Milliseconds, some months: no invocation lasts that long, and nobody's clock can wait for much longer."""


class Policy:
    """How a handler is to be flushed; see `Emitter.lambda_handler`."""  # no dataclass: `import emitter` loads this

    def __init__(
        self, *, timeout: float, delivery: Delivery, every: float, timeout_guard: bool, flush_at_sigterm: bool
    ) -> None:
        self.timeout = timeout
        self.delivery = delivery
        self.every = every
        self.timeout_guard = timeout_guard
        self.flush_at_sigterm = flush_at_sigterm


def wrap_handler(
    meter: Meter,
    current: Callable[[], Flusher],
    handler: Handler,
    policy: Policy,
    last_calls: Iterable[Callable[[], object]],
) -> Callable[[Any, Any], Any]:
    """The handler with its counts and its flush; see `Emitter.lambda_handler` and `Emitter.last_calls`.

    `current` gives the emitter's flusher, which a test may have exchanged for one of its own.
    """
    if not callable(handler):
        raise ConfigurationError(
            f"lambda_handler was given a {type(handler).__name__}; expected a function of an event and a context"
        )
    invocations = _Invocations(meter, current, policy, last_calls)

    def invoke(event: Any, context: Any) -> Any:
        flusher = current()
        invocation = object()
        started = perf_counter()
        succeeded = False
        try:
            invocations.begin(invocation, flusher, context)
            started = perf_counter()
            result = handler(event, context)
            if hasattr(result, "__await__"):
                result = wait_for(result)
            succeeded = True
            return result
        finally:
            invocations.end(invocation, flusher, context, perf_counter() - started, succeeded=succeeded)

    return update_wrapper(invoke, handler)


class _Invocations:
    """What is done around each invocation of one handler. None of it raises, whatever happens."""

    def __init__(
        self,
        meter: Meter,
        current: Callable[[], Flusher],
        policy: Policy,
        last_calls: Iterable[Callable[[], object]],
    ) -> None:
        from emitter import loop  # loaded when the emitter was made; `import emitter` stays light

        self._loop = loop
        self._current = current
        self._policy = policy
        self._last_calls = last_calls
        # Names, units and meanings: OpenTelemetry semantic conventions, "FaaS metrics". An invocation that fails counts
        # as an error *instead*, so all invocations are the sum of both.
        self._succeeded = meter.counter(
            "faas.invocations", unit="{invocation}", description="Number of successful invocations."
        ).bind()
        self._failed = meter.counter("faas.errors", unit="{error}", description="Number of invocation errors.").bind()
        self._cold_starts = meter.counter(
            "faas.coldstarts", unit="{coldstart}", description="Number of invocation cold starts."
        ).bind()
        self._duration = meter.histogram(
            "faas.invoke_duration", unit="s", description="Duration of the function's logic execution."
        ).bind()
        self._guard: Guard | None = None
        if policy.timeout_guard:
            from emitter.guard import Guard

            self._timeouts = meter.counter(
                "faas.timeouts", unit="{timeout}", description="Number of invocation timeouts."
            ).bind()
            self._guard = Guard(policy.timeout + _MARGIN, self._flush_before_timeout)
        if policy.flush_at_sigterm and not current().disabled:
            from emitter import termination

            termination.watch(meter, self._close_at_sigterm)

    def begin(self, invocation: object, flusher: Flusher, context: Any) -> None:
        """What comes before the handler."""
        with nothing_raised("what comes before the handler"):
            self._cold_starts.add(next(flusher.cold_start, 0))
            left = _seconds_left(context)
            if self._guard is not None and left is not None and not flusher.disabled:
                self._guard.arm(invocation, left)
        with nothing_raised("looking after the connection"):
            if not self._loop.inside():  # if so, the flush at the end says what to do about it
                self._loop.run(flusher.freshen(every=self._policy.every))

    def end(self, invocation: object, flusher: Flusher, context: Any, seconds: float, *, succeeded: bool) -> None:
        """What comes after the handler."""
        policy = self._policy
        with nothing_raised("the flush at the end of the invocation"):
            if self._guard is not None:
                self._guard.disarm(invocation)
            self._duration.record(seconds)
            (self._succeeded if succeeded else self._failed).add()
            self._loop.refuse_inside_loop("flush()")
            budget = _clipped(policy.timeout, _seconds_left(context))
            self._loop.run(flusher.flush(budget, policy.delivery, every=policy.every))

    def _flush_before_timeout(self, left: float) -> None:
        """In the guard's thread."""
        with nothing_raised("the flush before a timeout"):
            self._timeouts.add()
            call_each(self._last_calls, CALLED_LAST)
            budget = _clipped(self._policy.timeout, left)
            self._loop.run(self._current().flush(budget, self._policy.delivery, last=True))

    def _close_at_sigterm(self, seconds: float) -> None:
        """In a thread of its own."""
        with nothing_raised("the flush at SIGTERM"):
            call_each(self._last_calls, CALLED_LAST)
            flusher = self._current()
            # The process ends right after it, and its connections with it: whoever takes a request drops it if its
            # client has gone before the answer. So this one is waited for.
            self._loop.run(flusher.close(seconds, report=flusher.has_news))


def _clipped(timeout: float, left: float | None) -> float:
    return timeout if left is None else min(timeout, max(0.0, left - _MARGIN))


def _seconds_left(context: Any) -> float | None:
    """Until Lambda ends the invocation; `None` where the context is not Lambda's own: a test's, say."""
    try:
        left = context.get_remaining_time_in_millis()
    except Exception:  # noqa: BLE001  whatever stands in for the context is the user's own
        return None
    # A mock's result may pass for any number; and whoever says "for ever" has no end to look to.
    return left / 1e3 if isinstance(left, (int, float)) and abs(left) < _FOR_EVER_MS else None


def wait_for(result: Awaitable[Any]) -> Any:
    """What a handler's awaitable comes to, in the loop that lives as long as the process.

    Raises:
        RuntimeError: An event loop runs in this thread.
    """
    from emitter import loop

    if loop.inside():
        if hasattr(result, "close"):
            result.close()  # it will not be awaited, and says so by its own warning otherwise
        loop.refuse_inside_loop("handler.__wrapped__(event, context)")

    async def wait() -> Any:
        await loop.loop_needed()
        return await result

    return loop.run(wait(), passing=False)
