"""Certificates, the server's side of TLS as a transform of bytes, and a scripted peer that speaks TLS."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import datetime as dt
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import trustme

from emitter.errors import EmitterError
from tests.scripted_peer import PATIENCE, PeerConnection, ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from emitter.transmit.tls import Tls

__all__ = ["Authority", "ServerSide", "TlsPeer", "TlsPeerConnection", "fed_until_refused", "in_pieces", "shake_hands"]


class Authority:
    """A certificate authority of our own, and contexts of those who trust it or were certified by it."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        """Its own certificate, as a trust store has it."""
        return self._ca.cert_pem.bytes()

    def server(self, *names: str, expired: bool = False, highest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """The context of a server with a certificate for these names (127.0.0.1, ::1 and localhost if none)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if highest is not None:
            context.maximum_version = highest
        self.certify(context, *names, expired=expired)
        return context

    def certify(self, context: ssl.SSLContext, *names: str, expired: bool = False) -> None:
        """Give a server a certificate, as `server` does."""
        end = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc) if expired else None
        begin = dt.datetime(2019, 1, 1, tzinfo=dt.timezone.utc) if expired else None
        names = names or ("127.0.0.1", "::1", "localhost")
        certificate = self._ca.issue_cert(*names, not_before=begin, not_after=end)
        certificate.configure_cert(context)

    def write_identity(self, path: Path, *names: str) -> None:
        """A certificate for these names with its key, in one file, as proxies take it."""
        self._ca.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)

    def client(self, highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        """The context of a client that trusts this authority, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = highest
        self._ca.configure_trust(context)
        return context

    def client_with_certificate(self, name: str) -> ssl.SSLContext:
        """A client that has something to show."""
        context = self.client()
        self._ca.issue_cert(name).configure_cert(context)
        return context

    def demand_certificate(self, context: ssl.SSLContext) -> None:
        """Make a server let only those in whom this authority has certified."""
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED


class ServerSide:
    """The server's side of one TLS connection, by OpenSSL: bytes in, bytes out.

    Attributes:
        ssl: OpenSSL's object.
        established: Whether the handshake is over, as the server sees it.
        plain: What the client wrote.
        ended: Whether the client has said that it writes no more.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.established = False
        self.plain = b""
        self.ended = False

    def feed(self, wire: bytes) -> bytes:
        """Take what the client wrote; returns what is to be written to it."""
        self._incoming.write(wire)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.established:
                self.ssl.do_handshake()
                self.established = True
            while not self.ended:
                piece = self.ssl.read(1 << 16)
                self.plain += piece
                self.ended = not piece
        return self._outgoing.read()

    def owed(self) -> bytes:
        """What is to be written to the client."""
        return self._outgoing.read()

    def write(self, plain: bytes) -> bytes:
        """What is to be written so that the client reads `plain`."""
        left = memoryview(plain)
        while left:
            left = left[self.ssl.write(left) :]
        return self._outgoing.read()

    def update_keys(self, *, demanding: bool = True) -> bytes:
        """A KeyUpdate, which may demand another in return (RFC 8446, 4.6.3). Python has no call for it."""
        update_keys(self.ssl, demanding=demanding)
        self.ssl.do_handshake()  # writes it
        return self._outgoing.read()

    def close(self) -> bytes:
        """The close alert."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        return self._outgoing.read()


def update_keys(tls: ssl.SSLObject | ssl.SSLSocket, *, demanding: bool) -> None:
    """Let OpenSSL write a KeyUpdate next."""
    assert ctypes.CDLL(_ssl.__file__).SSL_key_update(_handle(tls), int(demanding)) == 1


def renegotiate(tls: ssl.SSLObject | ssl.SSLSocket) -> None:
    """Let OpenSSL ask for a new handshake next, which only TLS 1.2 knows."""
    assert ctypes.CDLL(_ssl.__file__).SSL_renegotiate(_handle(tls)) == 1


def _handle(tls: ssl.SSLObject | ssl.SSLSocket) -> ctypes.c_void_p:
    # struct PySSLSocket (Modules/_ssl.c): the object's head, the socket, and then OpenSSL's own `SSL *`.
    return ctypes.c_void_p.from_address(id(tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))


def in_pieces(wire: bytes, size: int = 1 << 20) -> list[bytes]:
    """The same bytes, so many at a time; at least one piece, which may be empty."""
    return [wire[at : at + size] for at in range(0, len(wire) or 1, size)]


def shake_hands(tls: Tls, server: ServerSide, size: int = 1 << 20) -> bytes:
    """Carry bytes between both sides until the handshake is over for both.

    Args:
        tls: The client's side, from its very beginning.
        server: The other.
        size: How many bytes at a time.

    Returns:
        What the server wrote beyond the handshake: its tickets.
    """
    wire, back = tls.handshake(), b""
    while not (tls.established and server.established):
        back = b"".join([server.feed(piece) for piece in in_pieces(wire, size)])
        wire = b""
        for piece in in_pieces(back, size) if not tls.established else ():
            if tls.established:
                tls.inbound(piece)
            else:
                wire += tls.handshake(piece)
                back = b""
    return back


def fed_until_refused(feed: Callable[[bytes], bytes], wire: bytes, size: int = 4096) -> tuple[EmitterError, int]:
    """Feed it piece by piece; the error with which it is refused, and how many bytes that took."""
    fed_bytes = 0
    for piece in in_pieces(wire, size):
        fed_bytes += len(piece)
        try:
            feed(piece)
        except EmitterError as error:
            return error, fed_bytes
    raise AssertionError(f"{fed_bytes} bytes were taken")


class TlsPeerConnection(PeerConnection):
    """The peer's side of a connection over TLS; `socket` writes and reads inside TLS."""

    def write_bare(self, data: bytes) -> None:
        """Write bytes that TLS has not seen, on the socket beneath."""
        socket.socket.sendall(self.socket, data)

    def read_bare(self) -> bytes:
        """All that arrives on the socket beneath, up to the end, as TLS has not seen it."""
        pieces = []
        with contextlib.suppress(ConnectionResetError):
            while piece := socket.socket.recv(self.socket, 1 << 16):
                pieces.append(piece)
        return b"".join(pieces)

    def is_closed_with_alert(self) -> bool:
        """Wait for the next byte or the end; whether it is the end that TLS knows (RFC 8446, 6.1)."""
        try:
            return not self.socket.recv(1)
        except (ssl.SSLEOFError, ConnectionResetError):
            return False

    def close_with_alert(self) -> None:
        """Say that nothing more is written, and leave the socket open."""
        self.socket.setblocking(False)  # or it would wait for the other's alert
        with contextlib.suppress(ssl.SSLWantReadError):
            self.socket.unwrap()
        self.socket.settimeout(PATIENCE)


class TlsPeer(ScriptedPeer):
    """A scripted peer that speaks TLS.

    TLS needs both sides at once, so a peer that is to accept does so in a thread of its own: ask for it with
    `accept_soon` before the client connects.

    Args:
        context: The server's.
        host: The address to listen on.
        more: As for a `ScriptedPeer`.
    """

    def __init__(self, context: ssl.SSLContext, *, host: str = "127.0.0.1", **more) -> None:
        super().__init__(**more)
        self._host = host
        if ":" in host:
            self._listener.close()
            self._listener = socket.create_server((host, 0), family=socket.AF_INET6)
            self._listener.settimeout(PATIENCE)
        self.context = context
        self._threads = ThreadPoolExecutor(max_workers=2)

    @property
    def endpoint(self) -> str:
        """What to give to an emitter."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"https://{host}:{self.port}/v1/metrics"

    def accept_bare(self) -> socket.socket:
        """The next connection, on which nothing is said yet."""
        return super().accept().socket

    def shake_hands(self, sock: socket.socket) -> TlsPeerConnection:
        """Speak TLS on it from now on."""
        sock = self.context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        self._accepted.append(connection := TlsPeerConnection(sock))
        return connection

    def accept(self) -> TlsPeerConnection:
        """The next connection, its handshake over."""
        return self.shake_hands(self.accept_bare())

    def accept_soon(self) -> Future[TlsPeerConnection]:
        """The next connection, accepted while the test goes on."""
        return self._threads.submit(self.accept)

    def soon(self, call, *arguments) -> Future:
        """Anything else that the peer does while the test goes on."""
        return self._threads.submit(call, *arguments)

    def close(self) -> None:
        """Close everything."""
        super().close()
        self._threads.shutdown()
