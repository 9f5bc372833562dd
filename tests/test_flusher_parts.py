"""Reports that take several requests, through a flusher on a scripted peer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from emitter import Delivery
from emitter import loop as loops
from emitter.errors import ConnectionLostError
from emitter.outcomes import Withheld
from emitter.transmit.connection import Connection
from tests.flushing import Bench, totals
from tests.scripted_peer import PATIENCE, PeerConnection

SERIES = 300


@pytest.fixture
def bench(peer, clock):
    """A flusher whose reports take three requests or so."""
    bench = Bench(peer, clock, report_limit_bytes=6_000)
    for number in range(SERIES):
        bench.orders.add(1, number=str(number))
    yield bench
    loops.run(bench.flusher.close(0.0))


def read_parts(other_end: PeerConnection, count: int) -> list[dict[str, int]]:
    """What so many requests say."""
    return [totals(other_end.read_request().body) for _ in range(count)]


def parts_of(bench: Bench) -> int:
    """How many requests a report takes."""
    return len(bench.flusher._reports._parts._parts)


def test_a_large_report_takes_several_requests_on_one_connection(peer, bench):
    """Together they carry every total once, and it is one flush."""
    flush = bench.flush()
    other_end = peer.accept()
    parts = read_parts(other_end, parts_of(bench))

    assert parts_of(bench) > 2
    assert sum(part.get("orders", 0) for part in parts) == SERIES
    assert [part["emitter.flushes"] for part in parts if "emitter.flushes" in part] == [1]
    assert (flush.delivery, flush.error) == (Delivery.TRANSMITTED, None)
    assert flush.bytes > 10_000
    assert (bench.stats.flushes, bench.stats.transmitted, bench.stats.connections_opened) == (1, 1, 1)
    assert bench.stats.bytes == flush.bytes


def answers(*statuses: int) -> bytes:
    """In one piece, so that whoever sees the first of them sees all."""
    return b"".join(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status for status in statuses)


def test_it_is_accepted_once_every_part_is(peer, bench):
    """Until then an unchanged report goes out again."""
    bench.flush()
    other_end = peer.accept()
    parts = parts_of(bench)
    read_parts(other_end, parts)
    other_end.write(answers(*[200] * (parts - 1)))
    bench.wait_for_input()
    second = bench.flush()
    read_parts(other_end, parts)
    other_end.write(answers(*[200] * (parts + 1)))
    bench.wait_for_input()
    third = bench.flush()

    assert second.withheld is None
    assert {verdict.report for verdict in second.verdicts} == {1}
    assert third.withheld is Withheld.UNCHANGED
    assert [verdict.report for verdict in third.verdicts] == [1, *[2] * parts]


def test_a_part_that_is_refused_spoils_the_report(peer, bench, caplog):
    """The whole of it goes out again, once the receiver has been left alone for a while."""
    bench.flush()
    other_end = peer.accept()
    parts = parts_of(bench)
    read_parts(other_end, parts)
    other_end.write(answers(200, 503, *[200] * (parts - 2)))
    bench.wait_for_input()
    withheld = bench.flush()
    bench.clock.now += 40  # longer than it is left alone, and shorter than a connection may be idle
    again = bench.flush()

    assert sum(part.get("orders", 0) for part in read_parts(other_end, parts)) == SERIES
    assert again.withheld is None
    assert withheld.withheld is Withheld.BACKING_OFF
    assert bench.stats.verdicts == {503: 1, 200: parts - 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_waiting_for_the_answer_waits_for_the_last_one(peer, bench):
    """Answers come in order, so then all are there."""
    with ThreadPoolExecutor(1) as threads:
        flushing = threads.submit(bench.flush, Delivery.ANSWERED)
        other_end = peer.accept()
        read_parts(other_end, 1)
        while parts_of(bench) < 2:  # made before the first of them was written
            pass
        parts = parts_of(bench)
        read_parts(other_end, parts - 1)
        other_end.write(answers(*[200] * (parts - 1)))
        early = wait([flushing], timeout=0.1).done  # as soon as it may be wrong, it is
        other_end.write(answers(200))
        flush = flushing.result(PATIENCE)

    assert not early
    assert flush.delivery is Delivery.ANSWERED
    assert [verdict.report for verdict in flush.verdicts] == [1] * parts


@pytest.fixture
def closing_after_the_first(monkeypatch):
    """The connection ends between the first and the second request of the report that comes."""
    transmit, written = Connection.transmit, []

    async def transmit_or_close(connection, *rest, **more):
        written.append(connection)
        if len(written) == 2:
            connection._read()
            connection._lost("the peer asked to close")
        return await transmit(connection, *rest, **more)

    def start() -> None:
        monkeypatch.setattr(Connection, "transmit", transmit_or_close)

    return start


def test_a_connection_that_ends_between_two_parts_ends_the_report(peer, bench, closing_after_the_first):
    """The rest alone would be no report: all of it goes out again with the next one."""
    closing_after_the_first()
    flush = bench.flush()
    first = read_parts(peer.accept(), 1)
    bench.clock.now += 60
    second = []
    with ThreadPoolExecutor(1) as threads:
        flushing = threads.submit(bench.flush)
        other_end = peer.accept()
        while sum(part.get("orders", 0) for part in second) < SERIES:
            second += read_parts(other_end, 1)
            other_end.answer(200)  # from now on each part waits for the answer to the one before
        again = flushing.result(PATIENCE)

    assert flush.delivery is None
    assert isinstance(flush.error, ConnectionLostError)
    assert 0 < sum(part.get("orders", 0) for part in first) < SERIES
    assert (again.delivery, again.error) == (Delivery.TRANSMITTED, None)
    assert len(second) > 2


def test_a_peer_that_takes_two_requests_on_each_connection_gets_all_parts(peer, clock):
    """Once it has ended a connection in the middle of a report, each part waits for the answer to the one before."""
    bench = Bench(peer, clock, report_limit_bytes=6_000)
    for number in range(SERIES):
        bench.orders.add(1, number=str(number))
    got, over = [], threading.Event()

    def serve() -> None:
        while not over.is_set():
            other_end = peer.accept()
            with contextlib.suppress(AssertionError, OSError):  # the client has left
                for connection in ("keep-alive", "close"):
                    got.append(totals(other_end.read_request().body).get("orders", 0))
                    other_end.answer(200, f"Connection: {connection}")
            other_end.close()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    flushes = []
    for _ in range(3):
        got.clear()
        bench.clock.now += 60  # whatever backs off
        bench.orders.add()
        flushes.append(bench.flush(Delivery.ANSWERED))
    parts = parts_of(bench)
    over.set()
    loops.run(bench.flusher.close(0.0))
    with socket.create_connection(("127.0.0.1", peer.port)):
        serving.join(PATIENCE)

    assert parts > 2
    assert isinstance(flushes[0].error, ConnectionLostError)
    assert (flushes[-1].delivery, flushes[-1].error) == (Delivery.ANSWERED, None)
    assert (len(got), sum(got)) == (parts, SERIES + 3)


async def test_a_flush_cancelled_before_its_first_byte_has_told_nothing(peer, clock):
    """Not even a delta: all of it is in the next report."""
    bench = Bench(peer, clock, temporality="delta")
    bench.orders.add(3)
    await bench.flusher.connect(5.0)
    other_end = peer.accept()
    bench.flusher._link.connection._stream.detach()  # so that the next flush has to wait before it can write
    flushing = asyncio.ensure_future(bench.flusher.flush(5.0, Delivery.TRANSMITTED))
    await asyncio.sleep(0)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    written = bench.flusher._link.connection.written
    await bench.flusher.flush(5.0, Delivery.TRANSMITTED)
    told = totals(other_end.read_request().body)
    await bench.flusher.close(0.0)

    assert written == 0
    assert told["orders"] == 3


def test_a_connection_that_was_given_up_after_a_freeze_changes_nothing_about_the_next(peer, bench):
    """Its answers were not waited for; nobody has ended it in the middle of a report."""
    bench.flush()
    read_parts(peer.accept(), parts_of(bench))
    bench.clock.now += 600
    flush = bench.flush()

    assert flush.delivery is Delivery.TRANSMITTED  # though nobody has answered any part
    assert bench.stats.connections_opened == 2
    assert not bench.flusher._one_by_one
