"""Owns the peer's side of one connection, as the fault scripts use it. Knows no fault and no metric."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

from tests.faults.receiver import Gone, Requests

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["Call", "Ending"]

_PATIENCE = 30.0
"""Seconds that one read or write may take; a client that neither reads nor closes for so long is given up."""

_LONG = 600.0
"""Seconds: longer than any row lasts."""


class Ending:
    """The moment at which a fault ends, as something that can be waited for beside a socket."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self.come = False

    def fileno(self) -> int:
        """Readable from then on."""
        return self._read_end

    def announce(self) -> None:
        """It has come. May be said twice."""
        if not self.come:
            self.come = True
            os.close(self._write_end)

    def close(self) -> None:
        """Nobody waits any more."""
        self.announce()
        os.close(self._read_end)


class Call:
    """One accepted connection of a client.

    Args:
        sock: The connection; an `ssl.SSLSocket` if the fault is one of HTTP over TLS.
        ending: When the fault ends.
        misbehaved: What to tell that the fault has now been committed.

    Attributes:
        socket: The connection.
        carries_on: Whether the connection outlives the fault, as whatever the script makes of it. Else it is cut.
    """

    def __init__(self, sock: socket.socket, ending: Ending, misbehaved: Callable[[], None]) -> None:
        self.socket = sock
        self.socket.settimeout(_PATIENCE)
        # What is written has arrived, then, as soon as it is noted: several small pieces would wait for each other.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.carries_on = False
        self.misbehaved = misbehaved
        self._ending = ending
        self._requests = Requests(sock)

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on.

        Raises:
            Gone: The client left, or wants none of it.
        """
        try:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        except OSError as error:
            raise Gone from error
        self._requests = Requests(self.socket)

    def request(self) -> bytes:
        """The body of the next whole request."""
        return self._requests.next()

    def read(self, size: int) -> bytes:
        """Some bytes, at most so many.

        Raises:
            Gone: The client left.
        """
        try:
            data = self.socket.recv(size)
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        return data

    def write(self, data: bytes) -> None:
        """All of these bytes.

        Raises:
            Gone: The client left.
        """
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone from error

    def say(self, data: bytes) -> None:
        """Write what is wrong to write, and note that it was done."""
        self.write(data)
        self.misbehaved()

    def pause(self, seconds: float) -> None:
        """Let time pass, unless the client leaves or the fault ends."""
        self._wait(seconds, self._ending)

    def hang(self) -> None:
        """Do nothing until the fault ends.

        Raises:
            Gone: The client left before.
        """
        self._wait(_LONG, self._ending)

    def hang_for_ever(self) -> None:
        """Do nothing, even when the fault has ended: only new connections are sound then.

        Raises:
            Gone: The client left.
        """
        self.carries_on = True
        self._wait(_LONG)

    def _wait(self, seconds: float, *others: Ending) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)  # and the errors, which are always told
        for ending in others:
            poll.register(ending, 0)  # its other end is closed: a hang-up, which is always told
        events = poll.poll(seconds * 1000)
        if any(fd == self.socket.fileno() for fd, _ in events):
            raise Gone

    def reset(self) -> None:
        """Close with a reset, and note it."""
        with contextlib.suppress(OSError):  # it may be gone already
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close, and note it."""
        self.socket.close()
        self.misbehaved()

    def cut(self) -> None:
        """End it from another thread, which lets the script's own go on to its end."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
