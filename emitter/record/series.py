"""Owns the running totals: every series, and what changes it. Knows neither how a series is found nor what is reported.

A change is exact however many threads, signal handlers and finalisers record at once, and whoever reads a total never
sees half of one. What nearly every recording is, a plain number and a total far from its limits, is one statement that
nothing can come between (see `UNDIVIDED`). Everything else goes a longer way, under the registry's one lock: it is
checked, refused in words before anything is changed, and stored in one such statement too.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left

from emitter.record.attributes import INT64_MAX, INT64_MIN
from emitter.record.snapshot import HistogramPoint
from emitter.record.timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from emitter.record.snapshot import Attributes, Point
    from emitter.record.values import Rule

__all__ = [
    "OVERFLOW_ATTRIBUTES",
    "OVERFLOW_KEY",
    "UNDIVIDED",
    "BoundGauge",
    "BoundHistogram",
    "BoundSum",
    "Common",
    "Series",
    "key_of",
]

UNDIVIDED = (
    sys.implementation.name == "cpython"
    and sys.version_info < (3, 15)
    and "free-threading build" not in sys.version  # it says so whether or not its lock happens to be switched on
)
"""Whether a statement that calls nothing is over before anything else gets its turn.

CPython lets go of its global lock, and runs signal handlers, only where a function begins, after a call and at a jump
backward (`Python/ceval.c`, `Python/bytecodes.c`: the eval breaker is looked at by RESUME, by CALL and its like and by
JUMP_BACKWARD; in 3.10 also by a conditional jump that is taken). Finalisers run there too, and up to 3.11 where an
object is made that the garbage collector looks after. Looked up for 3.10 to 3.14; others take the lock.

