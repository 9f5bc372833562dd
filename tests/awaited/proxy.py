"""A small HTTP proxy on a real socket: forwards what is asked for in absolute form, and tunnels after CONNECT.

Source: RFC 9112, 3.2.2 and 3.2.3; RFC 9110, 9.3.6 and 11.7.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Proxy", "proxying"]


class Proxy:
    """One that listens; made by `proxying`.

    Args:
        credentials: `user:password` that it wants to be shown; empty for none.
        refusal: The status with which it refuses every tunnel; 0: it does not.

    Attributes:
        asked: Method and target of all requests, in their order.
        port: Where it listens.
    """

    def __init__(self, credentials: str, refusal: int) -> None:
        self._wanted = f"basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self._refusal = refusal
        self.asked: list[str] = []
        self.port = 0
        self._at_work: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
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
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._pass_on(reader, writer)
        finally:
            del self._at_work[task]
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first request decides where the rest of the connection goes to."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")
        method, target, _ = line.split(" ")
        self.asked.append(f"{method} {target}")
        shown = dict(field.lower().split(": ", 1) for field in fields if field)
        if self._wanted and shown.get("proxy-authorization", "") != self._wanted.lower():
            return await _say(writer, 407, "Proxy-Authenticate: Basic realm=x")
        if method == "CONNECT" and self._refusal:
            return await _say(writer, self._refusal)
        host, port, path = re.fullmatch(r"(?:http://)?([^/:]+):(\d+)(.*)", target).groups()
        back, forth = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = [field for field in fields if field and not field.lower().startswith("proxy-")]
            forth.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "", ""]).encode("latin-1"))
        try:
            await asyncio.gather(_pump(reader, forth), _pump(back, writer))
        finally:
            forth.close()


async def _say(writer: asyncio.StreamWriter, status: int, field: str = "X: y") -> None:
    writer.write(f"HTTP/1.1 {status} X\r\n{field}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until one side ends; then the other one ends too."""
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def proxying(
    *, credentials: str = "", refusal: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """A proxy that listens while the context lasts; with a `context`, over TLS."""
    proxy = Proxy(credentials, refusal)
    async with proxy.listening(context):
        yield proxy
