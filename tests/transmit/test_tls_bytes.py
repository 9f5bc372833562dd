from __future__ import annotations

import random
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitter.errors import ConnectionLostError
from emitter.transmit.tls import LIMIT_OVERHEAD_BYTES, Tls, TlsClient
from tests.tls import Authority, ServerSide, fed_until_refused, in_pieces, renegotiate, shake_hands
from tests.transmit.answers import pieces

AUTHORITY = Authority()
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS)
CLIENT = AUTHORITY.client()
SERVERS = {version: AUTHORITY.server(highest=highest) for version, highest in VERSIONS.items()}
LARGE = random.Random(0).randbytes(300_000)  # noqa: S311  many records, of nothing that repeats


def established(version: str = "TLSv1.3") -> tuple[Tls, ServerSide]:
    """Both sides of a connection, its handshake over; the tickets are taken."""
    tls = TlsClient("localhost", 443, CLIENT).begin()
    server = ServerSide(SERVERS[version])
    tickets = shake_hands(tls, server)
    assert tls.inbound(tickets) == b""
    return tls, server


@versions
@pytest.mark.parametrize("plain", [b"", b"x", b"small", LARGE], ids=["nothing", "a byte", "small", "large"])
def test_what_goes_in_comes_out_at_the_other_side(version, plain):
    """Both ways, in however many records."""
    tls, server = established(version)
    back = server.feed(tls.outbound(plain))

    assert back == b""
    assert server.plain == plain
    assert tls.inbound(server.write(plain)) == plain


@versions
def test_all_that_there_is_to_write_comes_with_the_plain_bytes(version):
    """Nothing stays behind in this process: a freeze would keep it."""
    tls, _ = established(version)
    wire = tls.outbound(LARGE)

    assert len(wire) > len(LARGE)
    assert tls.owed() == b""


