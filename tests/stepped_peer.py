"""A peer that goes one step at a time, never waits in one, and takes any number of connections.

For tests that look at every await of a flush: between two of them the peer has done exactly one step more. For others
it goes on in a thread of its own.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

import h11
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.flushing import orders
from tests.scripted_peer import ScriptedPeer
from tests.tls import ServerSide

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

__all__ = ["SteppedPeer"]

_READ_BYTES = 128 * 1024  # in one step


class _Connection:
    """The peer's side of one connection, with all that it has read."""

    def __init__(self, sock: socket.socket, tls: ServerSide | None) -> None:
        self.socket = sock
        self.tls = tls
        self.body = b""
        self.unwritten = b""
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)


class SteppedPeer(ScriptedPeer):
    """Answers each report with a 200, unless told otherwise.

    Args:
        context: Speaks TLS by it; `None`: none.
        piece_bytes: How much it writes in one step.

    Attributes:
        orders: The total of the last whole report.
        orders_of: The same, by instance id.
        reports: How many whole reports arrived.
        connections: How many connections.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, piece_bytes: int = 1 << 20, **more) -> None:
        super().__init__(**more)
        self._context = context
        self._piece_bytes = piece_bytes
        self._listener.setblocking(False)
        self._open: list[_Connection] = []
        self.orders = 0
        self.orders_of: dict[str, int] = {}
        self.reports = 0
        self.connections = 0

    @property
    def endpoint(self) -> str:
        """What to give to an emitter."""
        return super().endpoint.replace("http:", "https:" if self._context is not None else "http:")

    def step(self) -> None:
        """Accept who is there, and read some of what is there."""
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(_Connection(sock, ServerSide(self._context) if self._context is not None else None))
            self.connections += 1
        for connection in list(self._open):
            self._step(connection)

    def _step(self, connection: _Connection) -> None:
        try:
            self._read_and_write(connection)
        except (OSError, h11.RemoteProtocolError):  # it was given up, in the middle of a request perhaps
            self._drop(connection)

    def _read_and_write(self, connection: _Connection) -> None:
        with contextlib.suppress(BlockingIOError):
            wire = connection.socket.recv(_READ_BYTES)
            if not wire:
                self._drop(connection)
                return
            if connection.tls is not None:
                connection.unwritten += connection.tls.feed(wire)
                wire, connection.tls.plain = connection.tls.plain, b""
            if wire:
                connection.parser.receive_data(wire)
                self._take(connection)
        if connection.unwritten:
            written_bytes = connection.socket.send(connection.unwritten[: self._piece_bytes])
            connection.unwritten = connection.unwritten[written_bytes:]

    def _take(self, connection: _Connection) -> None:
        while (event := connection.parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                connection.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._note(connection.body)
                connection.body = b""
                answer = connection.parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                answer += connection.parser.send(h11.EndOfMessage())
                connection.parser.start_next_cycle()
                connection.unwritten += answer if connection.tls is None else connection.tls.write(answer)

    def _note(self, body: bytes) -> None:
        (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        identity = {each.key: each.value.string_value for each in resource.resource.attributes}
        self.orders = self.orders_of[identity["service.instance.id"]] = orders(body)
        self.reports += 1

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Go on in a thread."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                self.step()
                select.select([self._listener, *(each.socket for each in self._open)], [], [], 0.01)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _drop(self, connection: _Connection) -> None:
        connection.socket.close()
        self._open.remove(connection)

    def close(self) -> None:
        """Close everything."""
        super().close()
        for connection in self._open:
            connection.socket.close()
