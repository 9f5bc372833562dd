"""Owns how totals look from outside: Prometheus text and plain JSON data. Knows no SQL and no HTTP.

OpenTelemetry allows names that the classic Prometheus format does not, and several of ours may become one of
theirs. What then happens:

- Counters, up-down counters and histograms (of equal boundaries) with equal names and labels are added up;
  of gauges the newest value is shown.
- A name that would mean two types, or a histogram of other boundaries under equal labels: the first one (in
  the order of service and metric name) is shown, and the others are counted in
  `emitter_exposition_conflicts`. They are never missing from the JSON.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from emitter.aggregator.fold import ServiceTotals, Total, total_of
from emitter.aggregator.report import Attribute, Distribution, Kind, Metric
from emitter.encode import prometheus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["CONTENT_TYPE", "as_json", "as_prometheus"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `as_prometheus`: the classic format, which every Prometheus reads."""

_Labels = tuple[tuple[str, str], ...]

_TYPES = {
    Kind.COUNTER: "counter",
    Kind.UP_DOWN_COUNTER: "gauge",
    Kind.GAUGE: "gauge",
    Kind.HISTOGRAM: "histogram",
}

_RESERVED = {"service_name", "le"}  # ours come first


def as_prometheus(services: Iterable[ServiceTotals]) -> bytes:
    """Render totals in the classic Prometheus text format.

    Args:
        services: What the store has added up.

    Returns:
        UTF-8 text of type `CONTENT_TYPE`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Totals(tuple(services)))
    return generate_latest(registry)


def as_json(services: Iterable[ServiceTotals]) -> dict[str, Any]:
    """Turn totals into plain data for a JSON encoder; integers stay integers.

    Args:
        services: What the store has added up.

    Returns:
        `{"services": [...]}` in a stable order.
    """
    return {
        "services": [
            {
                "service": service.service,
                "sandboxes": service.sandboxes,
                "reports_received": service.reports_received,
                "reports_lost": service.reports_lost,
                "totals": [_total_as_json(total) for total in service.totals],
            }
            for service in services
        ]
    }


def _total_as_json(total: Total) -> dict[str, Any]:
    head = {
        "name": total.metric.name,
        "kind": total.metric.kind.value,
        "unit": total.metric.unit,
        "attributes": dict(total.attributes),
    }
    if isinstance(total.value, Distribution):
        return {
            **head,
            "count": total.value.count,
            "sum": total.value.sum,
            "boundaries": list(total.metric.boundaries),
            "bucket_counts": list(total.value.bucket_counts),
        }
    return {**head, "value": total.value}


class _Totals(Collector):
    """What `prometheus_client` asks for families: merges equal series, then lets each name mean one type."""

    def __init__(self, services: tuple[ServiceTotals, ...]) -> None:
        self._services = services

    def collect(self) -> Iterator[Family]:
        conflicts = Family("emitter_exposition_conflicts", "Series left out of this text, not of the JSON.", "gauge")
        counts = self._counts()
        yield from counts
        occupied = {name for family in (*counts, conflicts) for name in _names_in(family)}
        left_out = 0
        for family, totals_by_labels in self._families():
            names = _names_in(family)
            if occupied.isdisjoint(names):
                occupied |= names
                left_out += _fill(family, totals_by_labels)
                yield family
            else:
                left_out += sum(map(len, totals_by_labels.values()))
        conflicts.add_sample(conflicts.name, {}, left_out)
        yield conflicts

    def _counts(self) -> tuple[Family, ...]:
        sandboxes = Family("emitter_sandboxes", "Sandboxes that have reported.", "gauge")
        received = Family("emitter_reports_received", "Different reports that arrived.", "counter")
        lost = Family("emitter_reports_lost", "Attempts less reports received.", "gauge")
        for service in self._services:
            labels = {"service_name": service.service}
            sandboxes.add_sample(sandboxes.name, labels, service.sandboxes)
            received.add_sample(received.name + "_total", labels, service.reports_received)
            lost.add_sample(lost.name, labels, service.reports_lost)
        return sandboxes, received, lost

    def _families(self) -> Iterator[tuple[Family, dict[_Labels, list[Total]]]]:
        families: dict[tuple[str, str], tuple[Family, dict[_Labels, list[Total]]]] = {}
        for service in self._services:
            for total in service.totals:
                key = (
                    prometheus.metric_name(total.metric.name, total.metric.unit, total.metric.kind),
                    _TYPES[total.metric.kind],
                )
                if key not in families:
                    families[key] = Family(key[0], total.metric.description, key[1]), {}
                labels = _labels(service.service, total.attributes)
                families[key][1].setdefault(labels, []).append(total)
        yield from families.values()


def _names_in(family: Family) -> set[str]:
    return set(prometheus.occupied_names(family.name, family.type))


def _fill(family: Family, totals_by_labels: Mapping[_Labels, list[Total]]) -> int:
    left_out = 0
    for labels, totals in totals_by_labels.items():
        first = totals[0].metric
        alike = [total for total in totals if _alike(total.metric, first)]
        left_out += len(totals) - len(alike)
        merged = total_of(first, {}, ((total.time_unix_nano, total.value) for total in alike))
        _add_samples(family, dict(labels), merged)
    return left_out


def _alike(metric: Metric, first: Metric) -> bool:
    return metric.kind is first.kind and metric.boundaries == first.boundaries


def _add_samples(family: Family, labels: dict[str, str], total: Total) -> None:
    value = total.value
    if not isinstance(value, Distribution):
        family.add_sample(prometheus.occupied_names(family.name, family.type)[0], labels, value)
        return
    for boundary, count in zip(total.metric.boundaries, accumulate(value.bucket_counts), strict=False):
        family.add_sample(family.name + "_bucket", {**labels, "le": prometheus.float_text(boundary)}, count)
    family.add_sample(family.name + "_bucket", {**labels, "le": "+Inf"}, value.count)
    if value.sum is not None:
        family.add_sample(family.name + "_sum", labels, value.sum)
    family.add_sample(family.name + "_count", labels, value.count)


def _labels(service: str, attributes: Mapping[str, Attribute]) -> _Labels:
    # To Prometheus an empty label is no label.
    own = {"service_name": service} if service else {}
    return tuple(sorted({**own, **prometheus.labels(attributes.items(), _RESERVED)}.items()))
