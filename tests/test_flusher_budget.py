"""Budgets, freezes and last words: what a flush makes of time, and of connections that end."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time

from emitter import loop as loops
from emitter.encode.otlp import OtlpEncoder
from emitter.errors import BudgetExceededError
from emitter.outcomes import Verdict, Withheld
from emitter.transmit.delivery import Delivery
from tests.flushing import Bench, next_totals
from tests.scripted_peer import ScriptedPeer


def test_a_connect_that_was_answered_in_a_freeze_is_used_after_it(clock):
    """However long ago it was begun: a budget below the round trip delivers also when each event is minutes apart."""
    peer = ScriptedPeer(backlog=0)
    first = socket.create_connection(("127.0.0.1", peer.port))
    bench = Bench(peer, clock)
    bench.orders.add()
    cut_short = bench.flush(timeout=0)
    (attempt,) = bench.flusher._link.opening._sockets
    peer.accept()  # makes room, so that the kernel's next attempt succeeds
    poll = select.poll()
    poll.register(attempt, select.POLLOUT)
    assert poll.poll(10_000)
    clock.now += 300
    flush = bench.flush(timeout=0)
    report = next_totals(peer.accept())
    loops.run(bench.flusher._link.connection.close(deadline=0))
    first.close()
    peer.close()

    assert cut_short.error.unfinished
    assert flush.delivery is Delivery.TRANSMITTED
    assert report["orders"] == 1
    assert bench.stats.connections_opened == 1


def test_a_sandbox_that_is_frozen_between_rare_events_is_not_held_back(peer, bench, clock):
    """Its answers come while nobody is awake, and its connections are given up for being idle: no fault of the peer."""
    flushes = []
    for _ in range(5):
        flushes.append(bench.record_and_flush())
        clock.now += 60
        peer.accept().read_request()

    assert [flush.delivery for flush in flushes] == [Delivery.TRANSMITTED] * 5
    assert bench.stats.failed == {"unanswered": 4}


def test_a_budget_that_ends_before_the_answer_is_no_trouble_once_the_answer_is_there(peer, bench, clock, caplog):
    """With a receiver slower than the budget each report arrives and is accepted: nothing to back off from."""
    caplog.set_level(logging.INFO, logger="emitter")
    other_end = None
    flushes = []
    for _ in range(8):
        bench.orders.add()
        flushes.append(bench.flush(Delivery.ANSWERED, timeout=0.0))
        other_end = other_end or peer.accept()
        other_end.read_request()
        other_end.answer(200)
        bench.wait_for_input()
        clock.now += 2

    assert {flush.withheld for flush in flushes} == {None}
    assert all(isinstance(flush.error, BudgetExceededError) for flush in flushes)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the budget ended" in caplog.messages[0]


def test_flushes_that_deliver_in_between_are_not_counted_as_in_a_row(bench, caplog):
    """Three without delivery are too many; one now and then is not."""
    ledger = bench.flusher._ledger
    for _ in range(5):
        ledger.note_undelivered(0.02, 0.06, 0.1)
        ledger.note_undelivered(0.02, 0.06, 0.1)
        ledger.note_delivered()
    quiet = list(caplog.messages)
    for _ in range(5):
        ledger.note_undelivered(0.02, 0.06, 0.1)

    assert quiet == []
    assert len(caplog.messages) == 1
    assert "The budget is 20 ms, and the round trip takes 60 ms" in caplog.messages[0]


def test_a_peer_that_closes_under_a_report_is_heard_out(clock):
    """What it wrote before is the verdict: 413, as servers answer a body that is too large."""
    peer = ScriptedPeer(receive_buffer_bytes=4_096)

    class Large(OtlpEncoder):
        def encode(self, snapshot):
            return bytes(8_000_000)

    bench = Bench(peer, time.monotonic, Large(), compress=False, report_limit_bytes=2**26)
    flushing = []
    thread = threading.Thread(target=lambda: flushing.append(bench.record_and_flush()))
    thread.start()
    other_end = peer.accept()
    other_end.socket.recv(1_000)
    other_end.answer(413, "Connection: close")
    other_end.close()
    thread.join()
    late = bench.record_and_flush()
    peer.close()

    assert flushing[0].error is not None
    assert late.verdicts == (Verdict(1, 413),)
    assert late.withheld is Withheld.BACKING_OFF


def test_a_connection_that_is_too_old_is_replaced_by_the_next_flush(peer, bench, clock):
    """The limits that were set are the ones that count."""
    bench.flusher._settings = bench.settings_with(idle_limit=1e9, age_limit=100.0)
    for seconds in (0, 99, 2):
        clock.now += seconds
        bench.record_and_flush()
        if seconds != 99:
            other_end = peer.accept()
        other_end.read_request()
        other_end.answer(200)
        bench.wait_for_input()

    assert bench.stats.connections_opened == 2
    assert bench.stats.failed == {}
