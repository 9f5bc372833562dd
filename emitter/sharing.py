"""Owns the rule by which concurrent flushes share one report. Knows nothing of what a flush does.

A flush may only be shared with somebody who came before it looked at the totals: what they recorded is in it. So
whoever comes while one is under way waits for it to end, and then one of those waiting leads the next for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from emitter import loop as loops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Shared"]

_Result = TypeVar("_Result")


class Shared(Generic[_Result]):
    """Lets one run of some work through at a time, from whatever threads and event loops it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._latest: tuple[int, _Result] | None = None
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] | None = None  # None: nobody leads

    async def run(
        self, work: Callable[[], Awaitable[_Result]], suffices: Callable[[_Result], bool], *, timeout: float
    ) -> _Result | None:
        """The result of a run that began after this call: somebody else's if it suffices, else one's own.

        Args:
            work: What to do if it falls to this caller.
            suffices: Whether a result of somebody else will do.
            timeout: Seconds to wait for others, in all; the work itself is not bounded here.

        Returns:
            The result, or `None` if the time ended while others were at work.

        Raises:
            BaseException: What `work` raises, if this caller runs it. Those who wait then try for themselves.
        """
        with self._lock:
            number = self._begun + 1
        deadline: float | None = None
        latest: tuple[int, _Result] | None = None
        leading = False
        try:  # from before the place is taken: an interrupt in between would leave it taken for ever
            while True:
                with self._lock:
                    if self._latest is not None and self._latest[0] >= number and suffices(self._latest[1]):
                        return self._latest[1]
                    if self._waiting is None:
                        leading = True
                        self._waiting = []
                        self._begun += 1
                        number = self._begun
                        latest = self._latest
                        break
                    waiting = self._waiting
                deadline = await self._wait(waiting, timeout, deadline)
                if deadline is None:
                    return None
            result = await work()
            latest = number, result
            return result
        finally:
            if leading:
                with self._lock:  # here, and not in a function: an interrupt may come wherever one is called
                    self._latest = latest
                    led, self._waiting = self._waiting, None
                for loop, ended in led or ():
                    with contextlib.suppress(RuntimeError):  # its loop was closed: nobody waits there any more
                        loop.call_soon_threadsafe(ended.set)

    async def _wait(
        self,
        waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
        timeout: float,
        deadline: float | None,
    ) -> float | None:
        """Wait until whoever leads has ended; until when it may go on, on the loop's clock, `None` if it is over."""
        await loops.loop_needed()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout if deadline is None else deadline
        ended = asyncio.Event()
        with self._lock:
            if waiting is not self._waiting:
                return deadline  # it has ended in the meantime
            waiting.append((loop, ended))
        timer = loop.call_at(deadline, ended.set)
        try:
            await ended.wait()
        finally:
            timer.cancel()
        return None if loop.time() >= deadline else deadline
