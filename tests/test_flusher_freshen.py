from __future__ import annotations

import threading
from contextlib import closing

import pytest

from emitter import ConfigurationError, CredentialsError, Emitter
from emitter import loop as loops
from emitter.outcomes import Verdict, Withheld
from emitter.transmit.delivery import Delivery
from tests.flushing import Bench, next_totals
from tests.scripted_peer import PATIENCE, ScriptedPeer


def freshen(bench: Bench) -> None:
    loops.run(bench.flusher.freshen())


def wait_for_the_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "emitter-ahead":
            thread.join(PATIENCE)


def close_behind_its_back(bench: Bench, peer: ScriptedPeer, *, answered: bool = True) -> None:
    """Open a connection with one report on it, and close its other end."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    if answered:
        other_end.answer()
    other_end.close()
    bench.wait_for_input()


def test_a_connection_that_was_closed_meanwhile_is_replaced_before_the_flush(bench, peer):
    """While a handler works: the flush finds the new one open."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    other_end = peer.accept()
    wait_for_the_thread()
    flush = bench.record_and_flush()

    assert flush.delivery is Delivery.TRANSMITTED
    assert next_totals(other_end)["orders"] == 2
    assert bench.stats.connections_opened == 2


def test_answers_that_are_read_before_a_flush_are_told_by_it(bench, peer):
    """Each is told once, whoever has read it."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    freshen(bench)

    assert bench.record_and_flush().verdicts == (Verdict(1, 200),)
    assert bench.record_and_flush().verdicts == ()


def test_a_sound_connection_stays(bench, peer):
    """Nothing is opened, and nobody is asked."""
    bench.record_and_flush()
    peer.accept()
    freshen(bench)
    freshen(bench)

    assert bench.flusher._link.opening is None
    assert not peer.has_another_connection()


def test_a_connection_that_waited_too_long_is_replaced_as_well(bench, peer, clock):
    """As in a sandbox that was frozen for longer than load balancers keep a connection."""
    bench.record_and_flush()
    peer.accept()
    clock.now += 60
    freshen(bench)

    peer.accept()


def test_one_that_dies_again_before_the_flush_is_noticed(bench, peer):
    """The handler worked for long, and the peer gave up on it: the report goes out on a third."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    peer.accept().close()
    wait_for_the_thread()
    bench.flusher._link.come_back()
    if bench.flusher._link.connection.ended is None:  # otherwise it was so quick that the thread has seen it
        bench.wait_for_input()
    bench.record_and_flush()

    assert next_totals(peer.accept())["orders"] == 2


def test_while_backing_off_nobody_is_asked(bench, peer, clock):
    """Somebody who was left alone for a reason is left alone here too."""
    close_behind_its_back(bench, peer, answered=False)
    bench.flusher._network.fail()
    freshen(bench)

    assert bench.flusher._link.opening is None
    assert not peer.has_another_connection()
    clock.now += 3
    freshen(bench)
    peer.accept()


def test_what_an_earlier_budget_cut_short_goes_on_behind_the_handler(bench):
    """Also while backing off, as a flush would; and its connection is used at once."""
    bench.flusher._link.opening = bench.flusher._link._new()
    bench.flusher._network.fail()
    freshen(bench)
    wait_for_the_thread()

    assert bench.record_and_flush().delivery is Delivery.TRANSMITTED


def test_a_disabled_emitter_opens_nothing(peer, clock):
    """It does nothing at all."""
    bench = Bench(peer, clock, environment={"EMITTER_DISABLED": "true"})
    freshen(bench)

    assert not peer.has_another_connection()


def test_nothing_is_opened_for_a_flush_that_would_be_withheld(bench, peer, clock):
    """Where an interval is asked for, to spare the receiver."""
    close_behind_its_back(bench, peer)
    loops.run(bench.flusher.freshen(every=60.0))
    assert bench.flusher._link.opening is None
    clock.now += 60
    loops.run(bench.flusher.freshen(every=60.0))

    peer.accept()


def test_an_interval_does_not_hold_up_a_report_that_failed(bench, peer, clock):
    """It trades freshness for requests, and a request that never went out was none."""
    port = peer.port
    peer.close()
    bench.record_and_flush()
    clock.now += 3
    with closing(ScriptedPeer(port=port)) as again:
        assert bench.flush(every=60.0).delivery is Delivery.TRANSMITTED
        again.accept()


def test_what_failed_behind_a_handler_is_told_while_backing_off(bench, peer):
    """The reason, and not merely that it was given up."""
    close_behind_its_back(bench, peer, answered=False)
    peer.close()
    freshen(bench)
    wait_for_the_thread()
    bench.flusher._network.fail()
    bench.orders.add()
    flush = bench.flush()

    assert flush.withheld is Withheld.BACKING_OFF
    assert "refused" in str(bench.stats.last_error)


