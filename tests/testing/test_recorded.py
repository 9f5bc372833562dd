from __future__ import annotations

import enum

import pytest

from emitter import Emitter, RecordingError
from emitter.testing import InMemoryEmitter, recording

pytest_plugins = ["pytester"]


@pytest.fixture
def metrics():
    """An emitter without a network."""
    return InMemoryEmitter(service="checkout")


@pytest.fixture
def recorded(metrics):
    """What it has recorded."""
    return metrics.recorded


def refusal(assertion, *args, **more) -> str:
    """What an assertion says when it fails."""
    with pytest.raises(AssertionError) as raised:
        assertion(*args, **more)
    return str(raised.value)


def test_a_counter_stands_at_what_was_added(metrics, recorded):
    """For exactly these attributes, in whatever order, names or mapping."""
    orders = metrics.counter("orders")
    orders.add(1, channel="web", region="eu")
    orders.add(2, region="eu", channel="web")
    orders.add(4, {"http.route": "/"}, channel="web")
    orders.bind(channel="app").add(8)

    recorded.assert_counter("orders", 3, channel="web", region="eu")
    recorded.assert_counter("orders", 3, {"region": "eu"}, channel="web")
    recorded.assert_counter("orders", 4, {"http.route": "/", "channel": "web"})
    recorded.assert_counter("orders", 8, channel="app")
    recorded.assert_counter("orders", 0)
    assert refusal(recorded.assert_counter, "orders", 3, channel="web")
    assert refusal(recorded.assert_counter, "orders", 2, channel="web", region="eu")


def test_attributes_are_told_apart_by_type(metrics, recorded):
    """As they are in reports: 1, 1.0, True and "1" are four series."""
    orders = metrics.counter("orders")
    for times, value in enumerate([1, 1.0, True, "1"], start=1):
        orders.add(times, kind=value)

    for times, value in enumerate([1, 1.0, True, "1"], start=1):
        recorded.assert_counter("orders", times, kind=value)
        recorded.assert_total("orders", times, kind=value)


def test_attributes_are_those_that_are_recorded_in_the_end(metrics, recorded):
    """Cut to what a report carries, members of an enum by their value; and what cannot be one is refused."""

    class Channel(str, enum.Enum):
        WEB = "web"

    metrics.counter("orders").add(1, channel=Channel.WEB, note="x" * 300)

    recorded.assert_counter("orders", 1, channel="web", note="x" * 300)
    recorded.assert_counter("orders", 1, channel=Channel.WEB, note="x" * 255)
    with pytest.raises(RecordingError):
        recorded.assert_counter("orders", 1, channel=None)


def test_attributes_may_have_the_names_of_arguments(metrics, recorded):
    """Those of the instrument's and of the assertion's."""
    metrics.counter("orders").add(1, name="a", value=2, self="b")
    metrics.histogram("size").record(3, {"count": 1, "sum": 2, "within": 3})

    recorded.assert_counter("orders", 1, name="a", value=2, self="b")
    recorded.assert_histogram("size", {"count": 1, "sum": 2, "within": 3}, count=1, sum=3)


def test_floats_may_differ_in_their_last_digits(metrics, recorded):
    """Nobody means those; and whoever means less says so."""
    for _ in range(10):
        metrics.counter("revenue").add(0.1)

    recorded.assert_counter("revenue", 1)
    recorded.assert_counter("revenue", 1.0)
    recorded.assert_counter("revenue", pytest.approx(1.01, rel=0.1))
    assert refusal(recorded.assert_counter, "revenue", 1.0001)
    assert refusal(recorded.assert_counter, "revenue", pytest.approx(1.2, rel=0.1))
    assert refusal(recorded.assert_counter, "revenue", "1.0")
    metrics.counter("orders").add(10**12)
    assert refusal(recorded.assert_counter, "orders", 10**12 + 1)  # integers are exact

    level = metrics.up_down_counter("level")
    for step in (0.1, 0.2, -0.3):  # which add up to 5.6e-17
        level.add(step)
    recorded.assert_up_down_counter("level", 0)
    metrics.gauge("charge").set(2.5e-13)
    assert refusal(recorded.assert_gauge, "charge", 3e-13)
    level.add(1e-9)
    assert refusal(recorded.assert_up_down_counter, "level", 0)


def test_an_up_down_counter_stands_where_it_came_to(metrics, recorded):
    """Below zero, too."""
    metrics.up_down_counter("open").add(2, pool="a")
    metrics.up_down_counter("open").add(-5, pool="a")

    recorded.assert_up_down_counter("open", -3, pool="a")
    recorded.assert_up_down_counter("open", 0, pool="b")
    assert refusal(recorded.assert_up_down_counter, "open", 3, pool="a").startswith(
        "the up-down counter open{pool='a'} stands at -3; expected 3\n"
    )


