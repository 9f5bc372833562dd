"""Reports of thousands of series: compressed where the format allows it, divided where the receiver has a limit."""

from __future__ import annotations

import gzip

import cramjam
import pytest

from emitter import Delivery
from tests.peers.relay import Fate, relaying
from tests.peers.test_first_value import insist, report
from tests.peers.ways import key

SERIES = 3_000
LIMIT_BYTES = 64 * 1024
"""Of what the receiver unpacks."""
CODINGS = {"influx": "gzip", "otlp": "gzip", "otlp-json": "gzip", "remote-write": "snappy"}


def record(metrics) -> None:
    """Another amount for each of many series; and of some a histogram."""
    counter = metrics.counter("things")
    sizes = metrics.histogram("sizes", boundaries=[1.0, 10.0])
    for number in range(SERIES):
        counter.add(number, place=f"place {number}")
        if number % 30 == 0:
            sizes.record(number / 8, place=f"place {number}")


def truth(times: int = 1) -> dict:
    """What is there then, without the series that has no attributes."""
    expected = {}
    for number in range(SERIES):
        place = f"place {number}"
        expected[key("things_total", place=place)] = number * times
        if number % 30 == 0:
            expected[key("sizes_sum", place=place)] = number / 8 * times
            expected[key("sizes_count", place=place)] = times
            expected[key("sizes_bucket", place=place, le="1.0")] = (number / 8 <= 1) * times
            expected[key("sizes_bucket", place=place, le="10.0")] = (number / 8 <= 10) * times
            expected[key("sizes_bucket", place=place, le="+Inf")] = times
    return expected


def told(way) -> dict:
    """What is there, without the series that has no attributes."""
    return {each: value for each, value in way.latest().items() if each[1]}


def unpacked(request) -> bytes:
    """The body before compression."""
    if request.coding == "snappy":
        return bytes(cramjam.snappy.decompress_raw(request.body))
    return gzip.decompress(request.body) if request.coding == "gzip" else request.body


def test_a_large_report_arrives_compressed_and_whole(way) -> None:
    """In one request: each receiver unpacks it by itself."""
    with relaying(way.port) as relay:
        metrics = way.emitter(port=relay.port, series_limit=SERIES + 1)
        record(metrics)
        metrics.flush_sync(delivery=Delivery.ANSWERED)
        latest = told(way)
        metrics.close_sync(timeout=0.0)
    (request,) = relay.requests

    assert request.coding == CODINGS[way.encoder]
    assert len(request.body) < len(unpacked(request)) / 3
    assert latest == truth()


def test_a_small_report_is_not_put_into_gzip(way) -> None:
    """It leaves in one flight as it is. Snappy is not a choice: it belongs to remote write."""
    with relaying(way.port) as relay:
        metrics = way.emitter(port=relay.port)
        metrics.counter("things").add(1)
        metrics.flush_sync(delivery=Delivery.ANSWERED)
        metrics.close_sync(timeout=0.0)
    (request,) = relay.requests

    assert request.coding == ("snappy" if way.encoder == "remote-write" else "")


def test_a_report_above_the_limit_arrives_whole_in_several_requests(way) -> None:
    """None of them above the limit, and the next report neither, which has no zeros."""
    with relaying(way.port) as relay:
        metrics = way.emitter(port=relay.port, series_limit=SERIES + 1, report_limit_bytes=LIMIT_BYTES)
        read = []
        for _ in range(2):
            record(metrics)
            flush = metrics.flush_sync(delivery=Delivery.ANSWERED)
            read.append(told(way))
        metrics.close_sync(timeout=0.0)
    bodies = [unpacked(request) for request in relay.requests]

    assert len(bodies) > 4
    assert max(map(len, bodies)) <= LIMIT_BYTES
    assert set(relay.statuses) <= {200, 204}
    assert flush.delivery is Delivery.ANSWERED
    assert read == [truth(1), truth(2)]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.REFUSED, Fate.UNANSWERED], ids=lambda fate: fate.name.lower())
def test_a_fault_in_the_middle_of_a_divided_report(promql_way, fate: Fate) -> None:
    """The parts before it have arrived with their zeros, and the others have not; in the end all of it is right."""
    with relaying(promql_way.port, Fate.FORWARDED, fate) as relay:
        metrics = promql_way.emitter(
            port=relay.port, series_limit=SERIES + 1, report_limit_bytes=LIMIT_BYTES, strict=False
        )
        record(metrics)
        accepted_at_first = report(metrics)
        record(metrics)
        insist(metrics)
        record(metrics)
        insist(metrics)
        metrics.close_sync(timeout=0.0)
    increases = promql_way.server.increases(promql_way.selector("things_total"))
    by_place = {dict(labels).get("place"): value for labels, value in increases.items()}

    assert not accepted_at_first
    assert {each: value for each, value in told(promql_way).items() if "reports" not in each[0]} == truth(3)
    assert by_place == {None: 0, **{f"place {number}": 3 * number for number in range(SERIES)}}
