from __future__ import annotations

import asyncio
import socket
import time

import pytest

from emitter.errors import BudgetExceededError, ConnectionLostError
from emitter.transmit import kernel
from emitter.transmit.delivery import Delivery
from tests.scripted_peer import wait_readable
from tests.transmit.connections import connect, request_of, transmit


def test_levels_are_ordered_and_say_their_names():
    """Each includes the ones before it; a log line shows a word, not a number."""
    assert Delivery.BUFFERED < Delivery.TRANSMITTED < Delivery.ACKNOWLEDGED < Delivery.ANSWERED
    assert str(Delivery.TRANSMITTED) == "TRANSMITTED"


async def test_a_small_request_is_transmitted_and_arrives_whole(peer, connection):
    """One write, and the peer has every byte."""
    reached = await transmit(connection)

    assert reached is Delivery.TRANSMITTED
    assert peer.accept().read_request().body == b"small"


async def test_buffered_asks_the_kernel_nothing_more(peer, connection):
    """The lowest level is what `drain` tells."""
    assert await transmit(connection, wanted=Delivery.BUFFERED) is Delivery.BUFFERED
    assert peer.accept().read_request().body == b"small"


async def test_acknowledged_means_that_the_kernel_holds_nothing(connection):
    """After ACKNOWLEDGED both queues are empty."""
    reached = await transmit(connection, request_of(30_000), wanted=Delivery.ACKNOWLEDGED)

    assert reached is Delivery.ACKNOWLEDGED
    assert connection.queues() == (0, 0)


async def test_answered_waits_for_the_answer_to_this_very_request(peer, connection):
    """An answer to an earlier request does not count."""
    await transmit(connection, number=1)
    other_end = peer.accept()
    waiting = asyncio.ensure_future(transmit(connection, number=2, wanted=Delivery.ANSWERED))
    other_end.read_request()
    other_end.answer(200)
    await asyncio.to_thread(other_end.read_request)
    assert not waiting.done()
    other_end.answer(503)
    reached = await waiting

    assert reached is Delivery.ANSWERED
    assert [(number, answer.status) for number, answer in connection.harvest()] == [(1, 200), (2, 503)]


async def test_answered_fails_when_the_peer_leaves_instead(peer, connection):
    """A connection that ends while its answer is awaited is lost, and says so."""
    waiting = asyncio.ensure_future(transmit(connection, wanted=Delivery.ANSWERED))
    other_end = await asyncio.to_thread(peer.accept)
    await asyncio.to_thread(other_end.read_request)
    other_end.close()

    with pytest.raises(ConnectionLostError, match="the peer has closed"):
        await waiting
    assert connection.ended is not None


async def test_answered_is_bounded_by_the_deadline(peer, connection):
    """Without an answer it returns how far the request is known to have got."""
    assert await transmit(connection, wanted=Delivery.ANSWERED, seconds=0.05) >= Delivery.TRANSMITTED
    assert connection.ended is None


async def test_a_peer_that_reads_nothing_leaves_the_report_in_the_kernel(narrow_peer):
    """What fits the kernel is BUFFERED, stays on its way, and arrives whole once the peer reads."""
    connection = await connect(narrow_peer)
    reached = await transmit(connection, request_of(200_000), seconds=0.05)
    untransmitted, unacknowledged = connection.queues()

    assert reached is Delivery.BUFFERED
    assert 0 < untransmitted <= unacknowledged
    assert connection.ended is None
    assert len((await asyncio.to_thread(narrow_peer.accept().read_request)).body) == 200_000
    await connection.close(deadline=time.monotonic())


async def test_a_peer_that_reads_nothing_cannot_keep_bytes_in_this_process(narrow_peer):
    """What does not even fit the kernel is given up with the connection, and the error says how much it was."""
    connection = await connect(narrow_peer)
    size = 32 * 1024 * 1024
    started = time.monotonic()

    with pytest.raises(BudgetExceededError) as caught:
        await transmit(connection, request_of(size), seconds=0.05)

    assert 0 < caught.value.unwritten_bytes < size
    assert caught.value.untransmitted_bytes > 0
    assert connection.ended is caught.value
    assert time.monotonic() - started < 5


async def test_waiting_for_the_kernel_is_an_event_and_no_busy_loop(narrow_peer, monkeypatch):
    """While the window is shut, the loop hardly ever turns: that would be thousands of times."""
    connection = await connect(narrow_peer)
    turns = []
    selector = asyncio.get_running_loop()._selector
    select = selector.select
    monkeypatch.setattr(selector, "select", lambda timeout: turns.append(timeout) or select(timeout))
    await transmit(connection, request_of(200_000), seconds=0.4)

    assert 0 < len(turns) < 100
    await connection.close(deadline=time.monotonic())


async def test_waiting_for_an_acknowledgement_is_no_busy_loop(narrow_peer, monkeypatch):
    """There is no event for it, so it is looked for by the round trip, ever more slowly."""
    connection = await connect(narrow_peer)
    looks = []
    reached = kernel.reached
    monkeypatch.setattr(kernel, "reached", lambda *asked: looks.append(asked) or reached(*asked))
    await transmit(connection, request_of(200_000), wanted=Delivery.ACKNOWLEDGED, seconds=0.3)

    assert len(looks) < 40
    await connection.close(deadline=time.monotonic())


