from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import h11
import pytest

from emitter import loop as loops
from emitter.encode.otlp import OtlpEncoder
from emitter.errors import AnswerError, BudgetExceededError, ConnectError
from emitter.outcomes import Flush, Outcome, Verdict, Withheld
from emitter.transmit.connection import LIMIT_UNANSWERED, PATIENCE
from emitter.transmit.delivery import Delivery
from tests.flushing import Bench, next_totals, totals
from tests.scripted_peer import PeerConnection, ScriptedPeer, wait_readable


def test_a_report_carries_all_totals_and_its_own_number(peer, bench):
    """The emitter counts itself: this attempt is in the report that it makes."""
    flush = bench.record_and_flush()
    request = peer.accept().read_request()

    assert (flush.delivery, flush.withheld, flush.error, flush.verdicts) == (Delivery.TRANSMITTED, None, None, ())
    assert flush.bytes > len(request.body) > 0
    assert (request.method, request.target) == (b"POST", b"/v1/metrics")
    assert request.headers[b"content-type"] == b"application/x-protobuf"
    assert request.headers[b"host"] == f"127.0.0.1:{peer.port}".encode()
    assert totals(request.body) == {
        "orders": 1,
        "emitter.flushes": 1,
        "emitter.failures": 0,
        "emitter.withheld": 0,
    }


def test_a_defect_in_an_encoder_reaches_the_caller_and_is_counted(peer, clock):
    """It is no trouble of the network; the attempt counts as made and failed, and the next report says so."""

    class Fails(OtlpEncoder):
        defective = True

        def encode(self, snapshot):
            if Fails.defective:
                raise LookupError("a defect")
            return super().encode(snapshot)

    bench = Bench(peer, clock, Fails())
    with pytest.raises(LookupError, match="a defect"):
        bench.record_and_flush()
    Fails.defective = False
    bench.flush()
    report = next_totals(peer.accept())
    loops.run(bench.flusher.close(0.0))

    assert bench.stats.failed["defect"] == 1
    assert report == {"orders": 1, "emitter.flushes": 2, "emitter.failures": 1, "emitter.withheld": 0}


def test_two_flushes_without_an_answer_both_leave(peer, bench):
    """A report does not wait for the answer to the one before it."""
    first, second = bench.record_and_flush(), bench.record_and_flush()
    other_end = peer.accept()

    assert first.delivery is second.delivery is Delivery.TRANSMITTED
    assert [next_totals(other_end)["orders"] for _ in range(2)] == [1, 2]
    assert not peer.has_another_connection()


def test_verdicts_are_learnt_one_flush_later(peer, bench):
    """At no cost: the answer was there."""
    bench.record_and_flush()
    peer.accept().answer(503)
    bench.wait_for_input()
    flush = bench.record_and_flush()

    assert flush.verdicts == (Verdict(1, 503),)
    assert flush.verdicts[0].outcome is Outcome.DEFERRED
    assert bench.stats.verdicts == {503: 1}


