"""The function in the sandbox: one handler, and the ways of emitting that it can be run with.

Which way, where to, and how large a report stand in the environment. All ways record the same and report running
totals over a connection that stays open; they differ in nothing but how the report leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import string
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from emitter import Delivery, Emitter
from emitter.encode.otlp import OtlpEncoder
from emitter.record.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDPOINT = os.environ["EMITTER_ENDPOINT"]
_SERIES = int(os.environ["FREEZE_SERIES"])
_WORK_SECONDS = float(os.environ["FREEZE_WORK_SECONDS"])
_AUTHORITY = os.environ.get("FREEZE_AUTHORITY")  # the certificate to trust, where the endpoint is https

_BUDGET_SECONDS = 2.0
"""For 300 KB over 80 ms: five round trips from ten segments on, and as many to spare."""

_VALUE_CHARACTERS = 200
"""Of one attribute: at random, so that no compression makes the report smaller than it was asked to be."""


def _record(maker: Any) -> Callable[[], None]:
    """Make the counters, and return what counts one order."""
    chance = random.Random(0)  # noqa: S311 - noise, no secret
    filler = maker.counter("filler")
    for _ in range(_SERIES):
        filler.add(0, value="".join(chance.choices(string.ascii_letters + string.digits + "-_", k=_VALUE_CHARACTERS)))
    orders = maker.counter("orders")
    return lambda: orders.add(1)


class _ByHand:
    """What the ways without an emitter share: the totals, as bytes, and an event loop that is kept."""

    def __init__(self) -> None:
        registry = Registry(resource=(("service.name", "shop"),))
        self._registry = registry
        self._flushes = registry.counter("emitter.flushes", own=True)  # the receiver tells reports apart by it
        self._encoder = OtlpEncoder()
        self._loop = asyncio.new_event_loop()
        self.record = _record(registry)

    def _report(self) -> bytes:
        self._flushes.add(1)
        return bytes(self._encoder.encode(self._registry.snapshot()))


class _NotAwaited(_ByHand):
    """A POST with aiohttp as a task that nobody awaits, but for the first, which opens the connection."""

    _session: aiohttp.ClientSession | None = None

    def __init__(self) -> None:
        super().__init__()
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self) -> None:
        self._loop.run_until_complete(self._start(self._report()))

    async def _start(self, body: bytes) -> None:
        if self._session is None:
            # It has to be made inside the running loop.
            self._session = aiohttp.ClientSession(headers={"Content-Type": self._encoder.content_type})
            await self._post(self._session, body)
            return
        task = asyncio.create_task(self._post(self._session, body))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> None:
        async with session.post(_ENDPOINT, data=body) as answer:
            answer.raise_for_status()


class _Drained(_ByHand):
    """Write to an asyncio stream and `await drain()`, with asyncio's own limits. Answers are left unread."""

    _writer: asyncio.StreamWriter | None = None

    def emit(self) -> None:
        self._loop.run_until_complete(self._write(self._report()))

    async def _write(self, body: bytes) -> None:
        address = urlsplit(_ENDPOINT)
        if self._writer is None:
            _, self._writer = await asyncio.open_connection(address.hostname, address.port)
            self._set_limits(self._writer)
        head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    def _set_limits(self, writer: asyncio.StreamWriter) -> None:
        """Leave them as they are."""


class _DrainedToTheKernel(_Drained):
    """The same with a write-buffer limit of 0: `drain()` returns once the kernel has every byte."""

    def _set_limits(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)


class _Emitter:
    """What this project is for."""

    def __init__(self, delivery: Delivery) -> None:
        more = {} if _AUTHORITY is None else {"ssl_context": ssl.create_default_context(cafile=_AUTHORITY)}
        self._metrics = Emitter(
            _ENDPOINT, service="shop", timeout=_BUDGET_SECONDS, delivery=delivery, compress=False, **more
        )
        self.record = _record(self._metrics)

    def emit(self) -> str:
        flush = self._metrics.flush_sync()
        return f"{flush.delivery} {flush.withheld or ''}{flush.error or ''}".strip()


_WAYS: dict[str, Callable[[], Any]] = {
    "create_task": _NotAwaited,
    "drain": _Drained,
    "drain-0": _DrainedToTheKernel,
    "transmitted": lambda: _Emitter(Delivery.TRANSMITTED),
    "acknowledged": lambda: _Emitter(Delivery.ACKNOWLEDGED),
}
_way = _WAYS[os.environ["FREEZE_WAY"]]()


def handler(_event: object, _context: object) -> dict[str, Any]:
    """Work, count one order, report; say when and for how long it did the last two, and what the flush said."""
    time.sleep(_WORK_SECONDS)
    started = time.perf_counter()
    _way.record()
    said = _way.emit()
    return {"started": started, "seconds": time.perf_counter() - started, "said": said}
