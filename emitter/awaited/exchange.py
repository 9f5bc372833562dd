"""Owns one request and its answer, through aiohttp: sessions, proxies, header fields. Never sees a metric or a retry.

A session belongs to an event loop, so each loop gets one of its own, and it ends with its loop: `asyncio.run` closes
asynchronous generators before it closes the loop (`shutdown_asyncgens`), and a session lives in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import ssl
import weakref
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from emitter.errors import (
    AnswerError,
    ConnectError,
    ConnectionLostError,
    RefusedError,
    TlsError,
    UnansweredError,
    UsageError,
)
from emitter.transmit.cookies import CookieStore
from emitter.transmit.http1 import Answer, Request, signature_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import SimpleNamespace

    from aiohttp.abc import AbstractStreamWriter

    from emitter.errors import NetworkError, PeerError
    from emitter.settings import Settings

__all__ = ["LIMIT_BODY_BYTES", "Body", "Exchange"]

LIMIT_BODY_BYTES = 1024 * 1024
"""Of an answer's body, which is thrown away: beyond this a new connection is cheaper than reading on."""

_PIECE_BYTES = 64 * 1024

_STUCK_MILLISECONDS = 30_000
"""How long a peer may leave what was written unacknowledged. aiohttp closes a connection that has failed in order, and
so would keep one for ever whose peer takes no more bytes (TCP_USER_TIMEOUT, RFC 793, 3.8)."""

