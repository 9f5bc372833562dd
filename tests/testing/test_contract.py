"""What holds of an emitter holds of one whose reports stay in memory: the same tests, over a socket and without one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from emitter import ConnectError, Delivery, Emitter
from emitter.encode import Encoder
from emitter.outcomes import Outcome, Verdict, Withheld
from emitter.testing import InMemoryEmitter
from tests.flushing import decoded, orders, totals
from tests.scripted_peer import PATIENCE, ScriptedPeer, wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scripted_peer import PeerConnection


class OverASocket:
    """A real emitter, and a peer that takes its reports."""

    def __init__(self) -> None:
        self._peer = ScriptedPeer()
        self._connection: PeerConnection | None = None
        self.port = self._peer.port

    def make(self, **options) -> Emitter:
        self.emitter = Emitter(self._peer.endpoint, timeout=PATIENCE, **options)
        return self.emitter

    def receive(self) -> bytes:
        """The next report, which is answered."""
        if self._connection is None:
            self._connection = self._peer.accept()
        body = self._connection.read_request().body
        self._connection.answer(200)
        return body

    def wait_for_answer(self) -> None:
        wait_readable(self.emitter._flusher._link.connection._socket)

    def answer_meanwhile(self) -> threading.Thread:
        """Answer the next report while somebody waits for that."""
        thread = threading.Thread(target=self.receive, daemon=True)
        thread.start()
        return thread

    def refuse(self) -> None:
        self._peer.close()

    def take_again(self) -> None:
        self._peer = ScriptedPeer(port=self.port)

    def close(self) -> None:
        self.emitter.close_sync(timeout=0.0)
        self._peer.close()


class InMemory:
    """The stand-in. Its receiver has answered before anybody asks."""

    def __init__(self) -> None:
        self._received = 0
        self.port = 80

    def make(self, **options) -> InMemoryEmitter:
        self.emitter = InMemoryEmitter(timeout=PATIENCE, **options)
        return self.emitter

    def receive(self) -> bytes:
        self._received += 1
        return self.emitter.recorded.reports[self._received - 1]

    def wait_for_answer(self) -> None:
        """It is there."""

    def answer_meanwhile(self) -> threading.Thread:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread

    def refuse(self) -> None:
        self.emitter.recorded.fail_with(ConnectError("127.0.0.1", self.port, "refused"))

    def take_again(self) -> None:
        self.emitter.recorded.fail_with(None)

    def close(self) -> None:
        self.emitter.close_sync(timeout=0.0)


@pytest.fixture(params=[OverASocket, InMemory])
def way(request: pytest.FixtureRequest) -> Iterator[OverASocket | InMemory]:
    """Where reports go."""
    way = request.param()
    yield way
    way.close()


def test_a_flush_carries_every_total(way):
    """One report, in the emitter's format, with what the emitter counts of itself."""
    metrics = way.make(service="checkout")
    metrics.counter("orders").add(2, channel="web")
    metrics.gauge("temperature").set(21.5)
    metrics.histogram("size", boundaries=[10]).record(11)
    flush = metrics.flush_sync()
    told = decoded(body := way.receive())

    assert (flush.delivery, flush.withheld, flush.error, flush.verdicts) == (Delivery.TRANSMITTED, None, None, ())
    assert flush.bytes > len(body)
    assert orders(body) == 2
    assert told["temperature"].gauge.data_points[0].as_double == 21.5
    assert list(told["size"].histogram.data_points[0].bucket_counts) == [0, 1]
    assert told["emitter.flushes"].sum.data_points[0].as_int == 1


def test_a_verdict_comes_with_the_next_flush(way):
    """Nobody waits for it."""
    metrics = way.make()
    counter = metrics.counter("orders")
    counter.add()
    metrics.flush_sync()
    way.receive()
    way.wait_for_answer()
    counter.add()
    flush = metrics.flush_sync()

    assert flush.verdicts == (Verdict(1, 200),)
    assert flush.verdicts[0].outcome is Outcome.ACCEPTED
    assert orders(way.receive()) == 2


