"""Owns what was added since the last flush: values, dimensions, metadata. Knows Powertools' rules, and no emitter.

In Powertools a dimension also belongs to the metrics that were added before it. So values wait here, and become totals
when they are taken. Any number of threads may add.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from numbers import Number
from typing import TYPE_CHECKING, NamedTuple

from aws_lambda_powertools.metrics import (
    MetricResolution,
    MetricUnit,
    MetricUnitError,
    MetricValueError,
    SchemaValidationError,
)
from aws_lambda_powertools.metrics.functions import (
    extract_cloudwatch_metric_resolution_value,
    extract_cloudwatch_metric_unit_value,
)
from aws_lambda_powertools.metrics.provider.cloudwatch_emf import exceptions
from aws_lambda_powertools.warnings import PowertoolsUserWarning

from emitter.powertools.checks import checked_dimensions

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from typing import Any, NoReturn

__all__ = ["LIMIT_VALUES", "MetricSet", "Taken", "Value"]

LIMIT_VALUES = 10_000
"""How many values wait at most, some megabyte; then they become totals with the dimensions that they have so far.
(Powertools writes out after 100 values of a metric, and after 100 metrics.)"""

_LIMIT_NAME = 255
"""Characters of a metric's name, as in CloudWatch; `emitter.record` takes no more either."""

_NAME_ERROR: type[Exception] = getattr(exceptions, "MetricNameError", SchemaValidationError)
"""What Powertools raises for a name that is too long; the first versions 3 had no word for it."""

_TEXTS: dict[object, str] = {each: unit.value for unit in MetricUnit for each in (unit, unit.name, unit.value)}
"""Each unit's text, by the three ways in which it may be said."""

_STANDARD = MetricResolution.Standard.value
_RESOLUTIONS = [resolution.value for resolution in MetricResolution]

_logger = logging.getLogger("emitter.powertools")


class Value(NamedTuple):
    """One value that was added.

    Attributes:
        name: Of the metric.
        unit: The text of a `MetricUnit`.
        value: In that unit.
    """

    name: str
    unit: str
    value: float


class Taken(NamedTuple):
    """What was in a set.

    Attributes:
        values: In the order in which they were added.
        dimensions: The default ones included.
        metadata: As it was added.
        empty: Whether no value was added at all, since everything was taken for the last time.
    """

    values: list[Value]
    dimensions: dict[str, str]
    metadata: dict[str, Any]
    empty: bool


