"""Under `temporality="delta"` a report says what was added since the one before: their sum is the truth."""

from __future__ import annotations

import pytest

from emitter import Delivery
from tests.peers.relay import Fate, relaying
from tests.peers.test_first_value import report

STEPS = [1, 41, 0.5, 1000]


def sums(way) -> dict[tuple[str, str], float]:
    """The sum of each field over all points of all series, by measurement and field."""
    found: dict[tuple[str, str], float] = {}
    for points in way.database.select("sum(*)"):
        for field, (value,) in points.fields.items():
            if value is not None and not points.measurement.startswith("emitter."):
                name = points.measurement, field.removeprefix("sum_") + points.tags.get("le", "")
                found[name] = found.get(name, 0) + value
    return found


def test_the_sum_over_all_points_is_the_truth(ways) -> None:
    """Of counters and histograms; a gauge and an up-down counter say where they stand, as ever."""
    way = ways("influx-influxdb")
    metrics = way.emitter(temporality="delta")
    orders, sizes = metrics.counter("orders"), metrics.histogram("sizes", boundaries=[10.0])
    level, depth = metrics.gauge("level"), metrics.up_down_counter("depth")
    for step in STEPS:
        orders.add(step, channel="web")
        sizes.record(step)
        level.set(step)
        depth.add(-1)
        metrics.flush_sync(delivery=Delivery.ANSWERED)
    told = sums(way)
    last = {points.measurement: points.fields["last_value"][0] for points in way.database.select("last(*)")}

    assert told[("orders", "total")] == sum(STEPS)
    assert told[("sizes", "sum")] == sum(STEPS)
    assert told[("sizes", "count")] == len(STEPS)
    assert told[("sizes", "bucket10.0")] == sum(step <= 10 for step in STEPS)
    assert told[("sizes", "bucket+Inf")] == len(STEPS)
    assert (last["level"], last["depth"]) == (STEPS[-1], -len(STEPS))


@pytest.mark.parametrize(
    ("fate", "missing"), [(Fate.LOST, STEPS[1]), (Fate.REFUSED, STEPS[1]), (Fate.UNANSWERED, 0)], ids=str
)
def test_what_a_lost_report_carried_is_lost_and_nothing_counts_twice(ways, fate: Fate, missing: float) -> None:
    """That is the price: it may have arrived, so it never goes out again."""
    way = ways("influx-influxdb")
    with relaying(way.port, Fate.FORWARDED, fate) as relay:
        metrics = way.emitter(port=relay.port, temporality="delta", strict=False)
        for step in STEPS:
            metrics.counter("orders").add(step)
            report(metrics)
        metrics.close_sync(timeout=0.0)

    assert sums(way)[("orders", "total")] == sum(STEPS) - missing