def test_a_gauge_is_what_it_was_set_to_last(metrics, recorded):
    """Zero is a value, and never set is none."""
    metrics.gauge("temperature").set(20)
    metrics.gauge("temperature").set(0)
    metrics.gauge("pressure")

    recorded.assert_gauge("temperature", 0)
    assert refusal(recorded.assert_gauge, "temperature", 20)
    assert refusal(recorded.assert_gauge, "pressure", 0).startswith("the gauge pressure was not set; expected 0\n")
    recorded.assert_not_recorded("pressure")


def test_a_histogram_by_count_sum_and_where_its_values_are(metrics, recorded):
    """Each by itself and all together; at least one value if nothing is said."""
    size = metrics.histogram("size", boundaries=[10, 20, 30])
    for value in (12, 18, 25):
        size.record(value, kind="a")

    recorded.assert_histogram("size", kind="a")
    recorded.assert_histogram("size", kind="a", count=3, sum=55, within=(10, 30))
    recorded.assert_histogram("size", kind="b", count=0)
    assert "has 3 values; expected a count of 2\n" in refusal(recorded.assert_histogram, "size", kind="a", count=2)
    assert "add up to 55.0; expected 54\n" in refusal(recorded.assert_histogram, "size", kind="a", sum=54)
    assert "is from 10 to 30, for all that its buckets tell; expected it within (10, 20)\n" in refusal(
        recorded.assert_histogram, "size", kind="a", within=(10, 20)
    )
    assert "nothing was recorded in the histogram size{kind='b'}\n" in refusal(
        recorded.assert_histogram, "size", kind="b"
    )
    assert refusal(recorded.assert_histogram, "size", kind="b", within=(10, 30))


def test_a_single_value_in_a_histogram_is_known_exactly(metrics, recorded):
    """Whatever the boundaries are."""
    metrics.histogram("payment.duration", unit="s").record(0.3)

    recorded.assert_histogram("payment.duration", within=(0.29, 0.31))
    assert "is 0.3; expected it within (0.31, 1)\n" in refusal(
        recorded.assert_histogram, "payment.duration", within=(0.31, 1)
    )


def test_a_total_is_that_of_all_series_with_these_attributes(metrics, recorded):
    """Whatever others they have beside them."""
    orders = metrics.counter("orders")
    orders.add(1, channel="web", region="eu")
    orders.add(2, channel="web", region="us")
    orders.add(4, channel="app")

    recorded.assert_total("orders", 7)
    recorded.assert_total("orders", 3, channel="web")
    recorded.assert_total("orders", 0, channel="tv")
    recorded.assert_total("nothing", 0)
    assert refusal(recorded.assert_total, "orders", 4, channel="web").startswith(
        "all of orders{channel='web'} add up to 3; expected 4\n"
    )


def test_what_has_no_total_is_refused_by_name(metrics, recorded):
    """A sum of gauges means nothing, and a histogram has its own assertion."""
    metrics.gauge("temperature").set(1)
    metrics.histogram("size").record(1)

    assert refusal(recorded.assert_total, "temperature", 1).startswith("'temperature' is a gauge, which has no total")
    assert "expected assert_histogram" in refusal(recorded.assert_total, "size", 1)


def test_what_was_not_recorded(metrics, recorded):
    """By name, by name and some attributes, and altogether; instruments and series that stand there do not matter."""
    metrics.counter("orders").bind(channel="web")
    metrics.up_down_counter("open").bind()
    metrics.histogram("size").bind()
    metrics.gauge("temperature").bind()
    recorded.assert_nothing_recorded()
    metrics.counter("orders").add(1, channel="app", region="eu")

    recorded.assert_not_recorded("orders", channel="web")
    recorded.assert_not_recorded("size")
    assert refusal(recorded.assert_not_recorded, "orders").startswith("orders was recorded; expected that it was not\n")
    assert refusal(recorded.assert_not_recorded, "orders", channel="app")
    assert (
        refusal(recorded.assert_nothing_recorded)
        == "expected that nothing was recorded\nrecorded:\n  counter orders{channel='app', region='eu'} = 1"
    )


def test_what_the_decorator_counts_is_not_taken_for_the_users(metrics, recorded):
    """Nor is what the emitter counts of itself; the former is listed, last."""

    @metrics.lambda_handler
    def handler(event, context):
        metrics.counter("orders").add(event)

    handler(0, None)
    recorded.assert_nothing_recorded()
    handler(1, None)
    names = [line.split()[1] for line in str(recorded).splitlines()[1:]]

    recorded.assert_counter("faas.invocations", 2)
    assert names == ["orders", "faas.coldstarts", "faas.invocations", "faas.invoke_duration"]


def test_a_value_can_be_had_for_an_assertion_of_ones_own(metrics, recorded):
    """`None` if there is none."""
    metrics.counter("orders").add(3, channel="web")
    metrics.histogram("size", boundaries=[10]).record(4)

    assert recorded.value("orders", channel="web") == 3
    assert recorded.value("orders") is None
    assert recorded.value("size").sum == 4
    assert recorded.value("size").bucket_counts == (1, 0)


