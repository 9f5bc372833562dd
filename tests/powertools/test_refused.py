from __future__ import annotations

import logging

import pytest
from aws_lambda_powertools.metrics import MetricUnitError, MetricValueError

from tests.powertools.reading import add_order, orders, totals

LOG = "emitter.powertools"


def test_a_count_that_falls_is_refused_once_in_words_and_each_time_in_numbers(metrics, provider, emitter, caplog):
    """The handler goes on, the rest is counted, and the receiver hears of it."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_metric(name="Open", unit="Count", value=-1)
        add_order(metrics)
        return "result"

    with caplog.at_level(logging.WARNING, LOG):
        assert [handler({}, None) for _ in range(3)] == ["result"] * 3

    assert totals(emitter) == {orders(): (0, 3)}
    assert totals(emitter, own=True)["powertools.refused", frozenset({("metric", "Open")})] == (0, 3)
    assert provider.refused == 3
    assert [record.name for record in caplog.records] == [LOG]
    assert "emitter.up_down_counter()" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**70])
def test_what_no_report_can_carry_is_refused(value, provider, emitter):
    """Powertools writes it, and CloudWatch drops it."""
    for unit in ("Count", "Seconds"):
        provider.add_metric(name=f"In {unit}", unit=unit, value=value)
    provider.flush_metrics()

    assert provider.refused == (1 if value == 2**70 else 2)  # for a histogram it is one more float


@pytest.mark.parametrize(("unit", "size"), [("Count", "an integer of 1329 bits"), ("Percent", "inf")])
def test_a_number_that_no_float_holds_is_refused_alone(unit, size, metrics, provider, emitter, caplog):
    """Of Powertools it gets an OverflowError where it is added; here what stands before and after it is counted."""

    @metrics.log_metrics
    def handler(event, context):
        add_order(metrics)
        metrics.add_metric(name="Huge", unit=unit, value=10**400)
        add_order(metrics)

    handler({}, None)
    (record,) = caplog.records

    assert totals(emitter) == {orders(): (0, 2)}
    assert totals(emitter, own=True)["powertools.refused", frozenset({("metric", "Huge")})] == (0, 1)
    assert provider.refused == 1
    assert (record.name, record.levelno) == (LOG, logging.WARNING)
    assert size in record.getMessage()


def test_a_number_that_no_float_holds_can_be_looked_at(provider):
    """As what it would be for a float; nothing is refused as yet."""
    for value in (10**400, -(10**400)):
        provider.add_metric(name="Huge", unit="Bits", value=value)

    assert provider.serialize_metric_set()["metrics"]["Huge"]["values"] == [float("inf"), float("-inf")]


def test_a_unit_that_is_neither_text_nor_a_unit_is_refused(provider):
    """Powertools takes it as it is, and CloudWatch drops the metric."""
    with pytest.raises(MetricUnitError, match="'Orders' is a NoneType"):
        provider.add_metric(name="Orders", unit=None, value=1)


def test_a_complex_number_is_none(provider):
    """Powertools fails at it too, only later and otherwise."""
    with pytest.raises(MetricValueError, match="1j"):
        provider.add_metric(name="Orders", unit="Count", value=1j)


def test_a_name_that_is_something_else_already_is_refused(provider, emitter):
    """A counter cannot be a histogram; the first one wins."""
    add_order(provider)
    provider.add_metric(name="Orders", unit="Seconds", value=1)
    provider.flush_metrics()

    assert totals(emitter) == {orders(): (0, 1)}
    assert provider.refused == 1


def test_names_without_end_do_not_fill_the_log(provider, caplog):
    """A hundred of them are told."""
    with caplog.at_level(logging.WARNING, LOG):
        for number in range(150):
            provider.add_metric(name=f"Open {number}", unit="Count", value=-1)
        provider.flush_metrics()

    assert len(caplog.records) == 100
    assert provider.refused == 150


def test_an_instrument_that_was_made_before_is_used(provider, emitter):
    """So a metric may go down, or have boundaries or a unit of its own."""
    emitter.up_down_counter("Open")
    emitter.gauge("Temperature", description="In the hold.")
    emitter.counter("Orders", unit="{order}")
    emitter.histogram("Payment", unit="s", boundaries=(60, 600))
    for value in (3, -1):
        provider.add_metric(name="Open", unit="Count", value=value)
        provider.add_metric(name="Temperature", unit="None", value=-value)
    add_order(provider)
    provider.add_metric(name="Payment", unit="Milliseconds", value=120_000)
    provider.flush_metrics()

    assert totals(emitter) == {
        ("Open", frozenset()): (0, 2),
        ("Temperature", frozenset()): (0, 1),
        orders(): (0, 1),
        ("Payment", frozenset()): (1, 120),
    }
    assert emitter.histogram("Payment").bind().point.bucket_counts == (0, 1, 0)
    assert provider.refused == 0


def test_an_instrument_of_another_unit_is_not_used(provider, emitter):
    """Seconds in a histogram of milliseconds would be wrong, not missing."""
    emitter.histogram("Payment", unit="ms")
    provider.add_metric(name="Payment", unit="Milliseconds", value=1)
    provider.flush_metrics()

    assert totals(emitter) == {}
    assert provider.refused == 1
