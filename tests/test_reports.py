from __future__ import annotations

import gzip
from collections import deque

import pytest

from emitter.encode import as_encoder
from emitter.outcomes import Verdict
from emitter.record.registry import Registry
from emitter.reports import Reports
from emitter.settings import Settings

SECOND = 10**9


class Press:
    """Reports of a registry, and the snapshots that went into them."""

    def __init__(self, *, lines: bool = False, **settings) -> None:
        self.snapshots = deque()
        self.now = 1_000 * SECOND

        @as_encoder("text/plain")
        def encoder(snapshot):
            self.snapshots.append(snapshot)
            return "\n".join(f"{point}" for point in snapshot.points).encode() if lines else b"report"

        resolved = Settings.resolve(
            {},
            endpoint="http://x/r",
            service="s",
            headers=None,
            delivery=None,
            timeout=None,
            encoder=encoder,
            **settings,
        )
        self.registry = Registry(resolved.resource, clock_ns=lambda: self.now)
        self.orders = self.registry.counter("orders")
        self.reports = Reports(self.registry, resolved)

    def make(self, number: int, *, written: bool = True) -> list[bytes]:
        """A report a second later."""
        self.now += SECOND
        self.snapshots.clear()
        requests = self.reports.make(number, b"")
        for _ in requests if written else ():
            self.reports.note_written()
        return requests

    @property
    def fresh(self) -> tuple[int, ...]:
        return self.snapshots[-1].fresh

    def answer(self, number: int, status: int = 204) -> bool:
        return self.reports.note_answer(Verdict(number, status))


@pytest.fixture
def press() -> Press:
    return Press()


def test_a_series_is_introduced_by_the_report_that_was_written(press: Press) -> None:
    """Not again by the next one, though nobody has answered yet: twice would spoil the whole report."""
    press.make(1)
    first = press.fresh
    press.make(2)

    assert (first, press.fresh) == ((0,), ())


def test_a_report_of_which_nothing_was_written_introduces_nothing(press: Press) -> None:
    """Nobody can have heard of it."""
    press.make(1, written=False)
    press.make(2)

    assert press.fresh == (0,)


@pytest.mark.parametrize("status", [401, 413, 429, 500, 503])
def test_a_refused_report_has_introduced_nothing(press: Press, status: int) -> None:
    """The next one does, with the zero at the same time before it."""
    press.make(1)
    press.answer(1, status)
    press.make(2)

    assert press.fresh == (0,)
    assert press.snapshots[-1].zero_time_unix_nano == press.snapshots[-1].start_time_unix_nano


def test_the_end_of_a_connection_leaves_it_open_whether_a_report_was_received(press: Press) -> None:
    """So it is introduced again; what was accepted before is not."""
    press.make(1)
    accepted = press.answer(1)
    press.orders.add(1, channel="web")
    press.make(2)
    second = press.snapshots[-1]
    press.reports.note_lost()
    press.make(3)
    third = press.snapshots[-1]

    assert accepted
    assert second.fresh == third.fresh == (1,)
    assert second.zero_time_unix_nano == third.zero_time_unix_nano == 1_001 * SECOND


def test_a_zero_is_five_minutes_old_at_most(press: Press) -> None:
    """A sandbox may wait for its first invocation for hours, and Prometheus refuses what is an hour old."""
    press.now += 7_200 * SECOND
    press.make(1)
    first = press.snapshots[-1]
    press.answer(1)
    press.orders.add(1, channel="web")
    press.now += 7_200 * SECOND
    press.make(2)
    second = press.snapshots[-1]

    for snapshot in (first, second):
        assert snapshot.time_unix_nano - snapshot.zero_time_unix_nano == 300 * SECOND


def test_a_zero_that_is_told_again_stands_where_it_stood(press: Press) -> None:
    """However late: the receiver may have the value that followed it, and a later zero would be a restart to it."""
    press.make(1)
    first = press.snapshots[-1]
    for number in range(2, 5):
        press.reports.note_lost()
        press.now += 3_000 * SECOND
        press.make(number)

        assert press.fresh == (0,)
        assert press.snapshots[-1].zero_time_unix_nano == first.zero_time_unix_nano


