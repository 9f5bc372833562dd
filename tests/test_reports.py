from __future__ import annotations

import gzip
from collections import deque

import pytest

from emitter.encode import Encoder, as_encoder
from emitter.outcomes import Outcome, Verdict
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint
from emitter.settings import Settings
from tests.flushing import reports_of

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

        encoder.zeros = True
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
        self.reports = reports_of(self.registry, resolved)

    def make(self, number: int, *, written: bool = True) -> list[bytes]:
        """A report a second later."""
        self.now += SECOND
        self.snapshots.clear()
        requests = self.reports.make(number)
        for _ in requests if written else ():
            self.reports.note_written()
        return requests

    @property
    def zeros(self) -> list[tuple[str, int]]:
        """The series for which the last report tells a zero, by channel, and when that was, in seconds."""
        told = []
        for snapshot in self.snapshots:
            series = [attributes for metric in snapshot.metrics for attributes in metric.series]
            told += [
                (dict(series[each]).get("channel", ""), snapshot.zero_time_unix_nano // SECOND)
                for each in snapshot.fresh
            ]
        return told

    def answer(self, number: int, status: int = 204) -> Outcome | None:
        return self.reports.note_answer(Verdict(number, status))


START = 1_000
"""When each press begins, in seconds; the first report comes a second later."""


@pytest.fixture
def press() -> Press:
    return Press()


def test_a_series_is_introduced_by_the_report_that_was_written(press: Press) -> None:
    """Not again by the next one, though nobody has answered yet."""
    requests = press.make(1)
    first = press.zeros
    press.make(2)

    assert (len(requests), first, press.zeros) == (1, [("", START)], [])


def test_a_report_of_which_nothing_was_written_introduces_nothing(press: Press) -> None:
    """Nobody can have heard of it."""
    press.make(1, written=False)
    requests = press.make(2)

    assert (len(requests), press.zeros) == (1, [("", START)])


@pytest.mark.parametrize("status", [400, 401, 413, 429, 500, 503])
def test_a_refused_report_has_introduced_nothing(press: Press, status: int) -> None:
    """The next one does, with the zero where it stood, in a request of its own that comes first."""
    press.make(1)
    outcome = press.answer(1, status)
    zero, report = press.make(2)

    assert outcome is Verdict(1, status).outcome
    assert press.zeros == [("", START)]
    assert zero.count(b"POST") == report.count(b"POST") == 1
    assert [snapshot.fresh for snapshot in press.snapshots] == [(), (0,)]  # that of the zeros was made last


def test_the_end_of_a_connection_leaves_it_open_whether_a_report_was_received(press: Press) -> None:
    """So it is introduced again; what was accepted before is not."""
    press.make(1)
    accepted = press.answer(1)
    press.orders.add(1, channel="web")
    press.make(2)
    second = press.zeros
    press.reports.note_lost()
    press.make(3)

    assert accepted is Outcome.ACCEPTED
    assert second == press.zeros == [("web", START + 1)]


def test_a_zero_is_five_minutes_old_at_most(press: Press) -> None:
    """A sandbox may wait for its first invocation for hours, and Prometheus refuses what is an hour old."""
    press.now += 7_200 * SECOND
    press.make(1)
    first = press.zeros
    press.answer(1)
    press.orders.add(1, channel="web")
    press.now += 7_200 * SECOND
    press.make(2)

    assert first == [("", START + 7_201 - 300)]
    assert press.zeros == [("web", START + 14_402 - 300)]


def test_a_zero_that_is_told_again_stands_where_it_stood(press: Press) -> None:
    """However late: the receiver may have the value that followed it, and a later zero would be a restart to it."""
    press.make(1)
    for number in range(2, 5):
        press.reports.note_lost()
        press.now += 3_000 * SECOND
        press.make(number)

        assert press.zeros == [("", START)]


def test_zeros_are_told_again_a_few_times(press: Press) -> None:
    """Whoever is frozen between rare events never sees an answer; then they are taken for received."""
    told = []
    for number in range(1, 10):
        press.make(number)
        told.append(len(press.zeros))
        press.reports.note_lost()
    press.orders.add(1, channel="web")
    press.make(10)

    assert told == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert press.zeros == [("web", START + 9)]


@pytest.mark.parametrize("status", [400, 409, 204])
def test_a_receiver_that_knows_the_zeros_already_has_nothing_against_the_report(press: Press, status: int) -> None:
    """Prometheus refuses a sample before the last one with 400, Thanos with 409; the values come in another request."""
    press.make(1)
    press.reports.note_lost()
    press.make(2)
    of_the_zeros = press.answer(2, status)
    of_the_report = press.answer(2)
    press.make(3)

    assert (of_the_zeros, of_the_report) == (None, Outcome.ACCEPTED)
    assert press.zeros == []


def test_zeros_that_are_refused_for_another_reason_are_told_again(press: Press) -> None:
    """Nobody has heard of the series then, though the values that come with them may be taken."""
    press.make(1)
    press.reports.note_lost()
    press.make(2)
    of_the_zeros = press.answer(2, 503)
    of_the_report = press.answer(2)
    press.make(3)

    assert (of_the_zeros, of_the_report) == (Outcome.DEFERRED, None)
    assert press.zeros == [("", START)]


def test_only_what_grows_is_introduced_again() -> None:
    """A gauge and an up-down counter never were zero; what was has its value behind it."""
    press = Press()
    press.registry.gauge("level").set(5)
    press.registry.up_down_counter("open").add(3)
    press.registry.histogram("sizes", boundaries=[1, 2]).record(1)
    press.make(1)
    press.reports.note_lost()
    press.make(2)
    report, zeros = press.snapshots

    assert [metric.name for metric in report.metrics] == ["orders", "level", "open", "sizes"]
    assert [metric.name for metric in zeros.metrics] == ["orders", "sizes"]
    assert zeros.points == (0, HistogramPoint(1, 1.0, (1, 0, 0)))
    assert (report.fresh, zeros.fresh) == ((), (0, 1))
    assert zeros.time_unix_nano == report.time_unix_nano


def test_an_encoder_with_start_times_hears_of_nothing_fresh() -> None:
    """Nor is there ever a request for zeros."""
    press = Press()
    press.reports._with_zeros = False
    for number in range(1, 4):
        requests = press.make(number)
        press.reports.note_lost()

        assert (len(requests), press.zeros) == (1, [])


def test_a_report_that_goes_out_on_a_second_connection_is_not_lost_with_the_first(press: Press) -> None:
    """Nothing of it was written there: what is lost is what was."""
    press.make(1)
    press.make(2, written=False)
    press.reports.note_lost()
    press.reports.note_written()

    assert press.answer(1) is None
    assert press.answer(2) is Outcome.ACCEPTED


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
    assert verdicts == [None, Outcome.ACCEPTED]
    assert spoiled == [Outcome.DEFERRED, None]


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
    (request,) = reports_of(Registry(), settings).make(1)

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
    press.registry.restart()
    press.reports.restart()
    requests = press.make(1)

    assert len(requests) == 1
    assert press.zeros == [("", START + 2)]
    assert press.answer(1) is Outcome.ACCEPTED


def test_the_deltas_of_a_child_are_its_own() -> None:
    """Nothing of the parent's is taken off."""
    press = Press(temporality="delta")
    press.orders.add(9)
    press.make(1)
    press.registry.restart()
    press.reports.restart()
    press.orders.add(2)
    press.make(1)
    child = press.snapshots[-1]

    assert child.points == (2,)
    assert child.delta_since_unix_nano == child.start_time_unix_nano
    assert child.fresh == ()


def test_reports_in_a_pipeline_are_accepted_one_by_one(press: Press) -> None:
    """The answer to the first takes nothing back of what the second has introduced."""
    press.make(1)
    press.orders.add(1, channel="web")
    press.make(2)
    first = press.answer(1)
    press.make(3)

    assert first is Outcome.ACCEPTED
    assert press.zeros == []
    assert [press.answer(2), press.answer(3)] == [Outcome.ACCEPTED] * 2


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
    first = press.zeros
    press.orders.add(1, channel="web")
    press.make(2)
    second = press.zeros
    press.reports.note_lost()
    press.make(3)

    assert (first, second) == ([("", START)], [("web", START + 1)])
    assert press.zeros == [("", START), ("web", START)]


def test_what_was_built_upon_a_refused_report_introduces_nothing(press: Press) -> None:
    """The second took the series for known; its acceptance says nothing of the zero that the first has carried."""
    press.make(1)
    press.make(2)
    press.answer(1, 503)
    accepted = press.answer(2, 204)
    press.make(3)

    assert accepted is Outcome.ACCEPTED
    assert press.zeros == [("", START)]


def test_what_was_made_before_a_loss_and_written_after_it_introduces_nothing(press: Press) -> None:
    """It goes out on a fresh connection as it was made, without the zero."""
    press.make(1)
    press.make(2, written=False)
    made = press.zeros
    press.reports.note_lost()
    press.reports.note_written()
    press.answer(2)
    press.make(3)

    assert (made, press.zeros) == ([], [("", START)])


def test_a_divided_report_has_introduced_its_series_with_its_last_part() -> None:
    """One that ended between two parts has not; what it did write may have been received."""
    press = Press(lines=True, report_limit_bytes=1024)
    for number in range(1_000):
        press.orders.add(1, number=str(number))
    press.make(1, written=False)
    press.reports.note_written()
    requests = press.make(2)

    assert len(requests) == 4  # two of zeros
    assert len([zero for zero in press.zeros if zero == ("", START)]) >= 1_001


def test_zeros_of_an_encoder_that_uses_its_buffer_again_are_those_of_each_part() -> None:
    """A body is good until the next one is encoded, by a copy too."""

    class Frugal(Encoder):
        content_type = "text/plain"
        zeros = True

        def __init__(self) -> None:
            self.buffer = bytearray()

        def encode(self, snapshot):
            series = [attributes for metric in snapshot.metrics for attributes in metric.series]
            self.buffer[:] = ";".join(dict(each).get("number", "") for each in series).encode()
            return self.buffer

    settings = Settings.resolve(
        {},
        endpoint="http://x/r",
        service="s",
        headers=None,
        delivery=None,
        timeout=None,
        encoder=Frugal(),
        report_limit_bytes=1024,
    )
    registry = Registry(settings.resource)
    reports = reports_of(registry, settings)
    for number in range(1_000):
        registry.counter("orders").add(1, number=str(number))
    for _ in reports.make(1):
        reports.note_written()
    reports.note_lost()
    bodies = [request.rpartition(b"\r\n\r\n")[2] for request in reports.make(2)]
    zeros, report = bodies[: len(bodies) // 2], bodies[len(bodies) // 2 :]

    assert len(report) > 2
    assert zeros == report
    assert b";".join(zeros).split(b";") == [b"", *(b"%d" % number for number in range(1_000))]
