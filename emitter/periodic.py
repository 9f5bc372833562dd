"""Owns when a long-running service flushes: at intervals, and at its end. Knows an emitter only by what it awaits."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Protocol

from emitter.errors import ConfigurationError, NetworkError, PeerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

__all__ = ["Flushes", "Periodic"]


class Flushes(Protocol):
    """What is flushed: an emitter of whatever kind."""

    async def flush(self) -> object:
        """Get one report out."""
        ...  # pragma: no cover  a protocol's body is never run

    async def close(self) -> object:
        """A last report, then an orderly close."""
        ...  # pragma: no cover  as above


class Periodic:
    """Flushes an emitter at intervals while an `async with` block runs, and closes it at the end of the block.

    The schedule is fixed: a flush begins every so many seconds after the block did, one that takes longer than that
    makes the next ones wait for their turn in the schedule, and none is made up for. However the block ends, whether it
    returns, raises or is cancelled, a flush under way is awaited, and then the emitter is closed: its last report
    carries everything. What ended the block comes out unchanged.

    What a flush raises does not stop the next one; it is logged. What a `strict` emitter raises is there to be seen, so
    the first such error comes out at the end of the block, unless the block has raised something itself.

    After cancellation of the end itself: a flush that was awaited is cut short, and the last report still goes out;
    if that was what was cancelled, it is cut short too. Totals that got nowhere are kept.

    Args:
        emitter: What to flush. It can be used after the block, and the block can be entered again.
        seconds: From the beginning of one flush to that of the next.

    Raises:
        ConfigurationError: `seconds` is no positive finite number.
    """

    def __init__(self, emitter: Flushes, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
            raise ConfigurationError(f"seconds is {seconds!r}; expected a number greater than zero, such as 10")
        self._emitter = emitter
        self._seconds = float(seconds)
        self._entered = False
        self._due = 0.0  # when the next flush begins, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._error: NetworkError | PeerError | None = None

    async def __aenter__(self) -> None:
        """Begin the schedule.

        Raises:
            UsageError: Another block is running on this very object.
        """
        if self._entered:
            raise UsageError("this every() is in use by another `async with`; expected a new one: call every() again")
        self._entered = True
        self._error = None
        self._due = asyncio.get_running_loop().time()
        self._set_timer()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the schedule, and close the emitter."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._end_flushing()
        finally:
            try:
                await self._guarded(self._emitter.close)
            finally:
                self._entered = False
        if self._error is not None:
            if error is None:
                raise self._error
            # It would hide what has ended the block.
            logging.getLogger("emitter").error("a flush of every() failed: %s", self._error)

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        late = max(0.0, loop.time() - self._due)
        self._due += self._seconds + late - late % self._seconds  # what was missed is left out
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._set_timer()
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._guarded(self._emitter.flush))

    async def _end_flushing(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is None:
            return
        try:
            await asyncio.wait({flushing})  # which, unlike `await flushing`, says nothing of how it ended
        except asyncio.CancelledError:
            flushing.cancel()
            await asyncio.wait({flushing})
            raise

    async def _guarded(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (NetworkError, PeerError) as error:  # only strict emitters raise those
            self._error = self._error or error
        except Exception:
            # Whatever it is, the service has its own work to do. The network raises nothing, so this is a mistake in
            # the code around us, an encoder or a signer perhaps: worth a trace.
            logging.getLogger("emitter").exception("a flush of every() failed; the next one is made all the same")