_NOT_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add. Nobody reads the body of an answer, so nobody need compress it."""

_PROXY_ADVICE = {
    403: "it lets nobody through to this endpoint: see its configuration",
    407: "it wants to know who asks: put user and password into its URL, as in http://user:password@proxy.example.com",
}

_inherited: list[object] = []
"""Sessions that a forked child has of its parent: never used, never closed, and kept until it ends, because a loop that
hears of a generator that was thrown away would close it."""


class Body(aiohttp.Payload):
    """The body of one request.

    Attributes:
        content: What it is.
        begun: Whether any of it may have left this process. Until then a receiver knows nothing of the report.
    """

    _autoclose = True

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)
        self.content = body
        self.begun = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text, which aiohttp asks of every body."""
        return self.content.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write it all."""
        self.begun = True
        await writer.write(self.content)


class Exchange:
    """Posts bodies to one endpoint, and waits for the answers.

    Args:
        settings: The endpoint, the format, the header fields and the signer.
        session: Somebody's own session, which is never closed here. `None`: one for each event loop.
        proxy: The URL of a proxy. `None`: no proxy.
        wall: Seconds since 1970.

    Attributes:
        opened: How many connections were opened, a session of somebody's own left out.
        cookies: What load balancers have asked to be told.

    Raises:
        ConfigurationError: A header field would break the message.
    """

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession | None, proxy: str | None, wall: Callable[[], float]
    ) -> None:
        endpoint, encoder = settings.endpoint, settings.encoder
        self._fields = Request(
            endpoint.target, endpoint.authority, encoder.content_type, settings.request_headers, encoder.headers
        ).fields
        self._settings = settings
        self._url = URL(endpoint.url, encoded=True)  # as it was given: a signature counts every character
        self._proxy = None if proxy is None else URL(proxy)
        self._wall = wall
        self._injected = session
        # Made inside its loop, as sessions are, or else used first there.
        self._injected_loop = asyncio._get_running_loop() if session is not None else None  # noqa: SLF001  else raises
        self._process = os.getpid()
        self.cookies = CookieStore(settings.sticky_cookies, target=endpoint.target, secure=endpoint.secure)
        self._begin()

    def _begin(self) -> None:
        self.opened = 0
        self._lives: dict[asyncio.AbstractEventLoop, AsyncGenerator[aiohttp.ClientSession, None]] = {}
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def after_fork(self) -> None:
        """Go on in a forked child, and leave the connections to the parent without a word on them."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                # Its owner, the parent's loop, may yet write to that number or close it: another file goes under it.
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, sock.fileno(), inheritable=False)
                os.close(nothing)
        for session in self._sessions.values():
            # Else it would close its connections when it is thrown away, and complain; nothing else hushes it.
            session.connector._closed = True  # type: ignore[union-attr]  # noqa: SLF001
        _inherited.append((self._lives, self._sessions))
        self.cookies.clear()
        self._begin()

    async def post(self, body: Body, *, gzip: bool, seconds: float) -> Answer:
        """One request, and its final answer, read to its end.

        Args:
            body: Used for this request only.
            gzip: Whether it is in gzip format.
            seconds: For everything.

        Raises:
            UsageError: The injected session cannot be used here.
            CredentialsError: There is nothing to sign the request with.
            ConnectError: No connection could be opened.
            RefusedError: The proxy makes no way to the receiver.
            ConnectionLostError: The connection broke.
            AnswerError: What arrived is no HTTP answer.
            UnansweredError: The time is over.

        After failure and after cancellation: `body.begun` tells whether the receiver may have the report. The
        connection has ended.
        """
        if seconds <= 0:
            raise UnansweredError(0.0)
        headers = self._headers(body, gzip=gzip)
        session = await self._session()
        try:
            async with session.post(
                self._url,
                data=body,
                headers=headers,
                skip_auto_headers=_NOT_OURS,
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
                proxy=self._proxy,
                ssl=True if self._settings.ssl_context is None else self._settings.ssl_context,
                timeout=aiohttp.ClientTimeout(total=seconds, ceil_threshold=math.inf),  # else ends at whole seconds
            ) as response:
                fields = tuple((name.lower(), value) for name, value in response.raw_headers)
                answer = Answer(response.status, fields, keep_alive=False)  # aiohttp knows about that
                self.cookies.learn(fields, self._wall())
                await _read_past(response)
                return answer
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._translated(error, body, seconds) from error

    async def close(self) -> None:
        """Close the session of the running loop; those of other loops end with these."""
        life = self._lives.get(asyncio.get_running_loop())
        if life is not None:
            await life.aclose()

    def _headers(self, body: Body, *, gzip: bool) -> list[tuple[str, str]]:
        fields = list(self._fields)
        if gzip:
            fields.append(("Content-Encoding", "gzip"))
        signer = self._settings.signer
        if signer is not None:
            signed = signer.sign("POST", self._settings.endpoint.url, dict(fields), body.content)
            signature_fields(signed)  # which refuses what would break the message
            fields += signed.items()
        # Not signed: a load balancer may take its own away before anybody verifies.
        cookies = self.cookies.header(self._wall()).decode("ascii")
        if cookies:
            fields.append(("Cookie", cookies.partition(":")[2].strip()))
        return fields

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._injected is not None:
            return self._usable(self._injected, loop)
        if loop not in self._sessions:
            for other in [other for other in self._lives if other.is_closed()]:  # without `shutdown_asyncgens`
                del self._lives[other], self._sessions[other]
            life = self._lives[loop] = self._live(loop)
            self._sessions[loop] = await anext(life)
        return self._sessions[loop]

    def _usable(self, session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        self._injected_loop = self._injected_loop or loop
        why = ""
        if session.closed:
            why = "it is closed; expected it to stay open for as long as it is used"
        elif os.getpid() != self._process:
            why = "it belongs to the parent process; expected an emitter with a session made in this one"
        elif loop is not self._injected_loop:
            why = "it belongs to another event loop; expected an emitter with a session made in this one"
        if why:
            raise UsageError(f"the session= of this emitter cannot be used: {why}")
        return session

    async def _live(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession, None]:
        """A session; whoever closes this generator, the loop at the latest, closes the session."""
        # What is lost with a connection that was closed unseen can be repeated, but not if it may have been deltas.
        kept = {"force_close": True} if self._settings.deltas else {"keepalive_timeout": self._settings.idle_limit}
        connector = aiohttp.TCPConnector(socket_factory=self._socket, **kept)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._note_opened)
        try:
            async with aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]
            ) as session:
                yield session
        finally:
            self._lives.pop(loop, None)
            self._sessions.pop(loop, None)

    async def _note_opened(self, session: aiohttp.ClientSession, context: SimpleNamespace, what: object) -> None:  # noqa: ARG002
        self.opened += 1

    def _socket(
        self, address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, object]
    ) -> socket.socket:
        sock = socket.socket(*address[:3])
        self._sockets.add(sock)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_MILLISECONDS)
        return sock

    def _translated(self, error: Exception, body: Body, seconds: float) -> NetworkError | PeerError:
        host, port = self._settings.endpoint.host, self._settings.endpoint.port
        if isinstance(error, aiohttp.ClientHttpProxyError):
            advice = _PROXY_ADVICE.get(error.status, "see what it logs about it")
            return RefusedError(error.status, advice, proxy=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            proxy = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
            # In aiohttp 3.12 the error of a certificate has no `os_error`.
            certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
            reason: Exception = getattr(error, "certificate_error" if certificate else "os_error")
            kind = TlsError if isinstance(error, aiohttp.ClientSSLError) else ConnectError
            return kind(error.host, error.port or port, proxy + _in_words(reason))
        if isinstance(error, asyncio.TimeoutError):
            if body.begun:
                return UnansweredError(seconds)
            return ConnectError(host, port, f"none was open within {seconds:.2g} s")
        if isinstance(error, aiohttp.ClientResponseError):
            return AnswerError(f"not an HTTP/1.1 answer: {error.message}")
        cause = "the peer closed it before it answered" if isinstance(error, aiohttp.ServerDisconnectedError) else ""
        return ConnectionLostError(cause or _in_words(error), untouched=not body.begun)


async def _read_past(response: aiohttp.ClientResponse) -> None:
    """Read the body to its end, so that the connection can be used again. One that was not read is closed."""
    left = LIMIT_BODY_BYTES
    # The status is there, and nobody wants to know more.
    with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
        while left > 0 and (piece := await response.content.read(_PIECE_BYTES)):
            left -= len(piece)


def _in_words(error: Exception) -> str:
    """What the system or OpenSSL says, without the address, which is said already."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the peer's certificate was not accepted: {error.verify_message}; expected one that this machine trusts "
            "for this name (ssl_context= brings a trust store of one's own)"
        )
    if isinstance(error, ssl.SSLError):
        return error.reason.lower().replace("_", " ") if error.reason else str(error)
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno)  # type: ignore[arg-type]  # it is not `None`
    return str(error) or type(error).__name__
