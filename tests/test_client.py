from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvloop

from emitter import (
    BudgetExceededError,
    ConnectError,
    Delivery,
    Emitter,
)
from emitter import loop as loops
from emitter.encode import as_encoder
from emitter.outcomes import Withheld
from emitter.transmit.connection import Connection
from tests.flushing import decoded, orders
from tests.scripted_peer import ScriptedPeer, wait_readable


def test_recorded_totals_leave_with_a_flush(peer, metrics):
    """Every kind of instrument, by the one call that users make."""
    metrics.counter("orders", unit="{order}", description="Orders accepted.").add(2, channel="web")
    metrics.up_down_counter("open").add(-1)
    metrics.gauge("temperature").set(21.5)
    metrics.histogram("size", boundaries=[10]).record(11)
    flush = metrics.flush_sync()
    request = peer.accept().read_request()
    told = decoded(request.body)

    assert flush.delivery is Delivery.TRANSMITTED
    assert orders(request.body) == 2
    assert told["orders"].unit == "{order}"
    assert told["open"].sum.data_points[0].as_int == -1
    assert told["temperature"].gauge.data_points[0].as_double == 21.5
    assert list(told["size"].histogram.data_points[0].bucket_counts) == [0, 1]


def test_a_warm_flush_runs_no_event_loop(peer, metrics, monkeypatch):
    """Nothing has to wait, so nothing has to run."""
    counter = metrics.counter("orders")
    counter.add()
    metrics.flush_sync()
    other_end = peer.accept()
    other_end.answer(200)
    wait_readable(metrics._flusher._link.connection._socket)
    monkeypatch.setattr(loops, "_run_in", lambda *_: pytest.fail("an event loop ran"))
    counter.add()
    flush = metrics.flush_sync()
    monkeypatch.undo()

    assert flush.delivery is Delivery.TRANSMITTED
    assert [verdict.status for verdict in flush.verdicts] == [200]
    assert [orders(other_end.read_request().body) for _ in range(2)] == [1, 2]


def test_a_peer_that_never_answers_holds_nobody_up(peer, metrics):
    """Ten flushes, no answer: each returns as soon as the bytes have left."""
    counter = metrics.counter("orders")
    began = time.monotonic()
    for _ in range(10):
        counter.add()
        assert metrics.flush_sync().delivery is Delivery.TRANSMITTED

    assert time.monotonic() - began < 5.0  # the budget of a single one
    assert not peer.accept().is_closed_by_client()


