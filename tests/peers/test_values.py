"""Through each format into each real receiver: what was recorded is what its own queries give back."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from prometheus_client.utils import floatToGoString

from emitter import Delivery
from tests.peers.ways import key

GROWN = [0, 1, 2**31, 2**53 - 1, 2**53, 0.1, 0.25, 1e-9, 12345.6789, 123456789.25]
MOVED = [*GROWN, -1, -(2**53), -0.1, -12345.6789]
EVERY_BIT = [0.1 + 0.2, 1 / 3, math.pi * 1e100, math.e * 1e-100, -1e300 / 3]
"""Numbers that need all digits of a float, and much of its range."""


@pytest.mark.parametrize("kind", ["counter", "up_down_counter", "gauge"])
def test_numbers_are_exact(way, kind: str) -> None:
    """Whole ones up to 2**53, which is as far as floats go; fractions; below zero, where the kind can get there."""
    metrics = way.emitter()
    numbers = GROWN if kind == "counter" else MOVED
    instrument = getattr(metrics, kind)("things")
    for place, number in enumerate(numbers):
        (instrument.set if kind == "gauge" else instrument.add)(number, place=str(place))
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    name = "things_total" if kind == "counter" else f"things{way.value}"
    expected = {key(name, place=str(place)): number for place, number in enumerate(numbers)}
    if kind == "counter":
        expected[key(name)] = 0  # that of no attributes, which is there from the beginning

    assert way.latest() == expected
    if hasattr(way, "stored") and kind != "counter":  # no zero goes before what never was one
        assert {len(series.values) for series in way.stored("things" + way.value)} == {1}


def test_every_bit_of_a_float_survives(way) -> None:
    """Or as many digits as VictoriaMetrics keeps, which is twelve."""
    metrics = way.emitter()
    gauge = metrics.gauge("things")
    for place, number in enumerate(EVERY_BIT):
        gauge.set(number, place=str(place))
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    name = f"things{way.value}"

    assert way.latest() == {
        key(name, place=str(place)): pytest.approx(number, rel=way.precision, abs=0.0)
        for place, number in enumerate(EVERY_BIT)
    }


def test_histograms_are_exact(way) -> None:
    """Each bucket as often as a value was not above its bound; sum and count of all."""
    bounds = [-2.5, 0.0, 0.005, 1.0, 1e6, 2e15]
    recorded = {"a": [0, 0.005, 0.25, 1, 2, 10**6, 2**52], "b": [0.5]}
    metrics = way.emitter()
    sizes = metrics.histogram("sizes", boundaries=bounds)
    for kind, values in recorded.items():
        for value in values:
            sizes.record(value, kind=kind)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    expected = {}
    for kind, values in recorded.items():
        expected[key("sizes_count", kind=kind)] = len(values)
        expected[key("sizes_sum", kind=kind)] = pytest.approx(math.fsum(values), rel=way.precision, abs=0.0)
        for bound in [*bounds, math.inf]:
            below = sum(value <= bound for value in values)
            expected[key("sizes_bucket", kind=kind, le=floatToGoString(bound))] = below

    assert way.latest() == expected


def test_totals_go_on_from_report_to_report(way) -> None:
    """Also where one turns from a whole number into a fraction, which is another type to InfluxDB."""
    metrics = way.emitter()
    orders, depth, level = metrics.counter("orders"), metrics.up_down_counter("depth"), metrics.gauge("level")
    read = []
    steps = [1, 2**53 - 2, 0.5]
    for step in steps:
        orders.add(step)
        depth.add(-step)
        level.set(step)
        metrics.flush_sync(delivery=Delivery.ANSWERED)
        read.append(way.latest())

    assert read == [
        {key("orders_total"): total, key(f"depth{way.value}"): -total, key(f"level{way.value}"): step}
        for step, total in zip(steps, accumulate(steps), strict=True)
    ]
