from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emitter
from emitter import Emitter
from emitter.encode import encoder_named
from emitter.encode.json import JsonEncoder
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint, Metric, Snapshot
from tests.encode.snapshots import INT64_MAX, INT64_MIN, sequences, snapshots

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes, Point

SCHEMA = json.loads((Path(emitter.__file__).parents[1] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
WHO = (("service.instance.id", "an-instance"), ("service.name", "checkout"))
KINDS = {
    "counter": "counter",
    "up-down counter": "up_down_counter",
    "gauge": "gauge",
    "histogram": "histogram",
}


def with_names(sequence: list[Snapshot]) -> list[Snapshot]:
    """The same snapshots of a service and an instance, as each real one is; what was identical stays identical."""
    named = {
        id(snapshot.resource): tuple(sorted({**dict(snapshot.resource), **dict(WHO)}.items())) for snapshot in sequence
    }
    return [replace(snapshot, resource=named[id(snapshot.resource)]) for snapshot in sequence]


named_snapshots = snapshots(deltas=None).map(lambda snapshot: with_names([snapshot])[0])
named_sequences = (sequences(deltas=None) | sequences(deltas=True)).map(with_names)


def seconds(unix_nano: int) -> str:
    """The digits of a time as they are to stand in a report."""
    digits = f"{unix_nano // 1_000:07}"
    return f"{digits[:-6]}.{digits[-6:]}"


def doubles_only(attributes: Attributes) -> str:
    """What a reader sees to whom every number is a double."""
    return json.dumps({key: value if isinstance(value, (str, bool)) else value + 0.0 for key, value in attributes})


def added(numbers: list[float]) -> float:
    """A sum within the limits of a point: an int of 64 bits, else a finite double."""
    total = sum(numbers)
    if isinstance(total, int) and INT64_MIN <= total <= INT64_MAX:
        return total
    return min(max(float(total), -sys.float_info.max), sys.float_info.max)


def combined(kind: str, points: list[Point]) -> dict[str, Any]:
    """The values of series that are one to a reader: the last of gauges, else the sum."""
    if kind == "histogram":
        return {
            "count": sum(point.count for point in points),
            "sum": points[0].sum if len(points) == 1 else added([point.sum for point in points]),
            "bucket_counts": [sum(counts) for counts in zip(*(point.bucket_counts for point in points), strict=True)],
        }
    return {"value": points[-1] if kind == "gauge" or len(points) == 1 else added(points)}


def meant(snapshot: Snapshot) -> dict[str, Any]:
    """The report that a snapshot means, without its times."""
    points = iter(snapshot.points)
    totals = []
    for metric in snapshot.metrics:
        series: dict[str, tuple[Attributes, list[Point]]] = {}
        for attributes in metric.series:
            series.setdefault(doubles_only(attributes), (attributes, []))[1].append(next(points))
        for attributes, each in series.values():
            total = {
                "name": metric.name,
                "kind": KINDS[metric.kind],
                "unit": metric.unit,
                "attributes": dict(attributes),
            }
            if metric.kind == "histogram":
                total["boundaries"] = list(metric.boundaries)
            totals.append({**total, **combined(metric.kind, each)})
    return {
        "version": 1,
        "service": "checkout",
        "instance": "an-instance",
        "sequence": snapshot.sequence,
        "temporality": "cumulative" if snapshot.delta_since_unix_nano is None else "delta",
        "resource": dict(snapshot.resource),
        "totals": totals,
    }


@settings(max_examples=150, deadline=None)
@given(named_snapshots)
def test_a_report_says_what_was_counted(snapshot: Snapshot) -> None:
    """Names, units, attributes with their types, numbers to the bit; times with six decimals; as the schema has it."""
    expected = meant(snapshot)
    body = JsonEncoder().encode(snapshot).decode()
    read = json.loads(body)

    VALIDATOR.validate(read)
    moments = {
        "start": snapshot.start_time_unix_nano,
        "time": snapshot.time_unix_nano,
        "since": snapshot.delta_since_unix_nano,
    }
    for key, moment in moments.items():
        if moment is None:
            assert key not in read
        else:
            del read[key]
            assert f'"{key}":{seconds(moment)},' in body
    # As text: Python's == does not tell 1 from 1.0 and True, nor 0.0 from -0.0.
    assert json.dumps(read, sort_keys=True) == json.dumps(expected, sort_keys=True)


@settings(max_examples=100, deadline=None)
@given(named_sequences)
def test_what_comes_out_depends_on_the_snapshot_alone(sequence: list[Snapshot]) -> None:
    """A used encoder gives the same bytes as a fresh one, whatever it encoded before."""
    used = JsonEncoder()
    for snapshot in sequence:
        assert used.encode(snapshot) == JsonEncoder().encode(snapshot)


def test_a_report_looks_as_it_is_documented() -> None:
    """One of each kind, letter by letter; a quotation mark, a line separator and an emoji in the texts."""
    snapshot = Snapshot(
        WHO,
        1_700_000_000_000_000_000,
        1_700_000_001_234_567_890,
        (
            Metric("orders", "{order}", "Left out.", "counter", (), ((("channel", 'w"b'), ("paid", True)),)),
            Metric("open\u2028", "", "", "up-down counter", (), ((),)),
            Metric("heat", "Cel", "", "gauge", (), ((("ratio", 1.0), ("room", "\N{FIRE}")),)),
            Metric("sizes", "By", "", "histogram", (0.5, 1.0), ((),)),
        ),
        (2**63 - 1, -0.0, 21.5, HistogramPoint(3, 4.5, (1, 0, 2))),
        sequence=12,
    )
    totals = (
        '"resource":{"service.instance.id":"an-instance","service.name":"checkout"},"totals":['
        '{"name":"orders","kind":"counter","unit":"{order}","attributes":{"channel":"w\\"b","paid":true},'
        '"value":9223372036854775807},'
        '{"name":"open\\u2028","kind":"up_down_counter","unit":"","attributes":{},"value":-0.0},'
        '{"name":"heat","kind":"gauge","unit":"Cel","attributes":{"ratio":1.0,"room":"\\ud83d\\udd25"},"value":21.5},'
        '{"name":"sizes","kind":"histogram","unit":"By","attributes":{},"boundaries":[0.5,1.0],'
        '"count":3,"sum":4.5,"bucket_counts":[1,0,2]}]}'
    )
    encoder = JsonEncoder()

    assert encoder.encode(snapshot).decode() == (
        '{"version":1,"service":"checkout","instance":"an-instance","start":1700000000.000000,"time":1700000001.234567,'
        f'"sequence":12,"temporality":"cumulative",{totals}'
    )
    assert encoder.encode(replace(snapshot, delta_since_unix_nano=1_700_000_000_500_000_999)).decode() == (
        '{"version":1,"service":"checkout","instance":"an-instance","start":1700000000.000000,"time":1700000001.234567,'
        f'"sequence":12,"temporality":"delta","since":1700000000.500000,{totals}'
    )


def test_series_that_json_cannot_tell_apart_are_one() -> None:
    """1 and 1.0 are one number to many readers, who would keep only one of two totals; true and "true" are not."""
    registry = Registry((("service.name", "checkout"),))
    for amount, value in enumerate((1, 1.0, True, "1", "true", 2**53, 2**53 + 1)):
        registry.counter("orders").add(10**amount, v=value)
        registry.gauge("heat").set(amount, v=value)
    encoder = JsonEncoder()
    encoder.encode(registry.snapshot())
    registry.counter("orders").add(5, v=1.0)
    read = json.loads(encoder.encode(registry.snapshot()))

    found = {
        name: [(repr(each["attributes"].get("v")), each["value"]) for each in read["totals"] if each["name"] == name]
        for name in ("orders", "heat")
    }
    assert found["orders"] == [
        ("None", 0),
        ("1", 16),
        ("True", 100),
        ("'1'", 1_000),
        ("'true'", 10_000),
        ("9007199254740992", 1_100_000),
    ]
    assert found["heat"] == [("1", 1), ("True", 2), ("'1'", 3), ("'true'", 4), ("9007199254740992", 6)]


def test_what_did_not_change_is_not_written_again() -> None:
    """Of a report, only the values of series that were recorded to, and its moment, are new text."""
    registry, encoder = Registry((("service.name", "checkout"),)), JsonEncoder()
    orders = registry.counter("orders")
    for channel in ("web", "app", "shop"):
        orders.add(0.25, channel=channel)
    encoder.encode(registry.snapshot())
    before = encoder._layout.pieces
    orders.add(0.25, channel="app")
    encoder.encode(registry.snapshot())

    after = encoder._layout.pieces
    new = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one is not other]
    assert [after[place] for place in new[1:]] == ['"value":0.5']
    assert after[new[0]].startswith('"start":')


def test_copies_of_an_encoder_do_not_disturb_one_another() -> None:
    """Each part of a large report is encoded by a copy, while the whole keeps its layout."""
    registry, encoder = Registry((("service.name", "checkout"),)), JsonEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.gauge("temperature").set(0.5)
    snapshot = registry.snapshot()
    whole = encoder.encode(snapshot)
    parts = [
        replace(snapshot, metrics=snapshot.metrics[:1], points=snapshot.points[:2]),
        replace(snapshot, metrics=snapshot.metrics[1:], points=snapshot.points[2:]),
    ]
    first, second = (json.loads(copy.copy(encoder).encode(part)) for part in parts)
    copy.copy(encoder).encode(replace(snapshot, points=(5, 6, 7)))  # shares the layout

    assert {**first, "totals": first["totals"] + second["totals"]} == json.loads(whole)
    assert (first["sequence"], len(first["totals"])) == (second["sequence"], 2)
    assert encoder.encode(snapshot) == whole


def test_a_snapshot_that_contradicts_itself_spoils_nothing() -> None:
    """Too few points, or one of another kind: an error, and the next report is right nevertheless."""
    registry, encoder = Registry((("service.name", "checkout"),)), JsonEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.histogram("sizes", boundaries=[1]).record(1)
    snapshot = registry.snapshot()
    expected = encoder.encode(snapshot)
    for points in (snapshot.points[:-1], (*snapshot.points, 1), (7, None, snapshot.points[2])):
        with pytest.raises((ValueError, AttributeError)):
            encoder.encode(replace(snapshot, points=points))

    assert encoder.encode(snapshot) == expected


def test_the_encoder_can_be_asked_for_by_name() -> None:
    """JSON; each one made is new; reports are at least a microsecond apart, which is what six decimals can tell."""
    made = encoder_named("json")

    assert type(made) is JsonEncoder
    assert made is not encoder_named("json")
    assert made.content_type == "application/json"
    assert made.tick_nano == 1_000


def test_the_schema_is_one_and_explains_every_field() -> None:
    """Of draft 2020-12; each property of each object has a description, its own or the one it refers to."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    objects = [SCHEMA, *(each for each in SCHEMA["$defs"].values() if "properties" in each)]

    for each in objects:
        assert each["additionalProperties"] is False
        assert set(each["required"]) | {"since"} == set(each["properties"]) | {"since"}
        for about in each["properties"].values():
            named = about.get("$ref", "").removeprefix("#/$defs/")
            assert about.get("description") or SCHEMA["$defs"].get(named, {}).get("description")


def good_report() -> dict[str, Any]:
    """One that the schema accepts: a counter's total and a histogram's."""
    registry = Registry((("service.name", "checkout"),))
    registry.up_down_counter("open").add(1, room="a")
    registry.histogram("sizes", boundaries=[1]).record(1)
    return json.loads(JsonEncoder().encode(registry.snapshot()))


def broken(change: str) -> dict[str, Any]:
    """The same with one thing changed: `path = value` sets, `path` alone takes away."""
    report = good_report()
    path, _, value = change.partition(" = ")
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    place: Any = report
    for step in way:
        place = place[step]
    if value:
        place[last] = json.loads(value)
    else:
        del place[last]
    return report


@pytest.mark.parametrize(
    "change",
    [
        "version = 2",
        "more = 1",
        "service",
        "instance = 5",
        "resource",
        "resource/service.name = null",
        "sequence = 0",
        "sequence = 1.5",
        'time = "1"',
        "start = -1",
        'temporality = "unspecified"',
        'temporality = "delta"',  # since when?
        "since = 1.5",  # cumulative, so since the start
        "totals/0/more = 1",
        "totals/0/unit",
        "totals/0/value",
        'totals/0/value = "1"',
        'totals/0/kind = "up-down counter"',
        'totals/0/kind = "histogram"',
        "totals/0/boundaries = [1]",
        "totals/0/attributes/room = [1]",
        "totals/1/value = 1",
        "totals/1/count",
        "totals/1/count = -1",
        "totals/1/bucket_counts = []",
        "totals/1/boundaries = [1, 1]",
    ],
)
def test_the_schema_refuses_what_is_no_report(change: str) -> None:
    """It is strict: a slip of the encoder, or of a receiver's own idea of it, is seen."""
    VALIDATOR.validate(good_report())

    assert not VALIDATOR.is_valid(broken(change))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**40) | st.floats(0, 1e100), max_size=20))
def test_what_was_recorded_comes_back(orders: list) -> None:
    """From the front door to a report: who, since when, how much."""
    metrics = Emitter("http://127.0.0.1:9/", service="checkout", encoder="json")
    counter = metrics.counter("orders", unit="{order}", description="Orders.")
    total = 0
    for amount in orders:
        counter.add(amount)
        total += amount
    body = JsonEncoder().encode(metrics._registry.snapshot())
    read = json.loads(body)

    VALIDATOR.validate(read)
    assert read["service"] == read["resource"]["service.name"] == "checkout"
    assert read["instance"] == read["resource"]["service.instance.id"]
    assert read["start"] < read["time"]
    assert re.search(rb'"time":\d+\.\d{6},', body)
    (found,) = (each for each in read["totals"] if each["name"] == "orders")
    assert found == {"name": "orders", "kind": "counter", "unit": "{order}", "attributes": {}, "value": total}
