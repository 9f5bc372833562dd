"""The same working code under Powertools' own provider and under ours: what CloudWatch would count is what we count."""

from __future__ import annotations

import warnings
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.metrics.provider import cold_start
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from emitter.powertools import MEASURES, EmitterProvider
from tests.powertools.reading import of_cloudwatch, totals

Context = namedtuple("Context", "function_name")  # noqa: PYI024  # as simple as that of a test


def several_metrics(metrics):
    """Counts and times, some of them more than once."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_metric(name="Orders", unit=MetricUnit.Count, value=1)
        metrics.add_metric(name="Orders", unit="Count", value=2)
        metrics.add_metric(name="Payment", unit=MetricUnit.Seconds, value=0.25)
        metrics.add_metric(name="Payment", unit="Seconds", value=0.5, resolution=1)

    handler({}, None)


def dimensions_before_and_after(metrics):
    """A dimension belongs to the metrics before it too."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_dimension(name="channel", value=event)
        metrics.add_metric(name="Orders", unit="Count", value=1)
        metrics.add_dimension(name="tier", value=3)

    handler("web", None)
    handler("app", None)
    handler("web", None)


def dimensions_of_one_invocation_only(metrics):
    """None of them is there in the next one."""

    @metrics.log_metrics
    def handler(event, context):
        if event:
            metrics.add_dimension(name="first", value="yes")
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler(True, None)
    handler(False, None)


def default_dimensions(metrics):
    """They last."""
    metrics.set_default_dimensions(stage="test", cell=7)

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler({}, None)
    handler({}, None)


def default_dimensions_of_the_decorator(metrics):
    """As they are with `set_default_dimensions`."""

    @metrics.log_metrics(default_dimensions={"stage": "test"})
    def handler(event, context):
        metrics.add_metric(name="Orders", unit="Count", value=1)
        metrics.add_dimension(name="tier", value="gold")

    handler({}, None)
    handler({}, None)


def a_default_dimension_with_another_value(metrics):
    """For one invocation; then it is the default again."""
    metrics.set_default_dimensions(stage="test")

    @metrics.log_metrics
    def handler(event, context):
        if event:
            metrics.add_dimension(name="stage", value="canary")
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler(True, None)
    handler(False, None)


def a_default_dimension_set_after_another_value(metrics):
    """The last word counts, in this invocation and, since it is the default's, in those that follow."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_dimension(name="stage", value="canary")
        metrics.set_default_dimensions(stage=event)
        metrics.add_metric(name="Orders", unit="Count", value=1)
        if event == "beta":
            metrics.add_dimension(name="stage", value="gamma")

    handler("alpha", None)
    handler("beta", None)
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.flush_metrics()


def default_dimensions_cleared(metrics):
    """From the next flush on they are gone, at the latest."""
    metrics.set_default_dimensions(stage="test")
    metrics.clear_default_dimensions()
    metrics.clear_metrics()
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.flush_metrics()


def another_service(metrics):
    """A dimension of that name wins over the service's."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_dimension(name="service", value="another")
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler({}, None)
    handler({}, None)


