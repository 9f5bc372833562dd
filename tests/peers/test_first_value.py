"""The first value of a series counts: `increase()` is the truth in real Prometheus and VictoriaMetrics.

Prometheus takes the first sample of a series for where it has always stood, so a sandbox that counts to 1 and is gone
would have counted nothing (prometheus/prometheus#1673, #3886). Hence the zero before it.

`increase()` is asked for as of the last sample of each series, where Prometheus has nothing to extrapolate; see
`Promql.increases`. VictoriaMetrics extrapolates nothing, and takes small first values for what they are; it needs the
zero for the large ones.
"""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from emitter import Delivery
from emitter import loop as loops
from emitter.encode.remote_write import RemoteWriteEncoder
from emitter.outcomes import Outcome
from emitter.record.registry import Registry
from tests.flushing import reports_of
from tests.peers.relay import Fate, relaying
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from emitter.record.snapshot import Snapshot

AMOUNTS = pytest.mark.parametrize("amount", [1, 1000, 0.25])

SECOND = 10**9

LIMIT_REPORTS = 4
"""Until one is accepted after a fault: one that the receiver may refuse since it knows better, and some to spare."""


def report(metrics) -> bool:
    """One report, whatever back-off says, as if that time had passed; whether all of it was accepted."""
    metrics.gauge("reports").set(metrics.stats.flushes)  # so that there is always something new
    flush = loops.run(metrics._flusher.flush(10.0, Delivery.ANSWERED, last=True))
    outcomes = {verdict.outcome for verdict in flush.verdicts}
    return flush.delivery is Delivery.ANSWERED and outcomes == {Outcome.ACCEPTED}


def insist(metrics) -> int:
    """Report until one was accepted; how many it took."""
    for count in range(1, LIMIT_REPORTS + 1):
        if report(metrics):
            return count
    raise AssertionError("no report was accepted")


def told(way) -> dict[str, float]:
    """By how much everything has grown, by name."""
    names = ["orders_total", "sizes_count", "sizes_sum", "sizes_bucket"]
    return {name: way.server.increase(way.selector(name)) for name in names}


def record(metrics, amount: float) -> None:
    """An order of an amount, and a size that falls into both buckets."""
    metrics.counter("orders").add(amount, channel="web")
    metrics.histogram("sizes", boundaries=[10.0]).record(5.0, channel="web")


def truth(amount: float, times: int = 1) -> dict[str, float]:
    """What `told` is to say after so many times."""
    return {
        "orders_total": amount * times,
        "sizes_count": times,
        "sizes_sum": 5.0 * times,
        "sizes_bucket": 2 * times,
    }


@AMOUNTS
def test_one_report_is_enough(promql_way, amount: float) -> None:
    """Of a sandbox that recorded once, reported once and was never heard of again."""
    metrics = promql_way.emitter()
    record(metrics, amount)
    metrics.flush_sync(delivery=Delivery.ANSWERED)

    assert told(promql_way) == truth(amount)


class Zeroless(RemoteWriteEncoder):
    """What other clients write."""

    def encode(self, snapshot: Snapshot) -> bytes:
        """Without the zeros."""
        return super().encode(replace(snapshot, fresh=()))


@pytest.mark.parametrize(
    ("name", "amount", "increase"),
    [
        ("remote-write-prometheus", 1, None),
        ("remote-write-prometheus", 1000, None),
        ("remote-write-victoria-metrics", 1, 1),
        ("remote-write-victoria-metrics", 1000, 0),
    ],
)
def test_without_the_zero_it_would_be_lost(ways, name: str, amount: float, increase: float | None) -> None:
    """So that the tests here can fail: a single sample is no increase to Prometheus, it has none at all.

    VictoriaMetrics takes what looks small for an increase from zero.
    """
    way = ways(name)
    metrics = way.emitter(encoder=Zeroless())
    record(metrics, amount)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    increases = way.server.increases(way.selector("orders_total"))

    assert {dict(labels).get("channel"): value for labels, value in increases.items()}.get("web") == increase


