"""What stands between a sandbox and a receiver, and does to single requests what networks and load balancers do."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
from contextlib import contextmanager
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fate", "Relay", "Request", "relaying"]


class Fate(Enum):
    """What becomes of one request."""

    FORWARDED = auto()
    LOST = auto()  # read, then the connection is closed: the receiver never hears of it
    REFUSED = auto()  # answered with 503 by the relay itself, as a load balancer without a healthy target does
    UNANSWERED = auto()  # forwarded; then the connection is closed instead of an answer: the sandbox never knows


class Request(NamedTuple):
    """One request, as it arrived."""

    coding: str
    body: bytes


class Relay(ThreadingHTTPServer):
    """Forwards requests to a port of this machine.

    Args:
        upstream: The port of the receiver.
        fates: Of the first requests, in their order; all others are forwarded.

    Attributes:
        requests: What arrived here, in order.
        statuses: What the receiver itself has answered, in order.
        broken: What went wrong in here.
    """

    daemon_threads = False  # so that its end waits for the threads of its connections
    request_queue_size = 64

    def __init__(self, upstream: int, fates: list[Fate]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.requests: list[Request] = []
        self.statuses: list[int] = []
        self.broken: list[BaseException] = []
        self._fates = list(fates)
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_port

    def next_fate(self) -> Fate:
        """That of the request that just arrived."""
        return self._fates.pop(0) if self._fates else Fate.FORWARDED

    def close(self) -> None:
        """The end, also of all connections."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        """As the base class; remembers the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """As the base class; forgets the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep it for the test."""
        self.broken.append(sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(Request(self.headers.get("Content-Encoding", ""), body))
        fate = self.server.next_fate()
        if fate is Fate.LOST:
            self.close_connection = True
            return
        if fate is Fate.REFUSED:
            self._answer(503, b"")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=PATIENCE)
        upstream.request("POST", self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        said = answer.read()
        upstream.close()
        self.server.statuses.append(answer.status)
        if fate is Fate.UNANSWERED:
            self.close_connection = True
            return
        self._answer(answer.status, said)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:  # which has no length (RFC 9110, 8.6)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if status != 204 else b"")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class calls it that
        """Say nothing."""


@contextmanager
def relaying(upstream: int, *fates: Fate) -> Iterator[Relay]:
    """Relay while the context lasts."""
    relay = Relay(upstream, [*fates])
    try:
        yield relay
        assert relay.broken == []
    finally:
        relay.close()
