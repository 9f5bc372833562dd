from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import socket
import sqlite3
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
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
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PROTOBUF = "application/x-protobuf"


class Aggregator:
    """A running aggregator, and a client to it over a real socket."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(
        self, body: bytes, content_type: str | None = PROTOBUF, coding: str | None = None
    ) -> tuple[int, bytes]:
        """Post one report; the answer's status and body."""
        headers = {"Content-Type": content_type, "Content-Encoding": coding}
        given = {name: value for name, value in headers.items() if value is not None}
        skip = [] if content_type else ["Content-Type"]
        url = f"{self.url}/v1/metrics"
        async with self.session.post(url, data=body, headers=given, skip_auto_headers=skip) as answer:
            assert answer.headers["Content-Type"].startswith(PROTOBUF if answer.status == 200 else "application/json")
            return answer.status, await answer.read()

    async def totals(self) -> list[dict[str, Any]]:
        """What `/api/v1/totals` shows."""
        async with self.session.get(f"{self.url}/api/v1/totals") as answer:
            assert answer.status == 200
            services: list[dict[str, Any]] = (await answer.json())["services"]
            return services

    async def orders(self) -> list[int]:
        """The total of the orders, per service."""
        return [t["value"] for s in await self.totals() for t in s["totals"] if t["name"] == "orders"]


@asynccontextmanager
async def running(database: str = ":memory:", **options: Any) -> AsyncIterator[Aggregator]:
    """Serve, and talk to it."""
    async with serving(database, **options) as url, aiohttp.ClientSession() as session:
        yield Aggregator(url, session)


@pytest.fixture
async def aggregator() -> AsyncIterator[Aggregator]:
    """An aggregator that keeps nothing."""
    async with running() as aggregator:
        yield aggregator


def orders(value: int, number: int = 1, **identity: Any) -> bytes:
    """A numbered report of so many orders."""
    return one(attempts(number), total("orders", number_point(value, time=number)), **identity)


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


