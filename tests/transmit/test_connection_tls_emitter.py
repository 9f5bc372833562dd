from __future__ import annotations

import asyncio
import os
import select
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import uvloop

from emitter import ConnectError, Delivery, Emitter, TlsError
from emitter import loop as loops
from emitter.outcomes import Withheld
from tests.flushing import orders
from tests.scripted_peer import PATIENCE, wait_readable
from tests.tls import Authority, TlsPeer
from tests.transmit.secrecy import AUTHORITY, CLIENT, SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tls import TlsPeerConnection


@pytest.fixture
def secure(tls_peer) -> Iterator[Emitter]:
    """An emitter that trusts the peer, closed at the end."""
    metrics = Emitter(tls_peer.endpoint, service="checkout", timeout=5.0, ssl_context=CLIENT)
    yield metrics
    metrics.close_sync(timeout=0.0)


def opened(metrics: Emitter, peer: TlsPeer) -> TlsPeerConnection:
    """The peer's end of the emitter's connection."""
    accepted = peer.accept_soon()
    assert metrics.connect_sync()
    return accepted.result(PATIENCE)


def wait_for_answer(metrics: Emitter) -> None:
    """Until it is read, though not yet harvested: tickets are readable as well."""
    connection = metrics._flusher._link.connection
    answered = connection.answered
    while connection.answered == answered:
        wait_readable(connection._socket)
        connection._read()


def test_a_report_goes_over_tls(tls_peer, secure):
    """As over plain HTTP: transmitted, whole, and its answer harvested by the next."""
    counter = secure.counter("orders")
    other_end = opened(secure, tls_peer)
    counter.add()
    first = secure.flush_sync()
    request = other_end.read_request()
    other_end.answer(202)
    wait_for_answer(secure)
    counter.add()
    second = secure.flush_sync()

    assert first.delivery is second.delivery is Delivery.TRANSMITTED
    assert request.headers[b"host"] == f"127.0.0.1:{tls_peer.port}".encode()
    assert [verdict.status for verdict in second.verdicts] == [202]
    assert [orders(request.body), orders(other_end.read_request().body)] == [1, 2]
    assert secure.stats.connections_opened == 1


def test_a_warm_flush_runs_no_event_loop(tls_peer, secure, monkeypatch):
    """TLS has nothing to wait for either: not with an answer to read, nor with tickets."""
    counter = secure.counter("orders")
    other_end = opened(secure, tls_peer)
    monkeypatch.setattr(loops, "_run_in", lambda *_: pytest.fail("an event loop ran"))
    for number in range(1, 4):
        counter.add()
        flush = secure.flush_sync()
        assert flush.delivery is Delivery.TRANSMITTED
        assert [verdict.status for verdict in flush.verdicts] == ([200] if number > 1 else [])
        assert orders(other_end.read_request().body) == number
        other_end.answer(200)
        wait_for_answer(secure)
    monkeypatch.undo()

    assert secure.stats.transmitted == 3


@pytest.mark.parametrize("wanted", Delivery)
def test_every_level_is_reached(tls_peer, secure, wanted):
    """The answer brings its own verdict."""
    secure.counter("orders").add()
    other_end = opened(secure, tls_peer)
    answering = tls_peer.soon(lambda: (other_end.read_request(), other_end.answer(202)))
    flush = secure.flush_sync(delivery=wanted)
    answering.result(PATIENCE)

    assert flush.delivery is wanted
    assert flush.error is None
    assert [verdict.status for verdict in flush.verdicts] == ([202] if wanted is Delivery.ANSWERED else [])


@pytest.mark.parametrize("answered", [True, False])
def test_the_next_connection_resumes_the_session(tls_peer, secure, answered):
    """Whatever became of the one before, as long as its tickets were harvested: it was closed, or just gone."""
    counter = secure.counter("orders")
    resumed = []
    for _ in range(3 if answered else 2):  # two in a row that were never answered make it back off
        accepted = tls_peer.accept_soon()
        counter.add()
        assert secure.flush_sync().delivery is Delivery.TRANSMITTED
        other_end = accepted.result(PATIENCE)
        other_end.read_request()
        resumed.append(other_end.socket.session_reused)
        if answered:
            other_end.answer(200)
            other_end.close_with_alert()
        other_end.close()
        wait_until_ended(secure)

    assert resumed == [False, True, True][: len(resumed)]
    assert secure.stats.connections_opened == len(resumed)


def wait_until_ended(metrics: Emitter) -> None:
    """Harvest until the connection is seen to be closed."""
    connection = metrics._flusher._link.connection
    while connection.ended is None:
        wait_readable(connection._socket)
        connection._read()


def test_a_handshake_cut_short_goes_on_at_the_next_flush_in_any_loop(tls_peer):
    """A budget of nothing at all delivers after a few flushes: each goes on where the one before it stopped."""
    metrics = Emitter(tls_peer.endpoint, service="checkout", timeout=0.0, ssl_context=CLIENT)
    metrics._flusher._network._jitter = lambda: 1.0
    counter = metrics.counter("orders")

    async def flush():
        return await metrics.flush()

    def in_uvloop(use):
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(use)
        finally:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    counter.add()
    first = metrics.flush_sync()
    accepted = tls_peer.accept_soon()
    flushes = []
    ways = [lambda: asyncio.run(flush()), metrics.flush_sync, lambda: in_uvloop(flush())]
    while metrics._flusher._link.opening is not None:
        (sock,) = metrics._flusher._link.opening._sockets
        # For the peer's flight; or, as long as there is none on its way, for TCP to be connected.
        assert select.select([sock], [sock] if not flushes else [], [], PATIENCE)[:2] != ([], [])
        flushes.append(ways[len(flushes) % 3]())
    if flushes[-1].delivery is None:
        flushes.append(metrics.flush_sync())
    other_end = accepted.result(PATIENCE)
    body = other_end.read_request().body
    metrics.close_sync(timeout=0.0)

    assert isinstance(first.error, ConnectError)
    assert first.error.unfinished
    assert [flush.withheld for flush in flushes[:-1]] == [Withheld.BACKING_OFF] * (len(flushes) - 1)
    assert flushes[-1].delivery is Delivery.TRANSMITTED
    assert orders(body) == 1
    assert metrics.stats.connections_opened == 1
    assert not tls_peer.has_another_connection()