@AMOUNTS
def test_a_series_that_comes_later_counts_as_well(promql_way, amount: float) -> None:
    """The third report is the first that has it; those that it comes beside keep their zero of long ago."""
    metrics = promql_way.emitter()
    early = metrics.counter("early")
    for _ in range(2):
        early.add(7)
        metrics.flush_sync(delivery=Delivery.ANSWERED)
    record(metrics, amount)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    record(metrics, amount)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    zeros = [at for series in promql_way.stored("early_total") for at, value in series.values if value == 0]

    assert told(promql_way) == truth(amount, 2)
    assert promql_way.server.increase(promql_way.selector("early_total")) == 14
    assert len(zeros) == 1


@AMOUNTS
@pytest.mark.parametrize("fate", [Fate.LOST, Fate.REFUSED, Fate.UNANSWERED], ids=lambda fate: fate.name.lower())
@pytest.mark.parametrize("place", [1, 3], ids=["first", "third"])
def test_a_fault_changes_nothing_in_the_end(promql_way, fate: Fate, place: int, amount: float) -> None:
    """The report that brings new series is lost, refused, or arrives and the sandbox never hears of it.

    In the last case the zero goes out again, which Prometheus refuses, since it is older than what it has; then the
    next report goes without.
    """
    fates = [Fate.FORWARDED] * (place - 1) + [fate]
    with relaying(promql_way.port, *fates) as relay:
        metrics = promql_way.emitter(port=relay.port, strict=False)
        for _ in range(place - 1):
            assert report(metrics)
        record(metrics, amount)
        accepted_at_first = report(metrics)
        record(metrics, amount)
        reports = insist(metrics)
        after_the_fault = told(promql_way)
        record(metrics, amount)
        accepted_at_last = report(metrics)
        metrics.close_sync(timeout=0.0)
    refused = [status for status in relay.statuses if status >= 300]

    assert not accepted_at_first
    assert after_the_fault == truth(amount, 2)
    assert accepted_at_last
    assert told(promql_way) == truth(amount, 3)
    assert len(refused) == reports - 1 <= (1 if fate is Fate.UNANSWERED else 0)


@AMOUNTS
def test_a_sandbox_that_never_sees_an_answer_is_counted_all_the_same(promql_way, amount: float) -> None:
    """Frozen after each report for ten minutes, its connection given up: zeros go out again and spoil no report."""
    parts = urlsplit(promql_way.endpoint())
    settings = promql_way.emitter()._settings
    encoder = settings.encoder
    now = time.time_ns() - 3_300 * SECOND
    registry = Registry((*settings.resource,), tick_nano=encoder.tick_nano, names=encoder.names, clock_ns=lambda: now)
    reports = reports_of(registry, settings)
    requests = []
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)) as connection:
        for number in range(1, 6):
            now += 600 * SECOND
            registry.counter("orders").add(amount, channel="web")
            registry.histogram("sizes", boundaries=[10.0]).record(5.0, channel="web")
            made = reports.make(number)
            requests.append(len(made))
            for request in made:
                head, _, body = request.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
                connection.request("POST", promql_way.endpoint().partition(parts.netloc)[2], body, fields)
                connection.getresponse().read()  # by us: the sandbox never hears of it
                reports.note_written()
            reports.note_lost()

    assert requests == [1, 2, 2, 2, 1]
    assert told(promql_way) == truth(amount, 5)


def test_a_zero_goes_before_the_first_value_in_influxdb_too(ways) -> None:
    """Of each series of a counter and of a histogram, once; a gauge has none."""
    way = ways("influx-influxdb")
    metrics = way.emitter()
    record(metrics, 1000)
    metrics.gauge("level").set(7)
    for _ in range(2):
        metrics.counter("orders").add(1, channel="web")
        metrics.flush_sync(delivery=Delivery.ANSWERED)
    found = {
        (points.measurement, field): values
        for points in way.database.select("*")
        for field, values in points.fields.items()
        if points.tags.get("channel") == "web" or points.measurement == "level"
        if any(value is not None for value in values) and "le" not in points.tags
    }

    assert found["orders", "total"] == [0, 1001, 1002]
    assert found["sizes", "count"] == [0, 1, 1]
    assert found["sizes", "sum"] == [0, 5, 5]
    assert found["level", "value"] == [7, 7]