def test_the_connection_survives_a_loop_for_each_invocation(peer, metrics):
    """`asyncio.run` for each invocation, then synchronous code, then again: one connection."""
    counter = metrics.counter("orders")

    async def invocation():
        counter.add()
        return await metrics.flush()

    for _ in range(3):
        assert asyncio.run(invocation()).delivery is Delivery.TRANSMITTED
        counter.add()
        assert metrics.flush_sync().delivery is Delivery.TRANSMITTED
    other_end = peer.accept()

    assert [orders(other_end.read_request().body) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert not peer.has_another_connection()
    assert metrics.stats.connections_opened == 1


def test_uvloop_works_as_well(peer, metrics):
    """It writes one turn later than the standard loop, so there the loop does run."""
    counter = metrics.counter("orders")

    async def invocation():
        counter.add()
        return await metrics.flush()

    for _ in range(2):
        loop = uvloop.new_event_loop()
        assert loop.run_until_complete(invocation()).delivery is Delivery.TRANSMITTED
        loop.close()
    other_end = peer.accept()

    assert [orders(other_end.read_request().body) for _ in range(2)] == [1, 2]
    assert not peer.has_another_connection()


async def test_flushes_at_the_same_time_share_reports(peer, metrics):
    """Those that come while one is under way are answered by one more, which has what all of them recorded."""
    counter = metrics.counter("orders")

    async def record_and_flush():
        counter.add()
        return await metrics.flush()

    flushes = await asyncio.gather(*(record_and_flush() for _ in range(20)))
    other_end = peer.accept()

    assert all(flush.delivery is Delivery.TRANSMITTED for flush in flushes)
    assert metrics.stats.flushes == 2
    assert [orders(other_end.read_request().body) for _ in range(2)][-1] == 20


def test_threads_share_reports_too(peer, metrics):
    """Whatever a thread recorded before its flush is in a report by the time that flush returns."""
    counter = metrics.counter("orders")
    everybody = threading.Barrier(8)
    results = []

    def work():
        everybody.wait()
        for _ in range(25):
            counter.add()
            results.append(metrics.flush_sync(delivery=Delivery.ANSWERED))

    threads = [threading.Thread(target=work) for _ in range(8)]
    reader = threading.Thread(target=_answer_until, args=(peer, 200))
    for thread in [*threads, reader]:
        thread.start()
    for thread in [*threads, reader]:
        thread.join(timeout=30)

    assert len(results) == 200
    # Unchanged: a report that somebody else had made, and that was accepted, carried it.
    assert all(flush.delivery is Delivery.ANSWERED or flush.withheld is Withheld.UNCHANGED for flush in results)
    assert metrics.stats.flushes < 200
    assert metrics.stats.connections_opened == 1


def _answer_until(peer: ScriptedPeer, total: int) -> None:
    other_end = peer.accept()
    got = 0
    while got < total:
        got = orders(other_end.read_request().body)
        other_end.answer(200)


async def test_whoever_waits_for_others_waits_no_longer_than_the_budget():
    """The report that is under way has the whole budget; the second flush is withheld, and says so."""
    narrow = ScriptedPeer(receive_buffer_bytes=4_096)
    metrics = Emitter(narrow.endpoint, timeout=5.0, compress=False)
    for number in range(1_500):
        metrics.counter("orders").add(1, number=str(number), padding="x" * 100)
    first = asyncio.ensure_future(metrics.flush())
    while metrics._flusher._link.connection is None:
        await asyncio.sleep(0)
    second = await metrics.flush(timeout=0.02)
    first.cancel()
    await asyncio.wait({first})
    await metrics.close(timeout=0.0)
    narrow.close()

    assert second.withheld is Withheld.BUSY
    assert metrics.stats.withheld[Withheld.BUSY] == 1


def test_connecting_ahead_of_time_saves_the_first_flush_from_it(peer, metrics):
    """In the INIT phase, say."""
    assert metrics.connect_sync() is True
    other_end = peer.accept()
    metrics.counter("orders").add()
    metrics.flush_sync()

    assert orders(other_end.read_request().body) == 1
    assert metrics.connect_sync() is True
    assert metrics.stats.connections_opened == 1


async def test_connecting_in_a_loop_of_ones_own(peer, metrics):
    """The coroutine does the same."""
    assert await metrics.connect() is True
    metrics.counter("orders").add()
    await metrics.flush()

    assert orders(peer.accept().read_request().body) == 1


def test_connecting_to_nobody_returns_false(peer, metrics):
    """The network raises nothing, and is counted."""
    peer.close()

    assert metrics.connect_sync() is False
    assert metrics.stats.failed == {"connect": 1}


def test_closing_reports_once_more_and_leaves_in_order(peer, metrics, monkeypatch):
    """The last report is acknowledged and answered before the connection is closed; the emitter goes on working."""
    counter = metrics.counter("orders")
    counter.add()
    asked = []
    transmit = Connection.transmit
    monkeypatch.setattr(Connection, "transmit", lambda *args, **more: asked.append(args[3]) or transmit(*args, **more))
    closing = threading.Thread(target=metrics.close_sync)
    closing.start()
    other_end = peer.accept()
    got = orders(other_end.read_request().body)
    other_end.answer(200)
    assert other_end.is_closed_by_client()
    closing.join()
    counter.add()
    metrics.flush_sync()

    assert asked[0] is Delivery.ACKNOWLEDGED
    assert got == 1
    assert orders(peer.accept().read_request().body) == 2


async def test_closing_in_a_loop_of_ones_own(peer, metrics):
    """The coroutine does the same."""
    metrics.counter("orders").add()
    closing = asyncio.ensure_future(metrics.close())
    other_end = await asyncio.to_thread(peer.accept)
    await asyncio.to_thread(other_end.read_request)
    other_end.answer(200)
    await closing

    assert other_end.is_closed_by_client()
    assert metrics.stats.verdicts == {200: 1}


def test_strict_raises_what_went_wrong(peer):
    """For tests; the totals are kept all the same."""
    metrics = Emitter(peer.endpoint, strict=True)
    peer.close()

    with pytest.raises(ConnectError):
        metrics.flush_sync()
    assert metrics.stats.failed == {"connect": 1}


def test_a_budget_of_zero_does_what_needs_no_waiting(peer, metrics):
    """A warm connection needs none; a peer that does not answer at once does."""
    metrics.counter("orders").add()
    metrics.connect_sync()
    full = ScriptedPeer(backlog=0)
    first = socket.create_connection(("127.0.0.1", full.port))
    cold = Emitter(full.endpoint)
    waited = cold.flush_sync(timeout=0).error
    cold.close_sync(timeout=0)
    first.close()
    full.close()

    assert isinstance(waited, ConnectError)
    assert waited.unfinished
    assert metrics.flush_sync(timeout=0).delivery is Delivery.TRANSMITTED


def test_the_answered_level_brings_its_own_verdict(peer, metrics):
    """For those who must know."""
    metrics.counter("orders").add()
    flushing = []
    thread = threading.Thread(target=lambda: flushing.append(metrics.flush_sync(delivery=Delivery.ANSWERED)))
    thread.start()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(202)
    thread.join()

    assert flushing[0].delivery is Delivery.ANSWERED
    assert [verdict.status for verdict in flushing[0].verdicts] == [202]


def test_less_than_asked_is_an_error_that_tells_how_far(peer, metrics):
    """The report is on its way, but the asked delivery was not seen in time."""
    metrics.connect_sync()  # which may take longer than that
    metrics.counter("orders").add()
    flush = metrics.flush_sync(delivery=Delivery.ANSWERED, timeout=0.02)

    assert flush.delivery in {Delivery.TRANSMITTED, Delivery.ACKNOWLEDGED}
    assert isinstance(flush.error, BudgetExceededError)


def test_a_disabled_emitter_accepts_everything_and_does_nothing(peer, monkeypatch):
    """No endpoint is needed, and no connection is made."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")
    metrics = Emitter()
    metrics.counter("orders").add()

    assert metrics.flush_sync().withheld is Withheld.DISABLED
    assert metrics.connect_sync() is False
    metrics.close_sync()
    assert not peer.has_another_connection()


def test_headers_reach_the_peer_and_no_representation(peer):
    """They may be secret."""
    metrics = Emitter(peer.endpoint, headers={"Authorization": "Bearer hunter2"}, timeout=5.0)
    metrics.flush_sync()
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0.0)

    assert request.headers[b"authorization"] == b"Bearer hunter2"
    assert request.headers[b"user-agent"] == b"lambda-emitter"
    assert "hunter2" not in repr(metrics) + repr(vars(metrics)) + repr(metrics._settings)


def test_closing_at_the_interpreters_exit_raises_nothing(peer):
    """Whether a thread can still be started for the resolver or not: the exit is clean."""
    script = (
        "import atexit, emitter\n"
        f"metrics = emitter.Emitter('http://localhost:{peer.port}/')\n"
        "metrics.counter('orders').add()\n"
        "atexit.register(lambda: print(metrics.stats.failed))\n"
        "atexit.register(metrics.close_sync)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)

    assert run.returncode == 0
    assert run.stdout in {"{'connect': 1}\n", "{'unanswered': 1}\n"}  # the latter: out in time, nobody answers here
    assert "Traceback" not in run.stderr


def test_an_encoder_of_ones_own_is_one_function(peer):
    """It takes a snapshot and returns the body; the content type comes along."""

    @as_encoder("text/plain", headers={"X-Lines": "1"})
    def lines(snapshot):
        return "\n".join(metric.name for metric in snapshot.metrics).encode()

    metrics = Emitter(peer.endpoint, encoder=lines, timeout=5.0)
    metrics.counter("orders")
    metrics.flush_sync()
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0.0)

    assert (request.headers[b"content-type"], request.headers[b"x-lines"]) == (b"text/plain", b"1")
    assert request.body.splitlines()[-1] == b"orders"


def test_connecting_ahead_of_time_reads_the_trust_store_whatever_becomes_of_it(peer):
    """That takes 20 ms and more, which belong into the INIT phase, also when the receiver cannot be reached then."""
    metrics = Emitter(peer.endpoint.replace("http:", "https:"))
    peer.close()
    before = metrics._flusher._link._tls._context
    opened = metrics.connect_sync()

    assert before is None
    assert not opened
    assert metrics._flusher._link._tls._context is not None
