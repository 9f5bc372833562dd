from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from pathlib import Path

import aiohttp
import pytest
import uvloop

from emitter import ConfigurationError, Delivery, UsageError
from emitter.awaited import AwaitedEmitter
from emitter.encode import as_encoder
from tests.awaited.receiver import Fate, answer, receiving
from tests.flushing import next_totals
from tests.scripted_peer import PATIENCE

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def new_loop(request):
    """Makes a loop of either kind."""
    return request.param


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one by which the folder is read
            found.add(str(each.readlink()))
    return {link for link in found if link.startswith("socket:")}


def run(coroutine, new_loop=asyncio.new_event_loop):
    """As `asyncio.run`, on a loop of this kind; what is left behind in it is an error."""
    loop = new_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert asyncio.all_tasks(loop) == set()
        loop.close()
        gc.collect()


def test_each_loop_has_a_connection_of_its_own_which_ends_with_it(peer, new_loop) -> None:
    """Without `close`, as in a program of several `asyncio.run`: no socket stays behind, and no complaint."""
    gc.collect()  # so that nothing of other tests ends in the middle
    before = sockets()
    metrics = AwaitedEmitter(peer.endpoint, service="checkout")
    orders = metrics.counter("orders")

    async def work() -> None:
        orders.add()
        flush = asyncio.ensure_future(metrics.flush())
        other_end = await asyncio.to_thread(peer.accept)
        seen.append((await asyncio.to_thread(next_totals, other_end))["orders"])
        other_end.answer()
        assert (await flush).error is None
        ends.append(other_end)

    seen, ends = [], []
    for _ in range(3):
        run(work(), new_loop)

    assert seen == [1, 2, 3]
    assert all(other_end.is_closed_by_client() for other_end in ends)
    for other_end in ends:
        other_end.close()
    assert sockets() == before
    assert metrics.stats.connections_opened == 3
    assert metrics._flusher._exchange._sessions == metrics._flusher._exchange._lives == {}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_without_a_word_is_forgotten(peer) -> None:
    """Its connection cannot be closed any more, of which aiohttp complains; the next loop is not disturbed."""
    metrics = AwaitedEmitter(peer.endpoint, service="checkout")

    async def work() -> None:
        metrics.counter("orders").add()
        flush = asyncio.ensure_future(metrics.flush())
        other_end = await asyncio.to_thread(peer.accept)
        await asyncio.to_thread(other_end.read_request)
        other_end.answer()
        assert (await flush).error is None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(work())
    gc.collect()

    assert metrics.stats.transmitted == 2
    assert metrics._flusher._exchange._sessions == {}


async def test_after_a_close_the_emitter_can_be_used_again(made) -> None:
    """With a new connection; the first one was closed in order."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        metrics.counter("orders").add()
        last = await metrics.close()
        await receiver.until(ended=1)
        metrics.counter("orders").add()
        await metrics.flush()

        assert receiver.orders == [1, 2]
        assert receiver.connections == 2

    assert last.delivery is Delivery.ANSWERED


async def test_a_block_ends_with_a_last_report_and_leaves_nothing_behind() -> None:
    """No task, no connection."""
    async with receiving() as receiver:
        async with AwaitedEmitter(receiver.endpoint) as metrics:
            metrics.counter("orders").add(2)
        await receiver.until(requests=1, ended=1)

        assert receiver.orders == [2]

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_session_of_ones_own_is_used_and_stays_open(made) -> None:
    """With what it brings along; it does not decide what a report is, nor for how long it is waited for."""
    timeout = aiohttp.ClientTimeout(total=1e-9)
    async with (
        receiving(503, answer(400, "Location: /"), answer(200, "Set-Cookie: AWSALB=one")) as receiver,
        aiohttp.ClientSession(
            headers={"X-Team": "shop", "Content-Type": "text/plain"}, raise_for_status=True, timeout=timeout
        ) as session,
    ):
        metrics = made(receiver.endpoint, session=session)
        metrics.counter("orders").add()
        refused = await metrics.flush()
        accepted = await metrics.close()
        metrics.counter("orders").add()
        again = await metrics.close()

        assert not session.closed
        async with session.post(receiver.endpoint, data=b"", timeout=aiohttp.ClientTimeout()) as still_good:
            assert still_good.status == 200
        assert receiver.connections == 1

    assert (refused.error.status, accepted.error, again.error) == (400, None, None)
    assert {request.headers[b"x-team"] for request in receiver.requests} == {b"shop"}
    assert {request.headers[b"content-type"] for request in receiver.requests[:4]} == {b"application/x-protobuf"}
    assert receiver.requests[3].headers[b"cookie"] == b"AWSALB=one"
    assert metrics.stats.connections_opened == 0


async def test_a_session_that_is_closed_is_the_callers_mistake(made) -> None:
    """Said at the flush; nothing is counted as failed by the network."""
    async with receiving() as receiver:
        async with aiohttp.ClientSession() as session:
            metrics = made(receiver.endpoint, session=session)
        with pytest.raises(UsageError, match=r"the session= of this emitter cannot be used: it is closed; expected"):
            await metrics.flush()


async def test_what_ends_a_block_comes_out_whatever_becomes_of_the_last_report(made, caplog) -> None:
    """The user's own error is the one to mend; the emitter's is logged with its trace."""
    async with receiving() as receiver, aiohttp.ClientSession() as session:
        metrics = made(receiver.endpoint, session=session)
        metrics.counter("orders").add()
        await session.close()
        with pytest.raises(KeyError, match="mine"):
            async with metrics:
                raise KeyError("mine")
        with pytest.raises(UsageError, match="it is closed"):
            async with metrics:
                pass

    (record,) = [record for record in caplog.records if record.name == "emitter"]
    assert record.getMessage() == "the last report failed"
    assert "it is closed" in str(record.exc_info[1])


@pytest.mark.parametrize("inside", [True, False])
def test_a_session_of_another_loop_is_the_callers_mistake(peer, inside: bool) -> None:
    """Whether the emitter was made in the session's loop, or only used there first."""

    async def make() -> aiohttp.ClientSession:
        session = aiohttp.ClientSession()
        return session, AwaitedEmitter(peer.endpoint, session=session) if inside else None

    loop = asyncio.new_event_loop()
    session, metrics = loop.run_until_complete(make())
    if metrics is None:
        metrics = AwaitedEmitter(peer.endpoint, session=session)
        loop.run_until_complete(metrics.flush(timeout=0.01))

    async def close() -> None:
        with pytest.raises(UsageError, match=r"it belongs to another event loop; expected"):
            await metrics.close()

    asyncio.run(close())
    loop.run_until_complete(session.close())
    loop.close()