def test_a_peer_that_closes_between_flushes_is_replaced_and_nothing_is_lost(peer, bench):
    """The next report goes over a new connection and carries the totals."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    other_end.close()
    bench.wait_for_input()
    flush = bench.record_and_flush()

    assert flush.delivery is Delivery.TRANSMITTED
    assert next_totals(peer.accept())["orders"] == 2
    assert bench.stats.connections_opened == 2
    assert bench.stats.failed == {"unanswered": 1}


def test_a_write_that_the_kernel_refuses_is_tried_once_on_a_fresh_connection(peer, clock):
    """No byte was taken, so nothing can arrive twice."""
    broken: list[PeerConnection] = []

    class BreaksIn(OtlpEncoder):
        """Lets the peer reset the connection after the harvest and before the write."""

        def encode(self, snapshot):
            if broken:
                broken.pop().reset()
                wait_readable(bench.flusher._link.connection._socket)
            return super().encode(snapshot)

    bench = Bench(peer, clock, BreaksIn())
    bench.record_and_flush()
    broken.append(peer.accept())
    flush = bench.record_and_flush()
    other_end = peer.accept()
    other_end.answer(200)

    assert (flush.delivery, flush.error) == (Delivery.TRANSMITTED, None)
    assert next_totals(other_end)["orders"] == 2
    assert bench.stats.connections_opened == 2
    loops.run(bench.flusher.close(5.0))


def test_nothing_is_written_when_nothing_was_recorded_since_an_accepted_report(peer, bench):
    """The receiver has it all; the next recording is reported again."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.answer(200)
    bench.wait_for_input()
    withheld = bench.flush()
    again = bench.record_and_flush()

    assert (withheld.delivery, withheld.withheld, withheld.bytes) == (None, Withheld.UNCHANGED, 0)
    assert withheld.verdicts == (Verdict(1, 200),)
    assert again.delivery is Delivery.TRANSMITTED
    assert [next_totals(other_end)["orders"] for _ in range(2)] == [1, 2]


def test_a_counter_made_since_is_something_to_report(peer, bench):
    """It reports 0 from the moment it is made, or a receiver would lose its first value."""
    bench.record_and_flush()
    peer.accept().answer(200)
    bench.wait_for_input()
    bench.registry.counter("refunds")

    assert bench.flush().delivery is Delivery.TRANSMITTED


@pytest.mark.parametrize("more", ["Connection: close\r\n", ""], ids=["close", "keep-alive"])
def test_an_answer_that_was_waited_for_is_told_also_if_it_is_the_last(peer, bench, more):
    """The connection ends with it, the verdict does not get lost with the connection."""
    flushing = []
    thread = threading.Thread(target=lambda: flushing.append(bench.flush(Delivery.ANSWERED)))
    thread.start()
    other_end = peer.accept()
    other_end.read_request()
    other_end.write(f"HTTP/1.1 401 X\r\n{more}Content-Length: 0\r\n\r\n".encode())
    thread.join()

    assert flushing[0].delivery is Delivery.ANSWERED
    assert flushing[0].verdicts == (Verdict(1, 401),)
    assert bench.stats.verdicts == {401: 1}


@pytest.mark.parametrize("status", [400, 503])
def test_a_report_that_was_not_accepted_is_reported_again(peer, bench, clock, status):
    """Only a 2xx says that the receiver has the totals. But not at once: it is left alone for a while."""
    bench.record_and_flush()
    peer.accept().answer(status)
    bench.wait_for_input()
    early = bench.flush()
    clock.now += 1

    assert early.withheld is Withheld.BACKING_OFF
    assert bench.flush().delivery is Delivery.TRANSMITTED


def test_the_first_report_goes_out_even_if_nothing_was_recorded(peer, bench):
    """A counter reports 0 from the moment it is made."""
    assert bench.flush().delivery is Delivery.TRANSMITTED
    assert next_totals(peer.accept())["orders"] == 0


def test_sixteen_unanswered_reports_are_enough(peer, bench):
    """Beyond that a report is withheld, until answers arrive; the count of what was withheld rides along."""
    for _ in range(LIMIT_UNANSWERED):
        assert bench.record_and_flush().delivery is Delivery.TRANSMITTED
    withheld = bench.record_and_flush()
    other_end = peer.accept()
    other_end.answer(200)
    bench.wait_for_input()
    flush = bench.record_and_flush()
    reports = [next_totals(other_end) for _ in range(LIMIT_UNANSWERED + 1)]

    assert withheld.withheld is Withheld.UNANSWERED
    assert flush.delivery is Delivery.TRANSMITTED
    assert reports[-1] == {"orders": 18, "emitter.flushes": 17, "emitter.failures": 0, "emitter.withheld": 1}
    assert bench.stats.withheld == {Withheld.UNANSWERED: 1}


