"""Owns TLS as a transform of bytes, over `ssl.MemoryBIO`. Never sees a socket, a clock or a metric.

asyncio's own TLS hides what it has not written yet, and cannot resume a session (cpython#79152). Here the stream
stays a plain one, whose `drain` is exact, and the state of TLS belongs to no event loop.

Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 7301 (ALPN). The records are OpenSSL's; what is added here is
when to feed it, what to keep for the next connection, and how much is too much.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import NoReturn, cast

from emitter.errors import ConnectionLostError, TlsError

__all__ = ["LIMIT_HANDSHAKE_BYTES", "LIMIT_OVERHEAD_BYTES", "LIMIT_SESSIONS", "Tls", "TlsClient", "default_context"]

LIMIT_HANDSHAKE_BYTES = 256 * 1024
"""What a peer may write before the handshake is over. OpenSSL takes up to 100 KiB of certificates."""

LIMIT_OVERHEAD_BYTES = 20 * 1024
"""What a peer may write between two reports beyond the content of it: one record that is not complete yet (RFC 8446,
5.2: 16 KiB and a little), tickets, key updates, some 22 bytes around each record. Nothing takes OpenSSL longer than a
key update, 8 us for 27 bytes, so this is 6 ms of them. It bounds what we owe as well: no answer of TLS is larger than
what it answers."""

LIMIT_SESSIONS = 256
"""How many sessions are taken over, one after each full handshake. Older CPythons lose 7 KB and more at each
(cpython#116810), so this is some 2 MB; then all handshakes are full ones. A session lasts for hours, a sandbox too."""

_RECORD_BYTES = 16 * 1024  # of content, at most (RFC 8446, 5.1)
_FEED_BYTES = 4 * 1024  # at a time, so that the limits are looked at before much more has been worked through

_HTTP1 = "http/1.1"  # RFC 7301, 6


def default_context() -> ssl.SSLContext:
    """Verified against the operating system's trust store, TLS 1.2 at least. Takes 20 ms and more."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_HTTP1])
    # A renegotiation (TLS 1.2) would make writing wait for reading, and a peer could ask for any number of them.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


_shared: dict[tuple[str | None, ...], ssl.SSLContext] = {}


def _shared_context() -> ssl.SSLContext:
    """The default context of this process: it takes 20 ms, and a function may have several emitters."""
    where = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")  # what OpenSSL itself looks at
    if where not in _shared:
        _shared[where] = default_context()
    return _shared[where]


class TlsClient:
    """What all TLS connections to one endpoint share: whom to trust, which name to verify, the last session.

    Args:
        host: The name (or address) that the certificate must be for.
        port: For what is said when it fails.
        context: Whom to trust, and more. `None`: `default_context`, made when it is first needed.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.host = host
        self.port = port
        self._session: ssl.SSLSession | None = None
        self._sessions_left = LIMIT_SESSIONS
        self._context = context

    def prepare(self) -> None:
        """Make the context, if there is none yet, so that no flush has to (20 ms and more).

        Raises:
            TlsError: The trust store cannot be read.
        """
        if self._context is None:
            try:
                self._context = _shared_context()
            except (ssl.SSLError, OSError) as error:
                raise TlsError(self.host, self.port, _in_words(error)) from error

    def forget(self) -> None:
        """Forget the last session, as in a forked child; the context stays."""
        self._session = None

    def begin(self) -> Tls:
        """A new connection's TLS, which resumes the last session if the peer lets it.

        Until that connection has ended well, the session is offered to no other: one that a peer chokes on is not
        offered again.

        Raises:
            TlsError: The context cannot be used for this host.
        """
        self.prepare()
        session, self._session = self._session, None
        try:
            return Tls(self, cast("ssl.SSLContext", self._context), session)
        except (ssl.SSLError, ValueError) as error:  # no name, or one that no certificate can be for
            raise TlsError(self.host, self.port, _in_words(error)) from error

    def keep(self, session: ssl.SSLSession) -> None:
        """Resume this session, which was resumed before, with the next connection."""
        self._session = session

    def take_over(self, source: ssl.SSLObject) -> None:
        """Resume the session of a full handshake with the next connection."""
        if self._sessions_left > 0:
            self._sessions_left -= 1
            # With TLS 1.3 it can be resumed once a ticket has come (RFC 8446, 4.6.1); OpenSSL offers nothing else.
            self._session = source.session


class Tls:
    """The TLS of one connection: handshake, bytes out, bytes in, close alert. Made by `TlsClient.begin`.

    Attributes:
        established: Whether the handshake is over.
        ended: Whether the peer has said that it writes no more (its close alert).
    """

    def __init__(self, client: TlsClient, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
        self.established = False
        self.ended = False
        self._client = client
        self._offered = session
        self._sound = True
        self._handshake_bytes = 0
        self._overhead_bytes = 0  # since the last report
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # A name may be written with a dot at its end, a certificate's never is (RFC 6066, 3).
        # As bytes: a `str` would load Python's codec for international names, 4 ms for a name that is ASCII already.
        name = client.host.removesuffix(".")
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name.encode(), session=session)

    @property
    def resumed(self) -> bool:
        """Whether the peer took up the session that was offered."""
        return bool(self._ssl.session_reused)

    def handshake(self, wire: bytes = b"") -> bytes:
        """Go on with the handshake.

        Args:
            wire: What the peer wrote; empty at the beginning.

        Returns:
            What is to be written to the peer.

        Raises:
            TlsError: It failed; why, and what to do about it. `owed` then holds the alert that tells the peer.
        """
        self._handshake_bytes += len(wire)
        if self._handshake_bytes > LIMIT_HANDSHAKE_BYTES:
            self._fail(f"more than {LIMIT_HANDSHAKE_BYTES} bytes of handshake")
        self._incoming.write(wire)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return self.owed()
        except (ssl.SSLError, ValueError) as error:
            self._fail(_in_words(error), error)
        chosen = self._ssl.selected_alpn_protocol()
        if chosen not in {None, _HTTP1}:
            self._fail(f"the peer chose {chosen} to be spoken, and not {_HTTP1}; mend ssl_context=")
        self.established = True
        return self.owed()

    def owed(self) -> bytes:
        """What TLS itself wants to be written: handshake, alerts, answers to key updates."""
        return self._outgoing.read()

    def outbound(self, plain: bytes) -> bytes:
        """What is to be written so that the peer reads `plain`.

        Raises:
            ConnectionLostError: Nothing can be written any more; no byte was.
        """
        try:
            self._ssl.write(plain)  # all of it, record by record: a `MemoryBIO` is never full
        except ssl.SSLError as error:
            self._lose(_in_words(error), error, untouched=True)
        self._overhead_bytes = 0
        return self._outgoing.read()

    def inbound(self, wire: bytes) -> bytes:
        """What the peer wrote, as far as `wire` completes it.

        Raises:
            ConnectionLostError: It is no TLS, was tampered with, or is too little for so many bytes.
        """
        plain = []
        for start in range(0, len(wire) or 1, _FEED_BYTES):
            self._incoming.write(wire[start : start + _FEED_BYTES])
            fed_bytes = self._incoming.pending  # with what came along with the handshake
            content = self._read()
            plain += content
            self._overhead_bytes = max(0, self._overhead_bytes + fed_bytes - sum(map(len, content)))
            if self._overhead_bytes > LIMIT_OVERHEAD_BYTES:
                self._lose(f"more than {LIMIT_OVERHEAD_BYTES} bytes around the content")
        return b"".join(plain)

    def _read(self) -> list[bytes]:
        """The content of what was fed, as far as records are complete."""
        plain = []
        try:
            # OpenSSL takes no more than it needs, so nothing pending means nothing left: cheaper than an exception.
            while self._incoming.pending and not self.ended:
                piece = self._ssl.read(_RECORD_BYTES)
                if piece:
                    plain.append(piece)
                else:
                    self.ended = True
        except ssl.SSLWantReadError:
            pass  # that was all
        except ssl.SSLError as error:
            self._lose(_in_words(error), error)
        return plain

    def closing(self) -> bytes:
        """Keep the session for the next connection, and say that we write no more (the close alert, RFC 8446, 6.1).

        To be called for a connection that broke as well, though nobody will get the alert. What broke in TLS itself
        is not resumed (6.2).
        """
        # Only now, and not at each harvest: every look at the session copies it, in 0.1 to 0.25 ms.
        if self.established and self._sound:
            if self._offered is not None and self.resumed:
                self._client.keep(self._offered)
            else:
                self._client.take_over(self._ssl)
        with contextlib.suppress(ssl.SSLError):  # it wants the peer's alert too; or it failed before
            self._ssl.unwrap()
        return self._outgoing.read()

    def _lose(self, cause: str, error: BaseException | None = None, *, untouched: bool = False) -> NoReturn:
        self._sound = False
        raise ConnectionLostError(f"TLS: {cause}", untouched=untouched) from error

    def _fail(self, cause: str, error: BaseException | None = None) -> NoReturn:
        raise TlsError(self._client.host, self._client.port, cause) from error


def _in_words(error: Exception) -> str:
    """What OpenSSL says, without the places in its source code, and with what the user can do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the peer's certificate was not accepted: {error.verify_message}; expected one that this machine trusts "
            "for this name (ssl_context= brings a trust store of one's own)"
        )
    reason = getattr(error, "reason", None)
    if reason == "WRONG_VERSION_NUMBER":
        return "what the peer speaks is not TLS; is it an http:// endpoint?"
    return str(reason).lower().replace("_", " ") if reason else str(error)
