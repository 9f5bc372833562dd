from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from emitter.encode import prometheus
from emitter.encode.prometheus import float_text, has_legal_name, label_name, labels, metric_name, occupied_names

examples = settings(max_examples=300, deadline=None)

KINDS = ["counter", "up-down counter", "gauge", "histogram"]
METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
"""Remote-Write 1.0 specification, "Labels"."""

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""As above."""


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("orders", "", "counter", "orders"),
        ("orders", "{order}", "counter", "orders"),
        ("orders_total", "", "counter", "orders"),
        ("orders_total", "", "gauge", "orders_total"),
        ("io.total", "By", "counter", "io_bytes"),
        ("io.bytes", "By", "counter", "io_bytes"),
        ("io.bytes.total", "By", "counter", "io_bytes"),
        ("payment.duration", "s", "histogram", "payment_duration_seconds"),
        ("payment.duration", "ms", "histogram", "payment_duration_milliseconds"),
        ("speed", "By/s", "gauge", "speed_bytes_per_second"),
        ("rate", "{order}/min", "gauge", "rate_per_minute"),
        ("load", "1", "gauge", "load_ratio"),
        ("load", "1", "up-down counter", "load"),
        ("hits", "1", "counter", "hits"),
        ("price", "EUR", "gauge", "price_EUR"),
        ("use", "%", "gauge", "use_percent"),
        ("odd", "a b/c d", "gauge", "odd_a_b_per_c_d"),
        ("odd", "/", "gauge", "odd"),
        ("a..b__c-", "", "gauge", "a_b_c"),
        ("ns:metric", "", "gauge", "ns:metric"),
        ("2xx", "", "gauge", "_2xx"),
        ("2xx", "s", "counter", "_2xx_seconds"),
        ("n\u00famero", "", "gauge", "n_mero"),
        ("\u6570", "", "gauge", "_"),
        ("\u0663", "", "gauge", "_"),  # a digit to Python, not to Prometheus
    ],
)
def test_a_metric_is_called_by_the_opentelemetry_rule(name: str, unit: str, kind: str, expected: str) -> None:
    """Runs of what is illegal become one underscore; the unit follows once; `_total` is left to the samples."""
    assert metric_name(name, unit, kind) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("counter", ("m_total",)),
        ("up-down counter", ("m",)),
        ("gauge", ("m",)),
        ("histogram", ("m_bucket", "m_sum", "m_count", "m")),
    ],
)
def test_a_metric_occupies_the_names_of_its_samples(kind: str, expected: tuple[str, ...]) -> None:
    """A histogram its bare name too: the text format has it on its TYPE line."""
    assert occupied_names("m", kind) == expected


@examples
@given(st.text(max_size=12), st.text("s1/{}%By \u00e9", max_size=4), st.sampled_from(KINDS))
@example("", "", "gauge")
@example("", "s", "gauge")
def test_whatever_a_metric_is_called_its_names_are_legal(name: str, unit: str, kind: str) -> None:
    """Those of the samples as well; no two underscores in a row."""
    for found in occupied_names(metric_name(name, unit, kind), kind):
        assert METRIC_NAME.fullmatch(found)
        assert "__" not in found or not has_legal_name(name)


@examples
@given(st.from_regex(r"[a-zA-Z:](_?[a-zA-Z0-9:])*", fullmatch=True), st.sampled_from(KINDS))
def test_a_name_that_is_legal_stays_as_it_is(name: str, kind: str) -> None:
    """But for the ending that a counter gets anyway."""
    expected = name.removesuffix("_total") if kind == "counter" else name

    assert metric_name(name, "", kind) == expected


@pytest.mark.parametrize(
    ("name", "legal"), [("a", True), ("\u00e9a", True), ("2", True), (":", True), ("", False), ("-", False)]
)
def test_a_name_of_which_nothing_is_left_can_be_told(name: str, legal: bool) -> None:
    """A letter, a digit or a colon is enough; underscores and what becomes one are not."""
    assert has_legal_name(name) is legal
    assert not has_legal_name("_")
    assert not has_legal_name("\u65e5\u672c")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"http.route": "/a b"}, {"http_route": "/a b"}),
        ({"a.b": "1", "a_b": "2"}, {"a_b": "1;2"}),
        ({"a.b": "1", "a/b": "", "a_b": True}, {"a_b": "1;;true"}),
        ({"a.b": "", "a_b": ""}, {"a_b": ";"}),
        ({"2xx": True, "n": 1, "f": 1.5, "no": False, "big": 2**63 - 1}, {
            "key_2xx": "true", "n": "1", "f": "1.5", "no": "false", "big": "9223372036854775807"
        }),
        ({"le": "x", "job": "y"}, {"exported_le": "x", "exported_job": "y"}),
        ({"le": "x", "exported.le": "y"}, {"exported_le": "x;y"}),
        ({"taken": "x"}, {"exported_exported_taken": "x"}),
        ({"__name__": "x", "empty": ""}, {"_name_": "x"}),
        ({"\u00e9": "x", "_": "y"}, {"_": "x;y"}),
        ({"": "x"}, {"key_": "x"}),
        ({"q": 'a"b\\c, d'}, {"q": 'a"b\\c, d'}),
    ],
)  # fmt: skip
def test_attributes_become_labels(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    """Reserved ones are not overwritten, keys that become equal are joined, empty values are no labels."""
    assert labels(attributes.items(), {"job", "le", "taken", "exported_taken"}) == expected


@examples
@given(
    st.dictionaries(st.text(max_size=4) | st.text("ab._1", max_size=2), st.text(max_size=2) | st.booleans()),
    st.frozensets(st.sampled_from(["a", "b", "_", "exported_a", "key_1"])),
)
def test_whatever_the_attributes_are_the_labels_are_legal(attributes: dict[str, Any], reserved: frozenset[str]) -> None:
    """None empty, none reserved, none of those that begin with `__`; and each value is in one of them."""
    found = labels(attributes.items(), reserved)

    assert all(LABEL_NAME.fullmatch(name) and not name.startswith("__") for name in found)
    assert all(found.values())
    assert reserved.isdisjoint(found)
    for key, value in attributes.items():
        assert prometheus.text(value) in found.get(label_name(key, reserved), "")


@examples
@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e5, 1e17) | st.integers(0, 2**60).map(float))
@example(1.0)
@example(999999.0)
@example(1e6)
@example(1234567.25)
@example(9999999999999998.0)
@example(1e16)
@example(-1e6)
def test_a_bound_is_spelled_as_prometheus_client_spells_it(number: float) -> None:
    """To the letter, or the same bucket would be two series; and no digit of it is lost."""
    assert float_text(number) == floatToGoString(number)
    assert float(float_text(number)) == number
