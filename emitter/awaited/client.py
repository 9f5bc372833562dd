"""Owns `AwaitedEmitter`, the object that users hold: instruments, flushes, life cycle. The steps are elsewhere."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import aiohttp

from emitter import living
from emitter.awaited.exchange import Exchange
from emitter.awaited.flusher import AwaitedFlusher
from emitter.awaited.proxies import proxy_to
from emitter.callbacks import nothing_raised
from emitter.clocks import Clocks
from emitter.errors import ConfigurationError, NetworkError, PeerError
from emitter.meter import Meter
from emitter.periodic import Periodic
from emitter.record.registry import Registry
from emitter.settings import Settings, checked_switch, checked_timeout
from emitter.transmit.delivery import Delivery

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from emitter.encode import Encoder
    from emitter.outcomes import Flush, Stats
    from emitter.settings import Signer

__all__ = ["DEFAULT_AWAITED_TIMEOUT", "AwaitedEmitter"]

DEFAULT_AWAITED_TIMEOUT = 10.0
"""Seconds for a whole flush, attempts and pauses included: OpenTelemetry's, for exporters that wait."""


class AwaitedEmitter(Meter):
    """Counts in this process, and gets the running totals out through aiohttp, waiting for the answer.

    For services that run on, for networks that only reach the world through a proxy, and for those who must know that
    a report was taken. In a Lambda handler `emitter.Emitter` costs less: there every millisecond of waiting is billed.

    Any number of tasks may use one emitter, and one event loop after the other. Close it (or use it as an asynchronous
    context manager) before its loop ends; `asyncio.run` closes its connections in any case, but makes no last report.

    Args:
        endpoint: The full URL that reports are POSTed to. `None`: from the environment, see `emitter.settings`.
        service: What the totals belong to, `service.name`. `None`: from the environment.
        headers: Further header fields of each request. May be secret: never logged, in no `repr`.
        encoder: The format of the reports, as for `emitter.Emitter`.
        timeout: Seconds for a whole flush, attempts and pauses included. `None`: from the environment, else 10.
        temporality: `"cumulative"` or `"delta"`. Deltas are posted again only when the receiver cannot have counted
            them; what is lost otherwise stays lost.
        compress: Whether the body of a request above 12 KB is put into gzip, if that makes it smaller.
        report_limit_bytes: Of the body of one request, before compression. A larger report is divided into several,
            each of them posted after the answer to the one before.
        series_limit: How many series each instrument may have, before what comes on top goes to one more.
        ssl_context: Whom an https endpoint is verified against, client certificates and the like. `None`: the
            operating system's trust store.
        signer: What signs each request, such as `emitter.sigv4.SigV4()`. `None`: nothing does.
        sticky_cookies: Names of cookies by which a load balancer recognises this sandbox, besides those of AWS's.
        session: A session of your own, with whatever connector and limits; it is never closed here. Its event loop is
            the one that this emitter can be used in. `None`: each loop gets one.
        proxy: The URL of an HTTP proxy, with user and password if it wants them. `None`: no proxy, unless `trust_env`.
        trust_env: Whether the proxy is taken from HTTPS_PROXY or HTTP_PROXY, and NO_PROXY, here and now.
        strict: Whether a flush raises what went wrong instead of returning it. For tests.

    Raises:
        ConfigurationError: What was wrong, where it came from, and what was expected.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        service: str | None = None,
        headers: Mapping[str, str] | None = None,
        encoder: str | Encoder | None = None,
        timeout: float | None = None,
        temporality: str = "cumulative",
        compress: bool = True,
        report_limit_bytes: int = 4 * 1024 * 1024,
        series_limit: int = 2_000,
        ssl_context: ssl.SSLContext | None = None,
        signer: Signer | None = None,
        sticky_cookies: Iterable[str] = (),
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        strict: bool = False,
    ) -> None:
        if timeout is None and not os.environ.get("EMITTER_TIMEOUT", "").strip():
            timeout = DEFAULT_AWAITED_TIMEOUT
        self._settings = Settings.resolve(
            os.environ,
            endpoint=endpoint,
            service=service,
            headers=headers,
            delivery=Delivery.ANSWERED,
            timeout=timeout,
            encoder=encoder,
            temporality=temporality,
            compress=compress,
            report_limit_bytes=report_limit_bytes,
            ssl_context=ssl_context,
            signer=signer,
            sticky_cookies=sticky_cookies,
        )
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            raise ConfigurationError(f"session is a {type(session).__name__}; expected an aiohttp.ClientSession")
        self._strict = checked_switch(strict, "strict")
        encoding = self._settings.encoder
        super().__init__(
            Registry(
                self._settings.resource,
                series_limit=series_limit,
                tick_nano=encoding.tick_nano,
                names=encoding.names,
            )
        )
        found = proxy_to(self._settings.endpoint, proxy, trust_env=checked_switch(trust_env, "trust_env"))
        clocks = Clocks()
        exchange = Exchange(self._settings, session, found, clocks.wall)
        self._flusher = AwaitedFlusher(self._registry, self._settings, exchange, clocks=clocks)
        living.note(self)

    def __repr__(self) -> str:
        return f"<AwaitedEmitter to {self._settings.endpoint.shown}>"

    async def __aenter__(self) -> Self:
        """The emitter, which is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`. What ended the block comes out unchanged."""
        if error is None:
            await self.close()
        else:  # what only comes out of a `strict` emitter has been logged
            with nothing_raised("the last report"), contextlib.suppress(NetworkError, PeerError):
                await self.close()

    async def flush(self, *, timeout: float | None = None) -> Flush:
        """Get one report with all totals out, and wait until the receiver has said what it makes of them.

        Flushes that are asked for at the same time share one report. An attempt that fails, or that is answered with
        429, 502, 503 or 504, is followed by another, after a pause that chance or `Retry-After` decides, as long as
        there is time. After a flush that got nothing accepted, those that come too early for the next are withheld.

        Args:
            timeout: Seconds for everything together. `None`: the emitter's.

        Returns:
            What became of it. `delivery` is `ANSWERED`, or `None` if no answer came to all of it; `verdicts` are what
            was said of this very report, one of each request of it; `error` is a `RefusedError` if that was no yes.
            `bytes` are those of the bodies. The network raises nothing, unless the emitter is `strict`.

        Raises:
            UsageError: The session that was given cannot be used: it is closed, or belongs to another event loop.

        After failure and after cancellation: the totals are kept and go out with the next report that gets through;
        deltas only if nobody can have counted them. The connection has ended.
        """
        return self._checked(await self._flusher.flush(self._timeout(timeout)))

    async def close(self, *, timeout: float | None = None) -> Flush:
        """A last report, back-off or not, then the end of the connections of this event loop.

        The emitter can still be used; the next flush opens a new connection.

        Args:
            timeout: As for `flush`.

        Returns:
            What became of the last report.

        Raises:
            UsageError: As for `flush`.
        """
        return self._checked(await self._flusher.close(self._timeout(timeout)))

    def every(self, seconds: float) -> Periodic:
        """For services that run on: `async with metrics.every(10):` flushes every 10 s, and closes at the end.

        Raises:
            ConfigurationError: `seconds` is no positive number.
        """
        return Periodic(self, seconds)

    @property
    def stats(self) -> Stats:
        """What became of all flushes so far: a frozen copy. Connections of a session of your own are not counted."""
        return self._flusher.stats

    def _timeout(self, timeout: float | None) -> float:
        return self._settings.timeout if timeout is None else checked_timeout(timeout)

    def _checked(self, flush: Flush) -> Flush:
        if self._strict and flush.error is not None:
            raise flush.error
        return flush