def service_and_namespace_set_late(metrics):
    """Both are properties of `Metrics`."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.namespace = "Late"
        metrics.service = "later"
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler({}, None)


def cleared_in_between(metrics):
    """What was added before is forgotten."""
    metrics.add_dimension(name="tier", value="gold")
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.clear_metrics()
    metrics.add_metric(name="Orders", unit="Count", value=5)
    metrics.flush_metrics()


def flushed_by_hand_inside_a_handler(metrics):
    """Each flush with its own dimensions."""

    @metrics.log_metrics
    def handler(event, context):
        for tenant in ("a", "b", "a"):
            metrics.add_dimension(name="tenant", value=tenant)
            metrics.add_metric(name="Orders", unit="Count", value=1)
            metrics.flush_metrics()
        metrics.add_metric(name="Batches", unit="Count", value=1)

    handler({}, None)


def several_sets_of_dimensions(metrics):
    """Each metric has all of them."""
    metrics.add_dimensions(environment="prod", region="eu")
    metrics.add_dimensions(team="red")
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.flush_metrics()


def a_further_set_over_other_values(metrics):
    """It wins, whatever is set before or after it; and is gone after the flush."""
    metrics.add_dimension(name="stage", value="before")
    metrics.add_dimensions(stage="further", team="red")
    metrics.add_dimension(name="stage", value="after")
    metrics.set_default_dimensions(team="blue")
    for _ in range(2):
        metrics.add_metric(name="Orders", unit="Count", value=1)
        metrics.flush_metrics()


def a_handler_that_raises(metrics):
    """What it had added counts."""

    @metrics.log_metrics
    def handler(event, context):
        metrics.add_metric(name="Orders", unit="Count", value=1)
        raise LookupError

    with pytest.raises(LookupError):
        handler({}, None)


def a_cold_start(metrics):
    """Once, and without the dimensions of anything else."""

    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        metrics.add_dimension(name="tier", value="gold")
        metrics.add_metric(name="Orders", unit="Count", value=1)

    handler({}, Context("checkout-prod"))
    handler({}, Context("checkout-prod"))


def numbers_of_all_kinds(metrics):
    """Whatever Python calls a number."""
    for value in (1, 2.5, True, Decimal("0.25"), Fraction(1, 4)):
        metrics.add_metric(name="Orders", unit="Count", value=value)
        metrics.add_metric(name="Payment", unit="Seconds", value=value)
    metrics.flush_metrics()


def names_with_space_around(metrics):
    """It is taken off."""
    metrics.add_metric(name="  Orders ", unit="Count", value=1)
    metrics.flush_metrics()


def more_than_cloudwatch_takes_at_once(metrics):
    """Powertools writes them out in parts."""
    for number in range(250):
        metrics.add_metric(name="Orders", unit="Count", value=number)
    metrics.flush_metrics()


PROGRAMS = [
    several_metrics,
    dimensions_before_and_after,
    dimensions_of_one_invocation_only,
    default_dimensions,
    default_dimensions_of_the_decorator,
    a_default_dimension_with_another_value,
    a_default_dimension_set_after_another_value,
    default_dimensions_cleared,
    another_service,
    service_and_namespace_set_late,
    cleared_in_between,
    flushed_by_hand_inside_a_handler,
    several_sets_of_dimensions,
    a_further_set_over_other_values,
    a_handler_that_raises,
    a_cold_start,
    numbers_of_all_kinds,
    names_with_space_around,
    more_than_cloudwatch_takes_at_once,
]


@pytest.mark.parametrize("service", [None, "checkout"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_working_code_counts_what_it_counted_before(program, service, emitter, capsys, monkeypatch):
    """Names, dimensions, how many values and their sum, to the letter."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Airline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # both warn of the same things; another test sees to that
        program(Metrics(provider=AmazonCloudWatchEMFProvider(service=service)))
        expected = of_cloudwatch(capsys.readouterr().out)
        cold_start.is_cold_start = True
        Metrics._default_dimensions.clear()
        program(Metrics(provider=EmitterProvider(emitter, service=service)))

    assert expected
    assert totals(emitter) == expected
    assert capsys.readouterr().out == ""


