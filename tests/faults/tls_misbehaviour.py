"""Owns what a peer can do wrong in TLS: certificates nobody should accept, handshakes, records after the handshake.

As `tests.faults.misbehaviour`, but a script gets the bare connection, and the peer's side of TLS to misuse.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import itertools
import socket
import ssl
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import trustme

from tests.faults.receiver import ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.call import Call
    from tests.faults.receiver import Receiver

    Script = Callable[[Call, Receiver, ssl.SSLContext], None]

__all__ = ["CONTEXTS", "SCRIPTS", "Authority"]

_MANY_TICKETS = 200
"""Session tickets after one handshake, about 50 KB of them; honest servers have two."""

_MANY_KEY_UPDATES = 1_000
"""After each request, about 27 KB; an honest peer changes its keys after many gigabytes."""

_SLOW_PIECES, _SLOW_PAUSE = 30, 0.005
"""A handshake that takes 0.15 s: several of the budgets that are tried here."""

_CHANGE_CIPHER_SPEC = b"\x14\x03\x03\0\x01\x01"
"""A record that a client of TLS 1.3 has to pass over (RFC 8446, 5)."""


class Authority:
    """Issues what the peers show; made anew for each run, since nothing of it is secret for long."""

    def __init__(self) -> None:
        self._trusted = trustme.CA()
        self.pem = self._trusted.cert_pem.bytes().decode()

    def context(self, kind: str) -> ssl.SSLContext:
        """The peer's side of TLS, by a key of `CONTEXTS`, or the sound one."""
        return CONTEXTS.get(kind, _sound_context)(self._trusted)


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _sound_context(authority: trustme.CA) -> ssl.SSLContext:
    return _context(authority.issue_cert("localhost", "127.0.0.1"))


def _other_name(authority: trustme.CA) -> ssl.SSLContext:
    return _context(authority.issue_cert("elsewhere.example"))


def _unknown_authority(authority: trustme.CA) -> ssl.SSLContext:
    return _sound_context(trustme.CA())


def _expired(authority: trustme.CA) -> ssl.SSLContext:
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    certificate = authority.issue_cert(
        "localhost", "127.0.0.1", not_before=yesterday - timedelta(days=90), not_after=yesterday
    )
    return _context(certificate)


def _old_version(authority: trustme.CA) -> ssl.SSLContext:
    context = _sound_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL has no such version at its usual level
    context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    return context


def _client_certificate(authority: trustme.CA) -> ssl.SSLContext:
    context = _sound_context(authority)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _flood_of_tickets(authority: trustme.CA) -> ssl.SSLContext:
    context = _sound_context(authority)
    context.num_tickets = _MANY_TICKETS
    return context


CONTEXTS: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "certificate of another name": _other_name,
    "certificate of an unknown authority": _unknown_authority,
    "expired certificate": _expired,
    "TLS 1.1 only": _old_version,
    "a client certificate is demanded": _client_certificate,
    "a flood of session tickets": _flood_of_tickets,
}


