"""Owns what we need of asyncio's streams and event loops beside writing: open, wait, give up, say what went wrong."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import socket

__all__ = ["Opening", "abort", "abort_unclaimed", "in_words", "open_paused", "ready"]

Opening = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""What asyncio makes of a connection."""


async def open_paused(
    *, host: str | None = None, port: int | None = None, sock: socket.socket | None = None
) -> Opening:
    """A stream that does not read, paused in the turn in which it opens: what it reads is out of `harvest`'s reach."""
    reader, writer = await asyncio.open_connection(host, port, sock=sock)
    cast("asyncio.Transport", writer.transport).pause_reading()  # it reads as well as it writes
    return reader, writer


async def ready(sock: socket.socket, what: Literal["read", "write"], timeout: float) -> None:
    """Wait until a socket (no stream's own) is readable or writable (or broken), or the time is over."""
    loop = asyncio.get_running_loop()
    happened = loop.create_future()

    def wake() -> None:
        if not happened.done():
            happened.set_result(None)

    add, remove = (loop.add_reader, loop.remove_reader) if what == "read" else (loop.add_writer, loop.remove_writer)
    add(sock, wake)
    timer = loop.call_later(timeout, wake)
    try:
        await happened
    finally:
        timer.cancel()
        remove(sock)


def abort(writer: asyncio.StreamWriter) -> None:
    """Give a stream up: its socket is closed when its loop next runs."""
    writer.transport.abort()


def abort_unclaimed(opening: asyncio.Task[Opening]) -> None:
    """A connection that was opened in the moment in which it was given up."""
    if not opening.cancelled() and opening.exception() is None:
        abort(opening.result()[1])


def in_words(error: OSError) -> str:
    """What the operating system says; asyncio puts its own text, with the address, in its place."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
