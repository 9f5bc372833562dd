"""Owns the way of values into an emitter's totals: the instrument of each, and what is refused. Keeps no values."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import TYPE_CHECKING

from emitter.errors import InstrumentConflictError, UsageError
from emitter.powertools.units import MEASURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from emitter.meter import Meter
    from emitter.powertools.metric_set import Value
    from emitter.powertools.units import Measure

    Record = Callable[[float, Mapping[str, str]], None]

__all__ = ["LIMIT_SHOWN", "Totals", "full_name"]

_LIMIT_TOLD = 100
"""Of how many metrics the log says that a value was refused: names without end are not to fill the memory."""

LIMIT_SHOWN = 80
"""Characters of a metric's name in the log."""

_LIMIT_ERROR = 250
"""Characters of an error in the log: it repeats the name, of whatever length."""

_IN_BRACES = re.compile(r"\{[^}]*\}")
_logger = logging.getLogger("emitter.powertools")


def full_name(namespace: str | None, name: str) -> str:
    """What a metric is called: its namespace, a dot and its name, as Powertools' own provider for Datadog has it."""
    return f"{namespace}.{name}" if namespace else name


class Totals:
    """Records values into the instruments that their names and units ask for.

    Attributes:
        refused: How many values could not be counted.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._records: dict[tuple[str, str], Record] = {}
        self._told: set[str] = set()
        self._lock = threading.RLock()  # reentrant: a finaliser may record in the very thread that holds it
        self.refused = 0

    def begin_anew(self) -> None:
        """Go on as another sandbox: in a forked child perhaps, where whoever held the lock does not exist."""
        self._lock = threading.RLock()
        self.refused = 0

    def record(self, values: Iterable[Value], attributes: Mapping[str, str], namespace: str | None) -> None:
        """Add to the totals of these attributes. What cannot be counted is counted as refused and raises nothing."""
        for name, unit, value in values:
            self._record(full_name(namespace, name), unit, value, attributes)

    def _record(self, name: str, unit: str, value: float, attributes: Mapping[str, str]) -> None:
        measure = MEASURES[unit]
        try:
            record = self._records.get((name, unit))
            if record is None:
                record = self._records[name, unit] = self._find(name, measure)
            record(measure.converted(value), attributes)
        except UsageError as error:
            self._refuse(name, error)

    def _find(self, name: str, measure: Measure) -> Record:
        meter = self._meter
        try:
            if measure.kind == "counter":
                return meter.counter(name, unit=measure.unit).add
            return meter.histogram(name, unit=measure.unit, boundaries=measure.boundaries).record
        except InstrumentConflictError:
            # What the user has made under this name before is as good if it is for the same thing in the same unit:
            # with boundaries of its own, or an up-down counter, or a gauge. Nothing is made here.
            for find in _AS_GOOD[measure.kind]:
                with contextlib.suppress(InstrumentConflictError):
                    unit, record = find(meter, name)
                    if _IN_BRACES.sub("", unit) == _IN_BRACES.sub("", measure.unit):
                        return record
            raise

    def _refuse(self, name: str, error: UsageError) -> None:
        with self._lock:
            self.refused += 1
            first = name not in self._told and len(self._told) < _LIMIT_TOLD
            if first:
                self._told.add(name)
        with contextlib.suppress(UsageError):  # the user has something else under that name
            self._meter.counter(
                "powertools.refused", unit="{value}", description="Number of values that could not be counted."
            ).add(1, metric=name)
        if first:
            _logger.warning(
                "a value of the metric %r was refused: %s. From now on such values are only counted, in "
                "powertools.refused. If the metric may go down, make it before, with emitter.up_down_counter() for "
                "what is counted or emitter.gauge() for what is measured",
                name[:LIMIT_SHOWN],
                str(error)[:_LIMIT_ERROR],
            )


_AS_GOOD: dict[str, tuple[Callable[[Meter, str], tuple[str, Record]], ...]] = {
    "counter": (
        lambda meter, name: ((known := meter.counter(name)).unit, known.add),
        lambda meter, name: ((known := meter.up_down_counter(name)).unit, known.add),
    ),
    "histogram": (
        lambda meter, name: ((known := meter.histogram(name)).unit, known.record),
        lambda meter, name: ((known := meter.gauge(name)).unit, known.set),
    ),
}
"""For each kind the instruments that will do, if the user has made one of that name."""
