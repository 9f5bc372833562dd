"""Snapshots of every kind, for the property tests of all encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from emitter.record.snapshot import HistogramPoint, Metric, Snapshot

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes, Point

INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

int64s = st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([INT64_MIN, -1, 0, 1, INT64_MAX])
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 5e-324, -5e-324, 1.7976931348623157e308]
)
numbers = int64s | doubles
values = st.text(max_size=20) | st.booleans() | numbers
times = st.integers(0, UINT64_MAX) | st.sampled_from([0, 1, UINT64_MAX])
boundaries = st.lists(doubles, max_size=6, unique=True).map(lambda bounds: tuple(sorted(bounds)))
resources = st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=4).map(
    lambda pairs: tuple(sorted(pairs.items()))
)


def attributes_of(draw: st.DrawFn) -> Attributes:
    """The attributes of one series: any keys, any values, perhaps none, sometimes long enough for two-byte lengths."""
    pairs = draw(st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=4))
    if draw(st.booleans()):
        pairs["long"] = "x" * draw(st.sampled_from([100, 127, 128, 255]))
    return tuple(sorted(pairs.items()))


def histogram_points(buckets: int) -> st.SearchStrategy[HistogramPoint]:
    """Totals of a histogram with this many buckets, empty or not, up to the limits of the wire."""
    counts = st.integers(0, UINT64_MAX)
    return st.builds(
        HistogramPoint, counts, doubles, st.lists(counts, min_size=buckets, max_size=buckets).map(tuple)
    ) | st.just(HistogramPoint(0, 0.0, (0,) * buckets))


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    """One instrument of any kind, with one series or more."""
    kind = draw(st.sampled_from(["counter", "up-down counter", "gauge", "histogram"]))
    return Metric(
        draw(st.text(max_size=30)),
        draw(st.text(max_size=10)),
        draw(st.text(max_size=30)),
        kind,
        draw(boundaries) if kind == "histogram" else (),
        tuple(attributes_of(draw) for _ in range(draw(st.integers(1, 4)))),
    )


def draw_points(draw: st.DrawFn, described: tuple[Metric, ...]) -> tuple[Point, ...]:
    """One value for each series."""
    points: list[Point] = []
    for metric in described:
        one = histogram_points(len(metric.boundaries) + 1) if metric.kind == "histogram" else numbers
        points += [draw(one) for _ in metric.series]
    return tuple(points)


def draw_snapshot(
    draw: st.DrawFn, resource: Attributes, start: int, described: tuple[Metric, ...], *, deltas: bool
) -> Snapshot:
    """Values for what is described, mostly with nothing fresh."""
    points = draw_points(draw, described)
    time = draw(times)
    before = st.integers(0, max(time - 1, 0)) | st.just(max(time - 1, 0))
    fresh: set[int] = set()
    if points and time:  # there is no time before 0
        fresh = draw(st.just(set()) | st.sets(st.integers(0, len(points) - 1)))
    return Snapshot(
        resource,
        start,
        time,
        described,
        points,
        sequence=draw(st.integers(1, 3) | st.integers(1, INT64_MAX)),
        fresh=tuple(sorted(fresh)),
        zero_time_unix_nano=draw(before) if fresh else 0,
        delta_since_unix_nano=draw(before) if deltas else None,
    )


@st.composite
def snapshots(draw: st.DrawFn, *, deltas: bool | None = False) -> Snapshot:
    """Any snapshot: cumulative, or of deltas, or either (`None`)."""
    described = tuple(draw(st.lists(metrics(), max_size=4)))
    deltas = draw(st.booleans()) if deltas is None else deltas
    return draw_snapshot(draw, draw(resources), draw(times), described, deltas=deltas)


@st.composite
def sequences(draw: st.DrawFn, *, deltas: bool | None = False) -> list[Snapshot]:
    """Snapshots as they follow one another: mostly new values, sometimes new series, another start or resource.

    Series and resource stay the identical objects while they are unchanged, and sometimes become equal ones that
    are not identical; values may turn from integers to floats and back. All are cumulative, or of deltas, or each
    is either (`None`).
    """
    described = tuple(draw(st.lists(metrics(), min_size=1, max_size=3)))
    resource, start = draw(resources), draw(times)
    found = []
    for _ in range(draw(st.integers(2, 6))):
        match draw(st.sampled_from(["values", "values", "values", "series", "equal", "start", "resource"])):
            case "series":
                described = (*described, draw(metrics()))
            case "equal":
                described = (*described,)  # equal, and another object
            case "start":
                start = draw(times)
            case "resource":
                resource = draw(resources)
        each = draw(st.booleans()) if deltas is None else deltas
        found.append(draw_snapshot(draw, resource, start, described, deltas=each))
    return found
