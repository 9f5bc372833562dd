"""What users get wrong, and what they are told."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import pytest
from aws_lambda_powertools.metrics import Metrics

from emitter import ConfigurationError, Delivery, Emitter
from emitter.powertools import EmitterProvider
from emitter.powertools.checks import OPTIONS
from tests.powertools.reading import add_order, orders, totals

LOG = "emitter.powertools"


@pytest.fixture(params=["enabled", "disabled"])
def either(request, peer, monkeypatch):
    """Powertools' metrics enabled and, as in most unit tests, disabled: whoever makes mistakes is told in both."""
    monkeypatch.setenv("EMITTER_ENDPOINT", peer.endpoint)
    if request.param == "disabled":
        monkeypatch.setenv("POWERTOOLS_DEV", "true")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"namespce": "X"}, "EmitterProvider was given namespce; expected .*namespace, .*endpoint"),
        ({"timeout": "abc"}, "timeout is 'abc'; expected seconds"),
        ({"delivery": "fast"}, "delivery is 'fast'; expected a Delivery"),
        ({"endpoint": "metrics.example.com"}, "metrics.example.com"),
        ({"namespace": 5}, "namespace is 5; expected a text"),
        ({"service": 5}, "service is 5; expected a text"),
        ({"function_name": 5}, "function_name is 5; expected a text"),
        ({"default_dimensions": ["a"]}, r"default_dimensions are \['a'\]; expected a mapping"),
    ],
)
def test_an_argument_of_the_provider_that_makes_no_sense_is_refused(arguments, told, either):
    """Where it is given, with what was expected; not in production first."""
    with pytest.raises(ConfigurationError, match=told):
        EmitterProvider(**arguments)


@pytest.mark.parametrize(
    ("given", "told"),
    [("ServerlessAirline", "a str for its emitter.*namespace="), (Metrics, "a type for its emitter")],
)
def test_whatever_is_no_emitter_is_refused(given, told, either):
    """A namespace is likely to stand there: it comes first in `Metrics`."""
    with pytest.raises(ConfigurationError, match=told):
        EmitterProvider(given)


def test_an_emitter_that_waits_cannot_stand_behind_a_provider(either):
    """It has no way of reporting from synchronous code."""
    awaited = pytest.importorskip("emitter.awaited", reason="pip install aiohttp")
    with pytest.raises(ConfigurationError, match="an AwaitedEmitter for its emitter; expected"):
        EmitterProvider(awaited.AwaitedEmitter("http://metrics.example.com/"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"capture_cold_start": True},
            "log_metrics was given capture_cold_start; expected .*capture_cold_start_metric",
        ),
        ({"timeout_guard": "yes"}, "timeout_guard is 'yes'; expected True or False"),
        ({"connect": 1}, "connect is 1; expected True or False"),
        ({"flush_at_sigterm": None}, "flush_at_sigterm is None; expected True or False"),
        ({"timeout": -1}, "timeout is -1; expected seconds"),
        ({"every": None}, "every is None; expected seconds"),
        ({"delivery": "fast"}, "delivery is 'fast'; expected a Delivery"),
        ({"default_dimensions": ["a"]}, r"default_dimensions are \['a'\]; expected a mapping"),
    ],
)
def test_an_option_of_a_handler_that_makes_no_sense_is_refused(options, told, either):
    """Where it is written, and where metrics are disabled too."""
    metrics = Metrics(provider=EmitterProvider())
    with pytest.raises(ConfigurationError, match=told):
        metrics.log_metrics(**options)


@pytest.mark.parametrize("options", [{"timeout": None, "delivery": None}, {"every": 1, "delivery": Delivery.BUFFERED}])
def test_an_option_that_makes_sense_is_taken(options, either):
    """What the emitter takes for nothing given, as well."""
    assert EmitterProvider().log_metrics(**options)(lambda event, context: event)


def test_the_options_are_those_of_the_emitters_own_decorator():
    """All of them: one that is new there is forgotten here otherwise."""
    parameters = inspect.signature(Emitter.lambda_handler).parameters.values()

    assert set(OPTIONS) == {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_a_forgotten_namespace_is_told_once(emitter, caplog):
    """`Metrics` keeps its own to itself. What is counted is counted all the same."""
    metrics = Metrics(namespace="Airline", service="booking", provider=EmitterProvider(emitter))

    @metrics.log_metrics
    def handler(event, context):
        add_order(metrics)

    for _ in range(2):
        handler({}, None)
    (record,) = caplog.records

    assert (record.name, record.levelno) == (LOG, logging.WARNING)
    assert "EmitterProvider(namespace=...)" in record.getMessage()
    assert "POWERTOOLS_METRICS_NAMESPACE" in record.getMessage()
    assert "'Orders'" in record.getMessage()
    assert totals(emitter) == {orders(): (0, 2)}


@pytest.mark.parametrize("namespace", ["Airline", ""])
def test_a_namespace_that_was_given_is_not_missed(namespace, emitter, caplog):
    """An empty one says that there is to be none."""
    provider = EmitterProvider(emitter, namespace=namespace)
    add_order(provider)
    with provider.single_metric("Upgrades", "Count", 1):
        pass
    provider.flush_metrics()

    assert caplog.records == []


def test_a_single_metric_with_a_namespace_of_its_own_misses_none(emitter, caplog):
    """It has one."""
    with EmitterProvider(emitter).single_metric("Upgrades", "Count", 1, namespace="Airline"):
        pass

    assert caplog.records == []


def test_a_provider_that_nobody_settles_is_told_of_once(emitter, caplog):
    """With Powertools' own `Metrics`, several in several modules share what they add. Providers do not."""
    elsewhere = EmitterProvider(emitter, namespace="Airline", service="seats")
    provider = EmitterProvider(emitter, namespace="Airline")

    @provider.log_metrics
    def handler(event, context):
        add_order(provider)
        add_order(elsewhere)

    for _ in range(2):
        handler({}, None)
    (record,) = caplog.records

    assert (record.name, record.levelno) == (LOG, logging.WARNING)
    assert "namespace 'Airline' and service 'seats' holds values (1)" in record.getMessage()
    assert "share one provider" in record.getMessage()


def test_providers_that_settle_are_not_told_of(emitter, caplog):
    """By a decorator of their own, around or inside this one, or by hand."""
    inner, outer, manual = (EmitterProvider(emitter, namespace=each) for each in ("Inner", "Outer", "Manual"))

    @outer.log_metrics
    @inner.log_metrics
    def handler(event, context):
        for each in (inner, outer, manual):
            add_order(each)
        manual.flush_metrics()

    handler({}, None)

    assert caplog.records == []
    assert len(totals(emitter)) == 3


def test_a_name_that_is_far_too_long_does_not_fill_the_log(emitter, caplog):
    """With its namespace it has more characters than any instrument; the log has the first ones."""
    provider = EmitterProvider(emitter, namespace="N" * 300)
    provider.add_metric(name="O" * 255, unit="Count", value=1)
    provider.flush_metrics()
    (record,) = caplog.records

    assert provider.refused == 1
    assert "N" * 80 in record.getMessage()
    assert "N" * 200 not in record.getMessage()
    assert len(record.getMessage()) < 600


def test_without_powertools_the_import_says_what_to_install():
    """And an emitter without a provider needs none of it."""
    code = """
import sys
sys.modules["aws_lambda_powertools"] = None
from emitter import Emitter
try:
    import emitter.powertools
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == (
        "aws_lambda_powertools emitter.powertools needs Powertools for AWS Lambda; install it with: "
        "pip install 'lambda-emitter[powertools]'\n"
    )
