"""Owns all series of one sandbox, its identity, and the snapshot of both. Knows no bytes and no network."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from emitter.callbacks import call_each
from emitter.errors import ConfigurationError, InstrumentConflictError
from emitter.record.attributes import INT64_MAX, INT64_MIN, LIMIT_CHARACTERS, is_clean, shown
from emitter.record.instruments import Counter, Gauge, Histogram, Instrument, UpDownCounter
from emitter.record.series import Common, Series
from emitter.record.snapshot import Metric, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emitter.record.snapshot import Attributes, Point

__all__ = ["DEFAULT_BOUNDARIES", "LIMIT_BOUNDARIES", "SECONDS_BOUNDARIES", "Registry"]

DEFAULT_BOUNDARIES = (
    0.0,
    5.0,
    10.0,
    25.0,
    50.0,
    75.0,
    100.0,
    250.0,
    500.0,
    750.0,
    1000.0,
    2500.0,
    5000.0,
    7500.0,
    10000.0,
)
"""OpenTelemetry's default (metrics SDK, "Explicit Bucket Histogram Aggregation"); made for milliseconds."""

SECONDS_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""OpenTelemetry's advice for durations in seconds (semantic conventions, `faas.invoke_duration`)."""

LIMIT_BOUNDARIES = 1_000
"""A histogram with more buckets than this is a mistake: each series costs 8 bytes a bucket in each report."""

_LIMIT_DESCRIPTION = 1_024
"""Characters: room for a paragraph, in a text that every report carries."""

_AnyInstrument = TypeVar("_AnyInstrument", bound=Instrument)


