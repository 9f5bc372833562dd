"""Owns the thread in which a connection is opened ahead of time, while a handler works. Knows not how one is opened.

The stock Lambda runtime runs a handler synchronously, so nothing else in its thread can go on meanwhile: a TCP
connection is made by the kernel alone, but a name and a TLS handshake want somebody who answers.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Ahead"]


class Ahead:
    """A thread that works until it has nothing left to do, or is stopped.

    Args:
        work: What it does; is given this object, and returns as soon as `stopped` says so.

    Raises:
        RuntimeError: No thread can be started.
        OSError: No descriptor is left.
    """

    def __init__(self, work: Callable[[Ahead], None]) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=work, args=(self,), name="emitter-ahead", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # whatever it is, an interrupt too: nothing stays behind
            self.disown()
            raise

    def stopped(self, readable: Iterable[socket.socket], writable: Iterable[socket.socket], seconds: float) -> bool:
        """Wait, in the thread, for one of these sockets or for the time to pass; whether it was stopped meanwhile."""
        poll = select.poll()
        poll.register(self._theirs, select.POLLIN)
        for sock in readable:
            poll.register(sock, select.POLLIN)
        for sock in writable:
            poll.register(sock, select.POLLOUT)
        # Whole milliseconds; rounded up, or the last one would be spun away.
        ready = poll.poll(math.ceil(seconds * 1e3))
        return any(descriptor == self._theirs.fileno() for descriptor, _ in ready)

    def stop(self) -> None:
        """Return once the thread has ended. It ends where it would have waited."""
        with contextlib.suppress(OSError):  # it was stopped before: an interrupt came on the way back
            self._ours.send(b"\0")
        self._thread.join()
        self.disown()

    def disown(self) -> None:
        """Close what belongs to it, without a thread: it has ended, or a fork has left it behind."""
        self._ours.close()
        self._theirs.close()
