"""Owns `Emitter`, the object that users hold: instruments, flushes, life cycle. The steps of a flush are elsewhere."""

from __future__ import annotations

from emitter.aws_lambda import Policy, wrap_handler
from emitter.callbacks import CALLED_LAST, call_each
from emitter.meter import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from emitter.aws_lambda import Handler
    from emitter.encode import Encoder
    from emitter.outcomes import Flush, Stats
    from emitter.periodic import Periodic
    from emitter.settings import Signer
    from emitter.transmit.delivery import Delivery

__all__ = ["DEFAULT_CONNECT_TIMEOUT", "Emitter"]

DEFAULT_CONNECT_TIMEOUT = 2.0
"""Seconds to open a connection ahead of time, or to close one in order: nobody waits for either."""

_INIT_TIMEOUT = 1.0
"""Seconds of the INIT phase, or before a snapshot, that an endpoint from which nothing comes back may cost. Opening
goes on after that, while the first invocation's handler works."""


class Emitter(Meter):
    """Counts in this process, and gets the running totals out over HTTP without waiting for the answer.

    Everything that a flush needs is imported when an emitter is made, so make it at the top of the module: in
    Lambda that is the INIT phase. Any number of threads and event loops may use one emitter; a signal handler may
    not, since it may have interrupted the very code that holds a lock or changes a total.

    Args:
        endpoint: The full URL that reports are POSTed to. `None`: from the environment, see `emitter.settings`.
        service: What the totals belong to, `service.name`. `None`: from the environment.
        headers: Further header fields of each request. May be secret: never logged, in no `repr`.
        encoder: The format of the reports: `"otlp"`, `"otlp-json"`, `"remote-write"`, `"influx"`, `"json"`, or an
            `emitter.encode.Encoder` for this emitter alone. `None`: from the environment, else `"otlp"`.
        delivery: How far a flush waits for its report to get. `None`: from the environment, else `TRANSMITTED`.
        timeout: Seconds for a whole flush, connecting included; 0: whatever needs no waiting. `None`: from the
            environment, else 0.25.
        temporality: `"cumulative"`: running totals, so that a lost report loses nothing. `"delta"`: what was added
            since the report before, for receivers that demand it; what a lost report has carried is lost.
        compress: Whether the body of a request above 12 KB is put into gzip, if that makes it smaller.
        report_limit_bytes: Of the body of one request, before compression. A larger report is divided into several.
        series_limit: How many series each instrument may have, before what comes on top goes to one more.
        ssl_context: Whom an https endpoint is verified against, client certificates and the like. `None`: the
            operating system's trust store, and TLS 1.2 at least. It has to offer `http/1.1`, or nothing, by ALPN.
        signer: What signs each request, such as `emitter.sigv4.SigV4()`. `None`: nothing does.
        sticky_cookies: Names of cookies by which a load balancer recognises this sandbox, besides those of AWS's;
            a `*` at the end stands for anything. They are learned from answers and go out with later reports.
        idle_limit: Seconds without a report after which the connection is replaced.
        age_limit: Seconds after which the connection is replaced.
        strict: Whether a flush raises what went wrong instead of returning it. For tests; a decorated handler raises
            nothing even then.

    Attributes:
        last_calls: Called before a flush that a handler does not know of, shortly before a timeout, at SIGTERM (both in
            threads other than the handler's) or before a snapshot: for whoever records only when a handler has ended.
        at_restart: Called when it begins anew as another sandbox, after a fork, after a restore, or in a test: for
            whoever keeps what is not recorded yet. In a forked child no lock may be taken there.

    Raises:
        ConfigurationError: What was wrong, where it came from, and what was expected.
        OSError: No file descriptor is left for an event loop.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        service: str | None = None,
        headers: Mapping[str, str] | None = None,
        encoder: str | Encoder | None = None,
        delivery: Delivery | None = None,
        timeout: float | None = None,
        temporality: str = "cumulative",
        compress: bool = True,
        report_limit_bytes: int = 4 * 1024 * 1024,
        series_limit: int = 2_000,
        ssl_context: ssl.SSLContext | None = None,
        signer: Signer | None = None,
        sticky_cookies: Iterable[str] = (),
        idle_limit: float = 50.0,
        age_limit: float = 3_500.0,
        strict: bool = False,
    ) -> None:
        # Imported here, not above: `import emitter` stays light, and this line is still part of the INIT phase.
        import os

        from emitter import living, loop, settings, snap_start
        from emitter.flusher import Flusher
        from emitter.record.registry import Registry

        self._settings = settings.Settings.resolve(
            os.environ,
            endpoint=endpoint,
            service=service,
            headers=headers,
            delivery=delivery,
            timeout=timeout,
            encoder=encoder,
            temporality=temporality,
            compress=compress,
            report_limit_bytes=report_limit_bytes,
            ssl_context=ssl_context,
            signer=signer,
            sticky_cookies=sticky_cookies,
            idle_limit=idle_limit,
            age_limit=age_limit,
        )
        self._strict = settings.checked_switch(strict, "strict")
        self._connected_in_init = False
        self._connects: bool | None = None  # whether any handler is to; None: there is none
        self.last_calls: list[Callable[[], object]] = []
        self._loops = loop
        loop.prepare()
        self._check = settings
        encoding = self._settings.encoder
        resource = self._settings.resource
        super().__init__(
            Registry(resource, series_limit=series_limit, tick_nano=encoding.tick_nano, names=encoding.names)
        )
        self.at_restart = self._registry.at_restart
        self._flusher = Flusher(self._registry, self._settings)
        snap_start.watch(self._before_snapshot, self._after_restore, os.environ)
        living.note(self)

    def __repr__(self) -> str:
        return f"<Emitter to {self._settings.endpoint.shown}>"

    async def flush(self, *, timeout: float | None = None, delivery: Delivery | None = None) -> Flush:
        """Get one report with all totals out, and return as soon as it got as far as asked.

        Flushes that are asked for at the same time share one report.

        Args:
            timeout: Seconds for everything together. `None`: the emitter's. 0: whatever needs no waiting.
            delivery: How far the report is to get. `None`: the emitter's.

        Returns:
            What became of it. The network raises nothing, unless the emitter is `strict`.

        After failure: the totals are kept and go out with the next report that gets through. The connection is
        kept if it is sound, else replaced at the next flush. After cancellation: the same.
        """
        flush = await self._flusher.flush(self._timeout(timeout), self._delivery(delivery))
        return self._checked(flush)

    def flush_sync(self, *, timeout: float | None = None, delivery: Delivery | None = None) -> Flush:
        """`flush` for synchronous code. While nothing has to wait, no event loop runs.

        Raises:
            RuntimeError: An event loop runs in this thread; await `flush` instead.
        """
        self._loops.refuse_inside_loop("flush()")
        flush = self._loops.run(self._flusher.flush(self._timeout(timeout), self._delivery(delivery)))
        return self._checked(flush)

    async def connect(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> bool:
        """Open the connection ahead of time, in the INIT phase say.

        Args:
            timeout: Seconds.

        Returns:
            Whether it is open. The network raises nothing.
        """
        return await self._flusher.connect(self._timeout(timeout))

    def connect_sync(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> bool:
        """`connect` for synchronous code.

        Raises:
            RuntimeError: An event loop runs in this thread; await `connect` instead.
        """
        self._loops.refuse_inside_loop("connect()")
        return self._loops.run(self._flusher.connect(self._timeout(timeout)))

    async def close(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> None:
        """A last report that the peer acknowledges, then an orderly close: after the answers, or the timeout.

        The emitter can still be used; the next flush opens a new connection.

        Args:
            timeout: Seconds for all of it.
        """
        await self._flusher.close(self._timeout(timeout))

    def close_sync(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> None:
        """`close` for synchronous code.

        Raises:
            RuntimeError: An event loop runs in this thread; await `close` instead.
        """
        self._loops.refuse_inside_loop("close()")
        self._loops.run(self._flusher.close(self._timeout(timeout)))

    def every(self, seconds: float) -> Periodic:
        """For services that run on: `async with metrics.every(10):` flushes every 10 s, and closes at the end.

        Raises:
            ConfigurationError: `seconds` is no positive number.
        """
        from emitter.periodic import Periodic

        return Periodic(self, seconds)

    @property
    def stats(self) -> Stats:
        """What became of all flushes so far: a frozen copy."""
        return self._flusher.stats

    def lambda_handler(
        self,
        handler: Handler | None = None,
        /,
        *,
        timeout: float | None = None,
        delivery: Delivery | None = None,
        connect: bool = True,
        every: float = 0.0,
        timeout_guard: bool = False,
        flush_at_sigterm: bool = False,
    ) -> Any:
        """Decorate a Lambda handler: count its invocations and flush at the end of each.

        With or without arguments, on `def` and on `async def`. What comes back can be called by the stock
        runtime, and keeps name, docstring and signature. The flush also happens when the handler raises, whose
        exception comes out unchanged; nothing that goes wrong in emitting ever reaches the caller. A flush takes no
        more than the time that Lambda has left for the invocation, less 50 ms. A connection that cannot be used any
        more is replaced while the handler works.

        Records `faas.invocations` (those that succeeded), `faas.errors`, `faas.coldstarts` and
        `faas.invoke_duration`, as OpenTelemetry's semantic conventions define them.

        Args:
            handler: What Lambda calls with an event and a context.
            timeout: As for `flush`.
            delivery: As for `flush`.
            connect: Whether the connection is opened here and now, if this is a sandbox of Lambda's. Under SnapStart
                it is begun after the restore instead, in a thread.
            every: Seconds; a flush that comes earlier after the last report is withheld, its totals go out with a
                later one. 0: each invocation has its report.
            timeout_guard: Whether an invocation that is about to time out is counted in `faas.timeouts`, and
                flushed before Lambda kills the sandbox, even if the handler blocks. It is taken for one when no
                more than the flush's timeout and 50 ms are left, or half of what it had if that is less.
            flush_at_sigterm: Whether SIGTERM flushes, waits for the answer up to 0.25 s, and then does what it did
                before. Lambda gives that signal only where an extension is registered.

        Raises:
            ConfigurationError: The decorated object cannot be called, or an argument makes no sense.
        """
        # Checked here, where the mistake is made, and not at the end of each invocation.
        policy = Policy(
            timeout=self._timeout(timeout),
            delivery=self._delivery(delivery),
            every=self._check.checked_timeout(every, "every"),
            timeout_guard=self._check.checked_switch(timeout_guard, "timeout_guard"),
            flush_at_sigterm=self._check.checked_switch(flush_at_sigterm, "flush_at_sigterm"),
        )
        connect = self._check.checked_switch(connect, "connect")

        def decorate(handler: Handler) -> Callable[[Any, Any], Any]:
            wrapped = wrap_handler(self, lambda: self._flusher, handler, policy, self.last_calls)
            self._prepare_in_init(connect=connect)
            return wrapped

        return decorate if handler is None else decorate(handler)

    def _prepare_in_init(self, *, connect: bool) -> None:
        import os

        self._connects = connect or bool(self._connects)
        phase = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "")  # unset outside Lambda, in unit tests for one
        # Not in a loop that runs, of a runtime of one's own. And once is enough, above all if nobody answers.
        if connect and phase not in {"", "snap-start"} and not self._loops.inside() and not self._connected_in_init:
            self._connected_in_init = True
            self.connect_sync(timeout=_INIT_TIMEOUT)
        elif phase:
            self._flusher.prepare()  # under SnapStart this will be in the snapshot, where a connection would be dead

    def _before_snapshot(self) -> None:
        call_each(self.last_calls, CALLED_LAST)
        # What INIT has recorded goes out under the identity of INIT: no sandbox will have it.
        self._loops.run(self._flusher.close(_INIT_TIMEOUT, report=self._flusher.has_news))

    def _after_restore(self) -> None:
        self._flusher.after_fork()
        if self._connects is not False:
            # In a thread: all hooks together have 10 s, after which Lambda gives the sandbox up.
            self._loops.run(self._flusher.freshen())

    def _timeout(self, timeout: float | None) -> float:
        return self._settings.timeout if timeout is None else self._check.checked_timeout(timeout)

    def _delivery(self, delivery: Delivery | None) -> Delivery:
        return self._settings.delivery if delivery is None else self._check.checked_delivery(delivery)

    def _checked(self, flush: Flush) -> Flush:
        if self._strict and flush.error is not None:
            raise flush.error
        return flush
