"""Owns the assertions on what was recorded, and what they say when they fail. Knows no flush and no pytest.

A total is looked at as it stands, never as it was reported, and whether an instrument or a series exists never matters:
other tests may have made it. So what was not recorded since the test began stands at zero, or is not there.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, NamedTuple

from emitter.errors import NetworkError, UsageError
from emitter.record.attributes import canonical
from emitter.record.series import key_of
from emitter.record.snapshot import HistogramPoint
from emitter.testing.bounds import bounds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from emitter.meter import Meter
    from emitter.record.registry import Registry
    from emitter.record.snapshot import Attributes, AttributeValue, Kind, Point
    from emitter.testing.memory import InMemoryFlusher

__all__ = ["Recorded", "Taken"]

_ASSERTIONS: dict[Kind, str] = {
    "counter": "assert_counter",
    "up-down counter": "assert_up_down_counter",
    "gauge": "assert_gauge",
    "histogram": "assert_histogram",
}
_SUMS = frozenset(["counter", "up-down counter"])

_TOLERANCE, _NOTHING = 1e-9, 1e-12
"""Relative: ten additions of 0.1 are taken for 1. And absolute: 0.1 and 0.2 less 0.3 is taken for 0."""


class Taken(NamedTuple):
    """An emitter that is recorded, its totals, and where its reports go."""

    emitter: Meter
    service: object
    registry: Registry
    flusher: InMemoryFlusher


class _Found(NamedTuple):
    """One series that was recorded."""

    service: object
    name: str
    kind: Kind
    unit: str
    boundaries: tuple[float, ...]
    attributes: Attributes
    point: Point

    def place(self) -> tuple[object, ...]:
        """Where it stands among others: what the decorator counts comes last."""
        return self.name.startswith("faas."), self.name, len(self.attributes), str(self.attributes), str(self.service)

    def line(self, *, with_service: bool) -> str:
        """What is said of it in a message."""
        whose = f"{self.service}: " if with_service else ""
        return f"  {whose}{self.kind} {_title(self.name, self.attributes)} = {_shown(self.point, self.unit)}"


class Recorded:
    """What emitters have recorded since the test began, and assertions on it.

    Each assertion takes attributes as a recording does: `recorded.assert_counter("orders", 1, channel="web")`, or in a
    mapping where a key is no Python name, or is one of the assertion's own arguments. It is about the one series that
    has exactly these attributes, unless it says otherwise. It raises `AssertionError`, and tells what was recorded.
    """

    def __init__(self) -> None:
        self._taken: list[Taken] = []
        self._error: NetworkError | None = None

    def take(self, taken: Taken) -> None:
        """Look at one emitter more."""
        taken.flusher.error = self._error
        self._taken.append(taken)

    def of(self, emitter: Meter) -> Recorded:
        """What this emitter alone has recorded, where several count under the same names."""
        view = Recorded()
        view._error = self._error
        view._taken = [taken for taken in self._taken if taken.emitter is emitter]
        if not view._taken:
            raise LookupError(f"{emitter!r} is not being recorded here")
        return view

    def reset(self) -> None:
        """Begin anew in the middle of a test: totals from zero, no reports, and flushes get through."""
        self.fail_with(None)
        for taken in self._taken:
            taken.flusher.after_fork()

    # What becomes of flushes.

    def fail_with(self, error: NetworkError | None) -> None:
        """From now on each flush fails with this error, such as `ConnectError("host", 443, "refused")`.

        The totals are kept, as always, and the next flush tries again: it does not back off. `None`: flushes get
        through.

        Raises:
            UsageError: That is none of the errors by which a flush fails.
        """
        if error is not None and not isinstance(error, NetworkError):
            raise UsageError(
                f"fail_with was given {error!r}; expected a NetworkError, such as ConnectError('host', 443, 'refused')"
            )
        self._error = error
        for taken in self._taken:
            taken.flusher.error = error

    @property
    def reports(self) -> list[bytes]:
        """The bodies of all reports, as the encoder makes them, each emitter's in their order."""
        return [body for taken in self._taken for body in taken.flusher.reports]

    # What was recorded.

    def assert_counter(
        self,
        name: str,
        value: object,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        **more: AttributeValue,
    ) -> None:
        """The counter stands at this value; at 0 if nothing was added.

        Args:
            name: The counter's name.
            value: A number (floats may differ in their last digits), or what compares equal to one, as
                `pytest.approx` does.
            attributes: Attributes whose keys are no Python names.
            **more: Further attributes.
        """
        __tracebackhide__ = True
        self._assert_number("counter", name, value, _all(attributes, more))

    def assert_up_down_counter(
        self,
        name: str,
        value: object,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        **more: AttributeValue,
    ) -> None:
        """The up-down counter stands at this value. As `assert_counter`."""
        __tracebackhide__ = True
        self._assert_number("up-down counter", name, value, _all(attributes, more))

    def assert_gauge(
        self,
        name: str,
        value: object,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        **more: AttributeValue,
    ) -> None:
        """The gauge was set, to this value in the end. As `assert_counter`."""
        __tracebackhide__ = True
        self._assert_number("gauge", name, value, _all(attributes, more))

    def assert_histogram(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        *,
        count: object = None,
        sum: object = None,  # noqa: A002  that is what it is called
        within: tuple[float, float] | None = None,
        **more: AttributeValue,
    ) -> None:
        """Values were recorded in the histogram, and all that is said of them here is true.

        Args:
            name: The histogram's name.
            attributes: Attributes whose keys are no Python names.
            count: How many values there were. `None`: at least one.
            sum: What they add up to.
            within: Where each of them lay, both ends included. A histogram keeps no values, only how many fell
                between its boundaries, and their sum: so a single value is known exactly, and several are where the
                ends are boundaries. What cannot be told fails.
            **more: Further attributes.
        """
        __tracebackhide__ = True
        given = _all(attributes, more)
        title = _title(name, given)
        found = self._the_one("histogram", name, given)
        point = found.point if found is not None else HistogramPoint(0, 0.0, ())
        assert isinstance(point, HistogramPoint)  # noqa: S101  it is a histogram's
        if count is None and not point.count:
            self._fail(f"nothing was recorded in the histogram {title}", name)
        if count is not None and not _same(point.count, count):
            self._fail(f"the histogram {title} has {_times(point.count)}; expected a count of {count!r}", name)
        if sum is not None and not _same(point.sum, sum):
            self._fail(f"the values in the histogram {title} add up to {point.sum!r}; expected {sum!r}", name)
        if within is not None and found is not None:
            low, high = bounds_of(point, found.boundaries)
            if not (within[0] <= low or _same(low, within[0])) or not (high <= within[1] or _same(high, within[1])):
                where = f"is {low!r}" if low == high else f"is from {low:g} to {high:g}, for all that its buckets tell"
                self._fail(f"what was recorded in the histogram {title} {where}; expected it within {within!r}", name)

    def assert_total(
        self,
        name: str,
        value: object,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        **more: AttributeValue,
    ) -> None:
        """All that was added to the counter, or up-down counter, with these attributes, whatever others there were.

        As `assert_counter`, but over every series that has these among its attributes.
        """
        __tracebackhide__ = True
        given = _all(attributes, more)
        found = [each for each in self._found() if each.name == name and _has(each.attributes, given)]
        for each in found:
            if each.kind not in _SUMS:
                self._fail(f"{name!r} is {_a(each.kind)}, which has no total; expected {_ASSERTIONS[each.kind]}", name)
        total = sum(each.point for each in found if not isinstance(each.point, HistogramPoint))
        if not _same(total, value):
            self._fail(f"all of {_title(name, given)} add up to {total!r}; expected {value!r}", name)

    def assert_not_recorded(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue
    ) -> None:
        """Nothing was recorded under this name: not with these attributes, whatever others there are beside them."""
        __tracebackhide__ = True
        given = _all(attributes, more)
        if any(each.name == name and _has(each.attributes, given) for each in self._found()):
            self._fail(f"{_title(name, given)} was recorded; expected that it was not", name)

    def assert_nothing_recorded(self) -> None:
        """Nothing was recorded at all, but for what the handler's decorator counts by itself (`faas.*`)."""
        __tracebackhide__ = True
        if any(not each.name.startswith("faas.") for each in self._found()):
            raise AssertionError(f"expected that nothing was recorded\n{self}")

    def value(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, /, **more: AttributeValue
    ) -> Point | None:
        """What stands under this name with exactly these attributes; `None` if nothing was recorded there.

        A histogram's is an object with `count`, `sum` and `bucket_counts`.
        """
        __tracebackhide__ = True
        found = self._the_one(None, name, _all(attributes, more))
        return None if found is None else found.point

    def __str__(self) -> str:
        """Everything that was recorded, a line for each series."""
        return "\n".join(self._lines("recorded:", self._found(), "nothing was recorded"))

    def _found(self) -> list[_Found]:
        found = [each for taken in self._taken for each in _series(taken)]
        return sorted(found, key=_Found.place)

    def _the_one(self, kind: Kind | None, name: str, given: Attributes) -> _Found | None:
        __tracebackhide__ = True
        found = [each for each in self._found() if each.name == name]
        for each in found:
            if kind is not None and each.kind != kind:
                self._fail(f"{name!r} is {_a(each.kind)}; expected {_ASSERTIONS[each.kind]} instead", name)
        found = [each for each in found if key_of(each.attributes) == key_of(given)]
        if len(found) > 1:
            self._fail(
                f"{len(found)} emitters have recorded {_title(name, given)}; expected recorded.of(emitter), for one",
                name,
            )
        return found[0] if found else None

    def _assert_number(self, kind: Kind, name: str, value: object, given: Attributes) -> None:
        __tracebackhide__ = True
        found = self._the_one(kind, name, given)
        title = _title(name, given)
        if found is None and kind == "gauge":
            self._fail(f"the gauge {title} was not set; expected {value!r}", name)
        stands = 0 if found is None else found.point
        if not _same(stands, value):
            self._fail(f"the {kind} {title} stands at {stands!r}; expected {value!r}", name)

    def _fail(self, what: str, name: str) -> NoReturn:
        __tracebackhide__ = True
        found = self._found()
        same = [each for each in found if each.name == name]
        others = [each for each in found if each.name != name]
        lines = [what]
        if same:
            lines += self._lines("recorded under that name:", same)
        else:
            near = difflib.get_close_matches(name, {each.name for each in others}, n=3)
            lines.append(f"nothing was recorded as {name!r}" + (f"; did you mean {_either(near)}?" if near else ""))
        lines += self._lines("recorded besides:", others, "nothing else was recorded" if same else "nor anything else")
        raise AssertionError("\n".join(lines))

    def _lines(self, title: str, found: list[_Found], otherwise: str = "") -> list[str]:
        if not found:
            return [otherwise]
        several = len(self._taken) > 1
        return [title, *(each.line(with_service=several) for each in found)]


