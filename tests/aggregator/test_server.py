from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import sqlite3
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from emitter.aggregator import server as module
from emitter.aggregator import serving
from emitter.aggregator import store as store_module
from emitter.errors import ConfigurationError

from .otlp import attempts, number_point, one, request, resource, total

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
from tests.aggregator.serving import HEAD, Aggregator, orders, raw_connection, running


async def test_a_report_becomes_totals_in_json_and_in_prometheus_text(aggregator: Aggregator) -> None:
    """The whole way: two sandboxes, one of which lost its second report."""
    for body in (orders(3), orders(9, number=3), orders(5, instance="b")):
        assert await aggregator.post(body) == (200, b"")

    (service,) = await aggregator.totals()
    async with aggregator.session.get(f"{aggregator.url}/metrics") as answer:
        content_type = answer.headers["Content-Type"]
        families = list(text_string_to_metric_families(await answer.text()))

    assert {name: service[name] for name in ("service", "sandboxes", "reports_received", "reports_lost")} == {
        "service": "checkout",
        "sandboxes": 2,
        "reports_received": 3,
        "reports_lost": 1,
    }
    assert await aggregator.orders() == [14]
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert {s.name: s.value for family in families for s in family.samples} == {
        "emitter_sandboxes": 2,
        "emitter_reports_received_total": 3,
        "emitter_reports_lost": 1,
        "emitter_flushes_total": 4,
        "orders_total": 14,
        "emitter_exposition_conflicts": 0,
    }


async def test_a_repeated_and_a_late_report_change_nothing(aggregator: Aggregator) -> None:
    """Folding is idempotent, also over HTTP."""
    for body in (orders(3, number=2), orders(1, number=1), orders(3, number=2), orders(1, number=1)):
        await aggregator.post(body)

    (service,) = await aggregator.totals()

    assert await aggregator.orders() == [3]
    assert (service["reports_received"], service["reports_lost"]) == (2, 0)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "identity"])
async def test_a_report_may_be_packed(aggregator: Aggregator, coding: str) -> None:
    """The content coding is gzip or none, in any case; a gzip body may have several members."""
    body = orders(3)
    packed = gzip.compress(body[:9]) + gzip.compress(body[9:])

    status, _ = await aggregator.post(body if coding == "identity" else packed, coding=coding)

    assert status == 200
    assert await aggregator.orders() == [3]


async def test_parameters_of_the_content_type_do_not_matter(aggregator: Aggregator) -> None:
    """Media types are compared without case and parameters."""
    status, _ = await aggregator.post(orders(3), content_type="Application/X-Protobuf; charset=utf-8")

    assert status == 200


async def test_pipelined_reports_are_answered_one_after_the_other(aggregator: Aggregator) -> None:
    """The emitter writes the next report before it has read the answer to the last one."""
    loop = asyncio.get_running_loop()
    first, second = (HEAD + b"Content-Length: %d\r\n\r\n" % len(b) + b for b in (orders(3), orders(4, number=2)))
    with raw_connection(aggregator, first + second) as connection:
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK\r\n") < 2:
            answers += await loop.sock_recv(connection, 65536)

    assert await aggregator.orders() == [4]