def test_a_peer_that_never_answers_is_replaced_in_the_end(peer, bench, clock):
    """Reports are never withheld for ever."""
    for _ in range(LIMIT_UNANSWERED):
        bench.record_and_flush()
    clock.now += PATIENCE + 1

    assert bench.record_and_flush().delivery is Delivery.TRANSMITTED
    assert bench.stats.connections_opened == 2
    assert bench.stats.failed == {"unanswered": LIMIT_UNANSWERED}


def test_failures_back_off_and_the_totals_wait(peer, clock):
    """1 s, then doubled with each failure in a row, at most 60 s; a success starts again at 1 s."""
    bench = Bench(peer, clock)
    port = peer.port
    peer.close()
    waits = []
    assert isinstance(bench.record_and_flush().error, ConnectError)
    for _ in range(8):
        failed_at = clock.now
        while bench.record_and_flush().withheld is Withheld.BACKING_OFF:
            clock.now += 0.5
        waits.append(clock.now - failed_at)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bench.stats.failed == {"connect": 9}
    revived = ScriptedPeer(port=port)
    clock.now += 60
    assert bench.record_and_flush().delivery is Delivery.TRANSMITTED
    revived.accept().reset()
    revived.close()
    bench.wait_for_input()
    assert isinstance(bench.record_and_flush().error, ConnectError)
    clock.now += 1
    assert isinstance(bench.record_and_flush().error, ConnectError)


def test_after_an_outage_one_report_carries_everything(clock):
    """Failed and withheld flushes lose nothing, and are counted in the report that gets through."""
    peer = ScriptedPeer()
    bench = Bench(peer, clock)
    port = peer.port
    peer.close()
    bench.record_and_flush()
    bench.record_and_flush()
    clock.now += 2
    revived = ScriptedPeer(port=port)
    flush = bench.record_and_flush()
    other_end = revived.accept()
    report = next_totals(other_end)
    other_end.answer(200)
    loops.run(bench.flusher.close(5.0))
    revived.close()

    assert flush.delivery is Delivery.TRANSMITTED
    assert report == {"orders": 3, "emitter.flushes": 2, "emitter.failures": 1, "emitter.withheld": 1}


def test_a_peer_that_reads_nothing_costs_no_more_than_the_budget(clock):
    """The flush returns, and says how far the bytes got."""
    peer = ScriptedPeer(receive_buffer_bytes=4_096)
    bench = Bench(peer, time.monotonic, compress=False)
    for number in range(1_500):
        bench.orders.add(1, number=str(number), padding="x" * 100)
    loops.run(bench.flusher.connect(5.0))
    began = time.monotonic()
    flush = bench.flush(timeout=0.05)

    assert flush.delivery is Delivery.BUFFERED
    assert isinstance(flush.error, BudgetExceededError)
    assert flush.error.unwritten_bytes == 0
    assert 0 < flush.error.untransmitted_bytes < flush.bytes
    assert time.monotonic() - began < 5
    assert bench.stats.failed == {"budget": 1}
    assert bench.stats.transmitted == 0
    other_end = peer.accept()
    assert next_totals(other_end)["orders"] == 1_500  # it stayed on its way
    other_end.answer(200)
    loops.run(bench.flusher.close(5.0))
    peer.close()


def test_what_the_peer_writes_never_reaches_the_caller(peer, bench):
    """Garbage ends the connection, is counted, and the next report goes over a new one."""
    bench.record_and_flush()
    peer.accept().write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
    bench.wait_for_input()
    flush = bench.record_and_flush()

    assert (flush.delivery, flush.error) == (Delivery.TRANSMITTED, None)
    assert bench.stats.failed == {"unanswered": 1, "answer": 1}
    assert isinstance(bench.stats.last_error, AnswerError)


