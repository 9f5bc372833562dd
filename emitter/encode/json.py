"""Owns the plain JSON report, for a REST service of one's own. Pure: a snapshot goes in, bytes come out.

What stands in a report, and what a receiver does with it, is described in `docs/report.schema.json`;
`examples/json_receiver.py` is such a receiver. Descriptions of instruments are left out: every series is a total of
its own here, and would repeat a text that is meant for people.

(All imports are absolute, so this module hides the standard library's `json` from nobody.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from emitter.encode.encoder import Encoder
from emitter.encode.json_text import HOLE, changed, opened, pieces, text
from emitter.encode.merging import Merging, merge

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from emitter.record.snapshot import Attributes, AttributeValue, Metric, Point, Snapshot

__all__ = ["VERSION", "JsonEncoder"]

VERSION = 1
"""Of the report's shape. A receiver that knows another one only cannot read it."""

# The pieces of a report: constant, moment, and then for each total constant and value.
_MOMENT, _VALUE, _STEP = 1, 3, 2


class JsonEncoder(Encoder):
    """Encodes snapshots as plain JSON, and remembers the layout of the last one.

    The memory only saves time: what comes out depends on the snapshot alone.
    """

    content_type = "application/json"
    tick_nano: ClassVar[int] = 1_000  # times have six decimals: all that a double, in seconds since 1970, can hold

    def __init__(self) -> None:
        self._layout: _Layout | None = None

    def encode(self, snapshot: Snapshot) -> bytes:
        """Encode one report.

        Raises:
            ValueError: There are more points than series, or fewer.
        """
        layout = self._layout
        if layout is None or not layout.fits(snapshot):
            layout = _lay_out(snapshot)
        points, filled = layout.merging.values(snapshot.points), layout.pieces.copy()
        for position in changed(points, layout.points):
            filled[_VALUE + _STEP * position] = _value(points[position])
        filled[_MOMENT] = _moment(snapshot)
        self._layout = layout._replace(pieces=filled, points=points)
        return "".join(filled).encode()


class _Layout(NamedTuple):
    """A report in pieces, and the points that it was filled with. Never changed: copies of the encoder share it."""

    resource: Attributes
    metrics: tuple[Metric, ...]
    merging: Merging
    pieces: list[str]
    points: Sequence[Point | None]

    def fits(self, snapshot: Snapshot) -> bool:
        return self.metrics is snapshot.metrics and self.resource is snapshot.resource


def _lay_out(snapshot: Snapshot) -> _Layout:
    series = [(metric, attributes) for metric in snapshot.metrics for attributes in metric.series]
    merging = merge(snapshot.metrics, [_identity(attributes) for _, attributes in series])
    resource = dict(snapshot.resource)
    head = opened(
        {"version": VERSION, "service": resource["service.name"], "instance": resource["service.instance.id"]}
    )
    totals = ",".join(_total(*series[position]) for position in merging.kept)
    report = f'{head},{HOLE},"resource":{text(resource)},"totals":[{totals}]}}'
    return _Layout(snapshot.resource, snapshot.metrics, merging, pieces(report), (None,) * len(merging.kept))


def _identity(attributes: Attributes) -> Hashable:
    """What readers of JSON tell series by: to many of them 1 and 1.0 are one number, and every number is a double."""
    return tuple(
        (key, value if isinstance(value, str) else (isinstance(value, bool), float(value))) for key, value in attributes
    )


def _total(metric: Metric, attributes: Attributes) -> str:
    constant: dict[str, str | dict[str, AttributeValue] | tuple[float, ...]] = {
        "name": metric.name,
        "kind": metric.kind.replace("-", "_").replace(" ", "_"),
        "unit": metric.unit,
        "attributes": dict(attributes),
    }
    if metric.kind == "histogram":
        constant["boundaries"] = metric.boundaries
    return f"{opened(constant)},{HOLE}}}"


def _moment(snapshot: Snapshot) -> str:
    """Which report it is, and of when."""
    moment = (
        f'"start":{_seconds(snapshot.start_time_unix_nano)},"time":{_seconds(snapshot.time_unix_nano)},'
        f'"sequence":{snapshot.sequence},'
    )
    if snapshot.delta_since_unix_nano is None:
        return f'{moment}"temporality":"cumulative"'
    return f'{moment}"temporality":"delta","since":{_seconds(snapshot.delta_since_unix_nano)}'


def _seconds(unix_nano: int) -> str:
    """Seconds since 1970, with exactly six decimals."""
    seconds, micros = divmod(unix_nano // 1_000, 1_000_000)
    return f"{seconds}.{micros:06}"


def _value(point: Point) -> str:
    """What fills the hole of a total."""
    if point.__class__ is int or point.__class__ is float:
        return f'"value":{point!r}'
    bucket_counts = ",".join(map(str, point.bucket_counts))  # type: ignore[union-attr]
    return f'"count":{point.count},"sum":{point.sum!r},"bucket_counts":[{bucket_counts}]'  # type: ignore[union-attr]
