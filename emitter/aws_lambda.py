"""Owns the way into a Lambda handler: the decorator, and what it counts. Knows of an emitter only what it calls.

The stock Python runtime calls `handler(event, context)` from synchronous code and cannot await what comes back
(awslambdaric, `bootstrap.handle_event_request`). So an `async def` handler is run here, in the loop that lives as
long as the process, and its connections survive from one invocation to the next.
"""

from __future__ import annotations

from functools import update_wrapper
from time import perf_counter

from emitter.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import Any, Protocol

    from emitter.record.instruments import Counter, Histogram
    from emitter.transmit.delivery import Delivery

    Handler = Callable[[Any, Any], Any]

    class Emits(Protocol):
        """What a handler needs of an emitter."""

        def counter(self, name: str, *, unit: str = "", description: str = "") -> Counter: ...

        def histogram(self, name: str, *, unit: str = "", description: str = "") -> Histogram: ...

        def flush_sync(self, *, timeout: float | None = None, delivery: Delivery | None = None) -> object: ...


__all__ = ["wrap_handler"]


def wrap_handler(
    emitter: Emits, handler: Handler, *, timeout: float, delivery: Delivery, cold_start: Iterator[int]
) -> Callable[[Any, Any], Any]:
    """The handler with its counts and its flush; see `Emitter.lambda_handler`.

    `cold_start` yields a 1 for the first invocation of the sandbox and nothing after, for all handlers together.
    """
    if not callable(handler):
        raise ConfigurationError(
            f"lambda_handler was given a {type(handler).__name__}; expected a function of an event and a context"
        )
    # Names, units and meanings: OpenTelemetry semantic conventions, "FaaS metrics". An invocation that fails counts
    # as an error *instead*, so all invocations are the sum of both.
    invocations = emitter.counter(
        "faas.invocations", unit="{invocation}", description="Number of successful invocations."
    ).bind()
    errors = emitter.counter("faas.errors", unit="{error}", description="Number of invocation errors.").bind()
    cold_starts = emitter.counter(
        "faas.coldstarts", unit="{coldstart}", description="Number of invocation cold starts."
    ).bind()
    duration = emitter.histogram(
        "faas.invoke_duration", unit="s", description="Duration of the function's logic execution."
    ).bind()

    def invoke(event: Any, context: Any) -> Any:
        started = perf_counter()
        outcome = errors
        try:
            result = handler(event, context)
            if hasattr(result, "__await__"):
                result = _wait_for(result)
            outcome = invocations
            return result
        finally:
            try:
                duration.record(perf_counter() - started)
                outcome.add()
                cold_starts.add(next(cold_start, 0))
                emitter.flush_sync(timeout=timeout, delivery=delivery)
            except Exception:
                # Whatever it is, the handler has its own result or its own exception, and that is what the caller
                # gets. The network raises nothing, so this is a mistake in the code around us: worth a trace.
                import logging  # `import emitter` stays light, and nearly nobody gets here

                logging.getLogger("emitter").exception("the flush at the end of the invocation failed")

    return update_wrapper(invoke, handler)


def _wait_for(result: Awaitable[Any]) -> Any:
    from emitter import loop  # loaded when the emitter was made; `import emitter` stays light

    try:
        loop.refuse_inside_loop("handler.__wrapped__(event, context)")
    except RuntimeError:
        if hasattr(result, "close"):
            result.close()  # it will not be awaited, and says so by its own warning otherwise
        raise

    async def wait() -> Any:
        await loop.loop_needed()
        return await result

    return loop.run(wait(), passing=False)
