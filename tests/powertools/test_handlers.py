from __future__ import annotations

import asyncio
import logging
from collections import namedtuple
from types import SimpleNamespace

import pytest
from aws_lambda_powertools.metrics import Metrics, SchemaValidationError

from emitter import ConfigurationError, Delivery, Emitter
from emitter.outcomes import Withheld
from emitter.powertools import EmitterProvider
from tests.powertools.reading import add_order, orders, totals

Context = namedtuple("Context", "function_name")  # noqa: PYI024  # as simple as that of a test
LOG = "emitter.powertools"


def test_the_decorator_takes_what_the_emitters_takes(metrics, emitter):
    """With parentheses and options, or without."""

    @metrics.log_metrics(timeout=1.0, delivery=Delivery.BUFFERED, connect=False, every=3600.0)
    def handler(event, context):
        """Count an order."""
        add_order(metrics)
        return event

    results = [handler(number, None) for number in range(3)]

    assert results == [0, 1, 2]
    assert (handler.__name__, handler.__doc__) == ("handler", "Count an order.")
    assert emitter.stats.withheld == {Withheld.INTERVAL: 2}
    assert totals(emitter) == {orders(): (0, 3)}


@pytest.mark.parametrize("options", [{"timeout": -1}, {"delivery": "fast"}])
def test_an_option_that_makes_no_sense_is_refused_where_it_is_written(options, metrics):
    """Not at the end of the first invocation."""
    with pytest.raises(ConfigurationError):
        metrics.log_metrics(**options)(lambda event, context: None)


def test_only_what_can_be_called_can_be_decorated(metrics):
    """With the type of what was given."""
    with pytest.raises(ConfigurationError, match="given a str; expected a function"):
        metrics.log_metrics("handler")


def test_the_invocation_is_counted_by_the_emitter_too(metrics, emitter):
    """`faas.*` ride along, by the emitter's own decorator."""

    @metrics.log_metrics
    def handler(event, context):
        add_order(metrics)
        if event:
            raise LookupError

    handler(False, None)
    with pytest.raises(LookupError):
        handler(True, None)
    found = {name: total for (name, _), (_, total) in totals(emitter, own=True).items()}

    assert (found["faas.invocations"], found["faas.errors"], found["faas.coldstarts"]) == (1, 1, 1)
    assert found["Orders"] == 2


def test_more_arguments_reach_the_handler(metrics):
    """Powertools passes them on."""

    @metrics.log_metrics
    def handler(event, context, more, *, keyword="default"):
        add_order(metrics)
        return event, context, more, keyword

    assert handler(1, 2, 3) == (1, 2, 3, "default")
    assert handler(1, 2, 3, keyword=4) == (1, 2, 3, 4)


def test_an_async_handler_is_awaited_before_anything_is_counted(metrics, emitter):
    """Powertools' own decorator flushes before the first line of it has run, and returns a coroutine."""

    @metrics.log_metrics(capture_cold_start_metric=True)
    async def handler(event, context):
        await asyncio.sleep(0)
        add_order(metrics)
        metrics.add_dimension(name="tier", value="gold")
        return event

    assert [handler(number, Context("it")) for number in range(2)] == [0, 1]
    assert totals(emitter) == {
        orders(tier="gold"): (0, 2),
        ("ColdStart", frozenset({("function_name", "it")})): (0, 1),
    }
    assert emitter.stats.flushes == 2


def test_what_an_async_handler_raises_comes_out_unchanged(metrics, emitter):
    """And what it had added counts."""
    error = LookupError("no such order")

    @metrics.log_metrics(raise_on_empty_metrics=True)
    async def handler(event, context):
        if event:
            add_order(metrics)
        await asyncio.sleep(0)
        raise error

    for event in (True, False):
        with pytest.raises(LookupError) as caught:
            handler(event, None)

        assert caught.value is error
        assert error.__context__ is None
    assert totals(emitter) == {orders(): (0, 1)}


