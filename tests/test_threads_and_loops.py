"""One emitter in many threads and many event loops: one connection, exact totals, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import uvloop

from emitter import Delivery, Emitter
from emitter import loop as loops
from emitter.encode.otlp import OtlpEncoder
from emitter.outcomes import Flush, Withheld
from tests.flushing import orders as orders_in
from tests.scripted_peer import PATIENCE, ScriptedPeer, wait_readable
from tests.stepped_peer import SteppedPeer
from tests.tls import Authority, TlsPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emitter.record.snapshot import Snapshot


THREADS = 8


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who certifies the peers."""
    return Authority()


@pytest.fixture(params=["plain", "tls"])
def peer(request: pytest.FixtureRequest, authority: Authority) -> Iterator[SteppedPeer]:
    """A peer of either kind, that goes on by itself."""
    peer = SteppedPeer(authority.server() if request.param == "tls" else None)
    with peer.going():
        yield peer
    peer.close()


@pytest.fixture
def metrics(peer: SteppedPeer, authority: Authority) -> Iterator[Emitter]:
    """An emitter that reports to it."""
    context = authority.client() if peer.endpoint.startswith("https:") else None
    metrics = Emitter(peer.endpoint, service="s", timeout=PATIENCE, ssl_context=context)
    yield metrics
    metrics.close_sync(timeout=0)