MISTAKES = {
    "no such unit": {"unit": "Furlongs"},
    "no unit at all": {"unit": ""},
    "text for a value": {"value": "1"},
    "nothing for a value": {"value": None},
    "a list for a value": {"value": [1]},
    "no such resolution": {"resolution": 10},
    "text for a resolution": {"resolution": "sixty"},
    "a truth for a resolution": {"resolution": False},
    "no name": {"name": ""},
    "a name of spaces": {"name": "   "},
    "a long name": {"name": "x" * 256},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_raises_what_powertools_raises(mistake, provider):
    """The same exception, and nothing is counted."""
    arguments = {"name": "Orders", "unit": "Count", "value": 1, **mistake}
    raised = []
    for each in (AmazonCloudWatchEMFProvider(namespace="x"), provider):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is what is asked
            each.add_metric(**arguments)
        raised.append(caught.type)

    assert raised[0] is raised[1]
    assert provider.look().empty


@pytest.mark.parametrize("unit", MetricUnit)
def test_every_unit_is_taken_as_such_by_name_and_by_value(unit, provider, emitter):
    """The three ways in which working code says a unit."""
    for each in (unit, unit.name, unit.value):
        provider.add_metric(name="It", unit=each, value=8)
    provider.flush_metrics()

    assert len(totals(emitter)) == 1
    assert provider.refused == 0


WARNED = {
    "an empty value": lambda metrics: metrics.add_dimension(name="tier", value=" "),
    "an empty name": lambda metrics: metrics.add_dimension(name="", value="gold"),
    "an empty default": lambda metrics: metrics.set_default_dimensions(tier=""),
    "none of several": lambda metrics: metrics.add_dimensions(),
    "another value": lambda metrics: [metrics.add_dimension(name="tier", value=value) for value in "ab"],
    "a default over another value": lambda metrics: [
        metrics.add_dimension(name="tier", value="a"),
        metrics.set_default_dimensions(tier="b"),
    ],
    "a flush of nothing": lambda metrics: metrics.flush_metrics(),
}


@pytest.mark.parametrize("act", WARNED.values(), ids=WARNED)
def test_what_powertools_warns_of_is_warned_of(act, provider):
    """By the same category, and by the same first words, which working code may filter."""
    said = []
    for each in (AmazonCloudWatchEMFProvider(namespace="x"), provider):
        with pytest.warns(UserWarning) as caught:  # noqa: PT030  # which one is what is asked
            act(each)
        said.append((len(caught), caught[0].category, str(caught[0].message)[:16]))

    assert said[0] == said[1]


@pytest.mark.parametrize("later", ["add_dimension", "set_default_dimensions"])
def test_a_warning_says_so_when_the_dimension_stays_what_it_was(provider, later):
    """What `add_dimensions` has set wins until the next flush."""
    act = {
        "add_dimension": lambda: provider.add_dimension("stage", "b"),
        "set_default_dimensions": lambda: provider.set_default_dimensions(stage="b"),
    }[later]
    provider.add_dimensions(stage="a")
    with pytest.warns(UserWarning, match="as 'a'; from now on it is 'a'"):
        act()
    provider.clear_default_dimensions()


def test_what_a_warning_says_of_a_dimension_is_so(provider):
    """The value that it names is the one that the metrics have, whether a dimension or a default one was last."""
    for act, value in [
        (lambda: provider.set_default_dimensions(stage="b"), "b"),
        (lambda: provider.add_dimension("stage", "c"), "c"),
        (lambda: provider.add_dimensions(stage="d"), "d"),
    ]:
        provider.clear_metrics()
        provider.clear_default_dimensions()
        provider.add_dimension("stage", "a")
        with pytest.warns(UserWarning, match=f"as 'a'; from now on it is '{value}'"):
            act()

        assert provider.look().dimensions == {"stage": value}


KINDS_OF_NUMBERS = {
    "NaN": float("nan"),
    "infinite": float("inf"),
    "infinite below": float("-inf"),
    "negative": -1,
    "minus zero": -0.0,
    "a truth": True,
    "as large as a float": 1.7e308,
    "beyond 64 bits": 2**64,
    "beyond any float": 10**400,
    "beyond any float, below": -(10**400),
    "beyond what Python writes out": 10**5000,
    "a decimal": Decimal("0.5"),
    "a decimal NaN": Decimal("NaN"),
    "a decimal signal": Decimal("sNaN"),
    "a decimal beyond any float": Decimal("1e400"),
    "a fraction": Fraction(1, 3),
    "a fraction beyond any float": Fraction(10**400, 3),
}


@pytest.mark.parametrize("value", KINDS_OF_NUMBERS.values(), ids=KINDS_OF_NUMBERS)
def test_a_number_of_whatever_kind_costs_no_other_value(value, provider, emitter):
    """In any unit: it is counted as Powertools has it, or refused and counted as that; what comes after it counts."""

    @provider.log_metrics
    def handler(event, context):
        for unit in MetricUnit:
            provider.add_metric(f"It in {unit.name}", unit, value)
            provider.add_metric(f"After {unit.name}", unit, 1)
        provider.serialize_metric_set()

    handler({}, None)
    everything = totals(emitter, own=True)
    refused = {dict(attributes)["metric"] for name, attributes in everything if name == "powertools.refused"}
    counted = {name: total for (name, _), total in everything.items()}

    for unit in MetricUnit:
        expected = expected_of(value, MEASURES[unit.value])
        total = counted.get(f"It in {unit.name}", (0, 0))[1]
        assert (f"It in {unit.name}" in refused) == (expected is None)
        assert total == (0 if expected is None else pytest.approx(expected, rel=1e-15))
        assert f"After {unit.name}" in counted
    assert provider.refused == len(refused)


def expected_of(value, measure):
    """What Powertools has of it, in the base unit; nothing if that can be no total, or if it raises instead."""
    theirs = AmazonCloudWatchEMFProvider(namespace="x")
    try:
        theirs.add_metric("It", "None", value)
    except (OverflowError, ValueError):  # into the very code that adds it
        return None
    number = theirs.metric_set["It"]["Value"][0] * measure.times / measure.divided_by
    too_large = measure.kind == "counter" and isinstance(value, int) and value > 2**63 - 1
    return number if 0 <= number < float("inf") and not too_large else None