def _series(taken: Taken) -> Iterator[_Found]:
    """What was recorded by the user, and by the decorator."""
    for instrument, attributes, point in taken.registry.totals():
        if point.count if isinstance(point, HistogramPoint) else point or instrument.kind == "gauge":
            yield _Found(
                taken.service,
                instrument.name,
                instrument.kind,
                instrument.unit,
                instrument.boundaries,
                attributes,
                point,
            )


def _all(attributes: Mapping[str, AttributeValue] | None, more: Mapping[str, AttributeValue]) -> Attributes:
    """As they are recorded: sorted, and long texts cut."""
    return canonical({**(attributes or {}), **more})


def _has(attributes: Attributes, given: Attributes) -> bool:
    have = {key_of((pair,)) for pair in attributes}
    return all(key_of((pair,)) in have for pair in given)


def _same(stands: object, value: object) -> bool:
    if isinstance(stands, (int, float)) and isinstance(value, (int, float)):
        if not isinstance(stands, float):
            return stands == value
        return math.isclose(stands, value, rel_tol=_TOLERANCE, abs_tol=_NOTHING if value == 0 else 0.0)
    return bool(value == stands)


def _title(name: str, attributes: Attributes) -> str:
    pairs = ", ".join(f"{key}={value!r}" for key, value in attributes)
    return f"{name}{{{pairs}}}" if pairs else name


def _shown(point: Point, unit: str) -> str:
    if isinstance(point, HistogramPoint):
        return f"{_times(point.count)}, sum {_shown(point.sum, unit)}"
    return f"{point!r} {unit}" if unit and not unit.startswith("{") else repr(point)


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind.startswith("up") else f"a {kind}"


def _times(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"


def _either(names: list[str]) -> str:
    return " or ".join(map(repr, names))
