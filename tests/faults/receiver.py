"""Owns the sound receiver that each fault ends as: requests read by h11, totals folded by the official classes.

Knows nothing of faults, and takes nothing from the code that is tested.
"""

from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING, NamedTuple

import h11
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["ANSWER", "Gone", "Known", "Receiver", "Requests", "Totals"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

Totals = dict[str, dict[str, int]]
"""By metric, then by the values of the attributes (joined by a space): a total, or the count of a histogram."""


class Gone(Exception):  # noqa: N818  no error: clients leave
    """The client has left, in order or not."""


class Requests:
    """Reads requests from one connection, with a parser that is not ours."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)

    def next(self) -> bytes:
        """The body of the next whole request, decompressed.

        Raises:
            Gone: The client left, in the middle of one or not.
        """
        request = self._event()
        body = bytearray()
        while not isinstance(event := self._event(), h11.EndOfMessage):
            body += event.data
        # h11 insists on an answer before the next request; what is really answered is up to the fault.
        self._parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        self._parser.send(h11.EndOfMessage())
        self._parser.start_next_cycle()
        zipped = dict(request.headers).get(b"content-encoding") == b"gzip"
        return gzip.decompress(body) if zipped else bytes(body)

    def _event(self) -> h11.Event:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(self._socket.recv(1 << 16))
        except (h11.RemoteProtocolError, OSError) as error:
            raise Gone from error
        if isinstance(event, h11.ConnectionClosed):
            raise Gone
        return event


class Known(NamedTuple):
    """What a receiver knows.

    Attributes:
        totals: All of them.
        largest_bytes: Of the largest report that it has folded.
    """

    totals: Totals
    largest_bytes: int


class Receiver:
    """Folds running totals: of each series the newest value counts, and sandboxes are added up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._series: dict[tuple[str, int, str, str], tuple[int, int]] = {}
        self._largest_bytes = 0

    def serve(self, sock: socket.socket) -> None:
        """Take reports from one connection, and answer each once it is folded, until the client leaves.

        Raises:
            Gone: The client left.
        """
        requests = Requests(sock)
        while True:
            self.fold(requests.next())
            try:
                sock.sendall(ANSWER)
            except OSError as error:
                raise Gone from error

    def fold(self, body: bytes) -> None:
        """Count one report in."""
        report = ExportMetricsServiceRequest.FromString(body)
        with self._changed:
            self._largest_bytes = max(self._largest_bytes, len(body))
            for resource in report.resource_metrics:
                instance = next(
                    attribute.value.string_value
                    for attribute in resource.resource.attributes
                    if attribute.key == "service.instance.id"
                )
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            value = point.count if metric.HasField("histogram") else point.as_int
                            attributes = " ".join(attribute.value.string_value for attribute in point.attributes)
                            key = instance, point.start_time_unix_nano, metric.name, attributes
                            newest = point.time_unix_nano, value
                            self._series[key] = max(self._series.get(key, newest), newest)
            self._changed.notify_all()

    def totals(self) -> Totals:
        """What is known so far."""
        totals: Totals = {}
        with self._changed:
            for (_, _, name, attributes), (_, value) in self._series.items():
                by_attributes = totals.setdefault(name, {})
                by_attributes[attributes] = by_attributes.get(attributes, 0) + value
        return totals

    def wait(self, says: Callable[[Totals], bool], seconds: float) -> Known:
        """What is known as soon as the totals say something, or the time is over."""
        with self._changed:  # its lock is re-entrant
            self._changed.wait_for(lambda: says(self.totals()), seconds)
            return Known(self.totals(), self._largest_bytes)
