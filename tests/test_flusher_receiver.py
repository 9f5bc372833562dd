"""What the receiver says, and what a flusher makes of it: verdicts, back-off, cookies, advice."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from emitter.outcomes import Outcome, Verdict, Withheld
from emitter.transmit.delivery import Delivery
from tests.flushing import Bench, next_totals
from tests.scripted_peer import ScriptedPeer


def refused(peer, bench, status: int, *headers: str):
    """One report that is answered like this; the flush that learns of it."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(status, *headers)
    bench.wait_for_input()
    return other_end, bench.record_and_flush()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED),
        (202, Outcome.ACCEPTED),
        (204, Outcome.ACCEPTED),
        (301, Outcome.REJECTED),
        (400, Outcome.REJECTED),
        (429, Outcome.DEFERRED),
        (500, Outcome.REJECTED),
        (502, Outcome.DEFERRED),
        (503, Outcome.DEFERRED),
        (504, Outcome.DEFERRED),
        (505, Outcome.REJECTED),
    ],
)
def test_a_status_says_what_became_of_the_report(status, outcome):
    """As OTLP defines it for 429, 502, 503 and 504."""
    assert Verdict(1, status).outcome is outcome


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_who_refuses_is_left_alone_for_a_while(peer, bench, clock, status):
    """Deferred or rejected: the next report says the same and more, so nothing is lost by waiting."""
    other_end, early = refused(peer, bench, status)
    clock.now += 1
    late = bench.record_and_flush()

    assert (early.withheld, early.verdicts) == (Withheld.BACKING_OFF, (Verdict(1, status),))
    assert late.delivery is Delivery.TRANSMITTED
    assert next_totals(other_end)["orders"] == 3
    assert bench.stats.connections_opened == 1


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("99999999999999999999", 1),
        ("soon", 1),
        ("-5", 1),
        ("4000000", 3_600),
    ],
    ids=["seconds", "now", "a date", "a date that has passed", "no such number", "words", "negative", "weeks"],
)
def test_retry_after_wins_over_chance(peer, bench, clock, retry_after, seconds):
    """In seconds or as a date, and an hour at most; what cannot be read counts as not said."""
    bench.wall = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
    bench.flusher._settings = bench.settings_with(idle_limit=1e9, age_limit=1e9)
    _, early = refused(peer, bench, 503, f"Retry-After: {retry_after}")
    waited = 0.0
    while early.withheld is Withheld.BACKING_OFF and bench.flusher._receiver.waiting:
        clock.now += 0.5
        bench.wall += 0.5
        waited += 0.5

    assert waited == seconds


def test_refusals_in_one_harvest_are_one_refusal(peer, bench, clock):
    """A pipeline of reports does not make the back-off grow by each."""
    for _ in range(4):
        bench.record_and_flush()
    other_end = peer.accept()
    for _ in range(4):
        other_end.answer(503)
    bench.wait_for_input()
    withheld = bench.record_and_flush()
    clock.now += 1
    late = bench.record_and_flush()

    assert len(withheld.verdicts) == 4
    assert withheld.withheld is Withheld.BACKING_OFF
    assert late.delivery is Delivery.TRANSMITTED


def test_the_last_word_counts(peer, bench):
    """A receiver that refused and then accepted is well."""
    for _ in range(2):
        bench.record_and_flush()
    other_end = peer.accept()
    other_end.answer(503)
    other_end.answer(200)
    bench.wait_for_input()

    assert bench.record_and_flush().delivery is Delivery.TRANSMITTED