async def test_waiting_ends_as_soon_as_the_peer_has_read(narrow_peer):
    """The window opens, the kernel transmits the rest, and that is the event."""
    connection = await connect(narrow_peer)
    waiting = asyncio.ensure_future(transmit(connection, request_of(200_000)))
    received = await asyncio.to_thread(narrow_peer.accept().read_request)

    assert await waiting is Delivery.TRANSMITTED
    assert len(received.body) == 200_000
    await connection.close(deadline=time.monotonic())


async def test_drain_leaves_nothing_in_this_process(narrow_peer):
    """Asyncio's own limit lets `drain` return with up to 64 KiB here, which a freeze would keep: our limit is 0."""
    connection = await connect(narrow_peer)
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)

    with pytest.raises(BudgetExceededError) as caught:
        await transmit(connection, request_of(50_000), wanted=Delivery.BUFFERED, seconds=0.05)
    assert 0 < caught.value.unwritten_bytes < 50_000


async def test_the_low_mark_is_on_only_while_waiting(narrow_peer, monkeypatch):
    """It makes the event; but a writer under a low mark would be handed less room by the kernel."""
    connection = await connect(narrow_peer)
    marks, looks = [], 0
    reached = kernel.reached

    def look(sock, wanted):
        nonlocal looks
        looks += 1
        marks.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
        return reached(sock, wanted)

    monkeypatch.setattr(kernel, "reached", look)
    await transmit(connection, request_of(200_000), seconds=0.2)

    assert marks[0] == 0
    assert set(marks[1:]) == {1}
    assert looks <= 5  # the window stays shut, so there is no event: polling would look more often
    assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 0
    await connection.close(deadline=time.monotonic())


async def test_a_reset_while_waiting_is_a_lost_connection(narrow_peer):
    """A queue that empties because the connection died is not taken for transmission."""
    connection = await connect(narrow_peer)
    waiting = asyncio.ensure_future(transmit(connection, request_of(200_000)))
    other_end = await asyncio.to_thread(narrow_peer.accept)
    other_end.reset()

    with pytest.raises(ConnectionLostError) as caught:
        await waiting
    assert not caught.value.untouched
    assert connection.ended is not None


async def test_a_reset_before_the_write_leaves_the_request_untouched(peer, connection):
    """The kernel refuses the first byte, so the same request may go out on another connection."""
    peer.accept().reset()
    wait_readable(connection._socket)

    with pytest.raises(ConnectionLostError) as caught:
        await transmit(connection)
    assert caught.value.untouched
    assert connection.ended is not None


async def test_what_the_peer_said_before_it_closed_is_the_reason(peer, connection):
    """It says more than a refused byte does; a server that is full answers and closes before it has read anything."""
    other_end = peer.accept()
    other_end.write(b"HTTP/1.1 503 Full\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    other_end.socket.shutdown(socket.SHUT_WR)
    wait_readable(connection._socket)
    connection._socket.shutdown(socket.SHUT_WR)  # stands for a kernel that refuses the first byte

    with pytest.raises(ConnectionLostError, match="the peer answered what nobody asked") as caught:
        await transmit(connection)
    assert caught.value.untouched


async def test_cancelled_with_bytes_in_this_process_the_connection_ends(narrow_peer):
    """Half a request can never be completed."""
    connection = await connect(narrow_peer)
    task = asyncio.ensure_future(transmit(connection, request_of(32 * 1024 * 1024)))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.ended is not None
    await asyncio.sleep(0)


async def test_cancelled_with_all_in_the_kernel_the_connection_is_sound(narrow_peer):
    """What the kernel holds goes on by itself, and the next request follows it."""
    connection = await connect(narrow_peer)
    task = asyncio.ensure_future(transmit(connection, request_of(200_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other_end = narrow_peer.accept()
    first = asyncio.ensure_future(asyncio.to_thread(other_end.read_request))
    reached = await transmit(connection, number=2)

    assert len((await first).body) == 200_000
    assert reached is Delivery.TRANSMITTED
    assert (await asyncio.to_thread(other_end.read_request)).body == b"small"
    await connection.close(deadline=time.monotonic())


def test_the_kernel_tells_its_queues_apart(narrow_peer):
    """Not transmitted is a part of not acknowledged; a reading peer empties both."""
    with socket.create_connection(("127.0.0.1", narrow_peer.port)) as sock:
        assert kernel.queues(sock) == (0, 0)
        assert kernel.reached(sock, Delivery.ACKNOWLEDGED) is Delivery.ACKNOWLEDGED
        sock.setblocking(False)
        sock.send(bytes(100_000))
        untransmitted, unacknowledged = kernel.queues(sock)

        assert 0 < untransmitted <= unacknowledged <= 100_000
        assert kernel.reached(sock, Delivery.TRANSMITTED) is Delivery.BUFFERED
        assert kernel.reached(sock, Delivery.ACKNOWLEDGED) is Delivery.BUFFERED
        assert kernel.round_trip(sock) > 0
        assert kernel.error_of(sock) == ""


async def test_an_acknowledgement_is_not_looked_for_before_a_round_trip_has_passed(narrow_peer, monkeypatch):
    """Before, it cannot be there: one look after the write, and one at the end."""
    connection = await connect(narrow_peer)
    looks = []
    reached = kernel.reached
    monkeypatch.setattr(kernel, "round_trip", lambda _: 60.0)
    monkeypatch.setattr(kernel, "reached", lambda *asked: looks.append(asked) or reached(*asked))
    await transmit(connection, request_of(200_000), wanted=Delivery.ACKNOWLEDGED, seconds=0.1)

    assert len(looks) == 3  # once before there is anything to wait for
    await connection.close(deadline=time.monotonic())
