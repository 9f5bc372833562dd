from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from emitter.aggregator.exposition import as_json, as_prometheus
from emitter.aggregator.fold import ServiceTotals, Total
from emitter.aggregator.report import Distribution, Kind, Metric

if TYPE_CHECKING:
    from prometheus_client.samples import Sample


def service(*totals: Total, name: str = "checkout") -> ServiceTotals:
    """Totals of one service, with counts to recognise."""
    return ServiceTotals(name, sandboxes=3, reports_received=12, reports_lost=1, totals=totals)


def total(name: str, value: Any = 1, kind: Kind = Kind.COUNTER, unit: str = "", **attributes: Any) -> Total:
    """One total with the given attributes."""
    return Total(Metric(name, kind, unit), attributes, 1, value)


def samples(*services: ServiceTotals) -> list[Sample]:
    """What the library's own parser reads back."""
    families = text_string_to_metric_families(as_prometheus(services).decode())
    return [sample for family in families for sample in family.samples]


def values(*services: ServiceTotals) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample's value by name and labels, the service's own left out."""
    return {
        (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k != "service_name"))): s.value
        for s in samples(*services)
        if not s.name.startswith("emitter_")
    }


def conflicts(*services: ServiceTotals) -> float:
    """How many series were left out."""
    return next(s.value for s in samples(*services) if s.name == "emitter_exposition_conflicts")


def test_the_library_s_parser_reads_every_kind_back() -> None:
    """Types, labels and values survive; buckets are cumulative and end in +Inf."""
    metric = Metric("payment.duration", Kind.HISTOGRAM, "s", (0.5, 1.0), "How long\nit \\ takes.")
    services = [
        service(
            total("orders", 2**53, unit="{order}", channel="web"),
            total("open", -4, Kind.UP_DOWN_COUNTER),
            total("level", 0.1, Kind.GAUGE, unit="1"),
            Total(metric, {"provider": "acme"}, 1, Distribution(6, 4.25, (1, 2, 3))),
        )
    ]
    families = {f.name: f for f in text_string_to_metric_families(as_prometheus(services).decode())}

    acme = ("provider", "acme")
    assert values(*services) == {
        ("orders_total", (("channel", "web"),)): 2**53,
        ("open", ()): -4,
        ("level_ratio", ()): 0.1,
        ("payment_duration_seconds_bucket", (("le", "0.5"), acme)): 1,
        ("payment_duration_seconds_bucket", (("le", "1.0"), acme)): 3,
        ("payment_duration_seconds_bucket", (("le", "+Inf"), acme)): 6,
        ("payment_duration_seconds_sum", (acme,)): 4.25,
        ("payment_duration_seconds_count", (acme,)): 6,
    }
    assert families["orders"].type == "counter"
    assert families["payment_duration_seconds"].type == "histogram"
    assert families["payment_duration_seconds"].documentation == "How long\nit \\ takes."
    assert all(sample.labels["service_name"] == "checkout" for sample in families["orders"].samples)


def test_the_aggregator_shows_its_own_counts() -> None:
    """Sandboxes, reports received and reports lost, per service."""
    own = {(s.name, s.labels.get("service_name")): s.value for s in samples(service(), service(name="billing"))}

    assert own == {
        (name, who): value
        for who in ("checkout", "billing")
        for name, value in (
            ("emitter_sandboxes", 3),
            ("emitter_reports_received_total", 12),
            ("emitter_reports_lost", 1),
        )
    } | {("emitter_exposition_conflicts", None): 0}


@pytest.mark.parametrize(
    ("name", "kind", "unit", "expected"),
    [
        ("orders", Kind.COUNTER, "{order}", "orders_total"),
        ("orders_total", Kind.COUNTER, "", "orders_total"),
        ("io.total", Kind.COUNTER, "By", "io_bytes_total"),
        ("io.bytes", Kind.COUNTER, "By", "io_bytes_total"),
        ("faas.invoke_duration", Kind.GAUGE, "s", "faas_invoke_duration_seconds"),
        ("speed", Kind.GAUGE, "By/s", "speed_bytes_per_second"),
        ("rate", Kind.GAUGE, "{order}/min", "rate_per_minute"),
        ("load", Kind.GAUGE, "1", "load_ratio"),
        ("load", Kind.UP_DOWN_COUNTER, "1", "load"),
        ("price", Kind.GAUGE, "EUR", "price_EUR"),
        ("a..b__c-", Kind.GAUGE, "", "a_b_c"),
        ("ns:metric", Kind.GAUGE, "", "ns:metric"),
        ("2xx", Kind.GAUGE, "", "_2xx"),
        ("número", Kind.GAUGE, "", "n_mero"),
        ("数", Kind.GAUGE, "", "_"),
    ],
)
def test_names_become_legal_by_the_opentelemetry_rule(name: str, kind: Kind, unit: str, expected: str) -> None:
    """Illegal runs become one underscore; the unit and `_total` come last, each once."""
    ((shown, _),) = values(service(total(name, 1, kind, unit)))

    assert shown == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"http.route": "/a b"}, {"http_route": "/a b"}),
        ({"a.b": "1", "a_b": "2"}, {"a_b": "1;2"}),
        ({"2xx": True, "n": 1, "f": 1.5}, {"key_2xx": "true", "n": "1", "f": "1.5"}),
        ({"le": "x", "service.name": "y"}, {"exported_le": "x", "exported_service_name": "y"}),
        ({"__name__": "x", "empty": ""}, {"_name_": "x"}),
        ({"q": 'a"b\\c\nd\re'}, {"q": 'a"b\\c\nd\re'}),
    ],
)
def test_attributes_become_legal_labels(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    """Ours are not overwritten, keys that become equal are joined, empty ones are no labels."""
    ((_, labels),) = values(service(total("m", 1, **attributes)))

    assert dict(labels) == expected


def test_series_that_become_equal_are_added_up_or_the_newest_is_shown() -> None:
    """Prometheus refuses a text in which a series occurs twice."""
    histogram = Metric("h", Kind.HISTOGRAM, boundaries=(1.0,))
    merged = service(
        total("a.b", 1),
        total("a_b", 2),
        total("c", 1, k="1"),
        total("c", 2, k=1),
        Total(Metric("g", Kind.GAUGE), {"k": 1}, 7, 1.5),
        Total(Metric("g", Kind.GAUGE), {"k": "1"}, 6, 9.5),
        Total(histogram, {"k": 1}, 1, Distribution(2, 1.0, (1, 1))),
        Total(histogram, {"k": "1"}, 1, Distribution(3, None, (3, 0))),
    )

    k = ("k", "1")
    assert values(merged) == {
        ("a_b_total", ()): 3,
        ("c_total", (k,)): 3,
        ("g", (k,)): 1.5,
        ("h_bucket", (k, ("le", "1.0"))): 4,
        ("h_bucket", (k, ("le", "+Inf"))): 5,
        ("h_count", (k,)): 5,
    }
    assert conflicts(merged) == 0


def test_of_one_name_with_two_meanings_the_first_is_shown_and_the_other_counted() -> None:
    """A left-out series is never silent."""
    histogram = Metric("h", Kind.HISTOGRAM, boundaries=(1.0,))
    other = Metric("h", Kind.HISTOGRAM, boundaries=(2.0,))
    clash = service(
        total("a", 1, Kind.GAUGE),
        total("a", 2, Kind.UP_DOWN_COUNTER),
        total("a", 3, Kind.UP_DOWN_COUNTER, k="other labels, no clash"),
        total("x", 4),
        total("x_total", 5, Kind.GAUGE),
        total("x_total", 6, Kind.GAUGE, k="1"),
        Total(histogram, {}, 1, Distribution(1, 1.0, (1, 0))),
        Total(other, {}, 1, Distribution(1, 1.0, (1, 0))),
        total("h_count", 7, Kind.GAUGE),
        total("emitter.sandboxes", 8, Kind.GAUGE),
    )

    shown = values(clash)

    assert shown["a", ()] == 1
    assert shown["a", (("k", "other labels, no clash"),)] == 3
    assert shown["x_total", ()] == 4
    assert shown["h_count", ()] == 1
    assert ("h_bucket", (("le", "2.0"),)) not in shown
    assert conflicts(clash) == 1 + 2 + 1 + 1 + 1


def test_one_family_holds_the_series_of_all_services() -> None:
    """The format allows one TYPE line per name."""
    text = as_prometheus([service(total("m")), service(total("m"), name="billing")]).decode()

    assert text.count("# TYPE m_total counter\n") == 1
    assert text.count("\nm_total{") == 2


ATTRIBUTES = st.dictionaries(
    st.text(min_size=1, max_size=4), st.text(max_size=4) | st.booleans() | st.integers() | st.floats(-1e9, 1e9)
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300)


@st.composite
def any_total(draw: st.DrawFn) -> Total:
    """A total of anything, with names that often clash."""
    kind = draw(st.sampled_from(Kind))
    # Few different letters, so that names often clash once they are legal.
    name = draw(st.text("ab._1é", min_size=1, max_size=3) | st.sampled_from(["a_sum", "a_bucket", "a_total"]))
    if kind is Kind.HISTOGRAM:
        boundaries = tuple(draw(st.sampled_from([[], [1.0], [0.1, 1e7]])))
        counts = tuple(draw(st.integers(0, 2**62)) for _ in range(len(boundaries) + 1)) if boundaries else ()
        value = Distribution(sum(counts), draw(st.none() | st.floats(-1e300, 1e300)), counts)
        return Total(Metric(name, kind, "", boundaries, draw(st.text())), draw(ATTRIBUTES), 1, value)
    metric = Metric(name, kind, draw(st.text("s1/{}%", max_size=3)), (), draw(st.text()))
    return Total(metric, draw(ATTRIBUTES), 1, draw(NUMBERS))


@settings(deadline=None)
@given(st.lists(any_total(), max_size=8), st.text(min_size=1, max_size=3))
def test_whatever_was_reported_the_text_stays_valid(totals: list[Total], name: str) -> None:
    """Any names and attributes: the parser reads all of it, no series and no TYPE occurs twice."""
    text = as_prometheus([service(*totals, name=name)]).decode()

    families = list(text_string_to_metric_families(text))
    series = [(s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples]
    types = [line for line in text.split("\n") if line.startswith("# TYPE ")]
    assert len(series) == len(set(series))
    assert len(types) == len({line.split()[2] for line in types}) == len(families)
    assert all(family.type in {"counter", "gauge", "histogram"} for family in families)


def test_json_keeps_integers_and_has_the_documented_shape() -> None:
    """Plain data, in the order of the store."""
    metric = Metric("payment.duration", Kind.HISTOGRAM, "s", (0.5, 1.0))
    data = as_json(
        [
            service(
                total("orders", 2**70, unit="{order}", channel="web", n=1, yes=True),
                Total(metric, {}, 1, Distribution(6, None, (1, 2, 3))),
            )
        ]
    )

    assert json.loads(json.dumps(data)) == {
        "services": [
            {
                "service": "checkout",
                "sandboxes": 3,
                "reports_received": 12,
                "reports_lost": 1,
                "totals": [
                    {
                        "name": "orders",
                        "kind": "counter",
                        "unit": "{order}",
                        "attributes": {"channel": "web", "n": 1, "yes": True},
                        "value": 2**70,
                    },
                    {
                        "name": "payment.duration",
                        "kind": "histogram",
                        "unit": "s",
                        "attributes": {},
                        "count": 6,
                        "sum": None,
                        "boundaries": [0.5, 1.0],
                        "bucket_counts": [1, 2, 3],
                    },
                ],
            }
        ]
    }