@versions
@given(st.data())
def test_it_does_not_matter_in_which_pieces_bytes_arrive(version, data):
    """Records are cut and joined by the network as it likes."""
    tls, server = established(version)
    texts = data.draw(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
    wire = b"".join(server.write(text) for text in texts)
    got = [tls.inbound(piece) for piece in data.draw(pieces(wire))]

    assert b"".join(got) == b"".join(texts)
    assert not tls.ended


def test_a_byte_at_a_time_is_enough():
    """No piece is too small, and no record is complete too soon."""
    tls, server = established()
    wire = server.write(b"answer")
    got = [tls.inbound(bytes([byte])) for byte in wire]

    assert got == [b""] * (len(wire) - 1) + [b"answer"]


@versions
def test_the_peers_close_alert_is_its_end(version):
    """What came before it is read; whatever comes after it is not."""
    tls, server = established(version)
    wire = server.write(b"answer") + server.close()

    assert tls.inbound(wire + b"no TLS at all") == b"answer"
    assert tls.ended
    assert tls.inbound(b"") == b""


@versions
def test_our_close_alert_reaches_the_peer(version):
    """So it knows that nothing was cut off."""
    tls, server = established(version)
    server.feed(tls.outbound(b"report") + tls.closing())

    assert server.plain == b"report"
    assert server.ended
    with pytest.raises(ConnectionLostError) as caught:
        tls.outbound(b"more")
    assert caught.value.untouched


def test_closing_twice_or_before_the_handshake_does_no_harm():
    """A connection may be lost at any time."""
    tls, server = established()
    server.feed(tls.closing())
    tls.closing()

    assert server.ended
    assert TlsClient("localhost", 443, CLIENT).begin().closing() == b""


@pytest.mark.parametrize("demanding", [False, True])
def test_new_keys_are_answered_with_the_next_report(demanding):
    """RFC 8446, 4.6.3: a peer may change its keys, and may demand the same of us before we write anything else."""
    tls, server = established()
    got = tls.inbound(server.update_keys(demanding=demanding) + server.write(b"with new keys"))
    back = server.feed(tls.outbound(b"report"))

    assert got == b"with new keys"
    assert server.plain == b"report"
    assert back == b""
    assert tls.inbound(server.write(b"after it")) == b"after it"


def test_changing_keys_again_and_again_is_fine_as_long_as_reports_go_out():
    """Between two of them there is little; all together may be much."""
    tls, server = established()
    for _ in range(300):
        assert tls.inbound(b"".join(server.update_keys() for _ in range(10)) + server.write(b"ok")) == b"ok"
        assert server.feed(tls.outbound(b"report")) == b""

    assert server.plain == b"report" * 300


def test_a_flood_of_new_keys_ends_the_connection():
    """Each costs us more than the peer, so there is a limit, on what we owe it as well."""
    tls, server = established()
    error, fed_bytes = fed_until_refused(tls.inbound, b"".join(server.update_keys() for _ in range(2_000)))

    assert isinstance(error, ConnectionLostError)
    assert error.cause == f"TLS: more than {LIMIT_OVERHEAD_BYTES} bytes around the content"
    assert not error.untouched
    assert fed_bytes <= LIMIT_OVERHEAD_BYTES + 4096
    assert len(tls.owed()) <= LIMIT_OVERHEAD_BYTES


def test_a_flood_is_ended_though_there_is_a_little_content_in_it():
    """A byte of it after each change of keys makes it no better. However much arrives at once, little is looked at."""
    tls, server = established()
    wire = b"".join(server.update_keys() + server.write(b"x") for _ in range(1_300))

    with pytest.raises(ConnectionLostError, match="around the content"):
        tls.inbound(wire)
    assert tls._incoming.pending == 0
    assert len(tls.owed()) <= LIMIT_OVERHEAD_BYTES + 4096


@versions
def test_much_content_is_no_flood(version):
    """Also if it comes in small records and no report goes out meanwhile."""
    tls, server = established(version)
    got = [tls.inbound(server.write(piece)) for piece in in_pieces(LARGE, 1_000)]

    assert b"".join(got) == LARGE


def test_a_renegotiation_is_refused_and_the_connection_goes_on():
    """TLS 1.2 only: in the middle of one, writing would have to wait for reading."""
    client = TlsClient("localhost", 443, None)
    client.begin()._ssl.context.load_verify_locations(cadata=AUTHORITY.pem.decode())  # the default context
    tls, server = client.begin(), ServerSide(SERVERS["TLSv1.2"])
    tls.inbound(shake_hands(tls, server))
    renegotiate(server.ssl)
    server.ssl.do_handshake()
    request = server.owed()
    got = tls.inbound(request)
    warning = tls.owed()

    assert request
    assert got == b""
    assert warning[:1] == b"\x15"  # an alert (RFC 5246, 7.2.2: no_renegotiation)
    assert tls.outbound(b"report")[:1] == b"\x17"  # application data


def test_a_renegotiation_in_a_context_of_ones_own_costs_the_connection_and_no_report():
    """It may be allowed there; then nothing can be written, and that is said before anything is."""
    tls, server = established("TLSv1.2")
    renegotiate(server.ssl)
    server.ssl.do_handshake()
    tls.inbound(server.owed())

    with pytest.raises(ConnectionLostError) as caught:
        tls.outbound(b"report")
    assert caught.value.untouched


@versions
@given(st.data())
def test_a_record_that_was_tampered_with_is_never_taken_for_content(version, data):
    """Any bit of it: there is an error, or nothing yet."""
    tls, server = established(version)
    wire = bytearray(server.write(b"the peer's own words"))
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    try:
        got = tls.inbound(bytes(wire))
    except ConnectionLostError:
        got = b""

    assert got == b""


@versions
@pytest.mark.parametrize("change", ["dropped", "repeated", "swapped"])
def test_records_that_are_not_in_order_are_refused(version, change):
    """They are numbered (RFC 8446, 5.3)."""
    tls, server = established(version)
    first, second = server.write(b"first"), server.write(b"second")
    wire = {"dropped": second, "repeated": first + first, "swapped": second + first}[change]

    with pytest.raises(ConnectionLostError, match="bad record mac"):
        tls.inbound(wire)


@versions
def test_what_breaks_is_told_to_the_peer(version):
    """The alert comes with `closing`, though the peer may be somebody else by now."""
    tls, server = established(version)
    server.write(b"lost on the way")
    with pytest.raises(ConnectionLostError):
        tls.inbound(server.write(b"answer"))

    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        server.feed(tls.closing())


def test_an_alert_of_the_peer_ends_it_with_the_peers_word():
    """As when a client certificate was demanded: with TLS 1.3 that is only told after our side of the handshake."""
    context = AUTHORITY.server()
    AUTHORITY.demand_certificate(context)
    tls = TlsClient("localhost", 443, CLIENT).begin()
    server = ServerSide(context)
    wire = tls.handshake(server.feed(tls.handshake()))
    assert tls.established
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        server.feed(wire)

    with pytest.raises(ConnectionLostError, match="alert certificate required"):
        tls.inbound(server.owed())
