"""Owns the event loop that synchronous code waits on. Knows nothing of what is awaited.

The stock Lambda runtime calls handlers from synchronous code, so somebody has to own a loop; one made for each
invocation (`asyncio.run`) would take every connection with it when it ends. Here one loop lives as long as the
process, and runs only while something really has to wait.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import selectors
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from typing import Any

__all__ = ["current", "inside", "loop_needed", "outlives_its_caller", "prepare", "refuse_inside_loop", "run"]

_Result = TypeVar("_Result")

_PATIENCE = 1.0
"""Seconds for a cancelled coroutine to end. It takes microseconds, unless an interrupt came at a moment at which
asyncio itself loses a wake-up."""

_busy = threading.Lock()
"""Held by the thread that uses the process's loop, running or not."""

_process_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The loop of this process, by process id. A forked child makes its own."""


def _after_fork_in_child() -> None:
    global _busy  # noqa: PLW0603
    _busy = threading.Lock()  # whoever held it does not exist here
    for loop in _process_loops.values():
        # The child shares its parent's epoll set, and would take the parent's registrations out of it when its own
        # copy of the loop is closed, at exit at the latest. So that copy gets an empty set under the same number.
        selector = getattr(loop, "_selector", None)
        if hasattr(select, "epoll") and isinstance(selector, selectors.EpollSelector):
            with select.epoll() as empty:
                os.dup2(empty.fileno(), selector.fileno(), inheritable=False)


os.register_at_fork(after_in_child=_after_fork_in_child)


class _LoopNeeded:
    """Gives way once, if no event loop runs, so that `run` can go on inside one."""

    def __await__(self) -> Generator[None, None, None]:
        if asyncio._get_running_loop() is None:  # noqa: SLF001  `get_running_loop` would raise, 1 us on the hot path
            yield


def loop_needed() -> _LoopNeeded:
    """Await this before anything that may wait: up to here a coroutine given to `run` needs no loop."""
    return _LoopNeeded()


def current() -> asyncio.AbstractEventLoop:
    """The running loop, or else the one that `run` will use."""
    return asyncio._get_running_loop() or _the_process_loop()  # noqa: SLF001  as above


def outlives_its_caller(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the process's loop, to which things may stay bound; any other may be gone by the next call."""
    return loop is _process_loops.get(os.getpid())


def inside() -> bool:
    """Whether an event loop runs in this thread."""
    return asyncio._get_running_loop() is not None  # noqa: SLF001  as above


def refuse_inside_loop(instead: str) -> None:
    """Raise a `RuntimeError` that names the coroutine to await, if a loop runs in this thread."""
    if inside():
        raise RuntimeError(f"called inside a running event loop, which it would block; expected `await {instead}`")


def run(coroutine: Coroutine[Any, Any, _Result], *, passing: bool = True) -> _Result:
    """Run a coroutine to its end from synchronous code.

    The coroutine is started without a loop. If it never has to wait, no loop ever runs (measured for a bare
    write: 15 us instead of 80 us). At its first `loop_needed()` it is carried on in the process's loop, or, while
    another thread is using that one, in a passing loop of its own.

    Args:
        coroutine: What to run.
        passing: Whether a passing loop will do. If not, it is waited for that the other thread is done: a user's
            handler opens connections that belong to its loop, and must find the same loop each time.

    Raises:
        BaseException: Whatever the coroutine raises. If the caller is interrupted, the coroutine is cancelled
            and awaited first.
    """
    busy = _busy  # this very lock: in a child forked meanwhile there will be another
    held: list[bool] = []
    try:
        # Taken and noted in one call of C, so that no interrupt (Ctrl-C, an alarm) comes between the two: it would
        # leave the loop taken for ever.
        held.extend(map(busy.acquire, (not passing,)))
        if not held[0]:
            return _run_in_passing_loop(coroutine)
        try:
            coroutine.send(None)
        except StopIteration as returned:
            result: _Result = returned.value
            return result
        return _run_in(_the_process_loop(), coroutine)
    finally:
        if held and held[0]:
            busy.release()


def prepare() -> None:
    """Make the loop of this process, if there is none yet, so that nobody who waits can be refused one.

    Raises:
        OSError: No descriptor is left for it.
    """
    _the_process_loop()


@atexit.register
def _close_at_exit() -> None:
    # Of what was registered later, so run before this, some may still have needed it; of what comes after, nothing.
    loop = _process_loops.pop(os.getpid(), None)
    if loop is not None and not loop.is_running():
        loop.run_until_complete(loop.shutdown_asyncgens())  # users' own, and the sessions of an `AwaitedEmitter`
        loop.close()


def _the_process_loop() -> asyncio.AbstractEventLoop:
    loop = _process_loops.get(os.getpid())
    if loop is None:
        loop = _process_loops[os.getpid()] = asyncio.new_event_loop()
    return loop


def _run_in(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    task: asyncio.Task[_Result] | None = None
    try:
        task = loop.create_task(coroutine)  # a coroutine that gave way at `loop_needed` simply goes on here
        return loop.run_until_complete(task)
    except BaseException as error:  # an interrupt (Ctrl-C, an alarm) may have come through the loop
        if task is not None and not task.done():  # and left the task behind
            task.cancel()
            loop.run_until_complete(asyncio.wait({task}, timeout=_PATIENCE))
        elif task is not None and (task.cancelled() or task.exception() is not error):
            # And the end of the run, which was due as the task had ended: it would be the end of the next one.
            loop.call_soon(loop.stop)
            loop.run_forever()
        raise


def _run_in_passing_loop(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    loop = asyncio.new_event_loop()
    try:
        return _run_in(loop, coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())  # and transports that were given up close
        loop.close()
