from __future__ import annotations

import logging

from emitter import loop as loops
from emitter.errors import ConnectError, ConnectionLostError
from emitter.outcomes import Outcome, Verdict, Withheld
from tests.flushing import Bench
from tests.scripted_peer import ScriptedPeer


def test_each_change_of_state_is_logged_once(peer, bench, clock, caplog):
    """With advice; never once for every invocation."""
    caplog.set_level(logging.INFO, logger="emitter")
    bench.record_and_flush()
    other_end = peer.accept()
    for status in (401, 401, 401, 200, 200):
        other_end.answer(status)
        bench.wait_for_input()
        while bench.record_and_flush().withheld is Withheld.BACKING_OFF:
            clock.now += 1

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "answered 401 (rejected); the credentials were refused" in caplog.messages[0]
    assert "EMITTER_HEADERS; with a signer, what the role may do" in caplog.messages[0]
    assert "are accepted again" in caplog.messages[1]


def test_a_peer_that_speaks_no_http_is_logged_once(peer, bench, clock, caplog):
    """However often it does it; that bytes leave says nothing of whoever gets them."""
    caplog.set_level(logging.INFO, logger="emitter")
    for _ in range(4):
        while bench.record_and_flush().withheld is Withheld.BACKING_OFF:
            clock.now += 1
        peer.accept().write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        bench.wait_for_input()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not an HTTP/1.1 answer" in caplog.messages[0]


def test_network_trouble_is_logged_once_and_its_end_too(clock, caplog):
    """However many attempts fail in between."""
    caplog.set_level(logging.INFO, logger="emitter")
    peer = ScriptedPeer()
    bench = Bench(peer, clock)
    bench.flusher._link._endpoint = type(bench.flusher._link._endpoint)("127.0.0.1", 1, "127.0.0.1:1", "/")
    for _ in range(5):
        bench.record_and_flush()
        clock.now += 100
    bench.flusher._link._endpoint = type(bench.flusher._link._endpoint)("127.0.0.1", peer.port, "x", "/")
    bench.record_and_flush()
    peer.accept().answer(200)
    loops.run(bench.flusher.close(5.0))
    peer.close()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "no connection to 127.0.0.1 port 1" in caplog.messages[0]


def test_two_troubles_that_take_turns_are_two_lines(bench, caplog):
    """However often they do, until all is well again."""
    ledger = bench.flusher._ledger
    for _ in range(5):
        ledger.note_error(ConnectError("host", 1, "refused"))
        ledger.note_error(ConnectionLostError("a reset", untouched=False))

    assert len(caplog.records) == 2


def test_a_receiver_that_is_far_behind_is_not_well_with_each_answer(bench, caplog):
    """At the limit, each answer lets one report go: that is one bad spell."""
    caplog.set_level(logging.INFO, logger="emitter")
    ledger = bench.flusher._ledger
    for report in range(1, 6):
        ledger.note_withheld(Withheld.UNANSWERED)
        ledger.note_verdict(Verdict(report, 200), Outcome.ACCEPTED, far_behind=True)
    ledger.note_verdict(Verdict(6, 200), Outcome.ACCEPTED, far_behind=False)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
