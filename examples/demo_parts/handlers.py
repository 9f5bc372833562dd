"""Owns the demo's Lambda function: one handler, and the ways of emitting that it can be run with.

Which way, where to, and how large a catalogue stand in the environment (`DEMO_WAY`, `EMITTER_ENDPOINT`,
`DEMO_PRODUCTS`). All ways record the same and report running totals; they differ in nothing but how the
report leaves. Each keeps its client and its event loop, as good code does.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from emitter import Emitter
from emitter.encode.otlp import OtlpEncoder
from emitter.record.registry import Registry

from .shop import BUDGET_SECONDS, Shop

if TYPE_CHECKING:
    from collections.abc import Callable

_WAY = os.environ["DEMO_WAY"]
_ENDPOINT = os.environ["EMITTER_ENDPOINT"]
_PRODUCTS = int(os.environ["DEMO_PRODUCTS"])


class _Way(Protocol):
    shop: Shop

    def emit(self) -> None:
        """Report all totals, in the way that is this class."""


class _ByHand:
    """What the ways without an emitter share: the totals, as bytes, and an event loop that is kept."""

    def __init__(self) -> None:
        self._registry = Registry(resource=(("service.name", _WAY),))
        self._flushes = self._registry.counter("emitter.flushes", own=True)
        self._encoder = OtlpEncoder()
        self._loop = asyncio.new_event_loop()
        self.shop = Shop(self._registry, _PRODUCTS)

    def _report(self) -> bytes:
        self._flushes.add(1)  # the receiver counts lost reports by it
        return bytes(self._encoder.encode(self._registry.snapshot()))


class _Awaited(_ByHand):
    """POST with aiohttp, and wait for the answer."""

    _session: aiohttp.ClientSession | None = None

    def emit(self) -> None:
        self._loop.run_until_complete(self._post(self._report()))

    async def _post(self, body: bytes) -> None:
        if self._session is None:  # it has to be made inside the running loop
            self._session = aiohttp.ClientSession(headers={"Content-Type": self._encoder.content_type})
        async with self._session.post(_ENDPOINT, data=body) as answer:
            answer.raise_for_status()


class _NotAwaited(_Awaited):
    """The same POST as a task that nobody awaits: it goes on while the loop runs, which is in a handler."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self) -> None:
        self._loop.run_until_complete(self._start(self._report()))

    async def _start(self, body: bytes) -> None:
        task = asyncio.create_task(self._post(body))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)


class _Drained(_ByHand):
    """Write to an asyncio stream and `await drain()`, with asyncio's own limits. Answers are left unread."""

    _writer: asyncio.StreamWriter | None = None

    def emit(self) -> None:
        self._loop.run_until_complete(self._write(self._report()))

    async def _write(self, body: bytes) -> None:
        address = urlsplit(_ENDPOINT)
        if self._writer is None:
            _, self._writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Type: {self._encoder.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()


class _Emitter:
    """What this project is for."""

    def __init__(self) -> None:
        self._metrics = Emitter(_ENDPOINT, service=_WAY, timeout=BUDGET_SECONDS, compress=False)
        self.shop = Shop(self._metrics, _PRODUCTS)

    def emit(self) -> None:
        self._metrics.flush_sync()


_WAYS: dict[str, Callable[[], _Way]] = {
    "awaited": _Awaited,
    "not-awaited": _NotAwaited,
    "drained": _Drained,
    "emitter": _Emitter,
    "emitter-large": _Emitter,
}
_way = _WAYS[_WAY]()


def handler(event: dict[str, Any], _context: object) -> dict[str, float]:
    """Count one order, report, and say how long both took."""
    started = time.perf_counter()
    _way.shop.record(event["order"])
    _way.emit()
    return {"seconds": time.perf_counter() - started}
