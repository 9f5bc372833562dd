from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emitter.errors import ConnectionLostError
from emitter.transmit.tls import LIMIT_OVERHEAD_BYTES, Tls, TlsClient
from tests.tls import Authority, fed_until_refused
from tests.transmit.tls_forger import ALERT, CONTENT, HANDSHAKE, Forger, forger

if TYPE_CHECKING:
    from collections.abc import Callable

AUTHORITY = Authority()
CLIENT = AUTHORITY.client()

_MEGABYTE = 1 << 20


@pytest.fixture
def tls() -> Tls:
    """A client's side, at its very beginning."""
    return TlsClient("localhost", 443, CLIENT).begin()


@pytest.fixture
def peer(tls, tmp_path) -> Forger:
    """Who writes what no OpenSSL would."""
    return forger(tls, AUTHORITY, tmp_path / "secrets")


def test_what_is_forged_is_taken_for_real(tls, peer):
    """Else the tests below would show nothing."""
    wire = peer.record(CONTENT, b"one") + peer.new_keys() + peer.ticket(100) + peer.record(CONTENT, b"two", padding=9)

    assert tls.inbound(wire) == b"onetwo"
    assert tls.owed() != b""


FLOODS: dict[str, Callable[[Forger], bytes]] = {
    "empty records": lambda peer: peer.record(CONTENT, b""),
    "records of padding": lambda peer: peer.record(CONTENT, b"", padding=16_000),
    "a byte, and padding": lambda peer: peer.record(CONTENT, b"x", padding=16_000),
    "records of a byte": lambda peer: peer.record(CONTENT, b"x"),
    "warnings": lambda peer: peer.record(ALERT, b"\x01\x5a"),  # user_canceled
    "warnings and a byte": lambda peer: peer.record(ALERT, b"\x01\x5a") + peer.record(CONTENT, b"x"),
    "tickets": lambda peer: peer.ticket(200),
    "large tickets": lambda peer: peer.ticket(15_000),
    "new keys": lambda peer: peer.new_keys(),
    "new keys and a byte": lambda peer: peer.new_keys() + peer.record(CONTENT, b"x"),
    "a message without an end": lambda peer: peer.record(HANDSHAKE, b"\x04\x01\xff\xff" + bytes(1000)),
    "parts of a ticket": lambda peer: peer.record(HANDSHAKE, b"\x04"),
    "an unknown message": lambda peer: peer.record(HANDSHAKE, b"\x63\0\0\0"),
    "an unknown type of record": lambda peer: peer.record(99, b"?"),
    "changes of cipher": lambda peer: b"\x14\x03\x03\0\x01\x01",
    "plain alerts": lambda peer: b"\x15\x03\x03\0\x02\x01\x5a",
    "nothing but zeros": lambda peer: bytes(1000),
    "half a record": lambda peer: b"\x17\x03\x03\x40\0",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_anything_ends_the_connection(tls, peer, flood):
    """Bounded by the bytes that are looked at; what the peer can make us owe it, and keep, by the same number."""
    wire, got = bytearray(), []
    while len(wire) < 4 * LIMIT_OVERHEAD_BYTES:
        wire += FLOODS[flood](peer)
    error, fed_bytes = fed_until_refused(lambda piece: got.append(tls.inbound(piece)), bytes(wire))

    assert isinstance(error, ConnectionLostError)
    assert error.cause.startswith("TLS: ")
    assert fed_bytes - sum(map(len, got)) <= LIMIT_OVERHEAD_BYTES + 4096
    assert len(tls.closing()) <= LIMIT_OVERHEAD_BYTES + 4096


@pytest.mark.parametrize("size", [1, 4096, _MEGABYTE])
def test_a_flood_is_bounded_however_it_arrives(tls, peer, size):
    """All at once, or byte by byte."""
    wire = b"".join(peer.new_keys() for _ in range(1_000))
    error, fed_bytes = fed_until_refused(tls.inbound, wire, size)

    assert "around the content" in str(error)
    assert fed_bytes <= LIMIT_OVERHEAD_BYTES + size
    assert tls._incoming.pending == 0  # no more was fed to OpenSSL than what it has worked through


def test_what_comes_along_with_the_handshake_counts_too(tls, tmp_path):
    """It was fed to the handshake, and is only read after it."""
    forger(tls, AUTHORITY, tmp_path / "secrets", along=lambda peer: b"".join(peer.new_keys() for _ in range(1_000)))

    with pytest.raises(ConnectionLostError, match="around the content"):
        tls.inbound(b"")


def test_content_that_comes_along_with_the_handshake_is_read(tls, tmp_path):
    """A server of TLS 1.3 may write before it has heard the end of ours (RFC 8446, 4.4.4)."""
    forger(tls, AUTHORITY, tmp_path / "secrets", along=lambda peer: peer.record(CONTENT, b"early"))

    assert tls.inbound(b"") == b"early"


def test_the_largest_record_is_within_the_limits(tls, peer):
    """And with it what honest peers write beside content: two tickets, some changes of keys."""
    wire = peer.ticket(2_000) + peer.new_keys() + peer.record(CONTENT, bytes(16 * 1024)) + peer.new_keys()
    got = [tls.inbound(wire[:-2_000]), tls.inbound(wire[-2_000:])]

    assert b"".join(got) == bytes(16 * 1024)


@pytest.mark.parametrize(
    "wire",
    [b"HTTP/1.1 200 OK\r\n\r\n", bytes(5), b"\xff" * 100, b"\x17\x03\x03\xff\xff", b"\x16\x03\x01\0\x05hello"],
    ids=["HTTP", "zeros", "ones", "a record that is too large", "a handshake"],
)
def test_what_is_no_tls_is_an_error(tls, peer, wire):
    """After the handshake as well: somebody in between answers in the peer's place."""
    with pytest.raises(ConnectionLostError, match="TLS: "):
        tls.inbound(wire)
