"""Reads totals, ours and those that CloudWatch would make of Powertools' log lines, into the same shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from emitter.record.snapshot import HistogramPoint

if TYPE_CHECKING:
    from emitter import Emitter

Totals = dict[tuple[str, frozenset[tuple[str, Any]]], tuple[int, float]]
"""By name and attributes: how many values there were (0 for a counter, which cannot tell), and their sum."""

OWN = ("emitter.", "faas.", "powertools.")


def totals(emitter: Emitter, *, own: bool = False) -> Totals:
    """What an emitter has counted up to now: for the user, or all of it."""
    snapshot = emitter._registry.snapshot()
    keys = [(metric.name, frozenset(series)) for metric in snapshot.metrics for series in metric.series]
    found: Totals = {}
    for (name, attributes), point in zip(keys, snapshot.points, strict=True):
        if point != 0 and (own or not name.startswith(OWN)):
            found[name, attributes] = (
                (point.count, point.sum) if isinstance(point, HistogramPoint) else (0, float(point))
            )
    return found


def of_cloudwatch(log: str) -> Totals:
    """What CloudWatch would count by Powertools' own log lines. All units must be Count or Seconds."""
    found: Totals = {}
    for line in filter(None, log.splitlines()):
        blob = json.loads(line)
        (directive,) = blob["_aws"]["CloudWatchMetrics"]
        attributes = frozenset((key, blob[key]) for key in set().union(*directive["Dimensions"]))
        for metric in directive["Metrics"]:
            key = f"{directive['Namespace']}.{metric['Name']}", attributes
            number, total = found.get(key, (0, 0.0))
            values = blob[metric["Name"]]
            number += len(values) if metric["Unit"] == "Seconds" else 0
            found[key] = number, total + sum(values)
    return found


def orders(**attributes):
    """The key, in totals, of the metric that most tests count."""
    return "Orders", frozenset(attributes.items())


def add_order(metrics, value=1):
    """One order."""
    metrics.add_metric(name="Orders", unit="Count", value=value)
