"""What it costs to record, to encode a report and to keep its series: beside prometheus_client and OpenTelemetry."""

from __future__ import annotations

import gc
import statistics
import tracemalloc
from contextlib import suppress
from functools import partial
from itertools import cycle
from operator import eq
from typing import TYPE_CHECKING

from measuring import in_turn, print_row
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Histogram as PrometheusHistogram

from emitter import Emitter
from emitter.encode import ENCODERS, encoder_named
from emitter.encode.compress import gzipped
from emitter.errors import ConfigurationError
from emitter.record.instruments import Histogram
from emitter.record.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import Counter as SdkCounter
    from opentelemetry.metrics import Histogram as SdkHistogram
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricsData

    from emitter.encode import Encoder
    from emitter.record.snapshot import Snapshot

ENCODING_SERIES = (1, 100, 1_000, 10_000)
ENCODING_ROUNDS = 7
BOUNDARIES = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_SERIES_EACH = 1_000  # of one instrument: the SDK and an emitter would fold what comes after 2,000 into one series
_SDK = "OpenTelemetry exporter"


def bench_record() -> None:
    """One increment and one value, beside prometheus_client's."""
    emitter, registry, meter = Emitter("http://127.0.0.1:9/", service="bench"), CollectorRegistry(), sdk_meter()[0]
    counter, histogram = emitter.counter("orders"), emitter.histogram("sizes", boundaries=BOUNDARIES)
    inc = PrometheusCounter("orders", "Orders.", ["channel"], registry=registry)
    observe = PrometheusHistogram("sizes", "Sizes.", ["channel"], registry=registry, buckets=BOUNDARIES)
    names: dict[str, object] = {
        "counter": counter,
        "bound": counter.bind(channel="web"),
        "inc": inc,
        "child": inc.labels("web"),
        "sdk_counter": meter.create_counter("orders"),
        "histogram": histogram,
        "bound_histogram": histogram.bind(channel="web"),
        "observe": observe,
        "observing_child": observe.labels("web"),
        "sdk_histogram": meter.create_histogram("sizes", explicit_bucket_boundaries_advisory=BOUNDARIES),
    }
    increments = {
        "add with one attribute": 'counter.add(1, channel="web")',
        "add with one attribute in a mapping": 'counter.add(1, {"channel": "web"})',
        "bound add": "bound.add(1)",
        "prometheus_client labels().inc()": 'inc.labels("web").inc()',
        "prometheus_client inc() of a child": "child.inc()",
        "OpenTelemetry SDK add": 'sdk_counter.add(1, {"channel": "web"})',
    }
    values = {
        "record with one attribute": 'histogram.record(0.3, channel="web")',
        "bound record": "bound_histogram.record(0.3)",
        "prometheus_client labels().observe()": 'observe.labels("web").observe(0.3)',
        "prometheus_client observe() of a child": "observing_child.observe(0.3)",
        "OpenTelemetry SDK record": 'sdk_histogram.record(0.3, {"channel": "web"})',
    }
    goals = {"add with one attribute": 0.40, "bound add": 0.15}
    for title, statements, rival in (
        ("one increment", increments, "prometheus_client labels().inc()"),
        ("one value into a histogram of 15 buckets", values, "prometheus_client labels().observe()"),
    ):
        seconds = in_turn(statements, rounds=50, repeats=1_000, names=names)
        print(f"\n{title}")
        for name, measured in seconds.items():
            print_row(name, measured, seconds[rival], goals.get(name))