def test_an_exhausted_budget_backs_off_too():
    """A peer that reads nothing is not given the whole budget at each invocation."""
    peer = ScriptedPeer(receive_buffer_bytes=4_096)
    bench = Bench(peer, time.monotonic, compress=False)
    for number in range(1_500):
        bench.orders.add(1, number=str(number), padding="x" * 100)
    loops.run(bench.flusher.connect(5.0))
    first = bench.flush(timeout=0.05)
    second = bench.record_and_flush()
    loops.run(bench.flusher._link.connection.close(deadline=0))
    peer.close()

    assert isinstance(first.error, BudgetExceededError)
    assert second.withheld is Withheld.BACKING_OFF


def test_a_last_report_is_not_satisfied_by_somebody_elses_back_off(clock):
    """Closing tries, even where another flush at the same time was withheld."""
    peer = ScriptedPeer()
    bench = Bench(peer, clock)
    bench.flusher._receiver.fail(retry_after=60)
    bench.orders.add()

    async def both() -> list[Flush]:
        return await asyncio.gather(
            bench.flusher.flush(1.0, Delivery.TRANSMITTED), bench.flusher.flush(1.0, Delivery.TRANSMITTED, last=True)
        )

    withheld, last = asyncio.run(both())
    loops.run(bench.flusher._link.connection.close(deadline=0))
    peer.close()

    assert withheld.withheld is Withheld.BACKING_OFF
    assert last.delivery is Delivery.TRANSMITTED


async def test_a_cancelled_flush_is_counted_and_the_next_one_works(clock):
    """At every await: the connection is sound or dropped, and the totals are right again."""
    for turns in range(12):
        peer = ScriptedPeer(receive_buffer_bytes=4_096)
        bench = Bench(peer, time.monotonic, compress=False)
        for number in range(1_000):
            bench.orders.add(1, number=str(number), padding="x" * 100)
        task = asyncio.ensure_future(bench.flusher.flush(5.0, Delivery.ACKNOWLEDGED))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.orders.add()
        flushing = asyncio.ensure_future(bench.flusher.flush(5.0, Delivery.TRANSMITTED))
        got = await asyncio.to_thread(_read_until, peer, 1_001)

        assert got
        assert (await flushing).delivery is Delivery.TRANSMITTED
        assert bench.stats.failed.get("cancelled", 0) == (1 if turns else 0)
        bench.flusher._link.connection._lost("the test is over")
        await asyncio.sleep(0)
        peer.close()


def _read_until(peer: ScriptedPeer, orders: int) -> bool:
    """Read reports, over as many connections as there are, until one carries that many orders."""
    while True:
        other_end = peer.accept()
        # A connection that was given up ends in the middle of a request, for which h11 has several words.
        with contextlib.suppress(OSError, h11.ProtocolError, AssertionError):
            while True:
                if next_totals(other_end)["orders"] == orders:
                    return True


def test_a_last_report_is_not_held_up_by_those_that_wait_for_answers(peer, bench):
    """Nobody will come later to bring its totals."""
    for _ in range(LIMIT_UNANSWERED):
        bench.record_and_flush()
    bench.orders.add()
    last = bench.flush(last=True)
    other_end = peer.accept()
    reports = [next_totals(other_end) for _ in range(LIMIT_UNANSWERED + 1)]

    assert last.delivery is Delivery.TRANSMITTED
    assert reports[-1]["orders"] == LIMIT_UNANSWERED + 1


def test_a_connection_that_was_opened_ahead_of_time_ends_the_back_off(clock):
    """The network was in trouble, and is well."""
    peer = ScriptedPeer()
    port = peer.port
    bench = Bench(peer, clock)
    peer.close()
    failed = bench.record_and_flush()
    revived = ScriptedPeer(port=port)
    opened = loops.run(bench.flusher.connect(5.0))
    flush = bench.record_and_flush()
    loops.run(bench.flusher._link.connection.close(deadline=0))
    revived.close()

    assert isinstance(failed.error, ConnectError)
    assert opened
    assert flush.delivery is Delivery.TRANSMITTED
