from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.aggregator import store as module
from emitter.aggregator.fold import ServiceTotals, Total
from emitter.aggregator.report import Distribution, Kind, Metric, Point, Report, Value
from emitter.aggregator.store import Store
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COUNTER = Metric("orders", Kind.COUNTER)
FLOATS = Metric("seconds", Kind.COUNTER, "s")
UP_DOWN = Metric("open", Kind.UP_DOWN_COUNTER)
GAUGE = Metric("level", Kind.GAUGE)
HISTOGRAM = Metric("duration", Kind.HISTOGRAM, "s", (0.5, 1.0))


def point(metric: Metric, value: Value, time: int = 1, start: int = 1, **attributes: Any) -> Point:
    """A running total with the given attributes."""
    return Point(metric, json.dumps(attributes, sort_keys=True), start, time, value)


def report(*points: Point, instance: str = "a", start: int = 1, numbers: Sequence[int] = ()) -> Report:
    """A report of one sandbox of one service."""
    return Report("checkout", instance, start, tuple(numbers), points)


def values_of(service: ServiceTotals) -> dict[tuple[Metric, str], Value]:
    """Values by metric and attributes."""
    return {(total.metric, json.dumps(total.attributes)): total.value for total in service.totals}


@pytest.fixture
def store() -> Iterator[Store]:
    """A store that keeps nothing."""
    with closing(Store(":memory:")) as store:
        yield store


def test_an_empty_store_has_no_services(store: Store) -> None:
    """Nothing reported, nothing shown."""
    assert store.totals() == ()


def test_totals_are_added_up_over_sandboxes(store: Store) -> None:
    """Counters, up-down counters and histograms are added; of gauges the newest is shown."""
    for instance, factor, time in (("a", 1, 5), ("b", 10, 4)):
        distribution = Distribution(3 * factor, 1.5 * factor, (factor, 0, 2 * factor))
        points = [
            point(COUNTER, factor, time),
            point(FLOATS, 0.1 * factor, time),
            point(UP_DOWN, -factor, time),
            point(GAUGE, factor, time),
            point(HISTOGRAM, distribution, time),
        ]
        store.fold([report(*points, instance=instance)])

    (service,) = store.totals()

    assert (service.service, service.sandboxes) == ("checkout", 2)
    assert values_of(service) == {
        (COUNTER, "{}"): 11,
        (FLOATS, "{}"): 1.1,
        (UP_DOWN, "{}"): -11,
        (GAUGE, "{}"): 1,
        (HISTOGRAM, "{}"): Distribution(33, 16.5, (11, 0, 22)),
    }


def test_a_new_start_time_is_a_new_sandbox(store: Store) -> None:
    """A restarted process counts from zero: its totals add to those of its former life."""
    store.fold([report(point(COUNTER, 5, time=9, start=1), start=1, numbers=[4])])
    store.fold([report(point(COUNTER, 2, time=12, start=10), start=10, numbers=[1])])

    (service,) = store.totals()

    assert service.sandboxes == 2
    assert (service.reports_received, service.reports_lost) == (2, 3)
    assert values_of(service) == {(COUNTER, "{}"): 7}


def test_instruments_with_their_own_start_times_are_one_sandbox(store: Store) -> None:
    """Some SDKs give every instrument its own start: that is one report of one sandbox."""
    store.fold([report(point(COUNTER, 5, start=1), point(UP_DOWN, 2, start=3), start=1)])

    (service,) = store.totals()

    assert (service.sandboxes, service.reports_received) == (1, 1)
    assert values_of(service) == {(COUNTER, "{}"): 5, (UP_DOWN, "{}"): 2}


def test_metrics_that_differ_in_anything_but_the_description_stay_apart(store: Store) -> None:
    """Other kind, other unit, other boundaries: another metric. Another description: the same one."""
    metrics = [
        Metric("m", Kind.COUNTER),
        Metric("m", Kind.COUNTER, description="another text"),
        Metric("m", Kind.UP_DOWN_COUNTER),
        Metric("m", Kind.COUNTER, "s"),
    ]
    for number, metric in enumerate(metrics):
        store.fold([report(point(metric, 1), instance=f"{number}")])

    (service,) = store.totals()

    assert [(total.metric.kind, total.metric.unit, total.value) for total in service.totals] == [
        (Kind.COUNTER, "", 2),
        (Kind.COUNTER, "s", 1),
        (Kind.UP_DOWN_COUNTER, "", 1),
    ]


