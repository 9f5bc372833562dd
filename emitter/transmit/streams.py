"""Owns what we need of asyncio's streams and event loops: a stream that changes loops, waiting, words for errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Literal, cast

from emitter import loop as loops

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["Stream", "any_ready", "in_words", "ready"]

_READ_BYTES = 64 * 1024


class Stream:
    """asyncio's stream on a duplicate of a socket. It belongs to one event loop, and is replaced in the next.

    Reading is paused from the start: what arrives stays in the kernel, for whoever has the socket.

    Args:
        sock: The socket; it stays its owner's, and outlives every loop.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._duplicates: weakref.WeakSet[socket.socket] = weakref.WeakSet()  # all that may be open, for `disown`
        self._writer: asyncio.StreamWriter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passing = False

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """What to write to in the loop that is in use; `None`: `adopt` first."""
        return self._writer if self._loop is loops.current() else None

    @property
    def unwritten_bytes(self) -> int:
        """What of the last write is still in this process."""
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0

    async def adopt(self) -> tuple[asyncio.StreamWriter, bytes]:
        """Put a new stream, in the loop that is in use, on the socket (0.2 ms); what is on its way stays.

        Returns:
            What to write to, and what the stream has read before it was paused: nothing on the standard loop, but
            uvloop is faster.

        Raises:
            OSError: The system refused a duplicate or a registration.
        """
        await loops.loop_needed()
        self.detach()
        duplicate = self._socket.dup()
        self._duplicates.add(duplicate)
        reader, writer = await asyncio.open_connection(sock=duplicate)
        transport = cast("asyncio.Transport", writer.transport)  # it reads as well as it writes
        transport.pause_reading()
        # With a limit of 0, `drain` returns exactly when nothing is left in this process.
        transport.set_write_buffer_limits(high=0)
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._passing = not loops.outlives_its_caller(self._loop)
        return writer, _read_already(reader)

    def rest(self) -> None:
        """Called between two uses: leaves a loop that may be gone by the next one. The process's own loop stays."""
        if self._passing:
            self.detach()

    def detach(self) -> None:
        """Give up the stream and keep the socket. The loop closes the stream's duplicate when it next runs."""
        if self._writer is None or self._loop is None:
            return
        if self._loop is loops.current():
            _abort(self._writer)
        else:
            with contextlib.suppress(RuntimeError):  # its owner has closed that loop, and the stream with it
                self._loop.call_soon_threadsafe(_abort, self._writer)
        self._writer = self._loop = None

    def disown(self) -> None:
        """Forget the stream in a forked child, so that nothing it does there can reach the parent's connection."""
        # Also of the streams before: a loop closes its duplicate when it next runs, which may not have been yet.
        for duplicate in self._duplicates:
            if duplicate.fileno() >= 0:
                # Only its owner, the loop's transport, may close that number, so another file is put under it.
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, duplicate.fileno(), inheritable=False)
                os.close(nothing)
        if self._writer is not None:
            # Its loop is closed, or is debugged and refuses another thread, or cannot forget that number.
            with contextlib.suppress(RuntimeError, OSError):
                _abort(self._writer)
        self._writer = self._loop = None


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # of the writer, and not of its transport: a writer that is dropped first complains


def _read_already(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while not reader.at_eof():
        reading = reader.read(_READ_BYTES)
        try:
            reading.send(None)
        except StopIteration as read:  # it did not have to wait
            pieces.append(read.value)
        else:
            reading.close()
            break
    return b"".join(pieces)


async def ready(sock: socket.socket, what: Literal["read", "write"], timeout: float) -> None:
    """Wait until a socket (no stream's own) is readable or writable (or broken), or the time is over."""
    await any_ready((sock,) if what == "read" else (), (sock,) if what == "write" else (), timeout)


async def any_ready(readable: Sequence[socket.socket], writable: Sequence[socket.socket], timeout: float) -> None:
    """Wait until one of these sockets (no stream's own) is readable or writable (or broken), or the time is over."""
    loop = asyncio.get_running_loop()
    happened = loop.create_future()

    def wake() -> None:
        if not happened.done():
            happened.set_result(None)

    for sock in readable:
        loop.add_reader(sock, wake)
    for sock in writable:
        loop.add_writer(sock, wake)
    timer = loop.call_later(timeout, wake)
    try:
        await happened
    finally:
        timer.cancel()
        for sock in readable:
            loop.remove_reader(sock)
        for sock in writable:
            loop.remove_writer(sock)


def in_words(error: OSError) -> str:
    """What the operating system says; asyncio puts its own text, with the address, in its place."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
