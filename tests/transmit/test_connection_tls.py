from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
import uvloop

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.errors import BudgetExceededError, ConnectionLostError
from emitter.transmit import kernel
from emitter.transmit.delivery import Delivery
from emitter.transmit.opening import Opening
from emitter.transmit.tls import Tls, TlsClient
from tests.scripted_peer import wait_readable
from tests.tls import ServerSide, TlsPeer, update_keys
from tests.transmit.connections import open_descriptors, request_of, transmit
from tests.transmit.secrecy import CLIENT, SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emitter.transmit.connection import Connection
    from tests.tls import TlsPeerConnection


@pytest.fixture
def tls12_peer() -> Iterator[TlsPeer]:
    """One that speaks TLS 1.2."""
    peer = TlsPeer(SERVERS["TLSv1.2"])
    yield peer
    peer.close()


@pytest.fixture(params=SERVERS)
def narrow(request) -> Iterator[TlsPeer]:
    """One whose kernel takes only a few kilobytes while nobody reads."""
    peer = TlsPeer(SERVERS[request.param], receive_buffer_bytes=4_096)
    yield peer
    peer.close()


async def connect(peer: TlsPeer) -> tuple[Connection, TlsPeerConnection]:
    """Both ends of an open connection."""
    accepted = peer.accept_soon()
    client = TlsClient("127.0.0.1", peer.port, CLIENT)
    connection = await Opening("127.0.0.1", peer.port, tls=client, clocks=Clocks()).finish(time.monotonic() + 5)
    await connection.prepare()
    return connection, await asyncio.wrap_future(accepted)


async def given_up(connection: Connection) -> None:
    connection._lost("the test is over")
    await asyncio.sleep(0)  # the loop closes the stream's socket


@pytest.mark.parametrize("wanted", [Delivery.BUFFERED, Delivery.TRANSMITTED, Delivery.ACKNOWLEDGED])
async def test_every_level_of_the_kernel_is_reached(tls_peer, wanted):
    """What the kernel holds are records, so the levels mean the same."""
    connection, other_end = await connect(tls_peer)
    reached = await transmit(connection, request_of(30_000), wanted=wanted)
    if wanted is Delivery.ACKNOWLEDGED:
        assert connection.queues() == (0, 0)

    assert reached is wanted
    assert len((await asyncio.to_thread(other_end.read_request)).body) == 30_000
    await given_up(connection)


async def test_answered_is_reached_with_the_answer_inside_tls(tls_peer):
    """Bytes alone are no answer: tickets arrive as well."""
    connection, other_end = await connect(tls_peer)
    waiting = asyncio.ensure_future(transmit(connection, wanted=Delivery.ANSWERED))
    await asyncio.to_thread(other_end.read_request)
    assert not waiting.done()
    other_end.answer(202)

    assert await waiting is Delivery.ANSWERED
    assert [answer.status for _, answer in connection.harvest()] == [202]
    await given_up(connection)


@pytest.mark.parametrize("size", [200_000, 300_000])
async def test_a_peer_that_reads_nothing_leaves_the_report_in_the_kernel(narrow, size):
    """What fits the kernel is BUFFERED, stays on its way, and arrives whole once the peer reads."""
    connection, other_end = await connect(narrow)
    reached = await transmit(connection, request_of(size), seconds=0.05)
    untransmitted, unacknowledged = connection.queues()

    assert reached is Delivery.BUFFERED
    assert 0 < untransmitted <= unacknowledged
    assert connection.ended is None
    assert len((await asyncio.to_thread(other_end.read_request)).body) == size
    await given_up(connection)


async def test_waiting_ends_as_soon_as_the_peer_has_read(narrow):
    """The window opens, the kernel transmits the rest, and that is the event."""
    connection, other_end = await connect(narrow)
    waiting = asyncio.ensure_future(transmit(connection, request_of(300_000)))
    received = await asyncio.to_thread(other_end.read_request)

    assert await waiting is Delivery.TRANSMITTED
    assert len(received.body) == 300_000
    await given_up(connection)


async def test_a_peer_that_reads_nothing_cannot_keep_bytes_in_this_process(narrow):
    """What does not even fit the kernel is given up with the connection."""
    connection, _ = await connect(narrow)
    size = 32 * 1024 * 1024

    with pytest.raises(BudgetExceededError) as caught:
        await transmit(connection, request_of(size), seconds=0.05)
    assert 0 < caught.value.unwritten_bytes < size * 1.01
    assert connection.ended is caught.value