def test_a_flush_that_comes_too_early_is_withheld(bench, peer, clock):
    """And counted with its reason; its totals go out with the one that comes in time."""
    bench.record_and_flush()
    other_end = peer.accept()
    clock.now += 4.9
    bench.orders.add()
    early = bench.flush(every=5.0)
    clock.now += 0.1
    late = bench.flush(every=5.0)

    assert early.withheld is Withheld.INTERVAL
    assert late.withheld is None
    assert next_totals(other_end)["orders"] == 1
    second = next_totals(other_end)
    assert (second["orders"], second["emitter.withheld"]) == (2, 1)


def test_the_last_flush_waits_for_no_interval(bench, peer):
    """Nor does one of which nobody has said so."""
    bench.record_and_flush()
    bench.orders.add()
    bench.flush(every=60.0)
    bench.orders.add()

    assert bench.flush().withheld is None
    assert bench.stats.withheld == {Withheld.INTERVAL: 1}


def test_an_interval_is_measured_by_the_clock_that_says_more(bench, peer, clock):
    """A sandbox that was frozen for an hour reports at once, though its own clock stood still."""
    bench.wall = clock.now
    bench.record_and_flush()
    bench.wall += 3_600
    bench.orders.add()

    assert bench.flush(every=5.0).withheld is None


class Signer:
    """Signs with what the test says; keeps what it was asked to sign."""

    def __init__(self, fields) -> None:
        self.fields = fields
        self.asked = []

    def check(self, url) -> None:
        self.asked.append(url)

    def sign(self, method, url, headers, body):
        self.asked.append((method, url, dict(headers), bytes(body)))
        if isinstance(self.fields, Exception):
            raise self.fields
        return self.fields


def test_what_a_signer_says_is_in_the_request(peer):
    """It is given what goes out: address, fields, and the very body."""
    signer = Signer({"Authorization": "secret", "X-Amz-Date": "today"})
    metrics = Emitter(f"{peer.endpoint}?a=b", signer=signer, headers={"X-Team": "shop"}, compress=False)
    flush = metrics.flush_sync(timeout=5)
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0)

    assert flush.error is None
    assert (request.headers[b"authorization"], request.headers[b"x-amz-date"]) == (b"secret", b"today")
    assert signer.asked[0] == f"{peer.endpoint}?a=b"
    method, url, headers, body = signer.asked[1]
    assert (method, url, body) == ("POST", f"{peer.endpoint}?a=b", request.body)
    signed = {name.lower().encode(): value.encode() for name, value in headers.items()}
    assert signed.items() <= request.headers.items()
    assert {b"host", b"content-type", b"x-team"} <= signed.keys()


def test_a_signer_is_told_that_the_body_is_compressed(peer):
    """And signs it as it goes out."""
    signer = Signer({"Authorization": "secret"})
    metrics = Emitter(peer.endpoint, signer=signer)
    for number in range(300):
        metrics.counter("orders").add(channel=str(number))
    metrics.flush_sync(timeout=5)
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0)

    assert signer.asked[1][2]["Content-Encoding"] == "gzip"
    assert signer.asked[1][3] == request.body


def test_without_credentials_the_totals_are_kept(peer):
    """It is trouble of the network: told by the flush, and over with the next that can be signed."""
    signer = Signer(CredentialsError("there are none"))
    metrics = Emitter(peer.endpoint, signer=signer)
    metrics.counter("orders").add()
    flush = metrics.flush_sync(timeout=5)
    signer.fields = {"Authorization": "secret"}
    failed = dict(metrics.stats.failed)
    metrics.close_sync(timeout=0.1)

    assert isinstance(flush.error, CredentialsError)
    assert failed == {"credentials": 1}
    assert next_totals(peer.accept())["orders"] == 1


def test_a_signature_cannot_break_the_request(peer):
    """A line break in it would be a header, or a request, of somebody else's."""
    metrics = Emitter(peer.endpoint, signer=Signer({"Authorization": "hush\r\nX: y"}))

    with pytest.raises(ConfigurationError, match="'Authorization'") as refused:
        metrics.flush_sync(timeout=5)
    assert "hush" not in str(refused.value)
    assert metrics.stats.failed == {"defect": 1}


@pytest.mark.parametrize(
    ("endpoint", "arguments", "expected"),
    [
        ("http://x/", {"signer": object()}, "lacks a method"),
        ("http://x/", {"signer": Signer({}), "headers": {"authorization": "Bearer x"}}, "both given; expected one"),
        ("http://user:secret@x/", {"signer": Signer({})}, "both given; expected one"),
    ],
)
def test_a_signer_that_cannot_work_is_refused(endpoint, arguments, expected):
    """Where the emitter is made."""
    with pytest.raises(ConfigurationError, match=expected):
        Emitter(endpoint, **arguments)
