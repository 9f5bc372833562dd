"""Owns what `log_metrics` does around a handler, `def` or `async def`. Knows neither provider nor emitter."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, NamedTuple

from aws_lambda_powertools.metrics import SchemaValidationError

from emitter.aws_lambda import wait_for
from emitter.errors import ConfigurationError
from emitter.powertools.environment import disabled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Any

    from emitter.aws_lambda import Handler


__all__ = ["Invoked", "logged"]


class Invoked(NamedTuple):
    """What an invocation is told to.

    Attributes:
        begin: It begins.
        end: It has ended, under this context: make totals of what it added. Raises a `SchemaValidationError`, if
            anything.
    """

    begin: Callable[[], None]
    end: Callable[[Any], None]


def logged(handler: Callable[..., Any], invoked: Invoked, emitting: Callable[[Handler], Handler]) -> Callable[..., Any]:
    """A handler that tells of its invocations.

    Args:
        handler: What Lambda calls with an event and a context.
        invoked: Whom it tells.
        emitting: What a handler goes through that counts and flushes. Not called as long as metrics are disabled.
    """
    if not callable(handler):
        raise ConfigurationError(
            f"log_metrics was given a {type(handler).__name__}; expected a function of an event and a context"
        )
    told = _Told(handler, invoked)
    flushed = None if disabled() else emitting(told)

    @functools.wraps(handler)
    def invoke(event: Any, context: Any, *args: Any, **more: Any) -> Any:
        nonlocal flushed
        call = _Call(event, context, args, more)
        plain = context.lambda_context if _is_durable(context) else context
        if disabled():
            result = told(call, plain)
            return wait_for(result) if isinstance(result, _Ending) else result
        if flushed is None:
            flushed = emitting(told)
        return flushed(call, plain)

    return invoke


class _Call(NamedTuple):
    """What a handler was called with: Powertools lets a caller pass more than an event and a context."""

    event: Any
    context: Any
    args: tuple[Any, ...]
    more: dict[str, Any]


class _Told:
    """The handler, as `Emitter.lambda_handler` sees it: given a call for an event."""

    def __init__(self, handler: Callable[..., Any], invoked: Invoked) -> None:
        self._handler = handler
        self._invoked = invoked

    def __call__(self, call: _Call, context: Any) -> Any:
        self._invoked.begin()
        try:
            result = self._handler(call.event, call.context, *call.args, **call.more)
        except BaseException:  # interrupted, too: what it has added counts
            self.failed(context)
            raise
        if hasattr(result, "__await__"):
            return _Ending(result, self, context)
        self._invoked.end(context)
        return result

    def succeeded(self, context: Any) -> None:
        """The handler has a result."""
        self._invoked.end(context)

    def failed(self, context: Any) -> None:
        """The handler has raised, and nothing may come before that."""
        with contextlib.suppress(SchemaValidationError):  # the caller gets what the handler raised
            self._invoked.end(context)


class _Ending:
    """What an `async def` handler gave, with something to do when it ends, in whichever way."""

    def __init__(self, result: Awaitable[Any], told: _Told, context: Any) -> None:
        self._result = result
        self._told = told
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            result = yield from self._result.__await__()
        except BaseException:  # cancelled, too: as above
            self._told.failed(self._context)
            raise
        self._told.succeeded(self._context)
        return result

    def close(self) -> None:
        """It will not be awaited."""
        self._told.failed(self._context)
        if hasattr(self._result, "close"):
            self._result.close()


def _is_durable(context: Any) -> bool:
    """Whether this is the context of a durable function, around that of the invocation."""
    return hasattr(context, "state") and hasattr(context, "lambda_context")