def test_a_failure_lists_everything_of_that_name_first(metrics, recorded):
    """With attributes and units; then the rest."""
    metrics.counter("orders", unit="{order}").add(1, channel="web")
    metrics.counter("orders").add(2, channel="app")
    metrics.histogram("payment.duration", unit="s").record(0.5, provider="acme")
    metrics.gauge("temperature", unit="Cel").set(21.5)

    assert refusal(recorded.assert_counter, "orders", 1, channel="tv").splitlines() == [
        "the counter orders{channel='tv'} stands at 0; expected 1",
        "recorded under that name:",
        "  counter orders{channel='app'} = 2",
        "  counter orders{channel='web'} = 1",
        "recorded besides:",
        "  histogram payment.duration{provider='acme'} = 1 value, sum 0.5 s",
        "  gauge temperature = 21.5 Cel",
    ]


def test_a_failure_names_what_is_nearly_called_that(metrics, recorded):
    """A slip in a name is what it mostly is."""
    metrics.counter("orders").add()
    metrics.counter("visits").add()

    assert refusal(recorded.assert_counter, "order", 1).splitlines() == [
        "the counter order stands at 0; expected 1",
        "nothing was recorded as 'order'; did you mean 'orders'?",
        "recorded besides:",
        "  counter orders = 1",
        "  counter visits = 1",
    ]


def test_a_failure_says_when_there_is_nothing_to_tell(recorded):
    """No empty list."""
    assert refusal(recorded.assert_counter, "orders", 1).splitlines() == [
        "the counter orders stands at 0; expected 1",
        "nothing was recorded as 'orders'",
        "nor anything else",
    ]
    assert str(recorded) == "nothing was recorded"


def test_another_kind_of_instrument_is_not_taken_for_the_one(metrics, recorded):
    """The failure says what it is, and which assertion is for it."""
    metrics.counter("a").add()
    metrics.up_down_counter("b").add()
    metrics.gauge("c").set(1)
    metrics.histogram("d").record(1)
    kinds = {
        "a": (recorded.assert_counter, "a counter", "assert_counter"),
        "b": (recorded.assert_up_down_counter, "an up-down counter", "assert_up_down_counter"),
        "c": (recorded.assert_gauge, "a gauge", "assert_gauge"),
    }

    for name, (assertion, _, _) in kinds.items():
        assertion(name, 1)
        for other, (_, kind, instead) in kinds.items():
            if other != name:
                assert refusal(assertion, other, 1).startswith(f"{other!r} is {kind}; expected {instead} instead\n")
        assert "expected assert_histogram instead" in refusal(assertion, "d", 1)
        assert refusal(recorded.assert_histogram, name)


def test_two_emitters_that_record_the_same_are_told_apart(monkeypatch):
    """Neither is guessed at, and nothing is added up that nobody asked to be."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")
    shop, store = Emitter(service="shop"), Emitter(service="store")
    with recording() as recorded:
        shop.counter("orders").add(1)
        recorded.assert_counter("orders", 1)
        store.counter("orders").add(2)
        told = refusal(recorded.assert_counter, "orders", 3)

        assert told.splitlines() == [
            "2 emitters have recorded orders; expected recorded.of(emitter), for one",
            "recorded under that name:",
            "  shop: counter orders = 1",
            "  store: counter orders = 2",
            "nothing else was recorded",
        ]
        recorded.of(shop).assert_counter("orders", 1)
        recorded.of(store).assert_counter("orders", 2)
        recorded.assert_total("orders", 3)
        assert "shop" not in refusal(recorded.of(shop).assert_counter, "orders", 3)
        with pytest.raises(LookupError, match="not being recorded here"):
            recorded.of(InMemoryEmitter())


def test_looking_changes_nothing(metrics, recorded):
    """A flush after it has as much to say as without it."""
    metrics.counter("orders").add()
    for _ in range(3):
        recorded.assert_counter("orders", 1)
        str(recorded)
    first, again = metrics.flush_sync(), metrics.flush_sync()

    assert first.bytes > 0
    assert again.bytes == 0
    assert len(recorded.reports) == 1


def test_a_failing_assertion_shows_the_line_of_the_test(pytester):
    """And not what is behind it."""
    pytester.makepyfile(
        """
        from emitter.testing import InMemoryEmitter

        def test_it():
            metrics = InMemoryEmitter()
            metrics.counter("orders").add(2)
            metrics.recorded.assert_counter("orders", 1)

        def test_that():
            InMemoryEmitter().recorded.assert_histogram("size")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:asyncio")

    result.stdout.fnmatch_lines(
        [
            '>       metrics.recorded.assert_counter("orders", 1)',
            "E       AssertionError: the counter orders stands at 2; expected 1",
            "E       recorded under that name:",
            "E         counter orders = 2",
            '>       InMemoryEmitter().recorded.assert_histogram("size")',
        ]
    )
    result.stdout.no_fnmatch_line("*recorded.py:*")
    result.assert_outcomes(failed=2)