async def test_what_cannot_be_folded_is_answered_with_partial_success(
    aggregator: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTLP: status 200, how many data points were rejected and why; the others count."""
    monkeypatch.setattr(store_module, "MAX_SERIES_PER_SANDBOX", 2)
    delta = total("delta", number_point(1), number_point(1, k=1), temporality=AGGREGATION_TEMPORALITY_DELTA)
    body = one(attempts(1), total("orders", number_point(3)), delta, total("more", number_point(1)))

    status, answer = await aggregator.post(body)

    partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    assert status == 200
    assert partial.rejected_data_points == 3
    assert partial.error_message == (
        "1 data points rejected: more than 2 series of one sandbox; "
        "2 data points rejected: not cumulative: only running totals can be folded twice without harm"
    )
    assert await aggregator.orders() == [3]


@pytest.mark.parametrize(
    ("body", "content_type", "coding", "status", "reason"),
    [
        (b"\xff\xff", PROTOBUF, None, 400, "expected an OTLP ExportMetricsServiceRequest as protobuf"),
        (b"\xff\xff", PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (gzip.compress(b"x" * 99)[:-9], PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (gzip.compress(b"x" * 99)[:-8] + bytes(8), PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (gzip.compress(b"")[:10] + b"\xff" * 9, PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (gzip.compress(b"\xff"), PROTOBUF, "gzip", 400, "expected an OTLP"),
        (b"{}", "application/json", None, 415, f"content type {PROTOBUF}, got application/json"),
        (b"{}", None, None, 415, f"content type {PROTOBUF}, got application/octet-stream"),
        (b"x", PROTOBUF, "br", 415, "content encoding gzip or none, got br"),
        (b"x", PROTOBUF, "gzip, gzip", 415, "content encoding gzip or none, got gzip, gzip"),
        (bytes(4097), PROTOBUF, None, 413, "at most 4096 bytes"),
        (bytes(1_000_000), PROTOBUF, None, 413, "at most 4096 bytes"),
        (gzip.compress(bytes(4097)), PROTOBUF, "gzip", 413, "at most 4096 bytes"),
    ],
)
async def test_bad_input_is_answered_with_a_reason_and_the_aggregator_goes_on(
    body: bytes, content_type: str | None, coding: str | None, status: int, reason: str
) -> None:
    """400, 415 or 413, and JSON that says what was expected; the next report is folded as ever."""
    async with running(body_limit_bytes=4096) as aggregator:
        given, answer = await aggregator.post(body, content_type, coding)

        assert given == status
        assert reason in json.loads(answer)["error"]
        assert (await aggregator.post(orders(3)))[0] == 200
        assert await aggregator.orders() == [3]


async def test_a_refused_coding_is_answered_with_those_that_would_do(aggregator: Aggregator) -> None:
    """RFC 9110, section 15.5.16."""
    url = f"{aggregator.url}/v1/metrics"
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}
    async with aggregator.session.post(url, data=b"x", headers=headers) as answer:
        accepted = answer.headers["Accept-Encoding"]

    assert accepted == "gzip, identity"


async def test_a_report_of_exactly_the_limit_is_folded() -> None:
    """The limit is the last size that passes, packed or not."""
    body = orders(3)
    async with running(body_limit_bytes=len(body)) as exact:
        assert (await exact.post(body))[0] == 200
    async with running(body_limit_bytes=len(body) + 40) as roomy:
        assert (await roomy.post(gzip.compress(body), coding="gzip"))[0] == 200


async def test_a_gzip_bomb_is_stopped_at_the_limit(aggregator: Aggregator) -> None:
    """A gigabyte of zeros in one megabyte: 413, and never more in memory than a few times the limit."""
    bomb = gzip.compress(bytes(16 * 1024 * 1024)) * 64

    tracemalloc.start()
    try:
        status, answer = await aggregator.post(bomb, coding="gzip")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert status == 413
    assert "at most 4194304 bytes" in json.loads(answer)["error"]
    assert peak_bytes < 32 * 1024 * 1024
    assert (await aggregator.post(orders(3)))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "expected one of the paths /v1/metrics, /metrics and /api/v1/totals"),
        ("POST", "/v1/traces", 404, "expected one of the paths"),
        ("GET", "/v1/metrics", 405, "expected POST on this path"),
        ("POST", "/metrics", 405, "expected GET or HEAD on this path"),
    ],
)
async def test_another_path_or_method_is_answered_in_json(
    aggregator: Aggregator, method: str, path: str, status: int, reason: str
) -> None:
    """A wrong URL is the commonest mistake of all: the answer says which ones there are."""
    async with aggregator.session.request(method, aggregator.url + path) as answer:
        body = await answer.json()

    assert answer.status == status
    assert reason in body["error"]
    assert ("Allow" in answer.headers) == (status == 405)


def raw_connection(aggregator: Aggregator, request_bytes: bytes) -> socket.socket:
    """A connection on which these bytes have been written already."""
    host, _, port = aggregator.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(request_bytes)
    connection.setblocking(False)
    return connection


HEAD = f"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: {PROTOBUF}\r\n".encode()


@pytest.mark.parametrize(
    "unfinished",
    [
        HEAD + b"Content-Length: 9\r\n\r\n12345678",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n12345678",
    ],
)
async def test_a_report_that_never_ends_leaves_no_trace(
    aggregator: Aggregator, caplog: pytest.LogCaptureFixture, unfinished: bytes
) -> None:
    """A frozen sandbox may never finish its report: nothing is folded, nothing is logged as a fault of ours."""
    with raw_connection(aggregator, unfinished):
        assert (await aggregator.post(orders(3)))[0] == 200

    assert (await aggregator.post(orders(5, number=2)))[0] == 200
    assert await aggregator.orders() == [5]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_body_that_stalls_is_not_waited_for_for_ever() -> None:
    """The client learns how long it had, and a connection is not held by whoever writes nothing on it."""
    async with running(body_seconds=0.05) as aggregator:
        with raw_connection(aggregator, HEAD + b"Content-Length: 10\r\n\r\nhalf") as client:
            answer = await asyncio.get_running_loop().sock_recv(client, 4096)

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/json" in answer
        assert await aggregator.totals() == []


async def test_a_body_with_broken_chunks_holds_nobody_up(aggregator: Aggregator) -> None:
    """Broken framing cannot be answered by aiohttp before the client gives up; the others go on."""
    broken = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nno length\r\n\r\n"
    with raw_connection(aggregator, broken):
        assert (await aggregator.post(orders(3)))[0] == 200

    assert await aggregator.orders() == [3]


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