A statement that relies on this stands on one line, so that no debugger steps in between, and between reading a total
and storing it calls nothing and makes nothing but numbers. `tests/record/test_undivided.py` checks the bytecode.
"""

_LEAST, _MOST = -(2**62), 2**62 - 1
"""Half of what fits into 64 bits: two numbers between these add up to one that fits."""

OVERFLOW_ATTRIBUTES: Attributes = (("otel.metric.overflow", True),)
"""Where recordings go once an instrument has all the series it may have (OpenTelemetry metrics SDK,
"Overflow attribute")."""


def key_of(attributes: Attributes) -> tuple[object, ...]:
    """What tells series apart: attributes *and types*, for 1, 1.0 and True are equal in Python, not on the wire."""
    types = [type(value) for _, value in attributes]
    # A string is equal to no value of another type, so attributes that are all strings are a key themselves.
    return attributes if types.count(str) == len(types) else (attributes, *types)


OVERFLOW_KEY = key_of(OVERFLOW_ATTRIBUTES)
"""Under which an instrument keeps its overflow series."""


class Common:
    """What the instruments of a registry share.

    Attributes:
        lock: Held for a snapshot, and for each change that takes more than one statement.
        own: Whether these are the instruments in which the emitter counts itself.
        series_limit: How many series one instrument may have; the overflow series comes on top.
        changed: Whether anything was recorded since the registry last cleared it. It is cleared before totals are
            read and raised after one has changed, so that no change goes unnoticed.
        widened: Whether a series was added since the registry last cleared it.
        overflowed: How often a recording, or a binding, was given an overflow series.
    """

    __slots__ = ("changed", "lock", "overflowed", "own", "series_limit", "widened")

    def __init__(self, lock: AbstractContextManager[object], series_limit: int, *, own: bool = False) -> None:
        self.lock = lock
        self.own = own
        self.series_limit = series_limit
        self.changed = False
        self.widened = False
        self.overflowed = 0


class Series:
    """One set of attributes under one instrument, and what was recorded for it.

    Attributes:
        attributes: What tells it from the instrument's other series.
        number: Which series of the sandbox it is, counted from 1 in the order of their first report; 0 before that.
        point: What is to be reported; `None` if nothing is.
    """

    __slots__ = ("_common", "_rule", "attributes", "number")
    if TYPE_CHECKING:  # each kind has its own

        @property
        def point(self) -> Point | None:
            """What is to be reported."""

    def __init__(self, attributes: Attributes, rule: Rule, common: Common) -> None:
        self.attributes = attributes
        self._rule = rule
        self._common = common
        self.restart()

    def restart(self) -> None:
        """Begin anew, in the same place: whoever has bound the series keeps it."""
        self.number = 0


class BoundSum(Series):
    """One series of a counter or an up-down counter."""

    __slots__ = ("_least", "point")
    point: float

    def __init__(self, attributes: Attributes, rule: Rule, common: Common) -> None:
        super().__init__(attributes, rule, common)
        self._least = 0 if rule.grows else _LEAST

    def restart(self) -> None:
        """Begin anew, in the same place, at 0."""
        super().restart()
        self.point = 0

    def add(self, amount: float = 1, /) -> None:
        """Add to the running total; see `Counter.add`."""
        if (
            UNDIVIDED
            and (amount.__class__ is int or amount.__class__ is float)
            and self._least <= amount <= _MOST
            and _LEAST <= self.point <= _MOST
        ):
            self.point += amount
            self._common.changed = True
        else:
            amount = self._rule.checked(amount)
            with self._common.lock:
                self._add(amount)

    def _add(self, amount: float) -> None:
        hit = False
        while not hit:
            old = self.point
            new = old + amount
            if not INT64_MIN <= new <= INT64_MAX and (new.__class__ is int or not math.isfinite(new)):
                raise self._rule.refusal(amount, f"a total that fits in 64 bits (it stands at {old})")
            # Only if it still is what was added to: `add` may have changed it meanwhile, without the lock.
            self.point = new if (hit := self.point is old) else self.point
        self._common.changed = True


class BoundGauge(Series):
    """One series of a gauge."""

    __slots__ = ("point",)
    point: float | None

    def restart(self) -> None:
        """Begin anew, in the same place, unset."""
        super().restart()
        self.point = None

    def set(self, value: float, /) -> None:
        """Replace the value; see `Gauge.set`."""
        if UNDIVIDED and (value.__class__ is int or value.__class__ is float) and INT64_MIN <= value <= INT64_MAX:
            self.point = value
            self._common.changed = True
            if not self.number:
                self._common.widened = True
        else:
            value = self._rule.checked(value)
            with self._common.lock:
                self._set(value)

    def _set(self, value: float) -> None:
        self.point = value
        self._common.changed = True
        if not self.number:
            self._common.widened = True  # last: a snapshot that came before the value has left the series out


class BoundHistogram(Series):
    """One series of a histogram."""

    __slots__ = ("_boundaries", "bucket_counts", "sum")

    def __init__(self, attributes: Attributes, rule: Rule, common: Common, boundaries: tuple[float, ...]) -> None:
        self._boundaries = boundaries
        super().__init__(attributes, rule, common)

    def restart(self) -> None:
        """Begin anew, in the same place, empty."""
        super().restart()
        self.bucket_counts = [0] * (len(self._boundaries) + 1)
        self.sum = 0.0

    @property
    def point(self) -> HistogramPoint:
        """What was recorded up to now."""
        # One statement, as those that change them. The list is made (which may run a finaliser) before any is read.
        bucket_counts, total = [*self.bucket_counts], self.sum
        return HistogramPoint(sum(bucket_counts), total, tuple(bucket_counts))

    def record(self, value: float, /) -> None:
        """Count one value; see `Histogram.record`."""
        if UNDIVIDED and (value.__class__ is float or value.__class__ is int) and 0 <= value <= INT64_MAX:
            # A value equal to a boundary belongs below it (OpenTelemetry data model: upper bounds are inclusive).
            bucket = bisect_left(self._boundaries, value)
            # The sum stays finite: to the largest float such a value is too small to make a difference.
            self.sum, self.bucket_counts[bucket] = self.sum + value, self.bucket_counts[bucket] + 1
            self._common.changed = True
        else:
            value = self._rule.checked(value)
            bucket = bisect_left(self._boundaries, value)
            with self._common.lock:
                self._record(value, bucket)

    def _record(self, value: float, i: int) -> None:
        hit = False
        while not hit:
            old = self.sum
            new = old + value
            if new == math.inf:
                raise self._rule.refusal(value, f"a finite sum (it stands at {old})")
            # As in `BoundSum._add`; and what is not stored is not counted: `hit` is 1 or 0.
            self.sum, self.bucket_counts[i] = new if (hit := self.sum is old) else self.sum, self.bucket_counts[i] + hit
        self._common.changed = True

    def time(self) -> Timer:
        """Measure how long a block or a function takes; see `Histogram.time`."""
        return Timer(self.record)