def test_a_report_that_would_say_nothing_new_is_withheld(way):
    """Once the one before was accepted."""
    metrics = way.make()
    metrics.counter("orders").add()
    metrics.flush_sync()
    way.receive()
    way.wait_for_answer()
    flush = metrics.flush_sync()

    assert (flush.delivery, flush.withheld, flush.bytes) == (None, Withheld.UNCHANGED, 0)
    assert flush.verdicts == (Verdict(1, 200),)
    assert metrics.stats.withheld == {Withheld.UNCHANGED: 1}


@pytest.mark.parametrize("wanted", [Delivery.BUFFERED, Delivery.TRANSMITTED, Delivery.ACKNOWLEDGED])
def test_a_flush_gets_as_far_as_asked(way, wanted):
    """Less would be an error, more is not claimed."""
    metrics = way.make()
    metrics.counter("orders").add()
    flush = metrics.flush_sync(delivery=wanted)

    assert (flush.delivery, flush.error) == (wanted, None)


def test_a_flush_that_waits_for_its_answer_has_it(way):
    """The verdict is that of its own report."""
    metrics = way.make()
    metrics.counter("orders").add()
    answering = way.answer_meanwhile()
    flush = metrics.flush_sync(delivery=Delivery.ANSWERED)
    answering.join(PATIENCE)

    assert (flush.delivery, flush.verdicts) == (Delivery.ANSWERED, (Verdict(1, 200),))


def test_a_failure_is_told_and_counted_and_costs_no_total(way):
    """What failed is in the next report that gets through, which the last one always tries to."""
    metrics = way.make()
    counter = metrics.counter("orders")
    counter.add(3)
    way.refuse()
    flush = metrics.flush_sync()
    failed = dict(metrics.stats.failed)
    way.take_again()
    counter.add(1)
    metrics.close_sync(timeout=PATIENCE if isinstance(way, InMemory) else 1.0)
    told = totals(way.receive())

    assert (flush.delivery, flush.withheld, flush.bytes) == (None, None, 0)
    assert isinstance(flush.error, ConnectError)
    assert flush.error.port == way.port
    assert failed == {"connect": 1}
    assert (told["orders"], told["emitter.flushes"], told["emitter.failures"]) == (4, 2, 1)


def test_a_strict_emitter_raises_what_failed(way):
    """As it is for tests."""
    metrics = way.make(strict=True)
    metrics.counter("orders").add()
    way.refuse()

    with pytest.raises(ConnectError):
        metrics.flush_sync()


def test_a_connection_ahead_of_time_tells_whether_it_is_there(way):
    """And raises nothing."""
    metrics = way.make()
    opened = metrics.connect_sync()
    metrics.counter("orders").add()
    flush = metrics.flush_sync()

    assert opened
    assert flush.error is None


def test_a_connection_ahead_of_time_that_is_refused(way):
    """The error is to be found in the counts."""
    metrics = way.make()
    way.refuse()

    assert not metrics.connect_sync()
    assert dict(metrics.stats.failed) == {"connect": 1}
    assert isinstance(metrics.stats.last_error, ConnectError)


async def test_a_flush_can_be_awaited_and_not_be_waited_for_in_a_loop(way):
    """The one says of the other what to do."""
    metrics = way.make()
    metrics.counter("orders").add()
    with pytest.raises(RuntimeError, match=r"await flush\(\)"):
        metrics.flush_sync()
    flush = await metrics.flush()

    assert flush.delivery is Delivery.TRANSMITTED
    assert orders(way.receive()) == 1
    await metrics.close(timeout=0.0)


async def test_flushes_at_the_same_time_share_reports(way):
    """Each of them is told of a report that has what was recorded before it."""
    metrics = way.make()
    metrics.counter("orders").add()
    flushes = await asyncio.gather(*[metrics.flush() for _ in range(5)])

    assert {flush.error for flush in flushes} == {None}
    assert 1 <= metrics.stats.flushes <= 2
    await metrics.close(timeout=0.0)