def in_new_loop(flush: Callable[[], object], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Flush:
    """As `asyncio.run`, with a loop of any kind."""
    loop = new_loop()
    try:
        return loop.run_until_complete(flush())
    finally:
        loop.close()


@pytest.mark.parametrize("delivery", [Delivery.TRANSMITTED, Delivery.ANSWERED])
def test_threads_that_record_and_threads_that_flush(peer, metrics, delivery):
    """Each flush succeeds, over one connection, and the last one carries all that was recorded."""
    orders = metrics.counter("orders")
    adds, flushes = 5_000, 40
    start = threading.Barrier(2 * THREADS)

    def record(number: int) -> None:
        start.wait()
        bound = orders.bind(thread=str(number))
        for n in range(adds // 2):
            bound.add()
            orders.add(1, n=n % 10)

    def flush() -> list[Flush]:
        start.wait()
        done = []
        for _ in range(flushes):
            orders.add()
            done.append(metrics.flush_sync(delivery=delivery))
        return done

    with ThreadPoolExecutor(2 * THREADS) as threads:
        recording = [threads.submit(record, number) for number in range(THREADS)]
        flushing = [threads.submit(flush) for _ in range(THREADS)]
        done = [each for future in flushing for each in future.result(3 * PATIENCE)]
        for future in recording:
            future.result(3 * PATIENCE)
    while metrics.flush_sync(delivery=Delivery.ANSWERED).withheld is Withheld.UNANSWERED:
        wait_readable(metrics._flusher._link.connection._socket)

    assert {each.error for each in done} == {None}
    assert {each.delivery for each in done if each.withheld is None} == {delivery}
    # It may be in the report of another; or 16 have left before the peer, in this same process, has had its turn.
    assert {each.withheld for each in done} <= {None, Withheld.UNANSWERED, Withheld.UNCHANGED}
    assert peer.orders == THREADS * (adds + flushes)
    assert peer.connections == metrics.stats.connections_opened == 1
    assert metrics.stats.failed == {}
    assert 2 <= peer.reports == metrics.stats.flushes <= THREADS * flushes + 1


@pytest.mark.parametrize(
    "kinds",
    [
        (asyncio.new_event_loop, asyncio.new_event_loop),
        (uvloop.new_event_loop, uvloop.new_event_loop),
        (asyncio.new_event_loop, uvloop.new_event_loop),
    ],
    ids=["asyncio", "uvloop", "both"],
)
def test_two_running_loops_take_turns_on_one_connection(peer, metrics, kinds):
    """The connection goes to and fro, and each finds there what was answered to the other."""
    orders = metrics.counter("orders").bind()
    running = [new_loop() for new_loop in kinds]
    threads = [threading.Thread(target=loop.run_forever) for loop in running]
    for thread in threads:
        thread.start()
    done = [metrics.flush_sync(delivery=Delivery.ANSWERED)]  # what TLS has to say at the beginning is read with it
    for number in range(20):
        orders.add()
        done.append(asyncio.run_coroutine_threadsafe(metrics.flush(), running[number % 2]).result(PATIENCE))
        wait_readable(metrics._flusher._link.connection._socket)
    for loop, thread in zip(running, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    assert {(each.delivery, each.error) for each in done[1:]} == {(Delivery.TRANSMITTED, None)}
    assert [[verdict.report for verdict in each.verdicts] for each in done] == [[1], [], *([n] for n in range(2, 21))]
    assert (peer.orders, peer.connections) == (20, 1)


def test_two_running_loops_that_flush_at_the_same_time(peer, metrics):
    """Nobody waits for a wake-up that does not come, in whichever loop it is."""
    orders = metrics.counter("orders").bind()

    async def flush_often() -> list[Flush]:
        done = []
        for _ in range(25):
            orders.add()
            done += await asyncio.gather(*(metrics.flush(delivery=Delivery.ANSWERED) for _ in range(3)))
        return done

    with ThreadPoolExecutor(4) as threads:
        kinds = [asyncio.new_event_loop, uvloop.new_event_loop] * 2
        futures = [threads.submit(in_new_loop, flush_often, new_loop) for new_loop in kinds]
        done = [each for future in futures for each in future.result(3 * PATIENCE)]

    assert {each.delivery for each in done if each.withheld is None} == {Delivery.ANSWERED}
    assert {each.withheld for each in done} <= {None, Withheld.UNCHANGED}
    assert (peer.orders, peer.connections) == (100, 1)
    assert metrics.stats.failed == {}


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_for_each_invocation_and_the_one_of_the_process(peer, metrics, new_loop):
    """They come and go, and the connection stays; an answer that a loop reads too early is taken over."""
    orders = metrics.counter("orders").bind()
    done = [metrics.flush_sync(delivery=Delivery.ANSWERED)]  # what TLS has to say at the beginning is read with it
    for number in range(20):
        orders.add()
        done.append(metrics.flush_sync() if number % 3 == 2 else in_new_loop(metrics.flush, new_loop))
        wait_readable(metrics._flusher._link.connection._socket)

    assert {(each.delivery, each.error) for each in done[1:]} == {(Delivery.TRANSMITTED, None)}
    assert [[verdict.report for verdict in each.verdicts] for each in done] == [[1], [], *([n] for n in range(2, 21))]
    assert (peer.orders, peer.connections) == (20, 1)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_an_answer_that_comes_while_a_loop_takes_the_connection_over(authority, kind, new_loop):
    """After the harvest, and before reading can be paused: uvloop reads it, and it counts all the same."""
    peer = TlsPeer(authority.server()) if kind == "tls" else ScriptedPeer()
    totals = []
    answering = threading.Event()

    class Answers(OtlpEncoder):
        """Comes between the harvest and the loop."""

        def encode(self, snapshot: Snapshot) -> bytearray:
            if answering.is_set():
                totals.append(orders_in(other_end.read_request().body))
                other_end.answer(200)
                wait_readable(metrics._flusher._link.connection._socket)
            return super().encode(snapshot)

    metrics = Emitter(
        peer.endpoint,
        service="s",
        timeout=PATIENCE,
        ssl_context=authority.client() if kind == "tls" else None,
        encoder=Answers(),
    )
    orders = metrics.counter("orders").bind()

    with ThreadPoolExecutor(1) as threads:
        accepting = threads.submit(peer.accept)
        orders.add()
        metrics.flush_sync()
        other_end = accepting.result()
    other_end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answering.set()
    done = []
    for _ in range(10):
        orders.add()
        done.append(in_new_loop(metrics.flush, new_loop))
    answering.clear()
    metrics.close_sync(timeout=0)
    peer.close()

    assert {(each.delivery, each.error) for each in done} == {(Delivery.TRANSMITTED, None)}
    assert [[verdict.report for verdict in each.verdicts] for each in done] == [[], *([n] for n in range(1, 10))]
    assert totals == list(range(1, 11))
    assert metrics.stats.connections_opened == 1


def test_a_process_whose_own_loop_is_uvloops(peer, metrics, monkeypatch):
    """It writes only when it runs, which it does then."""
    orders = metrics.counter("orders").bind()
    monkeypatch.setattr(loops, "_process_loops", {})
    monkeypatch.setattr(asyncio, "new_event_loop", uvloop.new_event_loop)
    done = [metrics.flush_sync(delivery=Delivery.ANSWERED)]
    for _ in range(10):
        orders.add()
        done.append(metrics.flush_sync())
        wait_readable(metrics._flusher._link.connection._socket)
    own = loops.current()
    metrics.close_sync()
    own.close()

    assert isinstance(own, uvloop.Loop)
    assert {(each.delivery, each.error) for each in done[1:]} == {(Delivery.TRANSMITTED, None)}
    assert [len(each.verdicts) for each in done] == [1, 0, *[1] * 9]
    assert (peer.orders, peer.connections) == (10, 1)
