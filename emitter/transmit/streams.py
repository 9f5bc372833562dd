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
    from collections.abc import Callable, Sequence

__all__ = ["Stream", "any_ready", "in_words", "ready"]


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

    async def adopt(self, early: Callable[[bytes], None]) -> asyncio.StreamWriter:
        """Put a new stream, in the loop that is in use, on the socket (0.2 ms); what is on its way stays.

        Args:
            early: Is given what the loop has read before it could be paused: nothing by the standard loop, but
                uvloop is faster.

        Raises:
            OSError: The system refused a duplicate or a registration.

        After failure and after cancellation: there is none, and `early` was given what the loop had read.
        """
        await loops.loop_needed()
        self.detach()
        loop = asyncio.get_running_loop()
        duplicate = self._socket.dup()
        self._duplicates.add(duplicate)
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Protocol(reader, loop, early)
        transport, _ = await loop.create_connection(lambda: protocol, sock=duplicate)
        transport.pause_reading()
        # With a limit of 0, `drain` returns exactly when nothing is left in this process.
        transport.set_write_buffer_limits(high=0)
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        _look_at_the_end(self._writer)
        self._loop = loop
        self._passing = not loops.outlives_its_caller(loop)
        return self._writer

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


class _Protocol(asyncio.StreamReaderProtocol):
    """Hands over at once what the loop reads, and stops it: in a reader it would be lost when `adopt` is cancelled."""

    def __init__(
        self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop, early: Callable[[bytes], None]
    ) -> None:
        super().__init__(reader, loop=loop)
        self._early = early

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._reading = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._reading.pause_reading()
        self._early(data)


def _look_at_the_end(writer: asyncio.StreamWriter) -> None:
    """See the error with which a stream may end: else asyncio complains of it, if it is collected in the wrong order.

    It lies in a future that nobody outside asyncio gets hold of, but for what `wait_closed` waits for.
    """
    waiting = writer.wait_closed()
    with contextlib.suppress(StopIteration, OSError):  # it has ended already, well or badly
        waiting.send(None).add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    waiting.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # of the writer, and not of its transport: a writer that is dropped first complains


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

    timer = loop.call_later(timeout, wake)
    try:
        for sock in readable:
            loop.add_reader(sock, wake)
        for sock in writable:
            loop.add_writer(sock, wake)
        await happened
    finally:
        try:  # first, and whatever comes in between: of a number left there, the next socket would get no news
            for sock in readable:
                loop.remove_reader(sock)
            for sock in writable:
                loop.remove_writer(sock)
        finally:
            timer.cancel()


def in_words(error: OSError) -> str:
    """What the operating system says; asyncio puts its own text, with the address, in its place."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
