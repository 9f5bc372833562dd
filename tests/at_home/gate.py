"""A gate before which handlers wait: so a test knows that they work, and says when they have done so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["WAITING", "Gate", "gate"]

WAITING = """
import asyncio
import socket

def wait_at(gate):
    with socket.create_connection(("127.0.0.1", gate)) as connection:
        connection.recv(1)

async def wait_at_async(gate):
    reader, writer = await asyncio.open_connection("127.0.0.1", gate)
    await reader.read(1)
    writer.close()
"""
"""For a function's module."""


class Gate:
    """Handlers wait before it, until it is opened.

    Attributes:
        port: What a handler needs, to find it.
    """

    def __init__(self) -> None:
        self._visitors: list[asyncio.StreamWriter] = []
        self._arrival = asyncio.Condition()
        self.port = 0

    async def receive(self, _: asyncio.StreamReader, visitor: asyncio.StreamWriter) -> None:
        """Let a handler wait."""
        async with self._arrival:
            self._visitors.append(visitor)
            self._arrival.notify_all()

    async def visited(self, count: int = 1) -> None:
        """Wait until so many are here."""
        async with self._arrival:
            await asyncio.wait_for(self._arrival.wait_for(lambda: len(self._visitors) >= count), 20)

    def open(self) -> None:
        """Let all go who are here."""
        while self._visitors:
            self._visitors.pop().close()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    """A gate that is shut."""
    gate = Gate()
    async with await asyncio.start_server(gate.receive, "127.0.0.1", 0) as server:
        gate.port = server.sockets[0].getsockname()[1]
        try:
            yield gate
        finally:
            gate.open()
