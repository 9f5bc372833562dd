"""A receiver on a real socket, in the test's own loop, that does with each request what the test says.

Requests are read by h11; what is answered are the test's own bytes.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING

import h11

from tests.flushing import totals
from tests.scripted_peer import PATIENCE, Received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Fate", "Receiver", "answer", "body", "receiving"]


class Fate(Enum):
    """What becomes of a request instead of an answer."""

    CLOSED = auto()  # the connection is closed
    RESET = auto()  # the same, with a reset
    HELD = auto()  # nothing happens until the client closes the connection


def answer(status: int = 200, *fields: str, body: bytes = b"") -> bytes:
    """A whole answer."""
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Receiver:
    """One that listens; made by `receiving`.

    Args:
        fates: What becomes of the requests, in their order; of those that come after them, 200. Some bytes and a
            fate: the one after the other.

    Attributes:
        requests: All that were read, in their order.
        connections: How many were accepted.
        ended: How many connections were closed by the client, in order or not.
        port: Where it listens.
    """

    def __init__(self, *fates: int | bytes | Fate | tuple[bytes, Fate]) -> None:
        self.fates = list(fates)
        self.requests: list[Received] = []
        self.connections = 0
        self.ended = 0
        self.port = 0
        self._changed = asyncio.Condition()
        self._secure = False
        self._at_work: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def endpoint(self) -> str:
        """What to give to an emitter."""
        return f"http{'s' if self._secure else ''}://127.0.0.1:{self.port}/v1/metrics"

    @property
    def orders(self) -> list[int]:
        """The total of the orders in each request."""
        return [totals(body(request)).get("orders", 0) for request in self.requests]

    async def until(self, *, requests: int = 0, ended: int = 0) -> None:
        """Wait until so much has happened."""
        async with self._changed:
            await asyncio.wait_for(
                self._changed.wait_for(lambda: len(self.requests) >= requests and self.ended >= ended), PATIENCE
            )

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        self._secure = context is not None
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in self._at_work.values():
                writer.transport.abort()
            if self._at_work:
                await asyncio.wait(set(self._at_work), timeout=PATIENCE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._at_work[task] = writer
        self.connections += 1
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
        try:
            while True:
                request = await _read(parser, reader)
                if request is None:
                    return
                await self._note(request)
                fate = self.fates.pop(0) if self.fates else 200
                if isinstance(fate, tuple):
                    writer.write(fate[0])
                    await writer.drain()
                    fate = fate[1]
                if fate is Fate.CLOSED:
                    return
                if fate is Fate.RESET:
                    writer.get_extra_info("socket").setsockopt(*_RESET)
                    writer.transport.abort()
                    return
                if fate is Fate.HELD:
                    await reader.read()
                    return
                writer.write(answer(fate) if isinstance(fate, int) else fate)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass  # the client went away
        finally:
            del self._at_work[task]
            writer.close()
            await self._note(None)

    async def _note(self, request: Received | None) -> None:
        async with self._changed:
            if request is None:
                self.ended += 1
            else:
                self.requests.append(request)
            self._changed.notify_all()


_RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def body(request: Received) -> bytes:
    """What a request carries, unpacked."""
    packed = request.headers.get(b"content-encoding") == b"gzip"
    return gzip.decompress(request.body) if packed else request.body


async def _read(parser: h11.Connection, reader: asyncio.StreamReader) -> Received | None:
    """The next whole request, `None` at the end of the connection."""
    head: h11.Request | None = None
    content = bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await reader.read(1 << 20))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            # h11 insists on an answer before the next request; what is really answered is up to the test.
            parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            parser.send(h11.EndOfMessage())
            if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
                parser.start_next_cycle()
            return Received(head.method, head.target, dict(head.headers), bytes(content))
        else:
            return None


@asynccontextmanager
async def receiving(
    *fates: int | bytes | Fate | tuple[bytes, Fate], context: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver that listens while the context lasts.

    Args:
        fates: What becomes of the requests, in their order.
        context: For TLS.
    """
    receiver = Receiver(*fates)
    async with receiver.listening(context):
        yield receiver
