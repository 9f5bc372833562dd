"""A recording that is interrupted at any of its lines: by another one, by a snapshot, by a fork."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emitter.record
from emitter.record import series
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint
from tests.record.reading import series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from emitter.record.snapshot import Point, Snapshot

    Recording = Callable[[], None]

ROOM = str(Path(emitter.record.__file__).parent)
WEB = (("channel", "web"),)
NOTHING = {"counter": 0, "up_down_counter": 0, "gauge": None, "histogram": HistogramPoint(0, 0.0, (0, 0))}
ONCE = {"counter": 2, "up_down_counter": -2, "gauge": 2, "histogram": HistogramPoint(1, 2.0, (0, 1))}
TWICE = {"counter": 4, "up_down_counter": -4, "gauge": 2, "histogram": HistogramPoint(2, 4.0, (0, 2))}


class Unusual:
    """A number that is added under the lock: no `int`, and an index."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


@pytest.fixture(params=["short way", "long way"])
def number(request: pytest.FixtureRequest) -> Callable[[int], object]:
    """What makes a number that is recorded by a statement alone, or under the lock."""
    return int if request.param == "short way" else Unusual


@pytest.fixture(params=["first", "later"])
def later(request: pytest.FixtureRequest) -> bool:
    """Whether something was recorded under these attributes before, as nothing."""
    return request.param == "later"


@pytest.fixture(params=NOTHING)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of instrument."""
    return request.param


def begin(registry: Registry, kind: str, number: Callable[[int], object], later: bool) -> Recording:
    """What records 2 (or -2, where that may be) for the channel `web`."""
    if kind == "histogram":
        sizes = registry.histogram("it", boundaries=[1])
        if later:
            sizes.bind(channel="web")
        return lambda: sizes.record(number(2), channel="web")
    instrument = getattr(registry, kind)("it")
    if kind == "gauge":
        if later:
            instrument.set(1, channel="web")
        return lambda: instrument.set(number(2), channel="web")
    if later:
        instrument.bind(channel="web")
    return lambda: instrument.add(number(ONCE[kind]), channel="web")


def interrupted(
    prepare: Callable[[Registry], Recording], interrupt: Callable[[Registry, Recording], None]
) -> Iterator[Registry]:
    """Registries in which a recording was interrupted: at its first line, at its second, and so on to the last."""
    at = 0
    while is_interrupted(record := prepare(registry := Registry()), at, lambda: interrupt(registry, record)):
        yield registry
        at += 1

    assert at > 5  # it does have lines


def is_interrupted(record: Recording, at: int, interrupt: Callable[[], None]) -> bool:
    """Whether a recording has so many lines; it is interrupted at this one."""
    line, reached = -1, False

    def at_each_line(frame: FrameType, event: str, _: object) -> object:
        nonlocal line, reached
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        line += event == "line"
        if line == at and not reached:
            reached = True
            interrupt()
        return at_each_line

    before = sys.gettrace()  # of a coverage measurement, say
    sys.settrace(at_each_line)
    try:
        record()
    finally:
        sys.settrace(before)
    return reached


def value_of(registry: Registry) -> Point | None:
    """What the next report says of the channel `web`."""
    return dict(series_of(registry, "it")).get(WEB)


def test_another_recording_at_any_line_is_not_lost_and_loses_nothing(
    kind: str, number: Callable[[int], object], later: bool
) -> None:
    """A signal handler, a finaliser or another thread records the same."""
    for registry in interrupted(lambda registry: begin(registry, kind, number, later), lambda _, record: record()):
        assert value_of(registry) == TWICE[kind]


def test_a_snapshot_at_any_line_sees_all_or_nothing_and_what_it_misses_is_in_the_next(
    kind: str, number: Callable[[int], object], later: bool
) -> None:
    """What it does not see counts as changed, or there might be no next one."""
    seen: list[Snapshot] = []
    for registry in interrupted(
        lambda registry: begin(registry, kind, number, later), lambda registry, _: seen.append(registry.snapshot())
    ):
        shown = [point for metric in seen[-1].metrics for point in seen[-1].points if WEB in metric.series][-1:]
        changed = registry.changed

        assert changed or shown == [ONCE[kind]]
        assert shown[0] in {1, NOTHING[kind], ONCE[kind]} if shown else True
        assert value_of(registry) == ONCE[kind]


def test_a_fork_at_any_line_leaves_all_or_nothing(kind: str, number: Callable[[int], object], later: bool) -> None:
    """A signal handler forks, and the child reports before it returns to what was interrupted, and goes on."""

    def fork(registry: Registry, _: Recording) -> None:
        registry.restart()
        registry.snapshot()

    for registry in interrupted(lambda registry: begin(registry, kind, number, later), fork):
        (kept,) = (each.point for each in registry._instruments["it"]._series.values() if each.attributes == WEB)

        assert kept in (NOTHING[kind], ONCE[kind])
        assert value_of(registry) == kept


@pytest.mark.parametrize("undivided", [True, False])
def test_where_statements_can_be_divided_nothing_takes_the_short_way(
    monkeypatch: pytest.MonkeyPatch, undivided: bool
) -> None:
    """The lock is taken for each change then, and for none of the usual ones otherwise."""
    taken = 0

    class Lock:
        def __enter__(self) -> None:
            nonlocal taken
            taken += 1

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(series, "UNDIVIDED", undivided)
    registry = Registry()
    orders, heat = registry.counter("orders").bind(), registry.gauge("heat").bind()
    stock, sizes = registry.up_down_counter("stock").bind(), registry.histogram("sizes").bind()
    heat.set(1)
    registry._common.lock = Lock()
    for change in (orders.add, lambda: stock.add(-1.5), lambda: heat.set(2), lambda: sizes.record(0.25)):
        change()

    assert taken == (0 if undivided else 4)
