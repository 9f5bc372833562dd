"""A peer on a real socket that does exactly what a test tells it, one step at a time.

The kernel completes handshakes and keeps bytes by itself, so a test can write first and let the peer accept and read
afterwards, in one thread. Every step is bounded by `PATIENCE`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from dataclasses import dataclass

import h11

PATIENCE = 10.0
"""Seconds that a step may take before the test fails; nothing waits that long when it works."""


@dataclass(frozen=True)
class Received:
    """One request, as an independent parser (h11) understood it."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes


class PeerConnection:
    """The peer's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE)
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)

    def read_request(self) -> Received:
        """The next whole request."""
        request = self._next_event()
        assert isinstance(request, h11.Request), request
        body = bytearray()
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            body += event.data
        # h11 insists on an answer before the next request; what is really answered is up to the test.
        self._parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        self._parser.send(h11.EndOfMessage())
        self._parser.start_next_cycle()
        return Received(request.method, request.target, dict(request.headers), bytes(body))

    def _next_event(self) -> h11.Event:
        while True:
            event = self._parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._parser.receive_data(self.socket.recv(1 << 20))

    def write(self, data: bytes) -> None:
        """Write any bytes."""
        self.socket.sendall(data)

    def answer(self, status: int = 200, *headers: str) -> None:
        """Write an answer without a body."""
        fields = "".join(f"{field}\r\n" for field in headers)
        self.write(f"HTTP/1.1 {status} X\r\n{fields}Content-Length: 0\r\n\r\n".encode())

    def is_closed_by_client(self) -> bool:
        """Wait for the next byte or the end; whether it is the end."""
        with contextlib.suppress(ConnectionResetError):
            return not self.socket.recv(1)
        return True

    def close(self) -> None:
        """Close in order."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class ScriptedPeer:
    """Listens on a free port of the loopback interface.

    Args:
        receive_buffer_bytes: How much the kernel takes for a connection that nobody reads; `None`: the default.
        backlog: How many connections wait to be accepted.
        port: Where to listen; 0: wherever is free.
    """

    def __init__(self, *, receive_buffer_bytes: int | None = None, backlog: int = 16, port: int = 0) -> None:
        self._listener = socket.socket()
        if receive_buffer_bytes is not None:  # before `listen`, so that the window is that small from the start
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(backlog)
        self._listener.settimeout(PATIENCE)
        self._accepted: list[PeerConnection] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.getsockname()[1]

    @property
    def endpoint(self) -> str:
        """What to give to an emitter."""
        return f"http://127.0.0.1:{self.port}/v1/metrics"

    def accept(self) -> PeerConnection:
        """The next connection."""
        connection = PeerConnection(self._listener.accept()[0])
        self._accepted.append(connection)
        return connection

    def has_another_connection(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        for connection in self._accepted:
            connection.socket.close()


def wait_readable(sock: socket.socket) -> None:
    """Wait for the event that an answer, or the end, has arrived."""
    assert select.select([sock], [], [], PATIENCE)[0], "nothing arrived"
