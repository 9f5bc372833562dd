"""Names, keys and values with everything in them that means something to some format: they arrive, or as documented.

What each is to become is written down here by hand, from the docstrings of the encoders (`emitter/encode/prometheus.py`
and `influx.py`), not computed.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from emitter import Delivery, errors
from tests.peers.ways import key

LONG = 255 * "x"

VALUES = [
    'quo"te',
    "it's",
    "back\\slash",
    "ends with \\",
    "\\",
    "\\n",
    "a,b",
    "a=b",
    "a b",
    " a ",
    "{a}",
    "a.b",
    "a-b",
    "a:b",
    "a;b",
    "a$b%41",
    "#a",
    "zażółć",
    "🎈",
    "no-break\u00a0space",
    "line\u2028separator",
    "9",
    "NaN",
    "null",
    "*",
    ".*",
    LONG,
    "le",
    "__name__",
]


class Text(NamedTuple):
    """A text of the user, and what it is called where."""

    raw: str
    prometheus: str
    influx: str


KEYS = [
    Text('quo"te', "quo_te", 'quo"te'),
    Text("it's", "it_s", "it's"),
    Text("back\\slash", "back_slash", "back/slash"),
    Text("ends with \\", "ends_with_", "ends with /"),
    Text("\\", "_", "/"),
    Text("a,b", "a_b", "a,b"),
    Text("a=b", "a_b", "a=b"),
    Text("a b", "a_b", "a b"),
    Text(" a ", "_a_", " a "),
    Text("{a}", "_a_", "{a}"),
    Text("a.b", "a_b", "a.b"),
    Text("a-b", "a_b", "a-b"),
    Text("a/b", "a_b", "a/b"),
    Text("a:b", "a_b", "a:b"),
    Text("#a", "_a", "#a"),
    Text("zażółć", "za_", "zażółć"),
    Text("🎈", "_", "🎈"),
    Text("9lives", "key_9lives", "9lives"),
    Text("A__b", "A_b", "A__b"),
    Text("__a", "_a", "__a"),
    Text(LONG, LONG, LONG),
    Text("le", "exported_le", "le"),
    Text("job", "exported_job", "job"),
    Text("instance", "exported_instance", "instance"),
    Text("service.name", "service_name", "service.name_"),
    Text("service.instance.id", "service_instance_id", "service.instance.id_"),
    Text("time", "time", "time_"),
    Text("__name__", "_name_", "__name___"),
    Text("_field", "_field", "_field_"),
    Text("_measurement", "_measurement", "_measurement_"),
    Text("_start", "_start", "_start_"),
    Text("_stop", "_stop", "_stop_"),
    Text("_time", "_time", "_time_"),
    Text("_value", "_value", "_value_"),
    Text("name", "name", "name"),
    Text("total", "total", "total"),
    Text("bucket", "bucket", "bucket"),
]

LIMIT_LABELS = 25
"""VictoriaMetrics keeps 30 labels of a series and drops the others (`-maxLabelsPerTimeseries`); some are ours."""

NAMES = [
    Text("orders.placed", "orders_placed", "orders.placed"),
    Text("with,comma", "with_comma", "with,comma"),
    Text("with=equals", "with_equals", "with=equals"),
    Text("with space", "with_space", "with space"),
    Text('with"quote', "with_quote", 'with"quote'),
    Text("back\\slash", "back_slash", "back/slash"),
    Text("ends with \\", "ends_with", "ends with /"),
    Text(" around ", "around", " around "),
    Text("{braces}", "braces", "{braces}"),
    Text("with-dash", "with_dash", "with-dash"),
    Text("with/slash", "with_slash", "with/slash"),
    Text("with:colon", "with:colon", "with:colon"),
    Text("#comment", "comment", "_comment"),
    Text("zażółć gęślą", "za_g_l", "zażółć gęślą"),
    Text("🎈 balloons", "balloons", "🎈 balloons"),
    Text("9lives", "_9lives", "9lives"),
    Text("__a__b__", "a_b", "__a__b__"),
    Text("le", "le", "le"),
    Text("job", "job", "job"),
    Text("time", "time", "time"),
    Text("__name__", "name", "__name__"),
    Text("NaN", "NaN", "NaN"),
    Text(240 * "n", 240 * "n", 240 * "n"),
]


def in_format(way, text: Text) -> str:
    """What the receiver knows a key or a name by."""
    return {"remote-write": text.prometheus, "influx": text.influx}.get(way.encoder, text.raw)


def value_in_format(way, value: str) -> str:
    """What the receiver knows a value by."""
    return value.replace("\\", "/") if way.encoder == "influx" else value


def reported(way, metrics) -> dict:
    """Report; what is there then, without the series that have no attributes."""
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    return {each: value for each, value in way.latest().items() if each[1]}


def test_values_survive(way) -> None:
    """All that is text, to the letter; over the line protocol a backslash is a slash."""
    metrics = way.emitter()
    counter = metrics.counter("things")
    for number, value in enumerate(VALUES, start=1):
        counter.add(number, value=value)
    expected = {
        key("things_total", value=value_in_format(way, value)): number for number, value in enumerate(VALUES, start=1)
    }

    assert len(expected) == len(VALUES)
    assert reported(way, metrics) == expected


def test_keys_survive_or_become_what_is_documented(way) -> None:
    """Each alone, so that two that become equal are told apart by their values."""
    metrics = way.emitter()
    counter = metrics.counter("things")
    for number, text in enumerate(KEYS, start=1):
        counter.add(number, {text.raw: f"of {number}"})
    expected = {
        key("things_total", **{in_format(way, text): f"of {number}"}): number
        for number, text in enumerate(KEYS, start=1)
    }

    assert reported(way, metrics) == expected


def test_keys_of_one_series_survive_or_become_what_is_documented(way) -> None:
    """Many of them together: values of keys that become equal are joined, in the order of the keys."""
    metrics = way.emitter()
    together = dict(enumerate(KEYS[:LIMIT_LABELS]))
    metrics.counter("things").add(1, {text.raw: f"of {number}" for number, text in together.items()})
    joined: dict[str, str] = {}
    for number, text in sorted(together.items(), key=lambda each: each[1].raw):
        name, value = in_format(way, text), f"of {number}"
        joined[name] = f"{joined[name]};{value}" if name in joined else value

    assert reported(way, metrics) == {key("things_total", **joined): 1}


def test_keys_that_histograms_need(way) -> None:
    """`le` says which bucket; an attribute of that name is something else."""
    metrics = way.emitter()
    metrics.histogram("sizes", boundaries=[1.0]).record(0.5, le="mine", other="1")
    name = {"remote-write": "exported_le", "influx": "le_"}.get(way.encoder)
    if name is None:  # our own reading of OTLP, which has no such thing, would mix them up
        metrics.flush_sync(delivery=Delivery.ANSWERED)
        (told,) = (total for total in way.server.totals(way.service) if total["name"] == "sizes")

        assert (told["attributes"], told["bucket_counts"]) == ({"le": "mine", "other": "1"}, [1, 0])
        return

    assert reported(way, metrics) == {
        key("sizes_bucket", le="1.0", other="1", **{name: "mine"}): 1,
        key("sizes_bucket", le="+Inf", other="1", **{name: "mine"}): 1,
        key("sizes_sum", other="1", **{name: "mine"}): 0.5,
        key("sizes_count", other="1", **{name: "mine"}): 1,
    }


@pytest.mark.parametrize("kind", ["counter", "gauge"])
def test_names_survive_or_become_what_is_documented(way, kind: str) -> None:
    """A gauge keeps its name, or has the field `value`; a counter is a total everywhere."""
    metrics = way.emitter()
    for number, text in enumerate(NAMES, start=1):
        instrument = getattr(metrics, kind)(text.raw)
        (instrument.set if kind == "gauge" else instrument.add)(number, a="b")
    suffix = "_total" if kind == "counter" else way.value
    expected = {key(in_format(way, text) + suffix, a="b"): number for number, text in enumerate(NAMES, start=1)}

    assert len(expected) == len(NAMES)
    assert reported(way, metrics) == expected


def test_a_service_has_any_name(way) -> None:
    """It is a label or a tag like others, and part of each question."""
    way.service += ' of "all", a=b {🎈}'
    metrics = way.emitter()
    metrics.counter("things").add(3, a="b")

    assert reported(way, metrics) == {key("things_total", a="b"): 3}


@pytest.mark.parametrize("name", ["remote-write-prometheus", "remote-write-victoria-metrics"])
@pytest.mark.parametrize("text", ["🎈", "_", "-.-"])
def test_a_name_of_which_prometheus_would_have_nothing_is_refused(ways, name: str, text: str) -> None:
    """When the instrument is made, and not by a receiver that nobody listens to."""
    metrics = ways(name).emitter()

    with pytest.raises(errors.ConfigurationError, match="Prometheus"):
        metrics.counter(text)


TELLING = [True, "true", False, "false", 1, "1", 1.5, "1.5", -7, "-7", "1.0", 1.0, ""]
"""Values of which formats that know nothing but text cannot tell each from each."""

AS_TEXT = {"true": [0, 1], "false": [2, 3], "1": [4, 5], "1.5": [6, 7], "-7": [8, 9], "1.0": [10, 11]}
"""Which of them have the same text; an empty one is none."""


def test_values_of_other_types_beside_equal_texts(way) -> None:
    """Where they become one series, its total is the sum, of histograms too, and a gauge the one that was made last."""
    metrics = way.emitter()
    counter, gauge = metrics.counter("things"), metrics.gauge("level")
    sizes = metrics.histogram("sizes", boundaries=[4.0])
    counter.add(1000)  # the series without attributes, which is that of the empty text
    for place, value in enumerate(TELLING):
        counter.add(2**place, value=value)
        gauge.set(place, value=value)
        sizes.record(place, value=value)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    if way.encoder.startswith("otlp"):
        told = [
            (repr(total["attributes"].get("value")), total["value"])
            for total in way.server.totals(way.service)
            if total["name"] == "things"
        ]

        assert sorted(told) == sorted(
            [("None", 1000), *((repr(value), 2**place) for place, value in enumerate(TELLING))]
        )
        return
    last = len(TELLING) - 1
    expected = {
        key("things_total"): 1000 + 2**last,
        key(f"level{way.value}"): last,
        key("sizes_bucket", le="4.0"): 0,
        key("sizes_bucket", le="+Inf"): 1,
        key("sizes_sum"): last,
        key("sizes_count"): 1,
    }
    for text, places in AS_TEXT.items():
        expected[key("things_total", value=text)] = sum(2**place for place in places)
        expected[key(f"level{way.value}", value=text)] = places[-1]
        expected[key("sizes_bucket", le="4.0", value=text)] = sum(place <= 4 for place in places)
        expected[key("sizes_bucket", le="+Inf", value=text)] = 2
        expected[key("sizes_sum", value=text)] = sum(places)
        expected[key("sizes_count", value=text)] = 2

    assert way.latest() == expected
