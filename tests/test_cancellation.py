"""A flush is cancelled at each of its awaits, one after the other: nothing leaks, and the next brings the totals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from emitter import Delivery, Emitter
from tests.stepped_peer import SteppedPeer
from tests.tls import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Generator, Iterator

    Contexts = tuple[ssl.SSLContext | None, ssl.SSLContext | None]

LIMIT_STEPS = 300
"""Awaits of one flush; none has that many."""


class Cut:
    """Awaits something and cancels its own task at one of the awaits.

    Args:
        awaitable: What is awaited.
        step: At which await, the first is 0.
        late: Cancel only once what is waited for there has happened, before the task learns of it.
        at_each: Called at each await.
    """

    def __init__(self, awaitable: Awaitable[Any], step: int, *, late: bool, at_each: Callable[[], None]) -> None:
        self._awaitable = awaitable
        self._step = step
        self._late = late
        self._at_each = at_each
        self.done = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner, resume, value = self._awaitable.__await__(), "send", None
        task = asyncio.current_task()
        step = 0
        while True:
            try:
                waited_for = getattr(inner, resume)(value)
            except StopIteration as returned:
                return returned.value
            self._at_each()
            if step == self._step:
                self.done = True
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            step += 1
            try:
                resume, value = "send", (yield waited_for)
            except BaseException as thrown:  # noqa: BLE001  passed on, whatever it is
                resume, value = "throw", thrown


class Laboratory:
    """An emitter, its peer and the loop that both live in."""

    def __init__(self, contexts: Contexts, *, host: str = "127.0.0.1", large: bool = False, **more: int) -> None:
        narrow = {"receive_buffer_bytes": 16_384} if large else {}
        server, client = contexts
        self.peer = SteppedPeer(server, **narrow, **more)
        endpoint = self.peer.endpoint.replace("127.0.0.1", host)
        self.metrics = Emitter(endpoint, service="s", timeout=5.0, ssl_context=client, compress=False)
        self.orders = self.metrics.counter("orders").bind()
        self.total = 0
        self.other: asyncio.Future[Any] | None = None
        self._large = large
        if large:
            padding = self.metrics.gauge("padding")
            for number in range(500):
                padding.set(number, number=str(number), padding="x" * 200)

    def record(self) -> None:
        self.orders.add()
        self.total += 1

    async def with_peer(self, work: Awaitable[Any]) -> Any:
        """Await something while the peer goes on, also where one step of it makes nothing happen here."""

        async def go_on() -> None:
            while True:
                self.peer.step()
                await asyncio.sleep(0.001)

        going = asyncio.ensure_future(go_on())
        try:
            return await asyncio.wait_for(work, 20)
        finally:
            going.cancel()

    async def warm(self) -> None:
        """An open connection on which a report was accepted, as narrow as it can be if the next is to be large."""
        self.record()
        flush = await self.with_peer(self.metrics.flush(delivery=Delivery.ANSWERED))
        assert flush.delivery is Delivery.ANSWERED, flush
        if self._large:
            self.metrics._flusher._link.connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)

    async def cut(self, work: Awaitable[Any], step: int, *, late: bool) -> bool:
        """Await something up to a step, where it is cancelled; whether there was such a step."""
        cut = Cut(work, step, late=late, at_each=self.peer.step)

        async def run() -> Any:
            return await cut

        task = asyncio.ensure_future(run())
        await self.with_peer(asyncio.wait({task}))
        assert task.cancelled() == cut.done, f"cancelled: {cut.done}, but it came out as {task}"
        return cut.done

    async def works(self) -> None:
        """The connection is sound or dropped, and a flush brings the totals."""
        if self.other is not None:
            other = await self.with_peer(self.other)
            assert other.delivery is Delivery.ANSWERED, other
        connection = self.metrics._flusher._link.connection
        assert connection is None or connection.ended is not None or connection._stream.unwritten_bytes == 0
        self.record()
        flush = await self.with_peer(self.metrics.flush(delivery=Delivery.ANSWERED))
        assert flush.delivery is Delivery.ANSWERED, flush
        assert self.peer.orders == self.total

    async def close(self) -> None:
        await self.with_peer(self.metrics.close())
        self.peer.close()
        await asyncio.sleep(0)
        for thread in threading.enumerate():
            if thread.name == "emitter-lookup":
                await asyncio.to_thread(thread.join)


async def cold(laboratory: Laboratory) -> Awaitable[Any]:
    laboratory.record()
    return laboratory.metrics.flush()


async def warm(laboratory: Laboratory) -> Awaitable[Any]:
    await laboratory.warm()
    laboratory.record()
    return laboratory.metrics.flush()


async def acknowledged(laboratory: Laboratory) -> Awaitable[Any]:
    await laboratory.warm()
    laboratory.record()
    return laboratory.metrics.flush(delivery=Delivery.ACKNOWLEDGED)


async def answered(laboratory: Laboratory) -> Awaitable[Any]:
    await laboratory.warm()
    laboratory.record()
    return laboratory.metrics.flush(delivery=Delivery.ANSWERED)


async def behind_another(laboratory: Laboratory) -> Awaitable[Any]:
    """One flush waits for its answer, and the one that is looked at waits for that flush."""
    await laboratory.warm()
    laboratory.record()
    laboratory.other = asyncio.ensure_future(laboratory.metrics.flush(delivery=Delivery.ANSWERED))
    await asyncio.sleep(0)
    laboratory.record()
    return laboratory.metrics.flush(delivery=Delivery.ANSWERED)


async def connect(laboratory: Laboratory) -> Awaitable[Any]:
    return laboratory.metrics.connect()


async def close(laboratory: Laboratory) -> Awaitable[Any]:
    await laboratory.warm()
    laboratory.record()
    return laboratory.metrics.close()


SCENES = {
    "cold": (cold, {}),
    "cold, in pieces": (cold, {"piece_bytes": 400}),
    "cold by name": (cold, {"host": "localhost"}),
    "cold and large": (cold, {"large": True}),
    "warm": (warm, {}),
    "warm and large": (warm, {"large": True}),
    "acknowledged": (acknowledged, {}),
    "acknowledged and large": (acknowledged, {"large": True}),
    "answered": (answered, {}),
    "answered, in pieces": (answered, {"piece_bytes": 40}),
    "behind another": (behind_another, {}),
    "connect": (connect, {}),
    "connect by name": (connect, {"host": "localhost"}),
    "close": (close, {}),
    "close and large": (close, {"large": True}),
}


@pytest.fixture(scope="module", params=["plain", "tls"])
def contexts(request: pytest.FixtureRequest) -> Contexts:
    """TLS of the peers and of the emitters, or none."""
    authority = Authority()
    return (authority.server(), authority.client()) if request.param == "tls" else (None, None)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of either kind."""
    loop = request.param()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def descriptors() -> dict[str, str]:
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            found[each.name] = str(each.readlink())
    return found


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "when it has just waited"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_cancellation_at_any_await_harms_nothing(loop, contexts, scene, late):
    """It comes out as what it is, nothing is left behind, and the next flush works with exact totals."""
    prepare, options = SCENES[scene]

    async def run(step: int) -> bool:
        laboratory = Laboratory(contexts, **options)
        was_cut = await laboratory.cut(await prepare(laboratory), step, late=late)
        await laboratory.works()
        await laboratory.close()
        return was_cut

    loop.run_until_complete(run(LIMIT_STEPS))  # uncut: what loop and process need once, they have then
    gc.collect()
    before = descriptors()
    steps = 0
    while loop.run_until_complete(run(steps)):
        steps += 1
        assert steps < LIMIT_STEPS
        if descriptors() != before:
            gc.collect()  # which takes longer than all the rest
        assert descriptors() == before, f"after a cancellation at await {steps - 1}"

    assert steps >= 1
