"""Owns the request of Prometheus remote write 1.0. Pure: a snapshot goes in, bytes come out.

Source: "Prometheus Remote-Write 1.0 specification" (https://prometheus.io/docs/specs/remote_write_spec/), prompb's
`remote.proto` and `types.proto`. How names and labels look is `prometheus.py`'s. The format has neither start times
nor units nor kinds; its numbers are floats, exact up to 2**53.

    WriteRequest.timeseries (1)   TimeSeries.labels (1)    Label.name (1), Label.value (2)
                                  TimeSeries.samples (2)   Sample.value (1), Sample.timestamp (2)

For an unchanged set of series a request keeps its length before it is compressed, and only values and the time
change; the time is the same in all series. A request is therefore one `struct` with a hole for each value and one for
each time, and is written with a single `pack`, which copies what stands between the holes as well:

    head of the series, labels, head of the sample, tag  |  value  |  tag, time  |  head of the next series, ...

A time is a number of variable length: a layout holds for times of one length (six bytes from 1971 to 2109).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from itertools import accumulate, groupby
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from emitter.encode import prometheus, protobuf
from emitter.encode.encoder import Encoder
from emitter.encode.merging import merge
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from emitter.encode.merging import Merging
    from emitter.record.snapshot import Attributes, HistogramPoint, Metric, Point, Snapshot

__all__ = ["RemoteWriteEncoder"]

_MILLISECOND = 1_000_000
_VALUE_TAG = protobuf.tag(1, protobuf.I64)  # Sample.value
_VALUE_BYTES = 8
_TARGET_INFO = "target_info"

# What no attribute may be called. `__name__` cannot come about: of several underscores the rule leaves one.
_RESERVED = frozenset({"instance", "job", "le"})

# They make up `job` and `instance` (compatibility specification, "Resource Attributes").
_IDENTITY = frozenset({"service.instance.id", "service.name", "service.namespace"})

_GROWING = frozenset({"counter", "histogram"})


class RemoteWriteEncoder(Encoder):
    """Encodes snapshots as `WriteRequest`, in snappy's block format, and remembers the layout of the last one.

    Every series carries `job` (`service.name`, behind `service.namespace/` if there is one) and `instance`
    (`service.instance.id`).

    Args:
        resource: Where the other resource attributes go. `target_info`: into a series of that name, whose value is
            always 1, to be joined when asking (`* on (job, instance) group_left (faas_name) target_info`).
            `labels`: onto every series.

    Raises:
        ConfigurationError: Another `resource`; or cramjam, which compresses, is not installed.
    """

    content_type = "application/x-protobuf"
    headers: Mapping[str, str] = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
    deltas = False
    zeros = True
    tick_nano = _MILLISECOND

    def __init__(self, *, resource: Literal["target_info", "labels"] = "target_info") -> None:
        if resource not in ("target_info", "labels"):
            raise ConfigurationError(f"resource is {resource!r}; expected 'target_info' or 'labels'")
        try:
            self._compress = import_module("cramjam").snappy.compress_raw
        except ImportError as error:
            raise ConfigurationError(
                f"the encoder 'remote-write' needs cramjam, and that cannot be imported ({error}); install it with: "
                "pip install 'lambda-emitter[remote-write]'"
            ) from error
        self._resource = resource
        self._layout: _Layout | None = None

    def names(self, metric: Metric) -> tuple[str, ...]:
        """The names of its samples, and for a histogram the bare name too.

        Raises:
            ConfigurationError: Nothing of the name is legal, or it is that of the series about the resource.
        """
        if not prometheus.has_legal_name(metric.name):
            raise ConfigurationError(
                f"{metric.name!r} has no name in Prometheus; expected a letter from a to z, a digit or a colon in it "
                "(each run of other characters becomes one underscore, and none stands at either end)"
            )
        names = _names(metric)
        if self._resource == _TARGET_INFO and _TARGET_INFO in names:
            raise ConfigurationError(
                f"{metric.name!r} would be {_TARGET_INFO!r} in Prometheus, the series that holds the resource's "
                "attributes; expected another name, or RemoteWriteEncoder(resource='labels')"
            )
        return names

    def encode(self, snapshot: Snapshot) -> bytes:
        """Encode one report, compressed."""
        time_ms = snapshot.time_unix_nano // _MILLISECOND
        time = protobuf.varint(2, time_ms)
        zero = b""
        if snapshot.fresh:
            # Strictly before, even where the difference is less than a millisecond: else it would be a duplicate.
            zero_ms = min(snapshot.zero_time_unix_nano // _MILLISECOND, time_ms - 1)
            zero = protobuf.message(2, protobuf.double(1, 0.0) + protobuf.varint(2, zero_ms))
        layout = self._layout
        if layout is None or not layout.fits(snapshot, len(time), zero):
            known = layout.described if layout is not None and layout.described.fits(snapshot) else None
            described = known or _describe(snapshot, self._resource)
            layout = self._layout = _lay_out(described, snapshot.fresh, len(time), zero)
        return bytes(self._compress(layout.filled(snapshot.points, time)))

    def unpacked_bytes(self, body: bytes | bytearray) -> int:
        """The length before snappy, with which its block format begins: seven bits a byte, the lowest first."""
        size = shift = 0
        for byte in body:
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        return size


class _Described(NamedTuple):
    """What a set of series is called, whatever their values: the part that takes long.

    Attributes:
        labels: The labels of each time series; several in a row belong to one histogram.
        owners: For each time series the place of its point in `merging.kept`; -1 for `target_info`.
        growing: Which places hold what grows from zero.
        runs: How many places in a row hold numbers, and how many histograms, in turn: whether it is histograms,
            and which places.
    """

    resource: Attributes
    metrics: tuple[Metric, ...]
    merging: Merging
    labels: tuple[bytes, ...]
    owners: tuple[int, ...]
    growing: frozenset[int]
    runs: tuple[tuple[bool, slice], ...]

    def fits(self, snapshot: Snapshot) -> bool:
        return self.metrics is snapshot.metrics and self.resource is snapshot.resource


class _Layout(NamedTuple):
    """A request with holes.

    Attributes:
        described: What it is about.
        fresh: That of the snapshot.
        time_bytes: How long the field of a time is.
        zero: The sample that stands before the values of fresh series; empty if there are none.
        whole: Everything: for each time series what stands before its value, the value, the time.
        parts: What to pack into it. The holes are filled for each report, so all that shares a layout may use it.
    """

    described: _Described
    fresh: tuple[int, ...]
    time_bytes: int
    zero: bytes
    whole: Struct
    parts: list[bytes | float]

    def fits(self, snapshot: Snapshot, time_bytes: int, zero: bytes) -> bool:
        return (
            self.described.fits(snapshot)
            and self.fresh == snapshot.fresh
            and self.time_bytes == time_bytes
            and self.zero == zero
        )

    def filled(self, points: Sequence[Point], time: bytes) -> bytes:
        parts = self.parts
        # Both raise an error if there are more or fewer values than holes.
        parts[1::3] = self._values(self.described.merging.values(points))
        parts[2::3] = [time] * (len(parts) // 3)
        return self.whole.pack(*parts)

    def _values(self, points: Sequence[Point]) -> list[float]:
        """One value for each time series."""
        values: list[float] = [1] if self.described.owners[:1] == (-1,) else []
        end = 0
        for histograms, places in self.described.runs:
            end = places.stop
            if histograms:
                for point in points[places]:
                    values += _histogram_values(point)  # type: ignore[arg-type]  # one
            else:
                values += points[places]  # type: ignore[arg-type]  # numbers all
        values += points[end:]  # type: ignore[arg-type]  # too many: as wrong as too few
        return values


def _histogram_values(point: HistogramPoint) -> Iterable[float]:
    """In the order of `_stems`."""
    return *accumulate(point.bucket_counts[:-1]), point.count, point.sum, point.count


def _names(metric: Metric) -> tuple[str, ...]:
    name = prometheus.metric_name(metric.name, metric.unit, metric.kind)
    return prometheus.occupied_names(name, metric.kind)


def _stems(metric: Metric) -> list[tuple[bytes, bytes]]:
    """For each time series of one point, the labels that say which: `__name__`, and `le` or nothing."""
    names = [_label("__name__", name) for name in _names(metric)]
    if metric.kind != "histogram":
        return [(names[0], b"")]
    bucket, total, count, _ = names
    bounds = [*map(prometheus.float_text, metric.boundaries), "+Inf"]
    return [*((bucket, _label("le", bound)) for bound in bounds), (total, b""), (count, b"")]


def _describe(snapshot: Snapshot, resource: str) -> _Described:
    common, others = _common(snapshot.resource)
    labels, owners = [], []
    if resource == _TARGET_INFO:
        before, between, after = _around({**common, **others})
        labels.append(before + _label("__name__", _TARGET_INFO) + between + after)
        owners.append(-1)
    else:
        common.update(others)
    reserved = _RESERVED | common.keys()
    found = [
        (metric.kind, stems, prometheus.labels(attributes, reserved))
        for metric in snapshot.metrics
        for stems in [_stems(metric)]
        for attributes in metric.series
    ]
    merging = merge(snapshot.metrics, [frozenset(own.items()) for _, _, own in found])
    kinds = [found[position][0] for position in merging.kept]
    for place, position in enumerate(merging.kept):
        _, stems, own = found[position]
        before, between, after = _around({**common, **{name: _label(name, text) for name, text in own.items()}})
        labels += [before + name + between + bound + after for name, bound in stems]
        owners += [place] * len(stems)
    growing = frozenset(place for place, kind in enumerate(kinds) if kind in _GROWING)
    runs, start = [], 0
    for histograms, run in groupby(kind == "histogram" for kind in kinds):
        stop = start + len(list(run))
        runs.append((histograms, slice(start, stop)))
        start = stop
    return _Described(snapshot.resource, snapshot.metrics, merging, tuple(labels), tuple(owners), growing, tuple(runs))


def _common(resource: Attributes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The labels of every series, and those of the other resource attributes."""
    known = {key: prometheus.text(value) for key, value in resource if key in _IDENTITY}
    service, namespace = known.get("service.name", ""), known.get("service.namespace", "")
    job = f"{namespace}/{service}" if namespace else service
    identity = {"instance": known.get("service.instance.id", ""), "job": job}
    others = prometheus.labels((pair for pair in resource if pair[0] not in _IDENTITY), _RESERVED)
    return (
        {name: _label(name, text) for name, text in identity.items() if text},
        {name: _label(name, text) for name, text in others.items()},
    )