def test_histograms_of_other_boundaries_stay_apart(store: Store) -> None:
    """Buckets are added only where they mean the same."""
    other = Metric("duration", Kind.HISTOGRAM, "s", (0.5, 2.0))
    store.fold([report(point(HISTOGRAM, Distribution(1, 0.1, (1, 0, 0))))])
    store.fold([report(point(other, Distribution(1, 0.1, (1, 0, 0))), instance="b")])

    (service,) = store.totals()

    assert {total.metric.boundaries for total in service.totals} == {(0.5, 1.0), (0.5, 2.0)}


def test_integers_beyond_64_bits_come_out_exact(store: Store) -> None:
    """Three sandboxes at the limit: SQL's own sum would overflow here."""
    for instance in "abc":
        claims = point(COUNTER, 2**63 - 1)
        store.fold([report(claims, instance=instance, numbers=[2**63 - 1])])

    (service,) = store.totals()

    assert values_of(service) == {(COUNTER, "{}"): 3 * (2**63 - 1)}
    assert (service.reports_received, service.reports_lost) == (3, 3 * (2**63 - 2))


ATTRIBUTES = st.sampled_from([{}, {"channel": "web"}, {"channel": 1}, {"channel": True}])


@st.composite
def sandbox_reports(draw: st.DrawFn, instance: str) -> list[Report]:
    """The reports of one sandbox, numbered, each later than the one before, of any values."""
    reports = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        integers = st.integers(-(2**63), 2**63 - 1)
        floats = st.floats(-1e300, 1e300)
        counts = st.tuples(*[st.integers(0, 2**60)] * 3)
        distributions = counts.map(lambda counts: Distribution(sum(counts), 0.5 * counts[0], counts))
        kinds = st.one_of(
            st.tuples(st.just(UP_DOWN), integers),
            st.tuples(st.just(FLOATS), floats | integers),
            st.tuples(st.just(GAUGE), floats),
            st.tuples(st.just(HISTOGRAM), distributions),
        )
        series = st.tuples(kinds, ATTRIBUTES)
        points = [
            point(metric, value, time=100 * number, **attributes)
            for (metric, value), attributes in draw(
                st.lists(series, min_size=1, max_size=5, unique_by=lambda one: (one[0][0], repr(one[1])))
            )
        ]
        reports.append(report(*points, instance=instance, numbers=[number]))
    return reports


@st.composite
def deliveries(draw: st.DrawFn) -> list[Report]:
    """What arrives of two sandboxes' reports: any subset, in any order, with repetitions."""
    everything = [*draw(sandbox_reports("a")), *draw(sandbox_reports("b"))]
    return draw(st.lists(st.sampled_from(everything), min_size=1, max_size=20))


def folded(reports: Sequence[Report]) -> tuple[ServiceTotals, ...]:
    """The totals after these reports, folded one by one in this order."""
    with closing(Store(":memory:")) as store:
        for one in reports:
            assert store.fold([one]) == {}
        return store.totals()


@settings(deadline=None)
@given(deliveries())
def test_any_subset_in_any_order_with_repetitions_folds_like_once_in_order(arrived: list[Report]) -> None:
    """The fold depends on the set of reports that arrived, and on nothing else.

    Per sandbox: attempts = the highest number that arrived, received = how many different ones did, lost =
    attempts - received; and each series has the value of the newest report that arrived and holds it.
    """
    (service,) = folded(arrived)

    different = {(one.instance, *one.numbers): one for one in arrived}
    in_order = [different[key] for key in sorted(different)]
    highest = {one.instance: one.numbers[0] for one in in_order}
    newest = {(one.instance, p.metric, json.dumps(json.loads(p.attributes))): p for one in in_order for p in one.points}
    assert (service,) == folded(in_order)
    assert service.sandboxes == len(highest)
    assert service.reports_received == len(in_order)
    assert service.reports_lost == sum(highest.values()) - len(in_order)
    for (metric, attributes), value in values_of(service).items():
        parts = [p for (_, *key), p in newest.items() if key == [metric, attributes]]
        if metric == GAUGE:
            assert value in [p.value for p in parts if p.time_unix_nano == max(p.time_unix_nano for p in parts)]
        elif metric == UP_DOWN:
            assert value == sum(p.value for p in parts if isinstance(p.value, int))
        elif metric == HISTOGRAM:
            assert value.count == sum(p.value.count for p in parts)
        else:
            assert value == pytest.approx(sum(p.value for p in parts), rel=1e-12)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3) | st.floats(-3, 3)), min_size=1).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(said))
    )
)
def test_a_sandbox_that_contradicts_itself_still_folds_alike_in_every_order(
    orders: tuple[list[tuple[int, float]], list[tuple[int, float]]],
) -> None:
    """Different values for one and the same time: the larger one is kept, whichever came first."""
    first, second = (folded([report(point(UP_DOWN, value, time)) for time, value in order]) for order in orders)

    assert first == second