@pytest.mark.parametrize("status", [400, 409])
def test_a_receiver_that_has_heard_of_it_after_all_says_so_once(press: Press, status: int) -> None:
    """Prometheus refuses a sample before the last one with 400, Thanos with 409: then the zero is not repeated."""
    press.make(1)
    press.reports.note_lost()
    press.make(2)
    repeated = press.fresh
    accepted = press.answer(2, status)
    press.make(3)

    assert not accepted
    assert (repeated, press.fresh) == ((0,), ())


def test_a_part_refused_for_another_reason_leaves_it_open_what_the_receiver_has_heard_of() -> None:
    """Of two parts one was known already, and the other was never taken."""
    press = Press(lines=True, report_limit_bytes=1024)
    for number in range(1_000):
        press.orders.add(1, number=str(number))
    press.make(1)
    press.reports.note_lost()
    press.make(2)
    press.answer(2, 400)
    press.answer(2, 503)
    press.make(3)

    assert sum(len(part.fresh) for part in press.snapshots) == 1_001


def test_a_first_introduction_refused_with_400_is_made_again(press: Press) -> None:
    """It cannot have been refused for being a repetition."""
    press.make(1)
    press.answer(1, 400)
    press.make(2)

    assert press.fresh == (0,)


def test_a_report_that_goes_out_on_a_second_connection_is_not_lost_with_the_first(press: Press) -> None:
    """Nothing of it was written there: what is lost is what was."""
    press.make(1)
    press.make(2, written=False)
    press.reports.note_lost()
    press.reports.note_written()

    assert not press.answer(1)
    assert press.answer(2)


def test_a_divided_report_is_accepted_with_its_last_part() -> None:
    """And not at all if any part of it is refused."""
    press = Press(lines=True, report_limit_bytes=1024)
    for number in range(1_000):
        press.orders.add(1, number=str(number))
    parts = len(press.make(1))
    verdicts = [press.answer(1) for _ in range(parts)]
    again = press.make(2)
    spoiled = [press.answer(2, 503 if part == 0 else 204) for part in range(len(again))]

    assert parts == 2
    assert verdicts == [False, True]
    assert spoiled == [False, False]


def test_each_part_of_a_divided_report_introduces_its_own_series() -> None:
    """And is a whole request."""
    press = Press(lines=True, report_limit_bytes=1024)
    for number in range(1_000):
        press.orders.add(1, number=str(number))
    requests = press.make(1)
    parts = list(press.snapshots)[1:]

    assert sum(len(part.fresh) for part in parts) == 1_001
    assert all(request.startswith(b"POST /r HTTP/1.1\r\n") for request in requests)
    assert all(len(part.fresh) == len(part.points) for part in parts)


def test_a_large_body_is_compressed_and_says_so() -> None:
    """Unless that is switched off."""
    packed, plain = Press(lines=True), Press(lines=True, compress=False)
    for press in (packed, plain):
        for number in range(1_500):
            press.orders.add(10**9, number=str(number))
    (small,) = packed.make(1)
    (large,) = plain.make(1)
    head, _, body = small.partition(b"\r\n\r\n")

    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert b"Content-Encoding" not in large
    assert gzip.decompress(body) == large.partition(b"\r\n\r\n")[2]


def test_what_an_encoder_has_packed_itself_is_not_packed_again() -> None:
    """A body has one coding."""

    @as_encoder("text/plain", headers={"Content-Encoding": "br"})
    def brotli(snapshot):
        return bytes(100_000)

    settings = Settings.resolve(
        {}, endpoint="http://x/", service="s", headers=None, delivery=None, timeout=None, encoder=brotli
    )
    (request,) = Reports(Registry(), settings).make(1, b"")

    assert request.count(b"Content-Encoding") == 1
    assert request.endswith(bytes(100_000))


