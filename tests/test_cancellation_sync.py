"""Time limits of other people around a flush, and what a signal throws into one that waits."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emitter import Delivery, Emitter
from emitter import loop as loops
from tests.flushing import orders
from tests.scripted_peer import PATIENCE, PeerConnection, ScriptedPeer
from tests.tls import Authority, TlsPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; run on Linux")


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who certifies the peers."""
    return Authority()


@pytest.fixture(params=["plain", "tls"])
def peer(request: pytest.FixtureRequest, authority: Authority) -> Iterator[ScriptedPeer]:
    """A peer of either kind that does what the test says."""
    peer = TlsPeer(authority.server()) if request.param == "tls" else ScriptedPeer()
    yield peer
    peer.close()


@pytest.fixture
def metrics(peer: ScriptedPeer, authority: Authority) -> Iterator[Emitter]:
    """An emitter that reports to it, with more time than a test has."""
    context = authority.client() if peer.endpoint.startswith("https:") else None
    metrics = Emitter(peer.endpoint, service="s", timeout=3 * PATIENCE, ssl_context=context)
    yield metrics
    metrics.close_sync(timeout=0)


class AlarmError(Exception):
    """What somebody's time limit throws."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGALRM], ids=["Ctrl-C", "an alarm"])
def thrown(request: pytest.FixtureRequest) -> Iterator[tuple[signal.Signals, type[BaseException]]]:
    """A signal, and what its handler throws."""

    def ring(*_: object) -> None:
        raise AlarmError

    # Python installs its own for Ctrl-C only where that is not ignored, as a shell does for what is in the background.
    handler = ring if request.param is signal.SIGALRM else signal.default_int_handler
    before = signal.signal(request.param, handler)
    yield request.param, AlarmError if request.param is signal.SIGALRM else KeyboardInterrupt
    signal.signal(request.param, before)


def while_it_waits(peer: ScriptedPeer, happens: Callable[[], None]) -> tuple[threading.Thread, list[PeerConnection]]:
    """A peer that takes one report, and lets something happen before it answers."""
    ends: list[PeerConnection] = []

    def take() -> None:
        ends.append(peer.accept())
        ends[0].read_request()
        happens()

    thread = threading.Thread(target=take)
    thread.start()
    return thread, ends


def throw(signum: signal.Signals) -> None:
    """Signal the main thread once it waits for events, as a flush does nearly all of the time that it takes.

    In the middle of asyncio's own work there is no telling what an exception from nowhere leaves behind.
    """
    main = threading.main_thread()
    waits_in = Path(f"/proc/self/task/{main.native_id}/wchan")
    deadline = time.monotonic() + PATIENCE
    while "poll" not in waits_in.read_text() and time.monotonic() < deadline:
        time.sleep(0)
    signal.pthread_kill(main.ident, signum)


def test_a_signal_that_throws_into_a_flush(peer, metrics, thrown):
    """It comes out as it is; the connection is sound, since all was written, and the next report goes over it."""
    signum, exception = thrown
    counter = metrics.counter("orders").bind()
    counter.add()
    thread, ends = while_it_waits(peer, lambda: throw(signum))
    with pytest.raises(exception):
        metrics.flush_sync(delivery=Delivery.ANSWERED)
    thread.join()
    counter.add()
    again = metrics.flush_sync()
    report = ends[0].read_request()

    assert (again.delivery, again.error) == (Delivery.TRANSMITTED, None)
    assert orders(report.body) == 2
    assert metrics.stats.connections_opened == 1
    assert sum(metrics.stats.failed.values()) == 1
    assert not loops._busy.locked()


def test_a_signal_that_throws_into_an_opening(thrown):
    """What was begun goes on at the next flush."""
    signum, exception = thrown
    full = ScriptedPeer(backlog=0)
    metrics = Emitter(full.endpoint, service="s", timeout=3 * PATIENCE)
    counter = metrics.counter("orders").bind()
    counter.add()
    own = loops.current()

    def watch() -> None:
        while metrics._flusher._link.opening is None or not own.is_running():  # and then until it waits
            time.sleep(0)
        throw(signum)

    with socket.create_connection(("127.0.0.1", full.port)):  # takes the only place
        thread = threading.Thread(target=watch)
        thread.start()
        with pytest.raises(exception):
            metrics.flush_sync()
        thread.join()
        began = metrics._flusher._link.opening
        full.accept()
        counter.add()
        flush = metrics.flush_sync()
        total = orders(full.accept().read_request().body)
        no_other = not full.has_another_connection()
    metrics.close_sync(timeout=0)
    full.close()

    assert began is not None
    assert (flush.delivery, total) == (Delivery.TRANSMITTED, 2)
    assert no_other


@pytest.mark.parametrize("how", ["wait_for", "shielded", "cancel"])
def test_a_time_limit_around_a_flush(peer, metrics, how):
    """It is kept, is not taken for the flush's own, and leaves the connection as it was."""
    counter = metrics.counter("orders").bind()

    async def limited() -> None:
        flushing = asyncio.ensure_future(metrics.flush(delivery=Delivery.ANSWERED))
        loop = asyncio.get_running_loop()
        taken = asyncio.Event()
        thread, ends = while_it_waits(peer, lambda: loop.call_soon_threadsafe(taken.set))
        await taken.wait()
        if how == "cancel":
            flushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flushing
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(flushing) if how == "shielded" else flushing, 0.01)
        await asyncio.to_thread(thread.join)
        ends[0].answer(200)
        if how == "shielded":
            assert (await flushing).delivery is Delivery.ANSWERED
        counter.add()
        again = await metrics.flush()
        report = await asyncio.to_thread(ends[0].read_request)

        assert (again.delivery, again.error) == (Delivery.TRANSMITTED, None)
        assert orders(report.body) == 2

    counter.add()
    asyncio.run(limited())

    assert metrics.stats.connections_opened == 1
    assert metrics.stats.failed == ({} if how == "shielded" else {"cancelled": 1})


def test_a_loop_that_ends_with_a_flush_under_way(peer, metrics):
    """As in `asyncio.run` of something that does not wait for what it began: the next flush works."""
    counter = metrics.counter("orders").bind()
    counter.add()
    thread, ends = None, []

    async def leave() -> None:
        nonlocal thread, ends
        loop, taken = asyncio.get_running_loop(), asyncio.Event()
        thread, ends = while_it_waits(peer, lambda: loop.call_soon_threadsafe(taken.set))
        metrics.flushing = asyncio.ensure_future(metrics.flush(delivery=Delivery.ANSWERED))
        await taken.wait()

    asyncio.run(leave())
    thread.join()
    counter.add()
    again = metrics.flush_sync()
    report = ends[0].read_request()

    assert metrics.flushing.cancelled()
    assert (again.delivery, again.error) == (Delivery.TRANSMITTED, None)
    assert orders(report.body) == 2
    assert metrics.stats.connections_opened == 1
