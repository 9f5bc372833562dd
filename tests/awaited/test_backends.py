from __future__ import annotations

from contextlib import ExitStack

import pytest

from emitter import Delivery
from tests.peers.prometheus import prometheus
from tests.peers.victoria_metrics import victoria_metrics

SERVERS = {"prometheus": prometheus, "victoria-metrics": victoria_metrics}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path):
    """A real receiver of remote write."""
    with ExitStack() as end:
        yield end.enter_context(SERVERS[request.param](tmp_path))


async def test_remote_write_arrives_and_is_answered(made, server) -> None:
    """Bodies that the encoder has packed itself, and that are accepted with 204."""
    metrics = made(f"{server.url}/api/v1/write", encoder="remote-write")
    orders = metrics.counter("orders")
    flushes = []
    for _ in range(3):
        orders.add(2, channel="web")
        flushes.append(await metrics.flush())
    (series,) = server.query('max_over_time(orders_total{job="checkout",channel="web"}[1h])')

    assert [flush.error for flush in flushes] == [None] * 3
    assert {verdict.status for flush in flushes for verdict in flush.verdicts} <= {200, 204}
    assert all(flush.delivery is Delivery.ANSWERED for flush in flushes)
    assert [value for _, value in series.values] == [6.0]


async def test_what_it_does_not_understand_is_an_error(made, server) -> None:
    """Another format: refused for good, and the caller knows."""
    metrics = made(f"{server.url}/api/v1/write", encoder="otlp")
    flush = await metrics.flush()

    assert flush.error.status == 400
    assert not flush.error.proxy