def test_a_handler_is_counted_and_flushed(way):
    """The sandbox's first invocation is a cold start, and only that."""
    metrics = way.make()

    @metrics.lambda_handler
    def handler(event, context):
        return event

    @metrics.lambda_handler
    async def other(event, context):
        raise ValueError(event)

    answer = handler(1, None)
    with pytest.raises(ValueError, match="2"):
        other(2, None)
    first, second = way.receive(), way.receive()

    assert answer == 1
    assert totals(first) == totals(first) | {"faas.invocations": 1, "faas.errors": 0, "faas.coldstarts": 1}
    assert totals(second) == totals(second) | {"faas.invocations": 1, "faas.errors": 1, "faas.coldstarts": 1}


def test_a_handler_that_flushes_at_intervals_withholds_in_between(way):
    """The totals wait for the next one."""
    metrics = way.make()

    @metrics.lambda_handler(every=3_600)
    def handler(event, context):
        return event

    handler(1, None)
    handler(2, None)

    assert totals(way.receive())["faas.invocations"] == 1
    assert metrics.stats.withheld == {Withheld.INTERVAL: 1}


def test_counts_tell_what_became_of_flushes(way):
    """Attempts, reports, answers, bytes."""
    metrics = way.make()
    counter = metrics.counter("orders")
    flushed = 0
    for _ in range(3):
        counter.add()
        flushed += metrics.flush_sync().bytes
        way.receive()
        way.wait_for_answer()
    stats = metrics.stats

    assert (stats.flushes, stats.transmitted, stats.bytes) == (3, 3, flushed)
    assert dict(stats.verdicts) == {200: 2}
    assert (dict(stats.failed), stats.last_error) == ({}, None)


def test_an_encoder_that_raises_is_no_fault_of_the_network(way):
    """The mistake comes out, and is counted."""

    class Broken(Encoder):
        content_type = "text/plain"
        broken = True

        def encode(self, snapshot):
            if self.broken:
                raise ZeroDivisionError
            return b"report"

    metrics = way.make(encoder=Broken())
    metrics.counter("orders").add()
    with pytest.raises(ZeroDivisionError):
        metrics.flush_sync()
    Broken.broken = False
    flush = metrics.flush_sync()

    assert flush.error is None
    assert dict(metrics.stats.failed) == {"defect": 1}
    assert way.receive() == b"report"


def test_a_divided_report_is_whole(way):
    """Each part is a request; all of them together carry every series."""
    metrics = way.make(report_limit_bytes=1024, compress=False)
    counter = metrics.counter("orders")
    for i in range(40):
        counter.add(1, number=i)
    flush = metrics.flush_sync()
    seen: set[int] = set()
    parts = 0
    while len(seen) < 40 and parts < 40:
        told = decoded(way.receive())
        parts += 1
        points = told["orders"].sum.data_points if "orders" in told else ()
        seen |= {attribute.value.int_value for point in points for attribute in point.attributes}

    assert flush.error is None
    assert parts > 1
    assert seen == set(range(40))


def test_deltas_tell_what_was_added_since_the_report_before(way):
    """Once it was written."""
    metrics = way.make(temporality="delta")
    counter = metrics.counter("orders")
    told = []
    for amount in (3, 4):
        counter.add(amount)
        metrics.flush_sync()
        told.append(orders(way.receive()))
        way.wait_for_answer()

    assert told == [3, 4]


def test_what_was_closed_can_be_used_again(way):
    """The totals go on."""
    metrics = way.make()
    metrics.counter("orders").add()
    closing = threading.Thread(target=metrics.close_sync, kwargs={"timeout": PATIENCE})
    closing.start()
    first = way.receive()
    closing.join(PATIENCE)
    metrics.counter("orders").add()
    if isinstance(way, OverASocket):
        way._connection = None
    flush = metrics.flush_sync()

    assert not closing.is_alive()
    assert (orders(first), orders(way.receive())) == (1, 2)
    assert flush.delivery is Delivery.TRANSMITTED
