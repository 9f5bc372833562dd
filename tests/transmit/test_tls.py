from __future__ import annotations

import ssl

import pytest

from emitter.errors import TlsError
from emitter.transmit import tls as tls_module
from emitter.transmit.tls import LIMIT_HANDSHAKE_BYTES, Tls, TlsClient, default_context
from tests.tls import Authority, ServerSide, fed_until_refused, shake_hands

AUTHORITY = Authority()
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS)


def a_client(host: str = "localhost", context: ssl.SSLContext | None = None) -> TlsClient:
    return TlsClient(host, 443, context or AUTHORITY.client())


def refusal(client: TlsClient, context: ssl.SSLContext) -> tuple[TlsError, Tls, ServerSide]:
    """The error of a handshake that has to fail, and both sides of it."""
    tls, server = client.begin(), ServerSide(context)
    with pytest.raises(TlsError) as caught:
        shake_hands(tls, server)
    return caught.value, tls, server


def told(tls: Tls, server: ServerSide) -> str:
    """What the client's alert tells the server."""
    with pytest.raises(ssl.SSLError) as caught:
        server.feed(tls.owed())
    return caught.value.reason


@versions
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_handshake_succeeds_in_whatever_pieces_it_arrives(version, size):
    """Both sides agree on a version and a protocol; a byte at a time is as good as all at once."""
    tls, server = a_client().begin(), ServerSide(AUTHORITY.server(highest=VERSIONS[version]))
    shake_hands(tls, server, size)

    assert tls.established
    assert server.established
    assert not tls.resumed
    assert not tls.ended
    assert server.ssl.version() == version


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost", "localhost"), ("localhost.", "localhost"), ("127.0.0.1", None), ("::1", None)],
    ids=["name", "name with a dot at its end", "IPv4", "IPv6"],
)
def test_the_name_goes_out_and_an_address_does_not(host, name):
    """A server with several certificates needs the name; an address is none (RFC 6066, 3), but is verified as well."""
    context, asked = AUTHORITY.server(), []
    context.sni_callback = lambda _, told, __: asked.append(told)
    tls, server = a_client(host).begin(), ServerSide(context)
    shake_hands(tls, server)

    assert tls.established
    assert asked == [name]


NOT_ACCEPTED = "the peer's certificate was not accepted: "


@versions
@pytest.mark.parametrize(
    ("host", "server", "text", "alert"),
    [
        ("localhost", lambda **more: Authority().server(**more), "unable to get local issuer", "UNKNOWN_CA"),
        ("elsewhere", AUTHORITY.server, "Hostname mismatch, certificate is not valid for 'elsewhere'", "BAD_CERT"),
        ("127.0.0.2", AUTHORITY.server, "IP address mismatch, certificate is not valid for '127.0.0.2'", "BAD_CERT"),
        ("localhost", lambda **more: AUTHORITY.server(expired=True, **more), "has expired", "CERTIFICATE_EXPIRED"),
    ],
    ids=["unknown authority", "other name", "other address", "expired"],
)
def test_a_certificate_that_proves_nothing_is_refused(version, host, server, text, alert):
    """Verification is on, the error says why and what to do, and the peer is told as well."""
    error, tls, other = refusal(a_client(host), server(highest=VERSIONS[version]))

    assert str(error).startswith(f"no connection to {host} port 443: {NOT_ACCEPTED}")
    assert text in error.cause
    assert "ssl_context= brings a trust store of one's own" in error.cause
    assert alert in told(tls, other)
    assert not tls.established


def test_less_than_tls_1_2_is_refused():
    """Nothing older is safe (RFC 8996), and the server is told so."""
    context = AUTHORITY.server()
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL has no such version at its usual level
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    client, server = default_context(), ServerSide(context)
    client.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the version alone that is refused
    tls = a_client(context=client).begin()

    assert client.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        server.feed(tls.handshake())
    with pytest.raises(TlsError, match="protocol version"):
        tls.handshake(server.owed())


