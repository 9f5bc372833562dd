"""Owns how names, units and attributes look in Prometheus. Knows no bytes, and of what is counted only its words.

OpenTelemetry allows any text for a name or a key; Prometheus has letters, digits and `_` (in names of metrics `:`
too). The rule, which is that of OpenTelemetry's compatibility specification ("OTLP Metric points to Prometheus",
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/):

- Name: each run of other characters becomes one `_`, none stands at either end; a leading digit gets a `_` before it.
- Unit: spelled out (`s` is `seconds`, `By/s` is `bytes_per_second`) and put behind the name, unless the name ends
  with it. What is in braces (`{order}`) is dropped. `1` is `ratio` for a gauge, and nothing for the other kinds.
- Kind: a counter ends in `_total`, behind the unit; a histogram is `_bucket`, `_sum` and `_count`.
- Key: each run of other characters becomes one `_`; a leading digit gets `key_` before it. A label that the format
  needs for itself keeps its name, and the attribute becomes `exported_` and that name.
- Value: text as it is, `true` and `false`, numbers in decimals. Keys that become equal share one label, their values
  joined by `;` in the order of the keys. An empty value is no label.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

__all__ = ["float_text", "has_legal_name", "label_name", "labels", "metric_name", "occupied_names", "text"]

# UCUM -> Prometheus ("Metric Metadata" in the section that the module's docstring names).
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "TiBy": "tibibytes", "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius",
    "Hz": "hertz", "%": "percent",
}  # fmt: skip

_PER = {
    "s": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}

_OCCUPIED = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count", "")}

# `_` itself is among what a run may consist of: the specification wants no two of them in a row.
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9]+")
_IN_BRACES = re.compile(r"\{[^}]*\}")

_EXPONENT_FROM, _EXPONENT_IN_PYTHON_FROM = 1e6, 1e16
"""From where on Go, and so Prometheus, spells a float with an exponent, and from where on Python does."""


def has_legal_name(name: str) -> bool:
    """Whether anything of a metric's name is left by the rule: a letter, a digit or a colon."""
    return bool(_legal(name, _NOT_IN_NAMES))


def metric_name(name: str, unit: str, kind: str) -> str:
    """What a metric is called, its unit included; what a sample of it is called says `occupied_names`.

    Args:
        name: As given by the user. If nothing of it is legal, and there is no unit, the result is `_`.
        unit: A UCUM code; empty for none.
        kind: `counter`, `gauge`, or any other kind, for which there is no further rule.
    """
    legal = _legal(name, _NOT_IN_NAMES)
    if kind == "counter":
        legal = legal.removesuffix("_total")  # comes again, behind the unit
    for part in _unit_parts(unit, kind):
        if not legal.endswith(f"_{part}"):
            legal = f"{legal}_{part}"
    return f"_{legal}" if not legal or legal[0].isdigit() else legal


def occupied_names(metric: str, kind: str) -> tuple[str, ...]:
    """The names that a metric takes, so that no other one may have them; first those that its samples have.

    Args:
        metric: Its name, by `metric_name`.
        kind: `counter`, `histogram`, or any other kind, whose samples have the name itself.
    """
    return tuple(metric + suffix for suffix in _OCCUPIED.get(kind, ("",)))


def labels(attributes: Iterable[tuple[str, object]], reserved: Container[str]) -> dict[str, str]:
    """Attributes as labels: names and texts, none of them empty.

    Args:
        attributes: Keys and values, in the order in which values are joined.
        reserved: Labels that belong to the format itself, or to what the series is part of.
    """
    found: dict[str, str] = {}
    joined: dict[str, list[str]] = {}
    for key, value in attributes:
        name = label_name(key, reserved)
        if name in found:
            joined.setdefault(name, [found[name]]).append(text(value))
        else:
            found[name] = text(value)
    for name, texts in joined.items():
        found[name] = ";".join(texts)
    return {name: value for name, value in found.items() if value}


def label_name(key: str, reserved: Container[str]) -> str:
    """What the label of an attribute is called."""
    name = _legal_key(key)
    while name in reserved:
        name = f"exported_{name}"  # so does Prometheus itself call what it moves out of the way
    return name


@lru_cache(maxsize=256)  # many series have few different keys
def _legal_key(key: str) -> str:
    name = _NOT_IN_LABELS.sub("_", key)
    return f"key_{name}" if not name or name[0].isdigit() else name


def text(value: object) -> str:
    """The value of an attribute as that of a label."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def float_text(number: float) -> str:
    """A finite float as Prometheus spells it in `le`: `0.5`, `1.0`, `1e+06`.

    To the letter as prometheus_client does, for `le="1"` and `le="1.0"` would be two series.
    """
    plain = repr(float(number))
    if not _EXPONENT_FROM <= number < _EXPONENT_IN_PYTHON_FROM:
        return plain
    whole, _, fraction = plain.partition(".")
    digits = (whole + fraction).rstrip("0")
    mantissa = f"{digits[0]}.{digits[1:]}".removesuffix(".")
    return f"{mantissa}e+{len(whole) - 1:02}"


def _unit_parts(unit: str, kind: str) -> Iterator[str]:
    unit = _IN_BRACES.sub("", unit)  # annotations such as {order} are prose
    if unit == "1":
        if kind == "gauge":
            yield "ratio"
        return
    what, _, per = (part.strip() for part in unit.partition("/"))
    if part := _UNITS.get(what) or _legal(what, _NOT_IN_LABELS):
        yield part
    if part := _PER.get(per) or _legal(per, _NOT_IN_LABELS):
        yield f"per_{part}"


def _legal(raw: str, illegal: re.Pattern[str]) -> str:
    return illegal.sub("_", raw).strip("_")