def test_deltas_that_were_written_never_go_out_again() -> None:
    """Whatever became of the report; those that were not written do."""
    press = Press(lines=True, temporality="delta")
    said = []
    for number, written in enumerate([False, True, True, False, True], start=1):
        press.orders.add(10**number)
        (request,) = press.make(number, written=written)
        said.append(int(request.rpartition(b"\n")[2]))
        press.answer(number, 503)
        press.reports.note_lost()

    assert said == [10, 110, 1_000, 10_000, 110_000]


@pytest.mark.parametrize("answered", [True, False])
def test_a_child_begins_anew(press: Press, *, answered: bool) -> None:
    """As a sandbox that nobody has heard of, whatever the parent's last report has come to."""
    press.make(1)
    if answered:
        press.answer(1)
    press.now += SECOND
    press.registry.after_fork()
    press.reports.restart()
    press.make(1)
    child = press.snapshots[-1]

    assert press.fresh == (0,)
    assert child.zero_time_unix_nano == child.start_time_unix_nano
    assert press.answer(1)


def test_the_deltas_of_a_child_are_its_own() -> None:
    """Nothing of the parent's is taken off."""
    press = Press(temporality="delta")
    press.orders.add(9)
    press.make(1)
    press.registry.after_fork()
    press.reports.restart()
    press.orders.add(2)
    press.make(1)
    child = press.snapshots[-1]

    assert child.points == (2,)
    assert child.delta_since_unix_nano == child.start_time_unix_nano


def test_reports_in_a_pipeline_are_accepted_one_by_one(press: Press) -> None:
    """The answer to the first takes nothing back of what the second has introduced."""
    press.make(1)
    press.orders.add(1, channel="web")
    press.make(2)
    first = press.answer(1)
    press.make(3)
    third = press.fresh

    assert first
    assert third == ()
    assert press.answer(2)
    assert press.answer(3)


def test_nothing_is_remembered_of_reports_that_nobody_will_answer(press: Press) -> None:
    """Of those that were never written, and of a divided one that was cancelled in between."""
    for number in range(1, 100):
        press.make(number, written=False)
    unwritten = len(press.reports._pending)
    for number in range(100, 110):
        press.make(number)
    press.answer(109)

    assert unwritten == 1
    assert press.reports._pending == {}


def test_a_later_series_does_not_move_the_zero_of_an_earlier_one(press: Press) -> None:
    """Neither is confirmed; the value of the one may already stand where the zero of the other does."""
    press.make(1)
    first = press.snapshots[-1]
    press.orders.add(1, channel="web")
    press.make(2)
    second = press.snapshots[-1]
    press.reports.note_lost()
    press.make(3)
    third = press.snapshots[-1]

    assert (first.fresh, second.fresh, third.fresh) == ((0,), (1,), (0, 1))
    assert second.zero_time_unix_nano == first.time_unix_nano
    assert third.zero_time_unix_nano == first.zero_time_unix_nano


def test_what_was_built_upon_a_refused_report_introduces_nothing(press: Press) -> None:
    """The second took the series for known; its acceptance says nothing of the zero that the first has carried."""
    press.make(1)
    press.make(2)
    press.answer(1, 503)
    accepted = press.answer(2, 204)
    press.make(3)

    assert accepted
    assert press.fresh == (0,)


def test_what_was_made_before_a_loss_and_written_after_it_introduces_nothing(press: Press) -> None:
    """It goes out on a fresh connection as it was made, without the zero."""
    press.make(1)
    press.make(2, written=False)
    made = press.fresh
    press.reports.note_lost()
    press.reports.note_written()
    press.answer(2)
    press.make(3)

    assert (made, press.fresh) == ((), (0,))


def test_a_divided_report_has_introduced_its_series_with_its_last_part() -> None:
    """One that ended between two parts has not; what it did write may have been received."""
    press = Press(lines=True, report_limit_bytes=1024)
    for number in range(1_000):
        press.orders.add(1, number=str(number))
    press.make(1, written=False)
    first = press.snapshots[-1]
    press.reports.note_written()
    press.make(2)
    parts = list(press.snapshots)

    assert sum(len(part.fresh) for part in parts) == 1_001
    assert {part.zero_time_unix_nano for part in parts} == {first.zero_time_unix_nano}
