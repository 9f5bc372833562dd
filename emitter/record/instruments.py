"""Owns the instruments and the rule of each for changing a running total. Knows no bytes, no clock of the report.

Every total of a registry changes under that registry's one lock, so a snapshot never sees half a change. What
can be refused is refused before anything is changed.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left

from emitter.errors import RecordingError
from emitter.record.attributes import INT64_MAX, INT64_MIN, LIMIT_CHARACTERS, canonical, shown
from emitter.record.series import OVERFLOW_ATTRIBUTES, OVERFLOW_KEY, Common, HistogramSeries, NumberSeries, key_of
from emitter.record.timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

    from emitter.record.snapshot import Attributes, AttributeValue, Kind

__all__ = ["BoundGauge", "BoundHistogram", "BoundSum", "Counter", "Gauge", "Histogram", "Instrument", "UpDownCounter"]

_REMEMBERED_ORDERS = 4
"""How many spellings of one set of attributes (other order, characters that get replaced) are remembered for
each series that an instrument may have. A bound, so that unclean values cannot fill the memory."""


class Instrument:
    """A name, and the series recorded under it. Made by an `Emitter` (or a registry), never by hand."""

    __slots__ = ("_by_order", "_common", "_series", "boundaries", "description", "name", "unit")
    kind: ClassVar[Kind]

    def __init__(self, name: str, unit: str, description: str, boundaries: tuple[float, ...], common: Common) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.boundaries = boundaries
        self._common = common
        self._series: dict[tuple[object, ...], Any] = {}
        # By attributes in the order given, without sorting; only ever holds those whose values are all strings,
        # because a string is equal to no value of another type.
        self._by_order: dict[tuple[tuple[str, AttributeValue], ...], Any] = {}

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} with {len(self._series)} series>"

    if TYPE_CHECKING:  # each kind of instrument has its own

        def _new_series(self, attributes: Attributes) -> Any: ...

    def _find(self, attributes: Mapping[str, AttributeValue] | None, more: dict[str, AttributeValue]) -> Any:
        """The series of these attributes, made if need be."""
        if attributes is not None:
            more = self._merged(attributes, more)
        order = tuple(more.items())
        try:
            return self._by_order[order]
        except (KeyError, TypeError, ValueError):
            pass  # the last two: no hash, as with a list or a memoryview; `canonical` refuses those in words
        ordered = canonical(more)
        series = self._find_or_make(ordered)
        if (
            all(value.__class__ is str and len(value) + len(key) <= LIMIT_CHARACTERS for key, value in order)
            and len(self._by_order) < _REMEMBERED_ORDERS * self._common.series_limit
            and series.attributes != OVERFLOW_ATTRIBUTES  # so that each recording that overflows is counted
        ):
            self._by_order[order] = series
        return series

    def _merged(
        self, attributes: Mapping[str, AttributeValue], more: dict[str, AttributeValue]
    ) -> dict[str, AttributeValue]:
        try:
            return {**attributes, **more}
        except TypeError:
            raise RecordingError(
                f"the attributes of {self.name!r} are a {type(attributes).__name__}; expected a mapping of "
                "strings to values, such as {'http.route': '/'}"
            ) from None

    def _find_or_make(self, attributes: Attributes) -> Any:
        key = key_of(attributes)
        common = self._common
        with common.lock:
            series = self._series.get(key)
            if series is not None:
                return series
            full = bool(attributes) and len(self._series) >= common.series_limit
            if full:
                common.overflowed += 1
                attributes, key = OVERFLOW_ATTRIBUTES, OVERFLOW_KEY
                series = self._series.get(key)
                if series is not None:
                    return series
            series = self._series[key] = self._new_series(attributes)
            common.widened = True
        if full:
            self._log_overflow()
        return series

    def _log_overflow(self) -> None:
        # Imported here because nearly nobody gets here and `import emitter` is to stay light.
        import logging

        logging.getLogger("emitter").warning(
            "instrument %r has %d series, as many as it may have; what is recorded for further attributes goes to one "
            "series with the attribute otel.metric.overflow=true. Drop the attribute that takes so many values, or "
            "raise series_limit=",
            self.name,
            self._common.series_limit,
        )

    def _refuse(self, verb: str, value: object, expected: str) -> RecordingError:
        return RecordingError(f"{self.kind} {self.name!r} was asked to {verb} {shown(value)}; expected {expected}")

    def _number(self, verb: str, value: object) -> float:
        """A value as a plain int or float that fits the wire, or a `RecordingError`."""
        if isinstance(value, float):
            if math.isfinite(value):
                return float(value)
        elif not isinstance(value, bool):
            try:
                number = operator.index(value)  # type: ignore[arg-type]  # numpy integers come this way
            except TypeError:
                pass
            else:
                if INT64_MIN <= number <= INT64_MAX:
                    return number
        raise self._refuse(verb, value, "a finite float or an integer of 64 bits")


class _Sum(Instrument):
    """What a counter and an up-down counter have in common: a total that grows by what is added."""

    __slots__ = ()
    _least: ClassVar[float]

    def _new_series(self, attributes: Attributes) -> NumberSeries:
        return NumberSeries(attributes, 0)

    def add(
        self,
        amount: float = 1,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        **more: AttributeValue,
    ) -> None:
        """Add to the running total of these attributes.

        Args:
            amount: How much, in the instrument's unit.
            attributes: Attributes whose keys are no Python names, such as `{"http.route": "/"}`.
            **more: Further attributes. The order never matters.

        Raises:
            RecordingError: The amount or an attribute cannot be counted; no total was changed.
        """
        amount = self._checked(amount)  # first: an amount that is refused makes no series
        self._add(self._find(attributes, more), amount)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundSum:
        """The series of these attributes, for hot paths. It is reported, at 0, from now on."""
        return BoundSum(self, self._find(attributes, more))

    def _checked(self, amount: float) -> float:
        # One chained comparison settles the sign, NaN, infinity and size of nearly every amount.
        if (amount.__class__ is int or amount.__class__ is float) and self._least <= amount <= INT64_MAX:
            return amount
        amount = self._number("add", amount)
        if amount < 0 and self._least == 0:
            raise self._refuse("add", amount, "zero or more (an up-down counter may go down)")
        return amount

    def _add(self, series: NumberSeries, amount: float) -> None:
        common = self._common
        with common.lock:
            total = series.point + amount  # type: ignore[operator]  # a sum is never None
            if not INT64_MIN <= total <= INT64_MAX and (total.__class__ is int or not math.isfinite(total)):
                raise self._refuse("add", amount, f"a total that fits in 64 bits (it stands at {series.point})")
            series.point = total
            common.changed = True


class Counter(_Sum):
    """A total that only grows. It reports 0 from the moment it is made."""

    __slots__ = ()
    kind = "counter"
    _least = 0

    def __init__(self, name: str, unit: str, description: str, boundaries: tuple[float, ...], common: Common) -> None:
        super().__init__(name, unit, description, boundaries, common)
        self._find(None, {})


class UpDownCounter(_Sum):
    """A total that grows and shrinks, such as the number of open connections."""

    __slots__ = ()
    kind = "up-down counter"
    _least = INT64_MIN


class Gauge(Instrument):
    """A value that was seen last, such as a temperature. A series is reported once it was set."""

    __slots__ = ()
    kind = "gauge"

    def _new_series(self, attributes: Attributes) -> NumberSeries:
        return NumberSeries(attributes, None)

    def set(
        self, value: float, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue
    ) -> None:
        """Replace the value of these attributes.

        Args:
            value: The value, in the gauge's unit.
            attributes: Attributes whose keys are no Python names.
            **more: Further attributes.

        Raises:
            RecordingError: The value or an attribute cannot be reported; no value was changed.
        """
        value = self._number("set", value)  # first: a value that is refused makes no series
        self._set(self._find(attributes, more), value)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundGauge:
        """The series of these attributes, for hot paths. It is reported once it was set."""
        return BoundGauge(self, self._find(attributes, more))

    def _set(self, series: NumberSeries, value: float) -> None:
        common = self._common
        with common.lock:
            if series.point is None:
                common.widened = True
            series.point = value
            common.changed = True


class Histogram(Instrument):
    """How often values fell between boundaries, how many there were and what they add up to."""

    __slots__ = ()
    kind = "histogram"

    def _new_series(self, attributes: Attributes) -> HistogramSeries:
        return HistogramSeries(attributes, len(self.boundaries) + 1)

    def record(
        self, value: float, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue
    ) -> None:
        """Count one value.

        Args:
            value: Zero or more, in the histogram's unit. (Were a value negative, the sum could shrink, and every
                receiver would take that for a restart.)
            attributes: Attributes whose keys are no Python names.
            **more: Further attributes.

        Raises:
            RecordingError: The value or an attribute cannot be counted; no total was changed.
        """
        value = self._checked(value)  # first: a value that is refused makes no series
        self._record(self._find(attributes, more), value)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundHistogram:
        """The series of these attributes, for hot paths. It is reported, empty, from now on."""
        return BoundHistogram(self, self._find(attributes, more))

    def _checked(self, value: float) -> float:
        if (value.__class__ is int or value.__class__ is float) and 0 <= value <= INT64_MAX:
            return value
        value = self._number("record", value)
        if value < 0:
            raise self._refuse("record", value, "zero or more")
        return value

    def _record(self, series: HistogramSeries, value: float) -> None:
        # A value equal to a boundary belongs below it (OpenTelemetry data model: upper bounds are inclusive).
        bucket = bisect_left(self.boundaries, value)
        common = self._common
        with common.lock:
            total = series.sum + value
            if total == math.inf:
                raise self._refuse("record", value, f"a finite sum (it stands at {series.sum})")
            series.sum = total
            series.bucket_counts[bucket] += 1
            common.changed = True

    def time(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> Timer:
        """Measure how long something takes, in seconds: `with h.time(): ...` or `@h.time()` on any function.

        The time is recorded also if the body raises. On an `async def` function it is the time until the result,
        waiting included.

        Raises:
            RecordingError: An attribute is refused, or the histogram's unit is not seconds.
        """
        if self.unit not in {"", "s"}:
            raise RecordingError(
                f"histogram {self.name!r} has the unit {self.unit!r} and time() records seconds; "
                "expected a histogram made with unit='s'"
            )
        return self.bind(attributes, **more).time()


class BoundSum:
    """One series of a counter or an up-down counter."""

    __slots__ = ("_instrument", "_series")

    def __init__(self, instrument: _Sum, series: NumberSeries) -> None:
        self._instrument = instrument
        self._series = series

    def add(self, amount: float = 1, /) -> None:
        """Add to the running total; see `Counter.add`."""
        instrument = self._instrument
        instrument._add(self._series, instrument._checked(amount))


class BoundGauge:
    """One series of a gauge."""

    __slots__ = ("_instrument", "_series")

    def __init__(self, instrument: Gauge, series: NumberSeries) -> None:
        self._instrument = instrument
        self._series = series

    def set(self, value: float, /) -> None:
        """Replace the value; see `Gauge.set`."""
        instrument = self._instrument
        instrument._set(self._series, instrument._number("set", value))


class BoundHistogram:
    """One series of a histogram."""

    __slots__ = ("_instrument", "_series")

    def __init__(self, instrument: Histogram, series: HistogramSeries) -> None:
        self._instrument = instrument
        self._series = series

    def record(self, value: float, /) -> None:
        """Count one value; see `Histogram.record`."""
        instrument = self._instrument
        instrument._record(self._series, instrument._checked(value))

    def time(self) -> Timer:
        """Measure how long a block or a function takes; see `Histogram.time`."""
        return Timer(self.record)