def bench_encode() -> None:
    """A report of an unchanged set of series, by format and size, beside the exporter's encoding of the same points."""
    encoders = available_encoders()
    print(f"\nencoders that cannot be loaded, and are not measured: {', '.join(ENCODERS.keys() - encoders) or 'none'}")
    at_100: dict[str, float] = {}
    for count in ENCODING_SERIES:
        registry = recorded(count)
        rows, sizes = encoding_rows(encoders, two_snapshots(registry))
        rows["registry.snapshot()"] = registry.snapshot
        rows["prometheus_client generate_latest"] = partial(generate_latest, prometheus_recorded(count))
        rows[_SDK] = partial(sdk_encoded, sdk_recorded(count).get_metrics_data())
        seconds = in_turn(rows, ENCODING_ROUNDS, repeats=min(100, ENCODING_SERIES[-1] // count))
        print(f"\na report of {count:,} series, each with another value, by format; growth: of a series since 100")
        for name, measured in seconds.items():
            each = statistics.median(measured) / count
            if count == 100:
                at_100[name] = each
            size = f"{sizes[name]:9,} bytes" if name in sizes else " " * 15
            growth = f"   growth {each / at_100[name]:4.2f}" if name in at_100 else ""
            goal = 0.05 if (name, count) == ("otlp", 1_000) else None
            print_row(name, measured, seconds[_SDK], goal, (size + growth).rstrip())
    bench_encode_histograms(encoders)


def bench_encode_histograms(encoders: dict[str, Encoder]) -> None:
    """The same for histograms, of which nobody has as many."""
    snapshots = two_snapshots(recorded(1_000, histograms=True))
    rows = {name: changing(encoder, snapshots) for name, encoder in encoders.items()}
    rows[_SDK] = partial(sdk_encoded, sdk_recorded(1_000, histograms=True).get_metrics_data())
    seconds = in_turn(rows, ENCODING_ROUNDS)
    print(f"\na report of 1,000 histograms of {len(BOUNDARIES) + 1} buckets, each with other values")
    for name, measured in seconds.items():
        print_row(name, measured, seconds[_SDK])


def encoding_rows(
    encoders: dict[str, Encoder], snapshots: tuple[Snapshot, Snapshot]
) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What is measured of ours for one size, and how many bytes come out of it."""
    bodies = {name: bytes(encoder.encode(snapshots[0])) for name, encoder in encoders.items()}
    sizes = {name: len(body) for name, body in bodies.items()}
    rows: dict[str, Callable[[], object]] = {name: changing(encoder, snapshots) for name, encoder in encoders.items()}
    rows["otlp: a copy of its bytes"] = partial(bytearray, bodies["otlp"])
    packed = gzipped(bodies["otlp"])
    if packed is not None:
        rows["otlp: gzip of its bytes"] = partial(gzipped, bodies["otlp"])
        sizes["otlp: gzip of its bytes"] = len(packed)
    for name, encoder in encoders.items():
        rows[f"{name}: with a new layout"] = partial(laid_out, type(encoder), snapshots[0])
    return rows, sizes


def bench_memory() -> None:
    """What a series takes, each recorded once; and what it takes to report it."""
    for count in (1_000, 10_000):
        print(f"\nmemory of {count:,} series with one attribute, each recorded once")
        theirs = held_bytes(partial(prometheus_recorded, count))
        print_memory("emitter", held_bytes(partial(recorded, count)), theirs, count)
        print_memory("prometheus_client", theirs, theirs, count)
        print_memory("OpenTelemetry SDK", held_bytes(partial(sdk_recorded, count)), theirs, count)
        registry = recorded(count)
        print_memory("registry.snapshot(), while it is kept", held_bytes(registry.snapshot), theirs, count)
        snapshot = registry.snapshot()
        for name, encoder in available_encoders().items():
            print_memory(
                f"what {name} remembers", held_bytes(partial(laid_out, type(encoder), snapshot)), theirs, count
            )


def available_encoders() -> dict[str, Encoder]:
    """One of each kind that what is installed suffices for."""
    found = {}
    for name in ("otlp", *sorted(ENCODERS.keys() - {"otlp"})):
        with suppress(ImportError, ConfigurationError):
            found[name] = encoder_named(name)
    return found


def laid_out(kind: type[Encoder], snapshot: Snapshot) -> Encoder:
    """An encoder that has encoded one report."""
    encoder = kind()
    encoder.encode(snapshot)
    return encoder


def changing(encoder: Encoder, snapshots: tuple[Snapshot, Snapshot]) -> Callable[[], object]:
    """Encodes now the one and now the other: nothing may be remembered of the values."""
    return map(encoder.encode, cycle(snapshots)).__next__


def two_snapshots(registry: Registry) -> tuple[Snapshot, Snapshot]:
    """The same series with other values, none of them fresh."""
    registry.snapshot()
    first = registry.snapshot(introduced=registry.reported_series)
    for instrument in registry._instruments.values():
        change = instrument.record if isinstance(instrument, Histogram) else instrument.add
        for series in list(instrument._series.values()):
            change(1, dict(series.attributes))
    second = registry.snapshot(introduced=registry.reported_series)
    assert first.metrics is second.metrics
    assert not any(map(eq, first.points, second.points))
    return first, second


def cells(count: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The instrument and the attributes of each series: a counter always has one without attributes."""
    for number in range(count):
        instrument, place = divmod(number, _SERIES_EACH)
        yield f"orders.{instrument}", {"channel": f"channel-{place}"} if place else {}


def recorded(count: int, *, histograms: bool = False) -> Registry:
    """So many series of ours, each recorded once."""
    registry = Registry((("service.name", "bench"),))
    for number, (name, attributes) in enumerate(cells(count)):
        if histograms:
            registry.histogram(name, boundaries=BOUNDARIES).record(number % 12, attributes)
        else:
            registry.counter(name).add(10**6 + number, attributes)
    return registry


def prometheus_recorded(count: int) -> CollectorRegistry:
    """The same in prometheus_client, where a counter with a label has no series without it."""
    registry = CollectorRegistry()
    counters: dict[str, PrometheusCounter] = {}
    for number, (name, attributes) in enumerate(cells(count)):
        if name not in counters:
            counters[name] = PrometheusCounter(name.replace(".", "_"), "", ["channel"], registry=registry)
        counters[name].labels(attributes.get("channel", "none")).inc(10**6 + number)
    return registry


def sdk_meter() -> tuple[Meter, InMemoryMetricReader]:
    """A meter of the SDK, and where its totals can be had."""
    reader = InMemoryMetricReader()
    return MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("bench"), reader


def sdk_recorded(count: int, *, histograms: bool = False) -> InMemoryMetricReader:
    """The same in the SDK."""
    meter, reader = sdk_meter()
    instruments: dict[str, SdkCounter | SdkHistogram] = {}
    for number, (name, attributes) in enumerate(cells(count)):
        if name not in instruments:
            instruments[name] = (
                meter.create_histogram(name, explicit_bucket_boundaries_advisory=BOUNDARIES)
                if histograms
                else meter.create_counter(name)
            )
        if histograms:
            instruments[name].record(number % 12, attributes)
        else:
            instruments[name].add(10**6 + number, attributes)
    return reader


def sdk_encoded(data: MetricsData) -> bytes:
    """What the exporter does for each report."""
    return encode_metrics(data).SerializeToString()


def held_bytes(make: Callable[[], object]) -> int:
    """What stays allocated with what was made."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return held


def print_memory(name: str, held: int, beside: int, count: int) -> None:
    """A line of a table."""
    print(f"  {name:<40} {held / count:9.0f} bytes a series   ratio {held / beside:5.2f}")
