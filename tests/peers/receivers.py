"""Three receivers behind a proxy: each knows its name, and all write down in one place what they got, in order.

Real HTTP servers on real sockets; what a report says is read by the official protobuf classes.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.flushing import totals
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("one", "two", "three")


@dataclass(frozen=True)
class Report:
    """One report, as one receiver got it.

    Attributes:
        receiver: Who got it.
        sandbox: The instance id.
        number: Which report of the sandbox it is, from 1.
        orders: The total of the orders.
        resumed: What the proxy says of the TLS session on which it came; empty if it says nothing.
        cookies: The value of `Cookie`.
    """

    receiver: str
    sandbox: str
    number: int
    orders: int
    resumed: str
    cookies: str


class Receivers:
    """All of them.

    Args:
        cookie: A cookie with which each receiver names itself in every answer, anew each time; empty for none.

    Attributes:
        reports: What arrived, in the order in which it was read.
        gate: While it is closed, nobody answers. It is open at first.
        broken: What went wrong in here.
    """

    def __init__(self, cookie: str = "") -> None:
        self.cookie = cookie
        self.reports: list[Report] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken: list[BaseException | None] = []
        self._arrived = threading.Condition()
        self._servers = {name: _Server(name, self) for name in NAMES}

    @property
    def ports(self) -> dict[str, int]:
        """Where each one listens."""
        return {name: server.server_port for name, server in self._servers.items()}

    def add(self, report: Report) -> int:
        """Write a report down; how many there are now."""
        with self._arrived:
            self.reports.append(report)
            self._arrived.notify_all()
            return len(self.reports)

    def wait_for(self, count: int) -> None:
        """Wait until so many reports have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.reports) >= count, PATIENCE), "they did not all arrive"

    def visited(self) -> dict[str, list[str]]:
        """Which receivers each sandbox has reached, each time that it came to another one."""
        visits: defaultdict[str, list[str]] = defaultdict(list)
        for report in self.reports:
            if visits[report.sandbox][-1:] != [report.receiver]:
                visits[report.sandbox].append(report.receiver)
        return dict(visits)

    def orders(self) -> int:
        """The orders of all sandboxes, folded: of each the total that says most."""
        folded: Counter[str] = Counter()
        for report in self.reports:
            folded[report.sandbox] = max(folded[report.sandbox], report.orders)
        return folded.total()

    def numbers(self) -> list[int]:
        """The numbers of the reports in the order of their arrival."""
        return [report.number for report in self.reports]

    def stop(self, name: str) -> None:
        """One of them goes away, with all its connections."""
        self._servers[name].stop()

    def close(self) -> None:
        """The end."""
        self.gate.set()
        for server in self._servers.values():
            server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that its end waits for the threads of its connections
    request_queue_size = 64

    def __init__(self, name: str, receivers: Receivers) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.receivers = receivers
        self.connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            for connection in list(self.connections):
                with contextlib.suppress(OSError):  # its own thread closes it at this very moment, or it has ended
                    connection.shutdown(socket.SHUT_RDWR)
            self.server_close()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):  # whoever was connected may go in the middle of anything
            self.receivers.broken.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        receivers = self.server.receivers
        body = self.rfile.read(int(self.headers["Content-Length"]))
        count = receivers.add(_read(self.server.name, body, self.headers))
        assert receivers.gate.wait(PATIENCE), "nobody opened the gate"
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        if receivers.cookie:
            self.send_header("Set-Cookie", f"{receivers.cookie}={self.server.name}.{count}; Path=/; Max-Age=3600")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class calls it that
        """Say nothing."""


def _read(receiver: str, body: bytes, headers) -> Report:
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    (sandbox,) = (each.value.string_value for each in resource.resource.attributes if each.key == "service.instance.id")
    told = totals(body)
    resumed, cookies = headers.get("X-Session-Resumed", ""), headers.get("Cookie", "")
    return Report(receiver, sandbox, told["emitter.flushes"], told["orders"], resumed, cookies)


@contextlib.contextmanager
def receiving(cookie: str = "") -> Iterator[Receivers]:
    """Receive while the context lasts."""
    receivers = Receivers(cookie)
    try:
        yield receivers
        assert receivers.broken == []
    finally:
        receivers.close()