async def test_drain_leaves_nothing_in_this_process(narrow):
    """Over asyncio's own TLS it would: up to 512 KiB of records, which a freeze would keep."""
    connection, _ = await connect(narrow)
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)

    with pytest.raises(BudgetExceededError) as caught:
        await transmit(connection, request_of(50_000), wanted=Delivery.BUFFERED, seconds=0.05)
    assert 0 < caught.value.unwritten_bytes < 51_000


async def test_after_a_cancellation_with_all_in_the_kernel_the_records_go_on(narrow):
    """They are numbered: the next report is read only if none was lost, or written twice."""
    connection, other_end = await connect(narrow)
    task = asyncio.ensure_future(transmit(connection, request_of(200_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    first = asyncio.ensure_future(asyncio.to_thread(other_end.read_request))
    reached = await transmit(connection, number=2)

    assert len((await first).body) == 200_000
    assert reached is Delivery.TRANSMITTED
    assert (await asyncio.to_thread(other_end.read_request)).body == b"small"
    await given_up(connection)


async def test_closing_says_so_in_tls(tls_peer):
    """After the answers; so the peer knows that nothing was cut off."""
    connection, other_end = await connect(tls_peer)
    await transmit(connection)
    other_end.read_request()
    closing = asyncio.ensure_future(connection.close(deadline=time.monotonic() + 5))
    await asyncio.sleep(0)
    assert not closing.done()
    other_end.answer(200)
    await closing

    assert other_end.is_closed_with_alert()
    assert [answer.status for _, answer in connection.harvest()] == [200]


async def test_closing_says_so_after_the_deadline_as_well(tls_peer):
    """A peer that never answers is told all the same."""
    connection, other_end = await connect(tls_peer)
    await transmit(connection)
    await connection.close(deadline=time.monotonic())

    assert other_end.read_request().body == b"small"
    assert other_end.is_closed_with_alert()


@pytest.mark.parametrize("how", ["budget", "cancellation"])
async def test_nothing_is_said_in_the_middle_of_a_record(narrow, how, monkeypatch):
    """There the alert would be taken for a part of the record: what arrives is a beginning of what was written.

    Though the peer takes more again by then, so that there is room for it.
    """
    connection, other_end = await connect(narrow)
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)
    other_end.socket.setblocking(False)
    wire, arrived = [], []
    outbound = Tls.outbound
    monkeypatch.setattr(Tls, "outbound", lambda *asked: wire.append(outbound(*asked)) or wire[-1])
    closing = Tls.closing

    def room(*asked) -> bytes:
        """The peer reads until the kernel would take an alert."""
        until = time.monotonic() + 5
        while kernel.queues(connection._socket).untransmitted and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                arrived.append(socket.socket.recv(other_end.socket, 1 << 16))
        return closing(*asked)

    monkeypatch.setattr(Tls, "closing", room)
    if how == "budget":
        with pytest.raises(BudgetExceededError):
            await transmit(connection, request_of(200_000), seconds=0.05)
    else:
        task = asyncio.ensure_future(transmit(connection, request_of(200_000)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    other_end.socket.settimeout(5)
    bare = b"".join(arrived) + await asyncio.to_thread(other_end.read_bare)

    assert connection.ended is not None
    assert 0 < len(bare) < len(wire[0])
    assert wire[0].startswith(bare)


async def test_tickets_with_nothing_unanswered_do_not_end_the_connection(tls_peer):
    """Nor do new keys: TLS has things to say for itself, at any time."""
    connection, other_end = await connect(tls_peer)
    if other_end.socket.version() == "TLSv1.3":
        update_keys(other_end.socket, demanding=True)
        other_end.socket.do_handshake()  # writes it
        wait_readable(connection._socket)
    harvested = connection.harvest()
    await transmit(connection)

    assert harvested == []
    assert connection.ended is None
    assert other_end.read_request().body == b"small"
    await given_up(connection)


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        (b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", "nobody asked"),
        (b"\x00garbage", "not an HTTP/1.1 answer"),
    ],
    ids=["an answer", "garbage"],
)
async def test_content_with_nothing_unanswered_ends_it(tls_peer, plain, text):
    """The next report must not be taken for what it answers."""
    connection, other_end = await connect(tls_peer)
    other_end.write(plain)
    while connection.ended is None:
        wait_readable(connection._socket)
        connection.harvest()

    assert text in str(connection.ended)


async def test_content_that_comes_along_with_the_handshake_is_never_missed(tls12_peer):
    """In one segment with its end, which is the peer's with TLS 1.2, and nothing after it: nobody would look again."""
    server = ServerSide(tls12_peer.context)

    def serve() -> None:
        sock = tls12_peer.accept_bare()
        while not server.established:
            wire = server.feed(sock.recv(1 << 16))
            if server.established:
                wire += server.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            sock.sendall(wire)

    serving = tls12_peer.soon(serve)
    client = TlsClient("127.0.0.1", tls12_peer.port, CLIENT)
    opening = Opening("127.0.0.1", tls12_peer.port, tls=client, clocks=Clocks())
    connection = await opening.finish(time.monotonic() + 5)
    await asyncio.wrap_future(serving)

    assert "nobody asked" in str(connection.ended)


async def test_bytes_that_tls_has_not_seen_end_it(tls_peer):
    """Somebody in between answers in the peer's place; it is not taken for an answer."""
    connection, other_end = await connect(tls_peer)
    await transmit(connection)
    other_end.write_bare(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    while connection.ended is None:
        wait_readable(connection._socket)
        assert connection.harvest() == []

    assert isinstance(connection.ended, ConnectionLostError)
    assert "TLS: " in str(connection.ended)
    assert connection.unanswered == 1


@pytest.mark.parametrize("alert", [True, False])
async def test_an_answer_before_the_end_counts(tls_peer, alert):
    """Whether the peer says in TLS that it is the end or not: a status is whole, or it is none."""
    connection, other_end = await connect(tls_peer)
    await transmit(connection)
    other_end.read_request()
    other_end.answer(200)
    if alert:
        other_end.close_with_alert()
    else:
        other_end.close()
    harvested = []
    while connection.ended is None:
        wait_readable(connection._socket)
        harvested += connection.harvest()

    assert [answer.status for _, answer in harvested] == [200]
    assert "the peer has closed" in str(connection.ended)


async def test_a_body_until_the_end_may_end_with_an_alert(tls_peer):
    """RFC 9112, 6.3, with TLS's own end in the place of TCP's."""
    connection, other_end = await connect(tls_peer)
    await transmit(connection)
    other_end.read_request()
    other_end.write(b"HTTP/1.1 200 OK\r\n\r\nsome text")
    other_end.close_with_alert()
    harvested = []
    while connection.ended is None:
        wait_readable(connection._socket)
        harvested += connection.harvest()

    assert [answer.status for _, answer in harvested] == [200]


async def test_a_reset_before_the_write_leaves_the_request_untouched(tls_peer):
    """No record was taken, so the same request may go out on another connection."""
    connection, other_end = await connect(tls_peer)
    connection.harvest()  # the tickets, which would be in front of the reset
    other_end.reset()
    wait_readable(connection._socket)

    with pytest.raises(ConnectionLostError) as caught:
        await transmit(connection)
    assert caught.value.untouched


def test_a_connection_moves_between_loops_with_its_tls(tls_peer):
    """Its state belongs to none of them: `asyncio.run` each time, the process's loop, uvloop; nothing is lost."""
    connection = other_end = None
    before = 0

    async def use(number: int) -> list[int]:
        nonlocal connection, other_end
        await loops.loop_needed()
        if connection is None:
            connection, other_end = await connect(tls_peer)
        # Adoption comes first here, with an answer waiting.
        reached = await transmit(connection, number=number)
        connection.rest()
        assert reached is Delivery.TRANSMITTED
        return [harvested.number for harvested in connection.harvest()]

    def in_uvloop(use) -> list[int]:
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(use)
        finally:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    ways = [asyncio.run, loops.run, in_uvloop]
    for number in range(1, 25):
        harvested = ways[number % 3](use(number))
        assert harvested == ([number - 1] if number > 1 else [])
        other_end.read_request()
        other_end.answer(200)
        wait_readable(connection._socket)
        if number == 6:
            before = open_descriptors()
    after = open_descriptors()
    loops.run(connection.close(deadline=time.monotonic() + 5))

    assert after == before
    assert other_end.is_closed_with_alert()
    assert not tls_peer.has_another_connection()