def test_what_is_no_session_is_refused() -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match=r"session is a str; expected an aiohttp\.ClientSession"):
        AwaitedEmitter("http://metrics.example.com/", session="session")


async def test_tls_with_an_authority_of_ones_own(made, authority) -> None:
    """As for any emitter; the connection is kept."""
    async with receiving(context=authority.server()) as receiver:
        metrics = made(receiver.endpoint, ssl_context=authority.client())
        for _ in range(2):
            metrics.counter("orders").add()
            flush = await metrics.flush()

            assert flush.error is None

        await metrics.close()  # before the receiver ends: Python 3.10 takes what the peer has closed for unclosed

        assert receiver.orders == [1, 2]
        assert receiver.connections == 1


async def test_a_certificate_for_the_client(made, authority) -> None:
    """Shown to a receiver that demands one; without it nothing gets there."""
    context = authority.server()
    authority.demand_certificate(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 tells of it only after the handshake
    async with receiving(context=context) as receiver:
        known = made(receiver.endpoint, ssl_context=authority.client_with_certificate("sandbox.example.com"))
        unknown = made(receiver.endpoint, ssl_context=authority.client())
        flushes = [await known.flush(), await unknown.flush(timeout=0.4)]
        await known.close()

        assert len(receiver.requests) == 1

    assert flushes[0].error is None
    assert flushes[1].error is not None


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_certificate_of_another_name(made, authority, secure: bool) -> None:
    """The report is not written; plain HTTP has nothing to verify."""
    context = authority.server("other.example.com") if secure else None
    async with receiving(context=context) as receiver:
        more = {"ssl_context": authority.client()} if secure else {}
        flush = await made(receiver.endpoint, **more).flush()

        assert len(receiver.requests) == (not secure)

    assert (flush.error is not None and flush.error.reason == "tls") is secure


async def test_a_cancelled_flush_leaves_nothing_behind(made) -> None:
    """Wherever it is cancelled: while it connects, and while it waits for the answer. The totals go out later."""
    async with receiving(*[Fate.HELD] * 50) as receiver:
        metrics = made(receiver.endpoint)
        orders = metrics.counter("orders")
        orders.add()
        turns = 0
        while receiver.fates:
            task = asyncio.ensure_future(metrics.flush())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            turns = turns + 1 if turns < 30 else 0
            if receiver.connections >= 20:
                receiver.fates.clear()
        flush = await metrics.close()

        assert flush.error is None
        assert set(receiver.orders) == {1}
        assert metrics.stats.failed["cancelled"] >= 20
        await receiver.until(ended=receiver.connections)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_whoever_waits_for_a_cancelled_flush_makes_one_of_their_own(made) -> None:
    """Nobody's cancellation is anybody else's."""
    async with receiving(Fate.HELD) as receiver:
        metrics = made(receiver.endpoint)
        first = asyncio.ensure_future(metrics.flush())
        await receiver.until(requests=1)
        metrics.counter("orders").add()
        second = asyncio.ensure_future(metrics.flush())
        await asyncio.sleep(0)
        first.cancel()
        flush = await asyncio.wait_for(second, PATIENCE)

        assert receiver.orders == [0, 1]

    assert first.cancelled()
    assert flush.error is None


async def test_a_peer_that_takes_no_more_bytes_keeps_no_socket(made, monkeypatch) -> None:
    """What cannot be written would keep the connection open for ever, though it is closed: the kernel gives it up."""
    monkeypatch.setattr("emitter.awaited.exchange._STUCK_MILLISECONDS", 300)
    taken = []
    server = await asyncio.start_server(lambda reader, writer: taken.append(writer), "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    large = as_encoder("application/octet-stream")(lambda snapshot: bytes(1 << 25))
    metrics = made(f"http://127.0.0.1:{port}/", compress=False, report_limit_bytes=1 << 26, encoder=large)
    flush = await metrics.flush(timeout=0.5)
    (sock,) = metrics._flusher._exchange._sockets
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while sock.fileno() >= 0 and loop.time() < deadline:
        await asyncio.sleep(0.05)  # only the kernel's own clock says when

    assert flush.error.reason in {"unanswered", "lost"}
    assert sock.fileno() < 0
    for writer in taken:
        writer.transport.abort()
    server.close()
