"""Owns the instruments, and how each finds the series of the attributes it is given. Changes no total itself."""

from __future__ import annotations

from emitter.errors import RecordingError
from emitter.record.attributes import LIMIT_CHARACTERS, canonical
from emitter.record.series import (
    OVERFLOW_ATTRIBUTES,
    OVERFLOW_KEY,
    BoundGauge,
    BoundHistogram,
    BoundSum,
    Common,
    key_of,
)
from emitter.record.values import Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

    from emitter.record.snapshot import Attributes, AttributeValue, Kind
    from emitter.record.timer import Timer

__all__ = ["BoundGauge", "BoundHistogram", "BoundSum", "Counter", "Gauge", "Histogram", "Instrument", "UpDownCounter"]

_REMEMBERED_ORDERS = 4
"""How many spellings of one set of attributes (other order, characters that get replaced) are remembered for
each series that an instrument may have. A bound, so that unclean values cannot fill the memory."""

_NOT_REMEMBERED = (KeyError, AttributeError, TypeError, ValueError)
"""What comes of looking for attributes that were not seen before, are no mapping, or have no hash: a list, or a
memoryview, whose hash raises a ValueError. All of them are looked at more closely then."""

_PLAIN = frozenset({str, bool, int, float})
"""The types of values that are equal to what they should be; a subclass may be equal to anything."""


def _is_plain(pair: tuple[str, AttributeValue]) -> bool:
    """Whether a key and its value may be remembered as they were given."""
    key, value = pair
    length = len(key) + len(value) if type(value) is str else len(key)
    return type(key) is str and type(value) in _PLAIN and length <= LIMIT_CHARACTERS


class Instrument:
    """A name, and the series recorded under it. Made by an `Emitter` (or a registry), never by hand."""

    __slots__ = ("_by_order", "_common", "_rule", "_series", "boundaries", "description", "name", "unit")
    kind: ClassVar[Kind]

    def __init__(self, name: str, unit: str, description: str, boundaries: tuple[float, ...], common: Common) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.boundaries = boundaries
        self._common = common
        self._rule = Rule(self.kind, name)
        self._series: dict[tuple[object, ...], Any] = {}
        # By attributes in the order given, without checking or sorting them; the keys are those of `key_of` as well.
        self._by_order: dict[tuple[object, ...], Any] = {}

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
            return self._by_order[key_of(order)]
        except _NOT_REMEMBERED:
            pass
        series = self._find_or_make(canonical(more))
        if (
            all(map(_is_plain, order))
            and len(self._by_order) < _REMEMBERED_ORDERS * self._common.series_limit
            and series.attributes != OVERFLOW_ATTRIBUTES  # so that each recording that overflows is counted
        ):
            # The pairs are those of the series, as far as they are equal, so that there is only one of each in memory.
            kept = {pair: pair for pair in series.attributes}
            order = tuple([kept.get(pair, pair) for pair in order])
            self._by_order[key_of(series.attributes if order == series.attributes else order)] = series
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
            # Not simply assigned: a finaliser may have made it in the meantime, in this very thread.
            series = self._series.setdefault(key, self._new_series(attributes))
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


class _Sum(Instrument):
    """What a counter and an up-down counter have in common: a total that grows by what is added."""

    __slots__ = ()

    def _new_series(self, attributes: Attributes) -> BoundSum:
        return BoundSum(attributes, self._rule, self._common)

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
        try:
            series = self._by_order[tuple(more.items()) if attributes is None else (*attributes.items(), *more.items())]
        except _NOT_REMEMBERED:
            self._rule.checked(amount)  # first: an amount that is refused makes no series
            series = self._find(attributes, more)
        series.add(amount)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundSum:
        """The series of these attributes, for hot paths. It is reported, at 0, from now on."""
        return self._find(attributes, more)  # type: ignore[no-any-return]


class Counter(_Sum):
    """A total that only grows. It reports 0 from the moment it is made."""

    __slots__ = ()
    kind = "counter"

    def __init__(self, name: str, unit: str, description: str, boundaries: tuple[float, ...], common: Common) -> None:
        super().__init__(name, unit, description, boundaries, common)
        self._find(None, {})


class UpDownCounter(_Sum):
    """A total that grows and shrinks, such as the number of open connections."""

    __slots__ = ()
    kind = "up-down counter"


class Gauge(Instrument):
    """A value that was seen last, such as a temperature. A series is reported once it was set."""

    __slots__ = ()
    kind = "gauge"

    def _new_series(self, attributes: Attributes) -> BoundGauge:
        return BoundGauge(attributes, self._rule, self._common)

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
        try:
            series = self._by_order[tuple(more.items()) if attributes is None else (*attributes.items(), *more.items())]
        except _NOT_REMEMBERED:
            self._rule.checked(value)  # first: a value that is refused makes no series
            series = self._find(attributes, more)
        series.set(value)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundGauge:
        """The series of these attributes, for hot paths. It is reported once it was set."""
        return self._find(attributes, more)  # type: ignore[no-any-return]


class Histogram(Instrument):
    """How often values fell between boundaries, how many there were and what they add up to."""

    __slots__ = ()
    kind = "histogram"

    def _new_series(self, attributes: Attributes) -> BoundHistogram:
        return BoundHistogram(attributes, self._rule, self._common, self.boundaries)

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
        try:
            series = self._by_order[tuple(more.items()) if attributes is None else (*attributes.items(), *more.items())]
        except _NOT_REMEMBERED:
            self._rule.checked(value)  # first: a value that is refused makes no series
            series = self._find(attributes, more)
        series.record(value)

    def bind(self, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue) -> BoundHistogram:
        """The series of these attributes, for hot paths. It is reported, empty, from now on."""
        return self._find(attributes, more)  # type: ignore[no-any-return]

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