def test_a_last_report_goes_out_whatever_was_asked_for(peer, bench):
    """Closing tries, once."""
    other_end, early = refused(peer, bench, 503, "Retry-After: 100")
    last = bench.flush(last=True)

    assert early.withheld is Withheld.BACKING_OFF
    assert last.delivery is Delivery.TRANSMITTED
    assert next_totals(other_end)["orders"] == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (301, "put the address it names into the endpoint"),
        (308, "put the address it names into the endpoint"),
        (400, "check that the endpoint takes this encoder's format"),
        (401, "check headers= or EMITTER_HEADERS"),
        (403, "check headers= or EMITTER_HEADERS"),
        (404, "check the endpoint (/v1/metrics for OTLP"),
        (411, "dropped Content-Length"),
        (413, "drop attributes that take many values"),
        (415, "check the endpoint and encoder="),
        (418, "see what the receiver logs about it"),
        (429, "flush less often"),
        (500, "see its log"),
        (503, "see its log"),
    ],
)
def test_a_refusal_is_logged_once_with_what_to_do_about_it(peer, bench, clock, caplog, status, advice):
    """Never once for every invocation; its end is logged too."""
    caplog.set_level(logging.INFO, logger="emitter")
    bench.record_and_flush()
    other_end = peer.accept()
    for answer in (status, status, status, 200):
        other_end.read_request()
        other_end.answer(answer)
        bench.wait_for_input()
        while bench.record_and_flush().withheld is Withheld.BACKING_OFF:
            clock.now += 1

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert f"answered {status} " in caplog.messages[0]
    assert advice in caplog.messages[0]
    assert bench.stats.verdicts == {status: 3, 200: 1}


def test_a_peer_that_takes_reports_and_answers_none_is_logged_once_and_left_alone(peer, bench, clock, caplog):
    """The first time it may have been the network, and costs one report; the second time it is the peer."""
    caplog.set_level(logging.INFO, logger="emitter")
    flushes = []
    for _ in range(3):
        flushes.append(bench.record_and_flush())
        if flushes[-1].withheld is None:
            other_end = peer.accept()
            other_end.read_request()
            other_end.close()
            bench.wait_for_input()

    assert [flush.withheld for flush in flushes] == [None, None, Withheld.BACKING_OFF]
    assert bench.stats.failed == {"unanswered": 2}
    assert "the peer has closed" in str(bench.stats.last_error)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nothing is answered; the connection was lost: the peer has closed" in caplog.messages[0]


def test_a_receiver_that_is_far_behind_is_logged_once(peer, bench, caplog):
    """Reports are withheld then, and someone should know."""
    for _ in range(20):
        bench.record_and_flush()

    assert bench.stats.withheld == {Withheld.UNANSWERED: 4}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the receiver may be overloaded" in caplog.messages[0]


def test_cookies_of_load_balancers_go_out_with_the_next_report_and_over_a_reconnect(peer, bench):
    """Learned from answers, whatever their status; nobody else's."""
    other_end, _ = refused(
        peer,
        bench,
        200,
        "Set-Cookie: AWSALB=one;Path=/",
        "Set-Cookie: session=secret",
        "Set-Cookie: AWSALBCORS=two;Path=/",
    )
    second = other_end.read_request()
    other_end.close()
    bench.wait_for_input()
    bench.record_and_flush()
    third = peer.accept().read_request()

    assert second.headers[b"cookie"] == b"AWSALB=one; AWSALBCORS=two"
    assert third.headers[b"cookie"] == second.headers[b"cookie"]


def test_a_cookie_that_cannot_be_written_back_is_dropped_and_counted(peer, bench):
    """Never written, never silent."""
    other_end, _ = refused(peer, bench, 200, "Set-Cookie: AWSALB=o\tne")

    assert b"cookie" not in other_end.read_request().headers
    assert bench.stats.failed == {"cookie": 1}


def test_a_budget_below_the_way_is_logged_once_with_what_was_measured(caplog, clock):
    """Three flushes in a row without delivery; the round trip stands beside the budget."""
    full = ScriptedPeer(backlog=0)
    first = socket.create_connection(("127.0.0.1", full.port))
    bench = Bench(full, time.monotonic)
    flushes = []
    for _ in range(6):
        bench.orders.add()
        flushes.append(bench.flush(timeout=0.02))
    full.close()
    first.close()
    bench.flusher._link.opening.abandon()
    advice = [message for message in caplog.messages if "3 flushes in a row" in message]

    assert [flush.withheld for flush in flushes] == [None] + [Withheld.BACKING_OFF] * 5
    assert len(caplog.records) == 2
    assert len(advice) == 1
    assert "The budget is 20 ms, and nothing has come back in " in advice[0]
    assert "connect_sync()" in advice[0]