def test_the_totals_continue_in_a_new_store_on_the_same_file(tmp_path: Path) -> None:
    """Everything is in the file: totals, receipts, and the gaps that late reports close."""
    database = str(tmp_path / "totals.sqlite3")
    with closing(Store(database)) as store:
        store.fold([report(point(COUNTER, 5, time=30), numbers=[3])])

    with closing(Store(database)) as store:
        store.fold([report(point(COUNTER, 1, time=10), numbers=[1])])
        (service,) = store.totals()

    assert (service.reports_received, service.reports_lost) == (2, 1)
    assert values_of(service) == {(COUNTER, "{}"): 5}


def test_two_stores_on_one_file_see_each_other(tmp_path: Path) -> None:
    """Each fold is one transaction on the file, so even a second process counts right."""
    database = str(tmp_path / "totals.sqlite3")
    with closing(Store(database)) as one, closing(Store(database)) as other:
        one.fold([report(point(COUNTER, 1, time=1), numbers=[1])])
        other.fold([report(point(COUNTER, 2, time=2), numbers=[2])])

        totals = one.totals()

    assert totals[0].reports_received == 2
    assert [total.value for total in totals[0].totals] == [2]


def test_every_fold_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """WAL with synchronous FULL (2): the log is synced at every commit."""
    with closing(Store(str(tmp_path / "totals.sqlite3"))) as store:
        modes = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert modes == ["wal", 2]


def test_a_sandbox_cannot_have_more_series_than_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit new series are left out and counted; the known ones go on."""
    monkeypatch.setattr(module, "MAX_SERIES_PER_SANDBOX", 3)
    store.fold([report(point(COUNTER, 1, k=1), point(COUNTER, 1, k=2))])

    left_out = store.fold([report(*(point(COUNTER, 2, time=2, k=k) for k in (5, 4, 3, 2, 1)))])
    other = store.fold([report(*(point(COUNTER, 1, k=k) for k in (1, 2, 3)), instance="b")])

    assert left_out == {"more than 3 series of one sandbox": 2}
    assert other == {}
    assert [(t.attributes, t.value) for t in store.totals()[0].totals] == [
        ({"k": 1}, 3),
        ({"k": 2}, 3),
        ({"k": 3}, 1),
        ({"k": 5}, 2),
    ]


def test_a_fold_that_fails_keeps_nothing_of_its_reports(tmp_path: Path) -> None:
    """One transaction per request: all of it or nothing, and the store stays usable."""
    with closing(Store(str(tmp_path / "totals.sqlite3"))) as store:
        store.fold([report(point(COUNTER, 1), numbers=[1])])
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        large = [point(COUNTER, 1, time=2, k=f"{k}" * 500) for k in range(100)]

        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.fold([report(point(COUNTER, 2, time=2), *large, numbers=[2])])

        (service,) = store.totals()
        assert (service.reports_received, [total.value for total in service.totals]) == (1, [1])
        assert store.fold([report(point(COUNTER, 3, time=3), numbers=[3])]) == {}


def test_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    """A directory, another file, another program's database, one of a later version: one error that names the path."""
    text = tmp_path / "text"
    text.write_text("this is not a database, whatever its name says\n" * 100)
    later = tmp_path / "later"
    Store(str(later)).close()
    with closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version = 99")
    foreign = tmp_path / "foreign"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.execute("PRAGMA user_version = 1")
    untouched = foreign.read_bytes()

    for path, reason in (
        (tmp_path, "unable to open"),
        (tmp_path / "no" / "such" / "directory", "unable to open"),
        (text, "not a database"),
        (later, "its version is 99, expected 1"),
        (foreign, "it belongs to another program"),
    ):
        with pytest.raises(ConfigurationError, match=rf"cannot use '{path}' as the database: .*{reason}"):
            Store(str(path))
    assert foreign.read_bytes() == untouched


def test_totals_come_in_a_stable_order(store: Store) -> None:
    """By service, then metric, then attributes; not by arrival."""
    reports = [
        Report(service, "a", 1, (), (point(Metric(name, Kind.COUNTER), 1, k=k),))
        for service in "ba"
        for name in "yx"
        for k in "21"
    ]
    store.fold(reports)

    services = store.totals()

    order = [(s.service, t.metric.name, t.attributes["k"]) for s in services for t in s.totals]
    assert order == sorted(order)
    assert len(order) == 8
    assert all(isinstance(total, Total) for service in services for total in service.totals)
