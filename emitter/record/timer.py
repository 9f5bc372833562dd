"""Owns the measuring of time, around a block or a function. Knows no histogram: it calls what takes the seconds."""

from __future__ import annotations

from functools import wraps
from time import perf_counter

from emitter.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVar

    from typing_extensions import Self

    AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])

__all__ = ["Timer"]


class Timer:
    """Tells how many seconds a block or a function took. Not to be entered twice at once."""

    __slots__ = ("_record", "_started")

    def __init__(self, record: Callable[[float], None]) -> None:
        self._record = record
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._record(perf_counter() - self._started)

    def __call__(self, function: AnyCallable) -> AnyCallable:
        """Measure each call of a function, sync or async.

        Raises:
            UsageError: It is a generator function, of which a call has only just begun when it returns.
        """
        # Imported here because `inspect` weighs more than everything else that `import emitter` loads.
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise UsageError(
                f"time() was put on the generator function {function!r}, whose calls return before it has run; "
                "expected `with histogram.time():` in its body"
            )
        called = function if isinstance(function, type) else getattr(function, "__call__", None)  # noqa: B004
        if iscoroutinefunction(function) or iscoroutinefunction(called):

            @wraps(function)
            async def timed_async(*args: object, **kwargs: object) -> object:
                with Timer(self._record):
                    return await function(*args, **kwargs)

            return timed_async  # type: ignore[return-value]  # `wraps` keeps the signature

        @wraps(function)
        def timed(*args: object, **kwargs: object) -> object:
            with Timer(self._record):
                return function(*args, **kwargs)

        return timed  # type: ignore[return-value]  # `wraps` keeps the signature