def test_the_connection_survives_a_loop_for_each_invocation(tls_peer, secure):
    """`asyncio.run` for each invocation, then synchronous code, then again: one handshake."""
    counter = secure.counter("orders")
    other_end = opened(secure, tls_peer)

    async def invocation():
        counter.add()
        return await secure.flush()

    for _ in range(3):
        assert asyncio.run(invocation()).delivery is Delivery.TRANSMITTED
        counter.add()
        assert secure.flush_sync().delivery is Delivery.TRANSMITTED

    assert [orders(other_end.read_request().body) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert secure.stats.connections_opened == 1


def test_closing_reports_once_more_and_says_so_in_tls(tls_peer, secure):
    """The last report is answered before the alert, and the alert comes before the end."""
    other_end = opened(secure, tls_peer)
    secure.counter("orders").add()
    closing = threading.Thread(target=secure.close_sync)
    closing.start()
    got = orders(other_end.read_request().body)
    other_end.answer(200)

    assert other_end.is_closed_with_alert()
    assert got == 1
    closing.join(PATIENCE)
    assert secure.stats.verdicts == {200: 1}


@pytest.mark.parametrize(("listens", "host"), [("::1", "[::1]"), ("127.0.0.1", "localhost")])
def test_the_host_may_be_an_address_of_either_family_or_a_name(listens, host):
    """The certificate has to be for what the endpoint says, brackets aside."""
    try:
        peer = TlsPeer(SERVERS["TLSv1.3"], host=listens)
    except OSError as error:
        pytest.skip(f"IPv6 on the loopback interface is not permitted here: {error}")
    accepted = peer.accept_soon()
    authority = f"{host}:{peer.port}"
    metrics = Emitter(f"https://{authority}/", timeout=5.0, ssl_context=CLIENT)
    metrics.counter("orders").add()
    flush = metrics.flush_sync()
    request = accepted.result(PATIENCE).read_request()
    metrics.close_sync(timeout=0.0)
    peer.close()

    assert flush.delivery is Delivery.TRANSMITTED
    assert request.headers[b"host"] == authority.encode()


def test_a_peer_that_nobody_has_certified_gets_nothing(tls_peer):
    """Verification is on by default: no byte of the report goes out, and the error says what to do."""
    metrics = Emitter(tls_peer.endpoint, timeout=5.0)  # our authority is in no operating system's trust store
    refused = tls_peer.accept_soon()
    flush = metrics.flush_sync()

    assert flush.delivery is None
    assert isinstance(flush.error, TlsError)
    assert "the peer's certificate was not accepted: unable to get local issuer certificate" in str(flush.error)
    assert metrics.stats.failed == {"tls": 1}
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        refused.result(PATIENCE)


def test_https_at_a_peer_that_speaks_plain_http_says_so(peer):
    """The most likely mistake."""
    metrics = Emitter(peer.endpoint.replace("http:", "https:"), timeout=5.0)
    thread = threading.Thread(target=lambda: peer.accept().answer(400))
    thread.start()
    flush = metrics.flush_sync()
    thread.join(PATIENCE)
    metrics.close_sync(timeout=0.0)

    assert "is it an http:// endpoint" in str(flush.error)


SCRIPT = """
import sys
from emitter import Emitter
metrics = Emitter(sys.argv[1], timeout=5.0)
flush = metrics.flush_sync()
print(flush.delivery, flush.error)
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_the_trust_store_of_the_operating_system_decides(tls_peer, tmp_path, trusted):
    """OpenSSL is told of another one by `SSL_CERT_FILE`, which stands for what an administrator installs."""
    store = tmp_path / "store.pem"
    store.write_bytes(AUTHORITY.pem if trusted else Authority().pem)
    accepted = tls_peer.accept_soon()
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tls_peer.endpoint],
        env={**os.environ, "SSL_CERT_FILE": str(store)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    if trusted:
        assert run.stdout == "TRANSMITTED None\n"
        assert accepted.result(PATIENCE).read_request().method == b"POST"
    else:
        assert "certificate was not accepted" in run.stdout
        assert isinstance(accepted.exception(PATIENCE), ssl.SSLError)


def test_a_client_certificate_lets_us_in(tls_peer):
    """With a context of one's own, as a peer may demand it."""
    tls_peer.context = AUTHORITY.server()
    AUTHORITY.demand_certificate(tls_peer.context)
    metrics = Emitter(tls_peer.endpoint, timeout=5.0, ssl_context=AUTHORITY.client_with_certificate("sandbox"))
    other_end = opened(metrics, tls_peer)
    flush = metrics.flush_sync()
    metrics.close_sync(timeout=0.0)

    assert flush.delivery is Delivery.TRANSMITTED
    assert ("DNS", "sandbox") in other_end.socket.getpeercert()["subjectAltName"]
