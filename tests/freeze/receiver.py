"""The receiver on its host: takes reports over HTTP, answers each with 200, and remembers which are complete."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httptools
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

    from examples.local_network import Host

__all__ = ["Receiver", "Report"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Report:
    """One complete report.

    Attributes:
        number: Which one of its sandbox: 1 is the first.
        orders: What the counter `orders` says in it.
        body_bytes: Its length without HTTP's head.
    """

    number: int
    orders: int
    body_bytes: int


class Receiver:
    """A receiver, to be used as an asynchronous context manager.

    Args:
        host: Where it listens.
        tls: Its certificate; `None` is plain HTTP.

    Attributes:
        reports: Every complete report, in order of arrival.
        connections: How many were opened.
    """

    def __init__(self, host: Host, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self.reports: list[Report] = []
        self.connections: list[asyncio.BaseTransport] = []

    async def __aenter__(self) -> Self:
        listener = self._host.run(lambda: socket.create_server((self._host.address, 0)))
        self._port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Conversation(self), sock=listener, ssl=self._tls)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for transport in self.connections:
            transport.abort()
        await self._server.wait_closed()

    @property
    def endpoint(self) -> str:
        """The URL that reports are POSTed to."""
        return f"http{'s' if self._tls else ''}://{self._host.address}:{self._port}/v1/metrics"

    async def read(self) -> None:
        """Read all that is in the kernel of the receiver's host by now."""
        while any(map(_unread, self.connections)):
            await asyncio.sleep(0)  # one turn of the loop reads from each connection


class _Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._receiver.connections.append(transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._body = bytearray()

    def on_body(self, chunk: bytes) -> None:
        self._body += chunk

    def on_message_complete(self) -> None:
        message = ExportMetricsServiceRequest.FromString(bytes(self._body))
        totals = {
            metric.name: sum(point.as_int for point in metric.sum.data_points)
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        self._receiver.reports.append(Report(totals["emitter.flushes"], totals["orders"], len(self._body)))
        self._transport.write(_ANSWER)


def _unread(transport: asyncio.BaseTransport) -> int:
    if transport.is_closing():
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(transport.get_extra_info("socket"), termios.FIONREAD, bytes(4)))
    return count