class MetricSet:
    """Values with their dimensions and metadata.

    Attributes:
        default_dimensions: What each metric has, until `set_default_dimensions` says otherwise.
    """

    default_dimensions: dict[str, str]

    def __init__(self, default_dimensions: Mapping[str, object] | None = None) -> None:
        self.default_dimensions = {}
        self._timestamp_refused = False
        self._reset()
        self.set_default_dimensions(**checked_dimensions(default_dimensions))

    def _reset(self) -> None:
        # Reentrant: a finaliser that adds may run in the very thread that holds it.
        self._lock = threading.RLock()
        self._values: list[Value] = []
        self._dimensions: dict[str, str] = {}
        self._further: dict[str, str] = {}  # of `add_dimensions`
        self._metadata: dict[str, Any] = {}
        self._empty = True

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        """Add one value.

        Args:
            name: Of the metric.
            unit: A `MetricUnit`, or its name or its value. It decides what the metric becomes, see `MEASURES`.
            value: Any number. One that cannot be counted, such as NaN, is refused when it is to become a total.
            resolution: 60 or 1, and of no consequence: totals have none.

        Raises:
            MetricUnitError: There is no such unit.
            MetricValueError: The value is no number.
            MetricResolutionError: There is no such resolution.
            MetricNameError: The name is empty, or has more than 255 characters.
        """
        name = name.strip() if isinstance(name, str) else ""
        if not 1 <= len(name) <= _LIMIT_NAME:
            raise _NAME_ERROR(f"a metric was given the name {name[:80]!r}; expected 1 to {_LIMIT_NAME} characters")
        number = _number(name, value)
        text = _TEXTS[unit] if isinstance(unit, (str, MetricUnit)) and unit in _TEXTS else _refused(name, unit)
        if resolution != _STANDARD:
            extract_cloudwatch_metric_resolution_value(_RESOLUTIONS, resolution)
        with self._lock:
            self._values.append(Value(name, text, number))
            self._empty = False

    def add_dimension(self, name: str, value: str) -> None:
        """Give all metrics a dimension, also those that were added before it, until the next flush.

        Args:
            name: Becomes the key of an attribute. An empty one is not added, and warned of.
            value: Becomes the attribute's value, as text. An empty one is not added either.
        """
        self._add(self._dimensions, str(name), str(value))

    def add_dimensions(self, **dimensions: str) -> None:
        """Add several dimensions. What CloudWatch has as a set of its own, a receiver gets by adding up.

        Whatever another dimension of the same name is set to, before or after, these win until the next flush.
        """
        if not dimensions:
            warnings.warn("Empty dimensions: add_dimensions was given none", PowertoolsUserWarning, stacklevel=2)
        for name, value in dimensions.items():
            self._add(self._further, name, str(value))

    def set_default_dimensions(self, **dimensions: Any) -> None:
        """Give all metrics these dimensions from now on, after each flush as well.

        Where a dimension of the same name was added before, this is its value now; one that is added later takes
        the default's place until the next flush.
        """
        for name, value in dimensions.items():
            self._add(self.default_dimensions, name, str(value))

    def clear_default_dimensions(self) -> None:
        """Give metrics no dimensions by default any more."""
        self.default_dimensions.clear()

    def _add(self, dimensions: dict[str, str], name: str, value: str) -> None:
        if not name.strip() or not value.strip():
            warnings.warn(
                f"The dimension {name} doesn't meet the requirements and was not added: it is {value!r}; "
                "expected a name and a value that are not empty",
                PowertoolsUserWarning,
                stacklevel=3,
            )
            return
        with self._lock:
            before = self._all_dimensions().get(name, value)
            self._dimensions.pop(name, None)  # the last word counts, be it a default's
            dimensions[name] = value
            after = self._all_dimensions()[name]
        if before != value:
            warnings.warn(
                f"Dimension '{name}' has already been added, as {before!r}; from now on it is {after!r}",
                PowertoolsUserWarning,
                stacklevel=3,
            )

    def add_metadata(self, key: str, value: Any) -> None:
        """Keep something for whoever reads the log: it goes there with the next flush, and into no metric."""
        with self._lock:
            self._metadata[str(key)] = value

    def set_timestamp(self, timestamp: int | dt.datetime) -> None:  # noqa: ARG002 - see below
        """Accepted and ignored: running totals are those of the moment at which they are reported. Logged once."""
        if not self._timestamp_refused:
            self._timestamp_refused = True
            _logger.warning("set_timestamp is ignored: totals are those of the moment at which they are reported")

    def clear_metrics(self) -> None:
        """Forget what was added since the last flush; the default dimensions stay."""
        self.take()

    def look(self) -> Taken:
        """A copy of everything that is here."""
        with self._lock:
            return Taken([*self._values], self._all_dimensions(), {**self._metadata}, self._empty)

    def take(self) -> Taken:
        """Everything that is here, which then is empty but for the default dimensions."""
        with self._lock:
            taken = Taken(self._values, self._all_dimensions(), self._metadata, self._empty)
            self._values, self._dimensions, self._further, self._metadata, self._empty = [], {}, {}, {}, True
            return taken

    def take_values(self) -> Taken:
        """The values, with the dimensions that they have so far. These stay, and so does the metadata."""
        with self._lock:
            taken = Taken(self._values, self._all_dimensions(), {}, self._empty)
            self._values = []
            return taken

    def _all_dimensions(self) -> dict[str, str]:
        return {**self.default_dimensions, **self._dimensions, **self._further}


def _refused(name: str, unit: object) -> NoReturn:
    """Raise what Powertools raises for a unit."""
    if isinstance(unit, str):
        extract_cloudwatch_metric_unit_value([], list(MetricUnit.__members__), unit)
    # Powertools lets pass whatever is neither a text nor a unit, and CloudWatch drops it.
    raise MetricUnitError(f"the unit of the metric {name!r} is a {type(unit).__name__}; expected a MetricUnit")


def _number(name: str, value: object) -> float:
    """A number as a plain int or float; Powertools takes whatever `numbers` knows, decimals and truths included."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Number) and not isinstance(value, complex):
        try:
            return float(value)  # type: ignore[arg-type]  # a real number by now, of whatever library
        except (TypeError, ValueError, OverflowError):
            return math.nan  # refused when it is recorded
    raise MetricValueError(f"{value!r} is not a valid number; it was added to the metric {name!r}")
