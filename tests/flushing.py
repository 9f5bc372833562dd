"""A flusher on a scripted peer, and what reports say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.flusher import Flusher
from emitter.posting import Posting
from emitter.record.registry import Registry
from emitter.reports import Reports
from emitter.settings import Settings
from emitter.transmit.cookies import CookieStore
from emitter.transmit.delivery import Delivery
from tests.scripted_peer import PeerConnection, ScriptedPeer, wait_readable

if TYPE_CHECKING:
    from emitter.outcomes import Flush


def reports_of(registry: Registry, settings: Settings) -> Reports[bytes]:
    """Reports as whole requests."""
    cookies = CookieStore(target=settings.endpoint.target, secure=settings.endpoint.secure)
    return Reports(registry, settings, Posting(settings, cookies, time.time).request)


class Bench:
    """A flusher on a peer, with a clock that stands still and no chance in its back-off."""

    def __init__(self, peer: ScriptedPeer, clock, encoder=None, environment=None, **more) -> None:
        self._endpoint = peer.endpoint
        self._environment = environment or {}
        settings = self.settings_with(encoder=encoder, **more)
        self.clock = clock
        self.wall: float | None = None  # where wall time differs
        self.registry = Registry(settings.resource, tick_nano=settings.encoder.tick_nano, names=settings.encoder.names)
        self.orders = self.registry.counter("orders")
        clocks = Clocks(monotonic=clock, wall=lambda: clock() if self.wall is None else self.wall)
        self.flusher = Flusher(self.registry, settings, clocks=clocks, jitter=lambda: 1.0)

    def settings_with(self, **more) -> Settings:
        return Settings.resolve(
            self._environment, endpoint=self._endpoint, service="s", headers=None, delivery=None, timeout=None, **more
        )

    def flush(self, wanted: Delivery = Delivery.TRANSMITTED, timeout: float = 5.0, **more) -> Flush:
        return loops.run(self.flusher.flush(timeout, wanted, **more))

    def record_and_flush(self) -> Flush:
        self.orders.add()
        return self.flush()

    def wait_for_input(self) -> None:
        wait_readable(self.flusher._link.connection._socket)

    @property
    def stats(self):
        return self.flusher.stats


def totals(body: bytes) -> dict[str, int]:
    request = ExportMetricsServiceRequest.FromString(body)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    return {metric.name: sum(point.as_int for point in metric.sum.data_points) for metric in metrics}


def next_totals(other_end: PeerConnection) -> dict[str, int]:
    return totals(other_end.read_request().body)


def decoded(body: bytes) -> dict[str, object]:
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    return {metric.name: metric for metric in resource.scope_metrics[0].metrics}


def orders(body: bytes) -> int:
    return sum(point.as_int for point in decoded(body)["orders"].sum.data_points)