def _around(labels: Mapping[str, bytes]) -> tuple[bytes, bytes, bytes]:
    """Labels in the order of their names, parted where `__name__` and `le` belong: "MUST have label names sorted"."""
    ordered = sorted(labels.items())
    return (
        b"".join([label for name, label in ordered if name < "__name__"]),
        b"".join([label for name, label in ordered if "__name__" < name < "le"]),
        b"".join([label for name, label in ordered if name > "le"]),
    )


@lru_cache(maxsize=1_024)  # many series share most of their labels
def _label(name: str, text: str) -> bytes:
    """One label, as field 1 of its time series."""
    return protobuf.message(1, protobuf.text(1, name) + protobuf.text(2, text))


def _lay_out(described: _Described, fresh: tuple[int, ...], time_bytes: int, zero: bytes) -> _Layout:
    zeros = described.growing.intersection(described.merging.fresh(fresh))
    sample_head = protobuf.message_head(2, len(_VALUE_TAG) + _VALUE_BYTES + time_bytes) + _VALUE_TAG
    hole = f"sd{time_bytes}s"
    shapes: list[str] = []
    parts: list[bytes | float] = []
    for labels, owner in zip(described.labels, described.owners, strict=True):
        constant = labels + zero + sample_head if owner in zeros else labels + sample_head
        head = protobuf.message_head(1, len(constant) + _VALUE_BYTES + time_bytes)
        shapes.append(f"{len(head) + len(constant)}{hole}")
        parts += [head + constant, 0.0, b""]
    return _Layout(described, fresh, time_bytes, zero, Struct("<" + "".join(shapes)), parts)