async def test_an_async_handler_inside_a_running_loop_says_what_to_do(metrics, provider, emitter):
    """As the emitter's own decorator; nothing is left behind, neither a coroutine nor an invocation that never ends."""

    @metrics.log_metrics
    async def handler(event, context):
        add_order(metrics)

    with pytest.warns(UserWarning, match="No application metrics"), pytest.raises(RuntimeError, match="__wrapped__"):
        handler({}, None)
    await handler.__wrapped__({}, None)

    assert provider._running == 0


def test_an_invocation_without_metrics_raises_if_asked_to(metrics, emitter):
    """Powertools' own exception, and the invocation counts as an error, which it is."""

    @metrics.log_metrics(raise_on_empty_metrics=True)
    def handler(event, context):
        if event:
            add_order(metrics)

    handler(True, None)
    with pytest.raises(SchemaValidationError, match="at least one metric"):
        handler(False, None)

    assert totals(emitter, own=True)["faas.errors", frozenset()] == (0, 1)


def test_an_empty_invocation_does_not_hide_why_it_failed(metrics):
    """Powertools raises `SchemaValidationError` in the place of what the handler raised."""

    @metrics.log_metrics(raise_on_empty_metrics=True)
    def handler(event, context):
        raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        handler({}, None)


def test_a_dimension_of_an_invocation_without_metrics_does_not_leak(metrics, emitter):
    """Powertools keeps it for the next invocation."""

    @metrics.log_metrics
    def handler(event, context):
        if event:
            add_order(metrics)
        else:
            metrics.add_dimension(name="tenant", value="a")
            metrics.add_metadata(key="order", value=17)

    with pytest.warns(UserWarning, match="No application metrics"):
        handler(False, None)
    handler(True, None)

    assert totals(emitter) == {orders(): (0, 1)}


def test_a_warning_that_is_an_error_does_not_replace_a_result(metrics, caplog):
    """Nothing that happens around a handler does."""

    @metrics.log_metrics
    def handler(event, context):
        return "result"

    with caplog.at_level(logging.ERROR, LOG):
        assert handler({}, None) == "result"  # the tests run with filterwarnings=error
    assert "could not be counted" in caplog.text


def test_a_peer_that_is_gone_breaks_no_handler(peer, caplog):
    """Neither its result nor its exception, and the totals wait."""
    endpoint = peer.endpoint
    peer.close()
    emitter = Emitter(endpoint, timeout=0.05)
    metrics = Metrics(provider=EmitterProvider(emitter, namespace=""))

    @metrics.log_metrics
    def handler(event, context):
        add_order(metrics)
        if event:
            raise LookupError
        return "result"

    assert handler(False, None) == "result"
    with pytest.raises(LookupError):
        handler(True, None)
    assert totals(emitter) == {orders(): (0, 2)}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("argument", "variable", "context", "expected"),
    [
        ("argument", "variable", "context", "argument"),
        (None, "variable", "context", "variable"),
        (None, None, "context", "context"),
        (None, None, None, "lambda"),
    ],
)
def test_a_cold_start_has_the_right_function_name(argument, variable, context, expected, emitter, monkeypatch):
    """Argument, then environment, then context; and, where a context has none, what Lambda says."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "lambda")
    if variable:
        monkeypatch.setenv("POWERTOOLS_METRICS_FUNCTION_NAME", variable)
    provider = EmitterProvider(emitter, service="booking", function_name=argument)

    @provider.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(provider)

    for _ in range(2):
        handler({}, Context(context) if context else None)
    cold_start = ("ColdStart", frozenset({("function_name", expected), ("service", "booking")}))

    assert totals(emitter)[cold_start] == (0, 1)


def test_a_cold_start_whose_handler_fails_is_one(metrics, emitter):
    """Powertools counts it with the first success, if there is one."""

    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(metrics)
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            handler({}, Context("it"))

    assert totals(emitter)["ColdStart", frozenset({("function_name", "it")})] == (0, 1)


def test_the_context_of_a_durable_function_is_looked_into(metrics, emitter):
    """The handler gets it as it is."""
    context = SimpleNamespace(state=SimpleNamespace(operations=[]), lambda_context=Context("durable"))

    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(metrics)
        return context

    assert handler({}, context) is context
    assert totals(emitter)["ColdStart", frozenset({("function_name", "durable")})] == (0, 1)
