"""Owns the Influx line protocol, for InfluxDB 1.x, 2.x and VictoriaMetrics. Pure: a snapshot goes in, text comes out.

    orders,channel=web,service.instance.id=0e9f0d76,service.name=checkout total=3 1795251123567682928

Sources: InfluxDB v1 and v2, "Line protocol"; `models/points.go` of InfluxDB and `lib/protoparser/influx/parser.go` of
VictoriaMetrics. What is called tried was tried with InfluxDB 1.6 and VictoriaMetrics 1.79. The rule:

- Measurement: the metric's name. Time: nanoseconds.
- Fields: a counter is `total`, an up-down counter or a gauge `value`. A histogram is one line with `count` and `sum`,
  and for each bucket a line with the tag `le` (as Prometheus spells it, `+Inf` last) and the field `bucket`: how many
  values were `le` or less. VictoriaMetrics puts both names together: `orders_total`, `payment_bucket`.
- Types: `total`, `value` and `sum` are always floats (an int in full digits; a receiver keeps it exactly up to 2^53),
  `count` and `bucket` always integers. InfluxDB refuses a point whose field has another type than the first one had.
- Tags: the attributes, and of the resource `service.name` and `service.instance.id`, or all of it on demand. Text as it
  is, `true` and `false`, numbers in decimals. InfluxDB has no empty tags: what has no text is left out.
- Zero: a counter or histogram that is new to the receiver is preceded by a line in which all its fields are 0.

Any character but these survives, escaped where need be. (No control character reaches an encoder.)

- A backslash becomes `/`, in measurements, keys and values: before a comma, a space, an equals sign or an end it would
  be taken for an escape, and a doubled one is a single one to VictoriaMetrics, but not to InfluxDB (tried).
- A `#` at the beginning of a measurement becomes `_`: the line would be a comment.
- A key that a receiver needs for itself gets a `_` behind it: `time` (InfluxDB refuses the point; tried), `_field`,
  `_measurement`, `_start`, `_stop`, `_time`, `_value` (columns of InfluxDB 2.x, which discards the point or the tag),
  `__name__` (VictoriaMetrics drops it; tried), `le` on histograms, and whatever key a tag of the resource has.
- Keys that become equal share one tag, their values joined by `;` in the order of the keys.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from emitter.encode.encoder import Encoder
from emitter.encode.merging import Merging, merge
from emitter.encode.prometheus import float_text, text
from emitter.errors import ConfigurationError
from emitter.record.snapshot import HistogramPoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from emitter.record.snapshot import Attributes, Metric, Point, Snapshot

__all__ = ["InfluxEncoder"]

_SERVICE = {"service.name", "service.instance.id"}
_FIELDS = {"counter": "total", "up-down counter": "value", "gauge": "value"}
_RESERVED = {"time", "_field", "_measurement", "_start", "_stop", "_time", "_value", "__name__"}
_LE = "le"

_TO_ESCAPE_IN_MEASUREMENTS = re.compile("[, ]")
_TO_ESCAPE_IN_TAGS = re.compile("[, =]")

_ON, _END, _END_OF_INTEGER = range(3)
"""What follows a value: nothing, for the line goes on; the end of a line; the mark of an integer and the end."""

_Tags = tuple[tuple[str, str], ...]
"""Keys and values as they are written, sorted by key."""


class InfluxEncoder(Encoder):
    """Encodes snapshots as lines, and remembers the layout and the texts of the last one.

    The memory only saves time: what comes out depends on the snapshot alone.

    Args:
        resource: What of the resource becomes tags: `"service"` for `service.name` and `service.instance.id`, or
            `"all"`.

    Raises:
        ConfigurationError: `resource` is anything else.
    """

    content_type = "text/plain; charset=utf-8"
    zeros = True
    tick_nano = 1_000_000  # VictoriaMetrics keeps milliseconds, and a zero has to stay before its value

    def __init__(self, *, resource: str = "service") -> None:
        if resource not in {"service", "all"}:
            raise ConfigurationError(f"resource is {resource!r}; expected 'service' or 'all'")
        self._whole_resource = resource == "all"
        self._layout: _Layout | None = None
        self._written: tuple[Sequence[Point], list[str]] = (), []

    def names(self, metric: Metric) -> tuple[str, ...]:
        """The measurement.

        Nothing else can collide: no field has a `_` in it, so even as VictoriaMetrics joins them with one, two names
        are only equal if both measurement and field are.
        """
        return (_measurement(metric.name),)

    def encode(self, snapshot: Snapshot) -> bytes:
        """Encode one report, at `/write` or `/api/v2/write` without a precision."""
        layout = self._layout
        if layout is None or not layout.fits(snapshot):
            layout = self._layout = _lay_out(snapshot, whole_resource=self._whole_resource)
        numbers: Sequence[Point] = layout.merging.values(snapshot.points)
        if layout.has_histograms:
            numbers = _numbers(numbers)
        lines: list[str] = [""] * (3 * len(numbers))
        lines[::3] = layout.heads
        lines[1::3] = self._texts(numbers)
        lines[2::3] = map(_ends(snapshot.time_unix_nano).__getitem__, layout.ends)
        if snapshot.fresh and snapshot.delta_since_unix_nano is None:
            lines[:0] = layout.zeros(snapshot.fresh, snapshot.zero_time_unix_nano)
        return "".join(lines).encode()

    def _texts(self, numbers: Sequence[Point]) -> list[str]:
        # Of most series nothing was recorded since the last report, and then the number is the identical object: that
        # is known sooner than a float is spelled (measured: 1,000 floats of which 5 % change, 0.25 against 0.8 ms).
        before, texts = self._written
        if len(before) == len(numbers):
            known = zip(numbers, before, texts, strict=True)
            texts = [text if number is old else repr(number) for number, old, text in known]
        else:
            texts = [*map(repr, numbers)]
        self._written = numbers, texts
        return texts


class _Layout(NamedTuple):
    """A report without its numbers and times: for each number what stands before it, and which of `_ends` follows.

    `growing` has an entry for each series: its numbers' places if it grows from zero, else none.
    """

    resource: Attributes
    metrics: tuple[Metric, ...]
    merging: Merging
    heads: list[str]
    ends: list[int]
    growing: list[range]
    has_histograms: bool

    def fits(self, snapshot: Snapshot) -> bool:
        return self.metrics is snapshot.metrics and self.resource is snapshot.resource

    def zeros(self, fresh: Sequence[int], time_unix_nano: int) -> list[str]:
        """The lines of these series, all of them 0 at that time."""
        ends = _ends(time_unix_nano)
        places = [place for series in self.merging.fresh(fresh) for place in self.growing[series]]
        return [part for place in places for part in (self.heads[place], "0", ends[self.ends[place]])]


def _ends(time_unix_nano: int) -> tuple[str, str, str]:
    return "", f" {time_unix_nano}\n", f"i {time_unix_nano}\n"


def _numbers(points: Iterable[Point]) -> list[int | float]:
    numbers: list[int | float] = []
    for point in points:
        if isinstance(point, HistogramPoint):
            numbers += (point.count, point.sum)
            numbers += accumulate(point.bucket_counts)
        else:
            numbers.append(point)
    return numbers


def _lay_out(snapshot: Snapshot, *, whole_resource: bool) -> _Layout:
    resource = [pair for pair in snapshot.resource if whole_resource or pair[0] in _SERVICE]
    every: list[_Tags] = []
    described: list[tuple[str, Metric]] = []
    for metric in snapshot.metrics:
        reserved = _RESERVED | {_LE} if metric.kind == "histogram" else _RESERVED
        common = _tags(resource, reserved, {})
        taken = reserved | common.keys()
        keys: dict[str, str] = {}
        # Sorted as written, by bytes: so InfluxDB compares them, which sorts what is not.
        every += [tuple(sorted({**common, **_tags(each, taken, keys)}.items())) for each in metric.series]
        measurement = _escaped(_measurement(metric.name), _TO_ESCAPE_IN_MEASUREMENTS)
        described += [(measurement, metric)] * len(metric.series)
    merging = merge(snapshot.metrics, every)
    heads: list[str] = []
    ends: list[int] = []
    growing = []
    for position in merging.kept:
        measurement, metric = described[position]
        begin = len(heads)
        for head, end in _series(measurement, metric, every[position]):
            heads.append(head)
            ends.append(end)
        growing.append(range(begin, len(heads) if metric.kind in {"counter", "histogram"} else begin))
    has_histograms = any(metric.kind == "histogram" for metric in snapshot.metrics)
    return _Layout(snapshot.resource, snapshot.metrics, merging, heads, ends, growing, has_histograms)


def _series(measurement: str, metric: Metric, tags: _Tags) -> Iterator[tuple[str, int]]:
    """For each number of a series what stands before it, and which of `_ends` follows."""
    if metric.kind != "histogram":
        yield f"{measurement}{_joined(tags)} {_FIELDS[metric.kind]}=", _END
        return
    yield f"{measurement}{_joined(tags)} count=", _ON
    yield "i,sum=", _END
    before = measurement + _joined(tag for tag in tags if tag[0] < _LE)
    after = _joined(tag for tag in tags if tag[0] > _LE)
    for bound in (*map(float_text, metric.boundaries), "+Inf"):
        yield f"{before},{_LE}={bound}{after} bucket=", _END_OF_INTEGER


def _measurement(name: str) -> str:
    """What a metric is called, not yet escaped."""
    measurement = name.replace("\\", "/")
    return f"_{measurement[1:]}" if measurement.startswith("#") else measurement


def _tags(attributes: Iterable[tuple[str, object]], taken: Collection[str], keys: dict[str, str]) -> dict[str, str]:
    """Attributes as keys and values as they are written; those without a text are left out.

    Args:
        attributes: Those of one series, or the resource.
        taken: Keys that they may not have, as they are written.
        keys: Those that were written before, by the attributes' keys: a metric has many series and few keys.
    """
    found: dict[str, str] = {}
    for raw, value in attributes:
        key = keys.get(raw)
        if key is None:
            key = _tag(raw)
            while key in taken:
                key += "_"
            keys[raw] = key
        written = _tag(text(value))
        found[key] = f"{found[key]};{written}" if key in found else written
    return {key: written for key, written in found.items() if written}


def _tag(raw: str) -> str:
    return _escaped(raw.replace("\\", "/"), _TO_ESCAPE_IN_TAGS)


def _escaped(raw: str, to_escape: re.Pattern[str]) -> str:
    return to_escape.sub(r"\\\g<0>", raw)


def _joined(tags: Iterable[tuple[str, str]]) -> str:
    return "".join([f",{key}={value}" for key, value in tags])