class Registry:
    """Instruments by name, and who they count for.

    Args:
        resource: What the totals belong to; `service.instance.id` is added here.
        series_limit: How many series each instrument may have, before the overflow series.
        tick_nano: How far apart the times of snapshots are at least, in nanoseconds.
        names: The names under which the receiver will know a metric; no two metrics may share one.
        clock_ns: Nanoseconds since 1970.

    Attributes:
        instance_id: `service.instance.id`.
        at_restart: Called at the end of each `restart`.
    """

    def __init__(
        self,
        resource: Attributes = (),
        *,
        series_limit: int = 2_000,
        tick_nano: int = 1,
        names: Callable[[Metric], tuple[str, ...]] = lambda metric: (metric.name,),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not isinstance(series_limit, int) or series_limit < 1:
            raise ConfigurationError(f"series_limit is {series_limit!r}; expected an integer, 1 or more")
        self._clock_ns = clock_ns
        self._tick_nano = tick_nano
        self._names = names
        self._named: dict[str, str] = {}  # by the receiver's name, ours
        # Reentrant, at no cost: a finaliser that records may run in the very thread that holds it (`snapshot` makes
        # objects, which may start a garbage collection), and would wait for itself.
        lock = threading.RLock()
        self._lock = lock
        self._common = Common(lock, series_limit)
        # What the emitter counts of itself must not look like something recorded by the user.
        self._own_common = Common(lock, series_limit, own=True)
        self._instruments: dict[str, Instrument] = {}
        self._metrics: tuple[Metric, ...] = ()
        self._order: list[Series] = []
        self._given = resource
        self.at_restart: list[Callable[[], object]] = []
        self._become()

    def _become(self) -> None:
        """Take on a new identity."""
        self.instance_id = _uuid4()
        pairs = {**dict(self._given), "service.instance.id": self.instance_id}
        self._resource: Attributes = tuple(sorted(pairs.items()))
        self._start_time_unix_nano = self._latest_unix_nano = self._clock_ns()
        self._sequence = 0
        self._numbered = 0

    def restart(self) -> None:
        """Go on as a new sandbox: a new identity, a new start time, totals from zero.

        In a forked child another thread, which does not exist there, may have been in the middle of a change. So the
        lock is replaced, and whatever may have been left half changed begins anew.
        """
        self._lock = threading.RLock()
        for common in (self._common, self._own_common):
            common.lock = self._lock
            common.changed = False
            common.widened = True  # a gauge is unset again, and is left out
            common.overflowed = 0
        for instrument in self._instruments.values():
            for series in instrument._series.values():  # noqa: SLF001
                series.restart()
        self._become()
        call_each(self.at_restart, "what is called at a restart")  # a fork's child has other things to begin anew

    @property
    def changed(self) -> bool:
        """Whether anything was recorded, or any series made, since the last snapshot."""
        return self._common.changed or self._common.widened

    @property
    def reported_series(self) -> int:
        """How many series snapshots have had so far; what `snapshot` takes for `introduced` later."""
        return self._numbered

    @property
    def overflowed(self) -> int:
        """How often a recording, or a binding, was given an overflow series."""
        return self._common.overflowed

    def counter(self, name: str, *, unit: str = "", description: str = "", own: bool = False) -> Counter:
        """The counter of this name, made if need be; `own` marks what the emitter counts of itself.

        Raises:
            ConfigurationError: A name, unit or description that cannot be reported.
            InstrumentConflictError: The name belongs to another instrument. (All four makers raise these.)
        """
        return self._instrument(Counter, name, unit, description, own=own)

    def up_down_counter(self, name: str, *, unit: str = "", description: str = "") -> UpDownCounter:
        """The up-down counter of this name, made if need be."""
        return self._instrument(UpDownCounter, name, unit, description)

    def gauge(self, name: str, *, unit: str = "", description: str = "") -> Gauge:
        """The gauge of this name, made if need be."""
        return self._instrument(Gauge, name, unit, description)

    def histogram(
        self, name: str, *, unit: str = "", description: str = "", boundaries: Iterable[float] | None = None
    ) -> Histogram:
        """The histogram of this name, made if need be.

        Args:
            name: See `Emitter.histogram`.
            unit: See `Emitter.histogram`.
            description: See `Emitter.histogram`.
            boundaries: Upper bounds of the buckets, ascending. `None`: OpenTelemetry's default, which for the
                unit `s` is its advice for durations. Empty: a single bucket, so count and sum only.
        """
        if boundaries is None:
            default = SECONDS_BOUNDARIES if unit == "s" else DEFAULT_BOUNDARIES
            return self._instrument(Histogram, name, unit, description, default, boundaries_matter=False)
        return self._instrument(Histogram, name, unit, description, _boundaries(name, boundaries))

    def _instrument(
        self,
        kind: type[_AnyInstrument],
        name: str,
        unit: str,
        description: str,
        boundaries: tuple[float, ...] = (),
        *,
        boundaries_matter: bool = True,
        own: bool = False,
    ) -> _AnyInstrument:
        _check_text("name", name, LIMIT_CHARACTERS)
        if not name:
            raise ConfigurationError("an instrument's name is empty; expected something like 'orders'")
        _check_text(f"unit of {name!r}", unit, LIMIT_CHARACTERS)
        if isinstance(description, str):
            description = " ".join(description.split())
        _check_text(f"description of {name!r}", description, _LIMIT_DESCRIPTION)
        known = self._instruments.get(name)
        if known is None:
            common = self._own_common if own else self._common
            names = self._names(Metric(name, unit, description, kind.kind, boundaries, ()))
            made = kind(name, unit, description, boundaries, common)
            with self._lock:
                self._claim(names, made)
                known = self._instruments.setdefault(name, made)  # another thread may have been faster
                # A snapshot may have come between the first series of a counter and its place in the registry.
                common.widened = common.widened or bool(made._series)  # noqa: SLF001
        if known._common.own != own:  # noqa: SLF001
            raise InstrumentConflictError(f"{name!r} is what the emitter counts of itself; expected another name")
        for what, before, now in (
            ("kind", known.kind, kind.kind),
            ("unit", known.unit, unit or known.unit),  # what is not given again is not in conflict
            ("boundaries", known.boundaries, boundaries if boundaries_matter else known.boundaries),
        ):
            if before != now:
                raise InstrumentConflictError(
                    f"{name!r} was made as a {known.kind} with the {what} {before!r}, and is asked for with the {what} "
                    f"{now!r}; expected the same {what} again, or another name"
                )
        return known  # type: ignore[return-value]  # its kind was just compared

    def _claim(self, names: tuple[str, ...], instrument: Instrument) -> None:
        """Take the receiver's names for an instrument; refuse it if another one has any of them."""
        for name in names:
            other = self._named.get(name, instrument.name)
            if other != instrument.name:
                raise InstrumentConflictError(
                    f"the {instrument.kind} {instrument.name!r} would be {name!r} to the receiver, and so is the "
                    f"{self._instruments[other].kind} {other!r}; expected a name that stays different once it was made "
                    "to fit the encoder's format"
                )
        self._named.update(dict.fromkeys(names, instrument.name))

    @property
    def recorded(self) -> bool:
        """Whether any total is not as it was made: a gauge is set, anything else is not zero."""
        return any(
            isinstance(instrument, Gauge) or bool(getattr(point, "count", point))
            for instrument, _, point in self.totals()
        )

    def totals(self) -> Iterator[tuple[Instrument, Attributes, Point]]:
        """What stands under each name now, what the emitter counts of itself left out. Changes nothing."""
        for instrument in list(self._instruments.values()):
            if not instrument._common.own:  # noqa: SLF001
                for series in list(instrument._series.values()):  # noqa: SLF001
                    if series.point is not None:
                        yield instrument, series.attributes, series.point

    def snapshot(self, *, introduced: int = 0, known_unix_nano: int = 0) -> Snapshot:
        """All totals as they are now. What is recorded from here on counts as changed.

        Args:
            introduced: Of how many series the receiver has heard: `reported_series` as it was after an earlier
                snapshot. Later ones are `fresh`.
            known_unix_nano: The time of that snapshot; 0 if there was none.
        """
        with self._lock:
            if self._common.widened or self._own_common.widened:
                self._common.widened = self._own_common.widened = False  # first: a finaliser may add in the middle
                try:
                    self._metrics, self._order = self._lay_out()
                except BaseException:  # an interrupt: the next one has to
                    self._common.widened = True
                    raise
            # The clock may be set back, by a thaw or by NTP; a receiver would then take each report for an old one.
            self._latest_unix_nano = max(self._clock_ns(), self._latest_unix_nano + self._tick_nano)
            self._sequence += 1
            self._common.changed = False
            return Snapshot(
                self._resource,
                self._start_time_unix_nano,
                self._latest_unix_nano,
                self._metrics,
                tuple([series.point for series in self._order]),  # type: ignore[misc]  # an unset gauge is left out
                self._sequence,
                self._fresh(introduced) if self._numbered > introduced else (),
                max(known_unix_nano, self._start_time_unix_nano),
            )

    def _fresh(self, introduced: int) -> tuple[int, ...]:
        return tuple(position for position, series in enumerate(self._order) if series.number > introduced)

    def _lay_out(self) -> tuple[tuple[Metric, ...], list[Series]]:
        metrics: list[Metric] = []
        order: list[Series] = []
        for instrument in list(self._instruments.values()):
            # Copied first, since a finaliser may add to it in the middle.
            every = list(instrument._series.values())  # noqa: SLF001
            reported = [series for series in every if series.point is not None]
            if reported:
                series = tuple(each.attributes for each in reported)
                metrics.append(
                    Metric(
                        instrument.name,
                        instrument.unit,
                        instrument.description,
                        instrument.kind,
                        instrument.boundaries,
                        series,
                    )
                )
                order += reported
                for each in reported:
                    if not each.number:
                        self._numbered += 1
                        each.number = self._numbered
        return tuple(metrics), order


def _uuid4() -> str:
    """A random UUID (RFC 9562, 5.4). The standard library's module of that name takes 3 ms to import."""
    number = int.from_bytes(os.urandom(16), "big") & ~(0xF << 76 | 0b11 << 62) | 4 << 76 | 0b10 << 62
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _check_text(what: str, text: str, limit: int) -> None:
    if not isinstance(text, str):
        raise ConfigurationError(f"the {what} is a {type(text).__name__}; expected a string")
    if len(text) > limit or not is_clean(text):
        raise ConfigurationError(
            f"the {what} is {text[:80]!r}; expected at most {limit} characters, none of them a control character"
        )


def _boundaries(name: str, raw: Iterable[float]) -> tuple[float, ...]:
    def refused(what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the boundaries of {name!r} are {what}; expected at most {LIMIT_BOUNDARIES} finite numbers, "
            "each greater than the one before it"
        )

    if not isinstance(raw, Iterable):
        raise refused(shown(raw))
    given = list(raw)
    # Compared as the floats that go over the wire, where 2**53 and 2**53 + 1 are the same.
    bounds = tuple(float(bound) for bound in given if _is_boundary(bound))
    if not len(bounds) == len(given) <= LIMIT_BOUNDARIES or any(low >= high for low, high in pairwise(bounds)):
        raise refused(f"[{', '.join(map(shown, given[:10]))}{', ...' if given[10:] else ''}]")
    return bounds


def _is_boundary(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX
