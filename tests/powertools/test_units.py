from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from aws_lambda_powertools.metrics import MetricUnit

from emitter.powertools import MEASURES
from tests.powertools.reading import totals

DOCUMENT = Path(__file__).parents[2].joinpath("docs", "powertools.md").read_text()
ROWS = {
    row[0]: row[1:]
    for row in re.findall(r"^\| `([\w/]+)` \| (\w+) \| (?:`(\S+)`|none) \| (.*?) \|$", DOCUMENT, re.MULTILINE)
}
PREFIXES = {"": 1, "kilo": 10**3, "mega": 10**6, "giga": 10**9, "tera": 10**12}
SMALL = {"": Fraction(1), "milli": Fraction(1, 1000), "micro": Fraction(1, 1000000)}


def by_its_name(unit: MetricUnit) -> tuple[str, Fraction]:
    """The base unit and the factor that the English name of a unit tells."""
    what, _, per = unit.value.partition("/")
    per = f"/{per[0].lower()}" if per else ""
    found = re.fullmatch(r"(?i)(milli|micro|kilo|mega|giga|tera)?(seconds|bytes|bits)", what)
    if found is None:
        return {"Count": ("{count}" + per, Fraction(1)), "Percent": ("1", Fraction(1, 100)), "None": ("", Fraction(1))}[
            what
        ]
    prefix, base = (found[1] or "").lower(), found[2].lower()
    if base == "seconds":
        return "s", SMALL[prefix]
    return "By" + per, Fraction(PREFIXES[prefix], 8 if base == "bits" else 1)


def test_every_unit_has_a_measure_and_every_measure_a_unit():
    """Of the installed Powertools: one that is added there turns this red."""
    assert {unit.value for unit in MetricUnit} == set(MEASURES)


@pytest.mark.parametrize("unit", MetricUnit)
def test_a_unit_becomes_what_its_name_says(unit):
    """In the base unit, to the last digit."""
    measure = MEASURES[unit.value]
    base, factor = by_its_name(unit)

    assert measure.unit == base
    assert [measure.converted(value) for value in range(1000)] == [float(value * factor) for value in range(1000)]
    assert measure.converted(0.1) == pytest.approx(float(Fraction(0.1) * factor), rel=1e-15)
    assert measure.kind == ("counter" if unit is MetricUnit.Count else "histogram")


@pytest.mark.parametrize("unit", MetricUnit)
def test_the_document_says_of_every_unit_what_the_code_does(unit):
    """Instrument, unit and factor: each row of the table in docs/powertools.md."""
    measure = MEASURES[unit.value]
    kind, base, factor = ROWS[unit.value]
    verb, number = re.fullmatch(r"(?:(times|divided by) ([\d,]+)|as it is)", factor).groups(default="1")
    number = int(number.replace(",", ""))

    assert kind == measure.kind
    assert base == measure.unit
    assert measure.times / measure.divided_by == (1 / number if verb == "divided by" else number)


def test_the_table_of_the_document_has_a_row_for_each_unit():
    """And no other rows."""
    assert set(ROWS) == {unit.value for unit in MetricUnit}


def test_values_in_different_units_of_one_kind_meet_in_one_metric(provider, emitter):
    """Milliseconds and seconds can be added up once they are both seconds; so can sizes."""
    provider.add_metric(name="Payment", unit="Milliseconds", value=250)
    provider.add_metric(name="Payment", unit="Seconds", value=1)
    provider.add_metric(name="Received", unit="Kilobits", value=8)
    provider.add_metric(name="Received", unit="Bytes", value=24)
    provider.flush_metrics()

    assert totals(emitter) == {("Payment", frozenset()): (2, 1.25), ("Received", frozenset()): (2, 1024.0)}
    assert provider.refused == 0


def test_a_whole_count_stays_a_whole_number(provider, emitter):
    """So that it is reported as one, and stays exact beyond 2**53."""
    provider.add_metric(name="Orders", unit="Count", value=2**53)
    provider.add_metric(name="Orders", unit="Count", value=1)
    provider.flush_metrics()
    total = emitter.counter("Orders").bind().point

    assert total == 2**53 + 1
    assert type(total) is int


@pytest.mark.parametrize(("unit", "value"), [("Megabytes", 5), ("Percent", 97), ("Milliseconds", 80)])
def test_a_histogram_has_boundaries_that_fit_its_unit(unit, value, provider, emitter):
    """A usual value falls neither below the first of them nor above the last."""
    provider.add_metric(name="It", unit=unit, value=value)
    provider.flush_metrics()
    counts = emitter.histogram("It").bind().point.bucket_counts

    assert sum(counts) == 1
    assert counts[0] == counts[-1] == 0
