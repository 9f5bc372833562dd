from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

from emitter.aggregator import store as store_module
from tests.aggregator.serving import HEAD, PROTOBUF, Aggregator, orders, raw_connection, running

from .otlp import attempts, number_point, one, total


def packed(body: bytes) -> bytes:
    """In gzip format, without the time of day: a test's name is to be the same tomorrow."""
    return gzip.compress(body, mtime=0)


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
        (packed(b"x" * 99)[:-9], PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (packed(b"x" * 99)[:-8] + bytes(8), PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (packed(b"")[:10] + b"\xff" * 9, PROTOBUF, "gzip", 400, "expected a body in gzip format"),
        (packed(b"\xff"), PROTOBUF, "gzip", 400, "expected an OTLP"),
        (b"{}", "text/plain", None, 415, f"content type {PROTOBUF} or application/json, got text/plain"),
        (b"{}", None, None, 415, f"content type {PROTOBUF} or application/json, got application/octet-stream"),
        (b"[]", "application/json", None, 400, "ExportMetricsServiceRequest as JSON, but the body cannot be parsed"),
        (b"[" * 4_000, "application/json", None, 400, "as JSON, but the body cannot be parsed"),
        (b'{"resourceMetrics": 1e999}', "application/json", None, 400, "as JSON, but the body cannot be parsed"),
        (b"\xff", "application/json", None, 400, "as JSON, but the body cannot be parsed"),
        (b"x", PROTOBUF, "br", 415, "content encoding gzip or none, got br"),
        (b"x", PROTOBUF, "gzip, gzip", 415, "content encoding gzip or none, got gzip, gzip"),
        (bytes(4097), PROTOBUF, None, 413, "at most 4096 bytes"),
        (bytes(1_000_000), PROTOBUF, None, 413, "at most 4096 bytes"),
        (packed(bytes(4097)), PROTOBUF, "gzip", 413, "at most 4096 bytes"),
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