def _bad_context(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    """Do nothing but shake hands: what is wrong is the context. If the client goes on, it is not answered."""
    try:
        call.shake_hands(context)
    finally:
        call.misbehaved()
    while True:
        call.read(1 << 16)


def _served_context(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.shake_hands(context)
    call.misbehaved()
    receiver.serve(call.socket)


def _stall_after_accept(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.hang_for_ever()


def _stall_after_hello(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.carries_on = True
    call.read(1 << 16)
    call.hang_for_ever()


def _stall_in_flight(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.carries_on = True
    flight = _flight(call, context)
    call.write(flight[: len(flight) // 2])
    call.hang_for_ever()


def _flight(call: Call, context: ssl.SSLContext) -> bytes:
    """All that the server writes at first; the handshake is not gone on with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while not outgoing.pending:
        incoming.write(call.read(1 << 16))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
    return outgoing.read()


def _reset_before_hello(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.reset()


def _reset_after_hello(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.read(1 << 16)
    call.reset()


def _reset_in_flight(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    flight = _flight(call, context)
    call.write(flight[: len(flight) // 2])
    call.reset()


def _reset_after_flight(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.write(_flight(call, context))
    call.read(1)
    call.reset()


def _close_after_hello(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.read(1 << 16)
    call.close()


def _plain_http(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.read(1 << 16)
    call.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    call.close()


def _garbage_handshake(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.read(1 << 16)
    call.say(b"\x16\x03\x03\x02\0" + bytes(range(256)) * 2)
    call.hang()


def _endless_handshake(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.write(_flight(call, context)[:-1])  # one byte is missing, so the client has to read on
    call.misbehaved()
    for _ in itertools.count():
        call.write(_CHANGE_CIPHER_SPEC * 1024)


def _slow_handshake(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    """Whole and right, but piece by piece: slower than any one budget."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    done = False
    while not done:
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            if not outgoing.pending:
                incoming.write(call.read(1 << 16))
        wire = outgoing.read()
        step = len(wire) if done else max(1, -(-len(wire) // _SLOW_PIECES))
        for position in range(0, len(wire), step):
            call.say(wire[position : position + step])
            call.pause(_SLOW_PAUSE)
    receiver.serve(_Plain(call, tls, incoming, outgoing))  # type: ignore[arg-type]


class _Plain:
    """What a socket is to `Receiver.serve`, over TLS that was shaken by hand."""

    def __init__(self, call: Call, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._call, self._tls, self._incoming, self._outgoing = call, tls, incoming, outgoing

    def recv(self, size: int) -> bytes:
        while (data := self._read(size)) is None:
            self._incoming.write(self._call.read(1 << 16))
        return data

    def _read(self, size: int) -> bytes | None:
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            return None

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._call.write(self._outgoing.read())


def _bare_after_request(*pieces: bytes) -> Script:
    """Shake hands, read a request, then write bytes that TLS has not seen."""

    def script(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
        call.shake_hands(context)
        call.request()
        for piece in pieces:
            _write_bare(call, piece)
        call.misbehaved()
        call.hang()

    return script


def _write_bare(call: Call, data: bytes) -> None:
    with contextlib.suppress(OSError):
        socket.socket.sendall(call.socket, data)  # the plain method, on the socket beneath


def _close_with_alert(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    """Answer, then close in TLS's own order, which is no fault; each report needs a new connection."""
    call.shake_hands(context)
    receiver.fold(call.request())
    call.write(ANSWER)
    call.socket.setblocking(False)  # or it would wait for the other's alert
    with contextlib.suppress(ssl.SSLWantReadError):
        call.socket.unwrap()
    call.misbehaved()
    call.hang()


def _close_without_alert(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.shake_hands(context)
    receiver.fold(call.request())
    call.write(ANSWER)
    call.close()


def _half_a_record(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    call.shake_hands(context)
    call.request()
    _write_bare(call, b"\x17\x03\x03\x01\0" + bytes(100))
    call.close()


def _key_update(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
    """Change the keys before each answer, and demand the same of the client: allowed, and loses nothing."""
    call.shake_hands(context)
    while True:
        receiver.fold(call.request())
        _update_keys(call.socket, demanding=True)
        call.say(ANSWER)


def _flood_of_key_updates(*, demanding: bool) -> Script:
    """Change the keys again and again, instead of an answer."""

    def script(call: Call, receiver: Receiver, context: ssl.SSLContext) -> None:
        call.shake_hands(context)
        while True:
            call.request()
            for _ in range(_MANY_KEY_UPDATES):
                _update_keys(call.socket, demanding=demanding)
            call.misbehaved()

    return script


def _update_keys(sock: ssl.SSLSocket, *, demanding: bool) -> None:
    """Write a KeyUpdate, one that demands another in return or not (RFC 8446, 4.6.3).

    Python has no call for it, so OpenSSL's own object is found by hand.
    """
    # struct PySSLSocket (Modules/_ssl.c): the object's head, the socket, and then OpenSSL's own `SSL *`.
    handle = ctypes.c_void_p.from_address(id(sock._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))
    ctypes.CDLL(_ssl.__file__).SSL_key_update(handle, int(demanding))
    sock.do_handshake()  # which writes it


SCRIPTS: dict[str, Script] = {
    "certificate of another name": _bad_context,
    "certificate of an unknown authority": _bad_context,
    "expired certificate": _bad_context,
    "TLS 1.1 only": _bad_context,
    "a client certificate is demanded": _bad_context,
    "a flood of session tickets": _served_context,
    "handshake stalls after accept": _stall_after_accept,
    "handshake stalls after the ClientHello": _stall_after_hello,
    "handshake stalls in the server's flight": _stall_in_flight,
    "reset before the ClientHello": _reset_before_hello,
    "reset after the ClientHello": _reset_after_hello,
    "reset in the server's flight": _reset_in_flight,
    "reset after the server's flight": _reset_after_flight,
    "close after the ClientHello": _close_after_hello,
    "plain HTTP instead of TLS": _plain_http,
    "garbage in the handshake": _garbage_handshake,
    "endless handshake": _endless_handshake,
    "handshake slower than the budget": _slow_handshake,
    "garbage after the handshake": _bare_after_request(bytes(range(256)) * 4),
    "forged record after the handshake": _bare_after_request(b"\x17\x03\x03\0\x40" + bytes(64)),
    "half a record, then close": _half_a_record,
    "close with a close alert": _close_with_alert,
    "close without a close alert": _close_without_alert,
    "a key update with each answer": _key_update,
    "a flood of key updates": _flood_of_key_updates(demanding=False),
    "a flood of key updates that demand others": _flood_of_key_updates(demanding=True),
}