async def test_the_answer_is_held_back_after_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a delay the totals are there for everybody long before the answer."""
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", 0.01)
    async with running(answer_delay=3600) as aggregator:
        held = asyncio.create_task(aggregator.post(orders(3)))
        while not await aggregator.orders():
            assert not held.done()

        assert not held.done()
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held


async def test_the_answer_comes_when_the_delay_is_over() -> None:
    """The delay is in seconds, and it ends."""
    loop = asyncio.get_running_loop()
    async with running(answer_delay=0.05) as aggregator:
        began = loop.time()
        status, _ = await aggregator.post(orders(3))

        assert status == 200
        assert loop.time() - began >= 0.05


async def test_the_end_does_not_wait_for_answers_that_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is folded is durable; closing takes at most the time for shutting down."""
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", 0.01)
    async with running(answer_delay=3600) as aggregator:
        held = asyncio.create_task(aggregator.post(orders(3)))
        while not await aggregator.orders():
            pass
        url = aggregator.url

    with pytest.raises(aiohttp.ClientError):
        await held
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_a_full_disk_is_answered_with_503_and_the_aggregator_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """503 is what OTLP clients try again after; nothing of that report is kept, so trying again is right."""
    original = sqlite3.connect

    def connect_to_a_small_disk(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = original(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(store_module.sqlite3, "connect", connect_to_a_small_disk)
    async with running(str(tmp_path / "totals.sqlite3")) as aggregator:
        large = [total("large", number_point(1, k=f"{k:04}" * 250)) for k in range(100)]

        status, answer = await aggregator.post(one(attempts(1), *large))

        assert status == 503
        assert "database or disk is full" in json.loads(answer)["error"]
        assert "database or disk is full" in caplog.text
        assert (await aggregator.post(orders(3, number=2)))[0] == 200
        assert (await aggregator.totals())[0]["reports_lost"] == 1


async def test_reports_of_many_clients_at_once_all_count(aggregator: Aggregator) -> None:
    """Forty sandboxes in one second are an ordinary cold start; none gets in another's way."""
    statuses = await asyncio.gather(
        *(aggregator.post(orders(1, number=n, instance=f"{i}")) for i in range(20) for n in (1, 2))
    )

    (service,) = await aggregator.totals()
    assert {status for status, _ in statuses} == {200}
    assert (service["sandboxes"], service["reports_received"], service["reports_lost"]) == (20, 40, 0)


async def test_one_request_may_hold_several_reports(aggregator: Aggregator) -> None:
    """A collector batches: two reports of one sandbox and one of another service."""
    first, again = (resource(attempts(n), total("orders", number_point(n, time=n)), service="a") for n in (1, 2))
    other = resource(attempts(1), total("orders", number_point(7)), service="b")

    await aggregator.post(request(first, again, other))

    assert [(s["service"], s["sandboxes"], s["reports_received"]) for s in await aggregator.totals()] == [
        ("a", 1, 2),
        ("b", 1, 1),
    ]
    assert await aggregator.orders() == [2, 7]


def observe(_: CallbackOptions) -> Iterator[Observation]:
    """A measurement for an observable instrument."""
    yield Observation(36.6, {"room": "kitchen"})


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_the_opentelemetry_sdk_is_served(aggregator: Aggregator, compression: Compression) -> None:
    """An independent client: every instrument of the SDK, through its own exporter, twice."""

    def report() -> None:
        exporter = OTLPMetricExporter(f"{aggregator.url}/v1/metrics", compression=compression)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        identity = Resource({"service.name": "checkout", "service.instance.id": "sdk"})
        buckets = View(instrument_name="duration", aggregation=ExplicitBucketHistogramAggregation(boundaries=[0.5, 1]))
        provider = MeterProvider([reader], resource=identity, shutdown_on_exit=False, views=[buckets])
        meter = provider.get_meter("test")
        placed = meter.create_counter("orders", unit="{order}")
        in_flight = meter.create_up_down_counter("open")
        seconds = meter.create_histogram("duration", "s")
        meter.create_observable_gauge("temperature", [observe], unit="Cel")
        for _ in range(2):
            placed.add(2, {"channel": "web"})
            in_flight.add(-1)
            seconds.record(0.75)
            assert provider.force_flush()
        provider.shutdown()

    await asyncio.to_thread(report)

    (service,) = await aggregator.totals()
    found = {t.pop("name"): t for t in service["totals"]}
    assert service["sandboxes"] == 1
    assert service["reports_lost"] == 0
    assert found == {
        "orders": {"kind": "counter", "unit": "{order}", "attributes": {"channel": "web"}, "value": 4},
        "open": {"kind": "up_down_counter", "unit": "", "attributes": {}, "value": -2},
        "temperature": {"kind": "gauge", "unit": "Cel", "attributes": {"room": "kitchen"}, "value": 36.6},
        "duration": {
            "kind": "histogram",
            "unit": "s",
            "attributes": {},
            "count": 2,
            "sum": 1.5,
            "boundaries": [0.5, 1],
            "bucket_counts": [0, 2, 0],
        },
    }


async def test_a_port_in_use_is_a_clear_error() -> None:
    """The error names host and port; the database has been closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1 port {port}: .*in use"):
            await serving(":memory:", port=port).__aenter__()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "..", "x" * 64 + ".example"])
async def test_a_host_that_does_not_exist_is_a_clear_error(host: str) -> None:
    """A name that cannot be resolved, or cannot be one, is the same mistake in another place."""
    with pytest.raises(ConfigurationError, match=rf"cannot listen on {re.escape(host)} port 0: "):
        await serving(":memory:", host=host).__aenter__()


async def test_the_url_of_an_ipv6_address_has_brackets() -> None:
    """RFC 3986, section 3.2.2."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    async with running(host="::1") as aggregator:
        assert aggregator.url.startswith("http://[::1]:")
        assert await aggregator.totals() == []
