"""A receiver of reports that keeps all of them, and knows of each connection how it began and ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import h11
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator

    from examples.local_network import Host

__all__ = ["Connection", "Receiver", "Report", "listening", "refusing", "silent"]

PATIENCE = 20.0
"""Seconds for what takes milliseconds unless the machine is busy."""


class Report:
    """One report, as the official classes decode it.

    Attributes:
        message: All of it.
    """

    def __init__(self, body: bytes) -> None:
        self.message = ExportMetricsServiceRequest.FromString(body)

    @property
    def instance(self) -> str:
        """The id of the sandbox."""
        (resource,) = self.message.resource_metrics
        (identity,) = [
            attribute for attribute in resource.resource.attributes if attribute.key == "service.instance.id"
        ]
        return identity.value.string_value

    def value(self, name: str) -> int | None:
        """A counter's total; `None` if it is not there."""
        points = self._points(name)
        return None if points is None else sum(int(point.as_int) for point in points)

    def started(self, name: str) -> float:
        """Since when a counter counts, in seconds since 1970."""
        (began,) = {point.start_time_unix_nano for point in self._points(name) or ()}
        return began / 1e9

    def made(self, name: str) -> float:
        """When a counter was read, in seconds since 1970."""
        (read,) = {point.time_unix_nano for point in self._points(name) or ()}
        return read / 1e9

    def _points(self, name: str) -> list | None:
        for scope in self.message.resource_metrics[0].scope_metrics:
            for metric in scope.metrics:
                if metric.name == name:
                    return list(metric.sum.data_points)
        return None


class Connection:
    """One connection.

    Attributes:
        reports: How many came over it.
        end: "in order" or "reset", by whoever is at the other end; `None` while it lasts, or was closed here.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.port: int = writer.get_extra_info("peername")[1]
        self.reports = 0
        self.end: str | None = None

    def write(self, data: bytes) -> None:
        """Answer."""
        self._writer.write(data)

    def close(self) -> None:
        """Close it from here, as a receiver does that has not heard from somebody for a while."""
        self._writer.close()

    def abort(self) -> None:
        """Let go of it, whoever is still at the other end."""
        self._writer.transport.abort()


class Receiver:
    """Keeps each report, and answers 200, or never.

    Attributes:
        endpoint: Its URL.
        reports: In order of arrival.
        connections: In order of arrival, those over TLS when the handshake is done.
    """

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._news = asyncio.Condition()
        self._served = 0
        self._server: asyncio.AbstractServer | None = None
        self.endpoint = ""
        self.reports: list[Report] = []
        self.connections: list[Connection] = []

    @contextlib.asynccontextmanager
    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Take connections."""
        self._server = await asyncio.start_server(self.serve, sock=listener, ssl=tls)
        host, port = listener.getsockname()
        self.endpoint = f"http{'s' if tls else ''}://{host}:{port}/v1/metrics"
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take no connection any more, and let go of those that there are."""
        if self._server is not None:
            self._server.close()
            for connection in self.connections:
                connection.abort()
            await self._until(lambda: not self._served)
            await self._server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection, for as long as it lasts."""
        connection = Connection(writer)
        async with self._news:
            self.connections.append(connection)
            self._served += 1
            self._news.notify_all()
        end = None
        try:
            await self._converse(connection, reader)
            end = "in order"
        except ConnectionError:
            end = "reset"
        finally:
            writer.close()
            async with self._news:
                connection.end = end
                self._served -= 1
                self._news.notify_all()

    async def arrived(self, count: int) -> None:
        """Wait until so many reports are here, and answered."""
        await self._until(lambda: len(self.reports) >= count)

    async def connected(self, count: int) -> None:
        """Wait until so many connections were opened."""
        await self._until(lambda: len(self.connections) >= count)

    async def ended(self, connection: Connection) -> None:
        """Wait until the other end has closed it."""
        await self._until(lambda: connection.end is not None)

    async def all_accepted(self) -> None:
        """Wait until every connection that was opened by now is among `connections`: one more, which is not.

        Over plain TCP, whose queue of new connections is served in order.
        """
        host, port = self.endpoint.removeprefix("http://").removesuffix("/v1/metrics").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        mine = writer.get_extra_info("sockname")[1]
        await self._until(lambda: any(connection.port == mine for connection in self.connections))
        self.connections[:] = [connection for connection in self.connections if connection.port != mine]
        writer.close()
        await writer.wait_closed()

    async def _converse(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        protocol = h11.Connection(h11.SERVER)
        body = bytearray()
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                protocol.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                # One that is silent for the sandbox still has to tell h11 that this exchange is over.
                answer = protocol.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.write((answer or b"") * self._answers)
                await self._keep(connection, bytes(body))
                body.clear()
                protocol.send(h11.EndOfMessage())
                protocol.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return

    async def _keep(self, connection: Connection, body: bytes) -> None:
        async with self._news:
            connection.reports += 1
            self.reports.append(Report(body))
            self._news.notify_all()

    async def _until(self, predicate: Callable[[], bool]) -> None:
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(predicate), PATIENCE)


@contextlib.asynccontextmanager
async def listening(
    *, answers: bool = True, tls: ssl.SSLContext | None = None, host: Host | None = None
) -> AsyncIterator[Receiver]:
    """A receiver on a free port.

    Args:
        answers: Whether it says anything.
        tls: Its certificate; `None` is plain HTTP.
        host: Where it is, in a network of its own; `None` is this machine's loopback device.
    """
    receiver = Receiver(answers=answers)
    address = "127.0.0.1" if host is None else host.address
    listener = (
        socket.create_server((address, 0)) if host is None else host.run(lambda: socket.create_server((address, 0)))
    )
    # As servers have it (and asyncio, for the sockets it makes): otherwise a close alert would wait until the answer
    # before it is acknowledged, which a frozen sandbox takes its time for.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    async with receiver.listen(listener, tls):
        yield receiver


def refusing() -> str:
    """The URL of a port that was free a moment ago: connecting to it is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    return f"http://{host}:{port}/v1/metrics"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """The URL of a port that does not even say no: its queue is full, so the kernel drops every SYN."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one connection, on Linux
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"http://{host}:{port}/v1/metrics"