def test_the_default_context_verifies_everything():
    """What a context of one's own may change."""
    context = default_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_the_default_context_is_made_once_and_only_when_it_is_needed(monkeypatch):
    """It takes 20 ms, which belong to the first connection, and not to the import."""
    made = []
    monkeypatch.setattr(tls_module, "_shared", {})
    monkeypatch.setattr(tls_module, "default_context", lambda: made.append(default_context()) or made[-1])
    client = TlsClient("localhost", 443, None)
    assert made == []
    first, second, of_another = client.begin(), client.begin(), TlsClient("other", 443, None).begin()

    assert len(made) == 1
    assert first._ssl.context is second._ssl.context is of_another._ssl.context is made[0]


def test_another_trust_store_is_another_context(monkeypatch):
    """What the environment names is looked at whenever an emitter first needs it."""
    monkeypatch.setattr(tls_module, "_shared", {})
    first = TlsClient("localhost", 443, None).begin()
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    second = TlsClient("localhost", 443, None).begin()

    assert first._ssl.context is not second._ssl.context


def test_a_trust_store_that_cannot_be_read_is_an_error_of_tls(monkeypatch):
    """And no surprise of another kind."""

    def unreadable() -> ssl.SSLContext:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tls_module, "_shared", {})
    monkeypatch.setattr(tls_module, "default_context", unreadable)

    with pytest.raises(TlsError, match="Permission denied"):
        TlsClient("localhost", 443, None).begin()


@pytest.mark.parametrize("host", ["", ".example.com"])
def test_a_host_that_is_no_name_is_an_error_of_tls(host):
    """Whatever got through so far: nothing can be verified for it."""
    with pytest.raises(TlsError):
        a_client(host).begin()


def test_http_1_1_is_offered_and_nothing_else():
    """By ALPN (RFC 7301): a server that speaks several protocols chooses it, and not HTTP/2."""
    server_context, client_context = AUTHORITY.server(), default_context()
    client_context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    tls, server = a_client(context=client_context).begin(), ServerSide(server_context)
    shake_hands(tls, server)

    assert server.ssl.selected_alpn_protocol() == "http/1.1"


def test_a_peer_that_chooses_another_protocol_is_refused():
    """A context of one's own may offer what we do not speak."""
    server_context, client_context = AUTHORITY.server(), AUTHORITY.client()
    server_context.set_alpn_protocols(["h2"])
    client_context.set_alpn_protocols(["h2", "http/1.1"])
    error, tls, _ = refusal(a_client(context=client_context), server_context)

    assert error.cause == "the peer chose h2 to be spoken, and not http/1.1; mend ssl_context="
    assert not tls.established


@pytest.mark.parametrize("offered", [None, ["http/1.1"]])
def test_a_peer_without_alpn_speaks_http_1_1(offered):
    """Most do not choose at all."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_context = AUTHORITY.client()
    AUTHORITY.certify(server_context)
    if offered:
        client_context.set_alpn_protocols(offered)
    tls, server = a_client(context=client_context).begin(), ServerSide(server_context)
    shake_hands(tls, server)

    assert tls.established


@versions
def test_a_client_certificate_is_shown_if_asked_for(version):
    """With a context of one's own."""
    server_context = AUTHORITY.server(highest=VERSIONS[version])
    AUTHORITY.demand_certificate(server_context)
    client_context = AUTHORITY.client_with_certificate("sandbox.example.com")
    tls, server = a_client(context=client_context).begin(), ServerSide(server_context)
    shake_hands(tls, server)

    assert tls.established
    assert ("DNS", "sandbox.example.com") in server.ssl.getpeercert()["subjectAltName"]


def test_plain_http_is_recognised():
    """The most likely mistake has a text of its own."""
    tls = a_client().begin()
    tls.handshake()

    with pytest.raises(TlsError, match="what the peer speaks is not TLS; is it an http:// endpoint"):
        tls.handshake(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_an_endless_handshake_has_an_end():
    """A client passes over "hello requests" while it shakes hands (RFC 5246, 7.4.1.1), but not for ever."""
    tls = a_client().begin()
    tls.handshake()
    error, fed_bytes = fed_until_refused(tls.handshake, b"\x16\x03\x03\0\x04\0\0\0\0" * 100_000)

    assert isinstance(error, TlsError)
    assert error.cause == f"more than {LIMIT_HANDSHAKE_BYTES} bytes of handshake"
    assert fed_bytes <= LIMIT_HANDSHAKE_BYTES + 4096
