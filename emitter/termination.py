"""Owns what SIGTERM does to those who asked for it: a last flush, then whatever it did before.

Python runs a signal's handler in the main thread, between two of its instructions: in the middle of a recording or a
flush perhaps, whose locks it would wait for in vain. And not at all while the stock runtime waits for the next event in
C, as it does before Python 3.12 and in container images. So a thread does the work, woken by what Python's own C code
writes to a socket at once (`signal.set_wakeup_fd`). The handler in the main thread only waits for that thread, no
longer than Lambda would, and then does what was done before. A flush in the middle of which it came stands still
meanwhile, and what that one does not tell is not told: Lambda gives the signal between invocations, or at a time-out.

Source: AWS Lambda developer guide, "Understanding the Lambda execution environment lifecycle", Shutdown phase;
awslambdaric, `lambda_config.py` (which environments it polls in a thread for).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, cast

from emitter import forking
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import FrameType
    from typing import Any

__all__ = ["PATIENCE", "watch"]

PATIENCE = 0.25
"""Seconds for each flush; all of them run at the same time. Lambda gives the runtime of a sandbox with an extension 300
to 500 ms before it kills it."""

_MARGIN = 0.02
"""Seconds more that the process waits for them."""


class _Termination:
    """The one of this process.

    Raises:
        ConfigurationError: Made outside the main thread, where Python lets nobody handle a signal.
    """

    def __init__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                "flush_at_sigterm was asked for outside the main thread; expected the handler to be decorated at the "
                "top of its module"
            )
        self.flushes: dict[Hashable, Callable[[float], object]] = {}
        self._begin()
        self._before: Any = signal.signal(signal.SIGTERM, self._handle)
        self._listen()
        forking.watch(self)

    def after_fork(self) -> None:
        """In a child: its own socket and thread; a signal for the child must not wake the parent."""
        inherited = self._ours.fileno()
        self._ours.close()
        self._theirs.close()
        self._begin()
        self._listen(inherited)

    def _begin(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        # A bare lock, held until all are flushed: an `Event` takes a lock of its own while it is waited for, which a
        # second signal in the middle of that would wait for in vain.
        self._flushing = threading.Lock()
        self._flushing.acquire()
        self._handling = self._handled = False
        self._quiet_until = 0.0

    def _listen(self, inherited: int = -1) -> None:
        threading.Thread(
            target=self._wait, args=(self._theirs, self._flushing), name="emitter-sigterm", daemon=True
        ).start()
        # In a child that was forked by another thread this is the main thread by now; and what was somebody else's
        # descriptor may be closed.
        with contextlib.suppress(ValueError, OSError):
            before = signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)
            if before not in {-1, inherited}:
                signal.set_wakeup_fd(before)  # somebody else's: an event loop's; then the handler has to do

    def _wait(self, theirs: socket.socket, flushing: threading.Lock) -> None:
        while signal.SIGTERM not in theirs.recv(1):  # one byte for each signal: its number
            pass
        try:
            threads = [
                threading.Thread(target=flush, args=(PATIENCE,), daemon=True) for flush in list(self.flushes.values())
            ]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + PATIENCE + _MARGIN
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            flushing.release()
            # The kernel may have given the signal to any thread, and a main thread that sleeps in a lock (the stock
            # runtime's, from Python 3.12 on) is only woken to run its handler by a signal of its own. If the handler is
            # somebody else's by now, who knows nothing of us, it was called for the first one.
            if not self._handled and signal.getsignal(signal.SIGTERM) == self._handle:
                signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._handling or time.monotonic() < self._quiet_until:
            return  # once more in the middle of it, or woken for what was just done
        self._handling = self._handled = True
        with contextlib.suppress(OSError):  # full of signals: then this one is not needed
            self._ours.send(bytes([number]))  # once more, in case somebody else has the wakeup descriptor
        if self._flushing.acquire(timeout=PATIENCE + 2 * _MARGIN):
            self._flushing.release()
        self._quiet_until = time.monotonic() + _MARGIN
        self._handling = False
        if callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


_termination: list[_Termination] = []


def watch(whose: Hashable, flush: Callable[[float], object]) -> None:
    """Call this at SIGTERM, in a thread of its own.

    Args:
        whose: Whom it is done for: somebody who asks twice is served once.
        flush: What to call, with the seconds that it may take.

    Raises:
        ConfigurationError: Called outside the main thread.
    """
    if not _termination:
        _termination.append(_Termination())
    _termination[0].flushes[whose] = flush
