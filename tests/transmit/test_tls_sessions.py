from __future__ import annotations

import resource
import ssl
import sys
from pathlib import Path

import pytest

from emitter.errors import ConnectionLostError, TlsError
from emitter.transmit.tls import LIMIT_SESSIONS, Tls, TlsClient
from tests.tls import Authority, ServerSide, shake_hands

AUTHORITY = Authority()
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def client() -> TlsClient:
    """What the connections of one emitter share."""
    return TlsClient("localhost", 443, AUTHORITY.client())


def server_context(version: str, *, tickets: int = 2) -> ssl.SSLContext:
    context = AUTHORITY.server(highest=VERSIONS[version])
    context.num_tickets = tickets
    return context


def connected(client: TlsClient, context: ssl.SSLContext) -> tuple[Tls, ServerSide, bytes]:
    """Both sides of a connection, and the tickets that the client has not read yet."""
    tls, server = client.begin(), ServerSide(context)
    return tls, server, shake_hands(tls, server)


def used(client: TlsClient, context: ssl.SSLContext) -> Tls:
    """A connection on which a report was answered."""
    tls, server, tickets = connected(client, context)
    server.feed(tls.outbound(b"report"))
    assert tls.inbound(tickets + server.write(b"answer")) == b"answer"
    return tls


@versions
def test_a_session_is_resumed_by_the_next_connection(client, version):
    """Again and again: each connection has a session to resume, its own or the one it was given."""
    context = server_context(version)
    resumed = []
    for _ in range(4):
        tls = used(client, context)
        tls.closing()
        resumed.append(tls.resumed)

    assert resumed == [False, True, True, True]


@versions
def test_a_connection_that_was_lost_leaves_its_session(client, version):
    """Most are lost: no alert came or went. OpenSSL would not resume it if nobody called `closing`."""
    context = server_context(version)
    first = used(client, context)
    first.closing()
    del first  # OpenSSL decides what the session is worth when the connection is gone
    second = used(client, context)
    second.closing()
    del second
    third = used(client, context)

    assert third.resumed


def test_a_ticket_that_was_not_read_is_none(client):
    """With TLS 1.3 it comes after the handshake, with the first answer most often."""
    context = server_context("TLSv1.3")
    tls, _, tickets = connected(client, context)
    tls.closing()
    again, _, _ = connected(client, context)

    assert tickets
    assert not again.resumed


def test_a_peer_without_tickets_is_met_anew_each_time(client):
    """Nothing is offered that the peer did not give."""
    context = server_context("TLSv1.3", tickets=0)
    used(client, context).closing()
    tls, server, _ = connected(client, context)

    assert not tls.resumed
    assert server.established


def test_tls_1_2_needs_no_ticket(client):
    """A peer may keep its sessions itself, by a number (RFC 5246, 7.4.1.2)."""
    context = server_context("TLSv1.2")
    context.options |= ssl.OP_NO_TICKET
    tls, server, _ = connected(client, context)
    server.feed(tls.closing())
    server.close()  # or the peer's OpenSSL throws the session away
    again, _, _ = connected(client, context)

    assert again.resumed


@versions
def test_a_peer_that_has_forgotten_the_session_shakes_hands_in_full(client, version):
    """It has new keys, or another one took its place: nothing goes wrong, and its own session comes next."""
    context, restarted = server_context(version), server_context(version)
    used(client, context).closing()
    first = used(client, restarted)
    first.closing()

    assert not first.resumed
    assert used(client, restarted).resumed


@versions
def test_a_session_is_not_offered_again_before_it_was_resumed(client, version):
    """A connection that was not even opened tells nothing of it."""
    context = server_context(version)
    used(client, context).closing()
    hello = client.begin().handshake()
    again, _, _ = connected(client, context)

    assert len(hello) > 300
    assert not again.resumed


@versions
def test_a_handshake_that_failed_does_not_spoil_the_next(client, version):
    """The peer breaks off when it is offered a session; the next time it is not offered one."""
    context = server_context(version)
    used(client, context).closing()
    tls = client.begin()
    tls.handshake()
    with pytest.raises(TlsError, match="internal error"):
        tls.handshake(b"\x15\x03\x03\0\x02\x02\x50")  # an alert: fatal, internal error
    tls.closing()

    assert not used(client, context).resumed


@versions
def test_what_broke_in_tls_is_not_resumed(client, version):
    """RFC 8446, 6.2, and RFC 5246, 7.2.2: somebody was in between, or the keys are not the same."""
    context = server_context(version)
    tls = used(client, context)
    with pytest.raises(ConnectionLostError):
        tls.inbound(b"\x17\x03\x03\0\x20" + bytes(32))
    tls.closing()

    assert not used(client, context).resumed


def counted_looks(monkeypatch) -> list[int]:
    """Grows with each look at a session."""
    looks = []
    monkeypatch.setattr(ssl.SSLObject, "session", property(lambda self: looks.append(1) or self._sslobj.session))
    return looks


def test_sessions_are_not_looked_at_with_every_harvest(client, monkeypatch):
    """OpenSSL copies a session whenever it is looked at, which takes longer than all the rest of a warm flush."""
    tls, server, tickets = connected(client, server_context("TLSv1.3"))
    tls.inbound(tickets)
    looks = counted_looks(monkeypatch)
    for _ in range(10):
        tls.inbound(server.write(b"answer"))
    assert looks == []
    tls.closing()

    assert looks == [1]


@versions
def test_a_session_that_was_resumed_is_kept_as_it_is(client, version, monkeypatch):
    """It needs no other look."""
    context = server_context(version)
    used(client, context).closing()
    looks = counted_looks(monkeypatch)
    for _ in range(5):
        tls = used(client, context)
        tls.closing()
        assert tls.resumed

    assert looks == []


def test_a_peer_that_resumes_nothing_is_not_asked_for_ever(client, monkeypatch):
    """Each look at a session costs memory in older CPythons, so there is an end to it."""
    context = server_context("TLSv1.3", tickets=0)
    looks = counted_looks(monkeypatch)
    for _ in range(LIMIT_SESSIONS + 20):
        tls, _, _ = connected(client, context)
        tls.closing()

    assert len(looks) == LIMIT_SESSIONS


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc, which Linux has")
@versions
def test_many_connections_leave_no_memory_behind(client, version):
    """Neither of ours nor of OpenSSL's: peers that close after each answer may do so for weeks."""
    context = server_context(version)
    for _ in range(100):
        used(client, context).closing()
    before = resident_bytes()
    for _ in range(1_000):
        used(client, context).closing()

    assert resident_bytes() - before < 2 << 20  # with a look at each session it is 6 MB and more


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
