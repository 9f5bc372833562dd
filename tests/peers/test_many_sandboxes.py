"""Short-lived sandboxes, each with one report and an amount of its own: each receiver's own sum is the exact total."""

from __future__ import annotations

import pytest

from tests.peers.fleet import SANDBOXES, run_fleet

BELOW = 100
"""How many of the sizes 1, 2, 3, ... fall into the first bucket."""


@pytest.mark.parametrize(
    "way_name", ["remote-write-prometheus", "remote-write-victoria-metrics", "influx-victoria-metrics"]
)
def test_promql_adds_them_up(ways, way_name: str) -> None:
    """By `increase`, at each one's last sample (see `Promql.increases`), and by what each has told last.

    VictoriaMetrics extrapolates nothing: there a user can ask for all of it at once, at any later time.
    """
    way = ways(way_name)
    amounts = run_fleet(way)
    server = way.server
    truth = {
        "orders_total": sum(amounts),
        "sizes_sum": sum(amounts),
        "sizes_count": SANDBOXES,
        "sizes_bucket": BELOW + SANDBOXES,
    }

    def added_up(function: str) -> dict[str, float]:
        return {name: server.value(f"sum({function}({way.selector(name)}[1h]))") for name in truth}

    assert len(way.stored("orders_total")) == SANDBOXES
    for name in ["orders_total", "sizes_bucket"]:  # one of each sort: each sandbox takes a question of its own
        assert server.increase(way.selector(name)) == truth[name]
    assert added_up("last_over_time") == truth
    if way_name != "remote-write-prometheus":
        assert added_up("increase") == truth


def test_influxdb_adds_them_up(ways) -> None:
    """The last total of each series."""
    way = ways("influx-influxdb")
    amounts = run_fleet(way)
    last = way.database.select("last(*)")

    def total(measurement: str, field: str, **tags: str) -> float:
        values = [
            points.fields[f"last_{field}"][0]
            for points in last
            if points.measurement == measurement and tags.items() <= points.tags.items()
        ]
        return sum(value for value in values if value is not None)

    assert total("orders", "total") == sum(amounts)
    assert total("sizes", "sum") == sum(amounts)
    assert total("sizes", "count") == SANDBOXES
    assert total("sizes", "bucket", le="100.0") == BELOW
    assert total("sizes", "bucket", le="+Inf") == SANDBOXES


@pytest.mark.parametrize("name", ["otlp-aggregator", "otlp-json-aggregator"])
def test_the_aggregator_adds_them_up(ways, name: str) -> None:
    """By itself: that is what it is for."""
    way = ways(name)
    amounts = run_fleet(way)
    told = {total["name"]: total for total in way.server.totals(way.service)}

    assert told["orders"]["value"] == sum(amounts)
    assert (told["sizes"]["count"], told["sizes"]["sum"]) == (SANDBOXES, sum(amounts))
    assert told["sizes"]["bucket_counts"] == [BELOW, SANDBOXES - BELOW]
    assert told["emitter.flushes"]["value"] == SANDBOXES
