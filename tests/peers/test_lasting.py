"""A service that reports often, and one that is started again: each receiver goes along."""

from __future__ import annotations

import pytest

from emitter import Delivery
from tests.peers.ways import key

REPORTS = 20


@pytest.mark.parametrize("delivery", [Delivery.ANSWERED, Delivery.TRANSMITTED])
def test_reports_without_a_pause_between_them(way, delivery: Delivery) -> None:
    """Prometheus counts milliseconds, and refuses a whole report for a second value in one of them."""
    metrics = way.emitter()
    orders, sizes = metrics.counter("orders"), metrics.histogram("sizes", boundaries=[10.0])
    level = metrics.gauge("level")
    for number in range(1, REPORTS + 1):
        orders.add(number, channel="web")
        sizes.record(number)
        level.set(number)
        # Answers that are not waited for pile up, to a limit (of 16) beyond which a report is withheld.
        wanted = delivery if number % 10 else Delivery.ANSWERED
        metrics.flush_sync(delivery=wanted)
    latest = way.latest()

    assert sum(metrics.stats.verdicts.values()) == REPORTS
    assert metrics.stats.verdicts.keys() <= {200, 204}
    assert latest[key("orders_total", channel="web")] == sum(range(1, REPORTS + 1))
    assert latest[key("sizes_sum")] == sum(range(1, REPORTS + 1))
    assert latest[key("sizes_bucket", le="10.0")] == 10
    assert latest[key(f"level{way.value}")] == REPORTS


def test_every_report_is_a_sample_of_its_own(promql_way) -> None:
    """In ascending order, the zero first; so that a graph shows what happened."""
    metrics = promql_way.emitter()
    orders = metrics.counter("orders")
    for _ in range(REPORTS):
        orders.add(1, channel="web")
        metrics.flush_sync(delivery=Delivery.ANSWERED)
    (series,) = (each for each in promql_way.stored("orders_total") if "channel" in each.labels)
    times = [at for at, _ in series.values]

    assert [value for _, value in series.values] == list(range(REPORTS + 1))
    assert times == sorted(set(times))
    assert promql_way.server.increase(promql_way.selector("orders_total")) == REPORTS


def lives(way) -> int:
    """Three sandboxes of one service, one after the other, each from zero; how many orders there were."""
    truth = 0
    for life in range(1, 4):
        metrics = way.emitter()
        for _ in range(3):
            metrics.counter("orders").add(life)
            metrics.flush_sync(delivery=Delivery.ANSWERED)
            truth += life
        metrics.close_sync()
    return truth


def test_a_service_that_is_started_again_goes_on_in_promql(promql_way) -> None:
    """Its next life is another series, so no total ever falls, and what was counted before stays counted."""
    truth = lives(promql_way)
    stored = promql_way.stored("orders_total")

    assert len(stored) == 3
    assert promql_way.server.increase(promql_way.selector("orders_total")) == truth


def test_a_service_that_is_started_again_goes_on_in_influxdb(ways) -> None:
    """The same, as the last total of each life."""
    way = ways("influx-influxdb")
    truth = lives(way)
    last = [
        points.fields["last_total"][0] for points in way.database.select("last(*)") if points.measurement == "orders"
    ]

    assert len(last) == 3
    assert sum(last) == truth


@pytest.mark.parametrize("name", ["otlp-aggregator", "otlp-json-aggregator"])
def test_a_service_that_is_started_again_goes_on_in_the_aggregator(ways, name: str) -> None:
    """The same, folded."""
    way = ways(name)
    truth = lives(way)

    assert way.latest()[key("orders_total")] == truth
