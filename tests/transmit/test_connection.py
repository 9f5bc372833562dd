from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
import uvloop

from emitter import loop as loops
from emitter.errors import AnswerError, BudgetExceededError, ConnectError, ConnectionLostError
from emitter.transmit import kernel
from emitter.transmit.connection import PATIENCE, Connection
from emitter.transmit.delivery import Delivery
from tests.scripted_peer import ScriptedPeer, wait_readable

SMALL = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsmall"


def request_of(body_bytes: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % body_bytes + bytes(body_bytes)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def connect(peer: ScriptedPeer, clock=time.monotonic) -> Connection:
    return await Connection.open("127.0.0.1", peer.port, deadline=clock() + 5, clock=clock)


async def transmit(
    connection: Connection, request: bytes = SMALL, number: int = 1, wanted=Delivery.TRANSMITTED, seconds: float = 5
) -> Delivery:
    return await connection.transmit(request, number, wanted, deadline=time.monotonic() + seconds)


@pytest.fixture
async def connection(peer: ScriptedPeer):
    """An open connection to the peer, closed at the end."""
    connection = await connect(peer)
    yield connection
    connection._lost("the test is over")
    await asyncio.sleep(0)  # the loop closes the stream's socket


@pytest.fixture
def narrow_peer():
    """A peer whose kernel takes only a few kilobytes while nobody reads."""
    peer = ScriptedPeer(receive_buffer_bytes=4_096)
    yield peer
    peer.close()


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


async def test_waiting_for_the_kernel_is_an_event_and_no_busy_loop(narrow_peer):
    """While the window is shut, waiting costs next to no processor time."""
    connection = await connect(narrow_peer)
    began = time.process_time()
    await transmit(connection, request_of(200_000), seconds=0.4)
    spent = time.process_time() - began

    assert spent < 0.2
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
    assert connection.ended is caught.value


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


async def test_an_answer_in_pieces_is_harvested_when_it_is_whole(peer, connection):
    """Harvesting never waits: half an answer is no answer yet."""
    await transmit(connection, number=7)
    other_end = peer.accept()
    other_end.write(b"HTTP/1.1 202 Acc")
    wait_readable(connection._socket)
    assert connection.harvest() == []
    other_end.write(b"epted\r\nContent-Length: 2\r\n\r\n")
    wait_readable(connection._socket)
    assert connection.harvest() == []
    other_end.write(b"ok")
    wait_readable(connection._socket)
    harvested = connection.harvest()

    assert [(number, answer.status) for number, answer in harvested] == [(7, 202)]
    assert connection.harvest() == []
    assert connection.unanswered == 0
    assert connection.ended is None


async def test_answers_belong_to_requests_in_their_order(peer, connection):
    """HTTP/1.1 answers pipelined requests in order (RFC 9112, 9.3.2)."""
    for number in (1, 2, 3):
        await transmit(connection, number=number)
    other_end = peer.accept()
    for status in (200, 500, 204):
        other_end.answer(status)
    wait_readable(connection._socket)

    assert [(number, answer.status) for number, answer in connection.harvest()] == [(1, 200), (2, 500), (3, 204)]


@pytest.mark.parametrize(
    ("wire", "error", "text"),
    [
        (b"", ConnectionLostError, "the peer has closed"),
        (b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", ConnectionLostError, "nobody asked"),
        (b"HTTP/1.1 4", ConnectionLostError, "nobody asked for"),
        (b"\x00\x01garbage", AnswerError, "not an HTTP/1.1 answer"),
    ],
    ids=["end of stream", "unsolicited answer", "part of an answer", "garbage"],
)
async def test_readable_with_nothing_unanswered_ends_the_connection(peer, connection, wire, error, text):
    """Whatever it is, the next report must not be taken for what it answers."""
    other_end = peer.accept()
    if wire:
        other_end.write(wire)
    else:
        other_end.close()
    wait_readable(connection._socket)

    assert connection.harvest() == []
    assert isinstance(connection.ended, error)
    assert text in str(connection.ended)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_ends_the_connection_still_counts(peer, connection, wire):
    """`Connection: close`, and HTTP/1.0 without keep-alive (RFC 9112, 9.3)."""
    await transmit(connection)
    peer.accept().write(wire)
    wait_readable(connection._socket)

    assert [answer.status for _, answer in connection.harvest()] == [200]
    assert "asked to close" in str(connection.ended)


async def test_a_body_until_the_end_of_the_stream_is_an_answer(peer, connection):
    """Without a length, the end of the stream ends the body (RFC 9112, 6.3)."""
    await transmit(connection)
    other_end = peer.accept()
    other_end.read_request()
    other_end.write(b"HTTP/1.1 200 OK\r\n\r\nsome text")
    other_end.close()
    while connection.ended is None:
        wait_readable(connection._socket)
        harvested = connection.harvest()

    assert [answer.status for _, answer in harvested] == [200]


async def test_a_reset_is_seen_by_the_harvest(peer, connection):
    """Before anything is written to it again."""
    await transmit(connection)
    peer.accept().reset()
    wait_readable(connection._socket)

    assert connection.harvest() == []
    assert "reset" in str(connection.ended)
    assert connection.unanswered == 1  # perhaps received, perhaps not


async def test_an_endless_answer_is_read_a_bounded_piece_at_a_time(peer, connection):
    """A harvest reads at most what it may, however much is there, and ends the connection at the limit."""
    await transmit(connection)
    other_end = peer.accept()
    other_end.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    writing = threading.Thread(target=_write_until_refused, args=(other_end,))
    writing.start()
    rounds = 0
    while connection.ended is None:
        wait_readable(connection._socket)
        connection.harvest()
        rounds += 1
    writing.join()

    assert isinstance(connection.ended, AnswerError)
    assert rounds > 1


def _write_until_refused(other_end):
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with contextlib.suppress(OSError):
        for _ in range(10_000):
            other_end.write(chunk)


async def test_a_peer_silent_for_too_long_is_taken_for_dead(peer, clock):
    """Otherwise sixteen unanswered reports would block a connection for ever."""
    connection = await connect(peer, clock)
    await connection.transmit(SMALL, 1, Delivery.TRANSMITTED, deadline=clock() + 5)
    clock.now += PATIENCE
    connection.harvest()
    assert connection.ended is None
    clock.now += 0.001
    connection.harvest()

    assert "unanswered" in str(connection.ended)
    await asyncio.sleep(0)


def test_a_connection_outlives_the_loop_in_which_it_was_opened(peer):
    """The socket stays and is adopted by the next loop; the peer sees one connection, and nothing is lost."""

    async def first() -> Connection:
        connection = await connect(peer)
        await transmit(connection, number=1)
        connection.rest()
        return connection

    connection = asyncio.run(first())
    other_end = peer.accept()
    other_end.answer(200)  # arrives while no loop exists
    for number in range(2, 40):
        wait_readable(connection._socket)

        async def again(number: int = number) -> list[int]:
            # Adoption comes first here, with an answer waiting: the new stream must leave it in the kernel.
            await transmit(connection, number=number)
            connection.rest()
            return [harvested.number for harvested in connection.harvest()]

        assert asyncio.run(again()) == [number - 1]
        other_end.read_request()
        other_end.answer(200)
    other_end.read_request()
    loops.run(connection.close(deadline=time.monotonic() + 5))

    assert not peer.has_another_connection()


def test_answers_that_wait_are_not_eaten_by_a_faster_loop(peer):
    """Uvloop reads before a stream can be paused; what it has read is taken over."""
    connection = other_end = None

    async def use(number: int) -> list[int]:
        nonlocal connection
        if connection is None:
            connection = await connect(peer)
        await transmit(connection, number=number)
        connection.rest()
        return [harvested.number for harvested in connection.harvest()]

    for number in range(1, 21):
        loop = uvloop.new_event_loop()
        answered = loop.run_until_complete(use(number))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert answered == ([number - 1] if number > 1 else [])
        other_end = peer.accept() if number == 1 else other_end
        other_end.read_request()
        other_end.answer(200)
        wait_readable(connection._socket)
    loops.run(connection.close(deadline=time.monotonic()))


async def test_what_comes_before_the_first_request_is_never_missed(peer):
    """A peer that writes as soon as it accepts: nothing was asked, and the connection must not look sound."""

    def write_at_once() -> None:
        peer.accept().answer(408)

    for _ in range(30):
        thread = threading.Thread(target=write_at_once)
        thread.start()
        connection = await connect(peer)
        await asyncio.to_thread(thread.join)
        if connection.ended is None:
            wait_readable(connection._socket)
            connection.harvest()

        assert "nobody asked" in str(connection.ended)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("can't register atexit")])
async def test_whatever_keeps_a_connection_from_opening_is_a_connect_error(peer, monkeypatch, error):
    """No descriptor left, no thread left for the resolver: never anything that escapes a flush."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("emitter.transmit.connection.os.dup", fail)

    with pytest.raises(ConnectError, match=r"no connection to 127\.0\.0\.1"):
        await connect(peer)
    monkeypatch.undo()
    await asyncio.sleep(0)


def test_moving_between_loops_leaks_no_descriptor(peer):
    """Each loop closes the stream that it had."""

    async def use(connection: Connection | None) -> Connection:
        connection = connection or await connect(peer)
        await transmit(connection)
        connection.rest()
        return connection

    connection = asyncio.run(use(None))
    loops.run(use(connection))
    before = open_descriptors()
    for _ in range(5):
        asyncio.run(use(connection))
        loops.run(use(connection))
    after = open_descriptors()
    loops.run(connection.close(deadline=time.monotonic()))

    assert after == before


async def test_a_transform_stands_between_the_bytes_and_the_stream(peer):
    """The seam for TLS: everything written goes through it, and everything read."""

    class Flip:
        def outbound(self, plain: bytes) -> bytes:
            return bytes(byte ^ 0xFF for byte in plain)

        inbound = outbound

    flip = Flip()
    _, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    connection = Connection(writer, clock=time.monotonic, transform=flip)
    await transmit(connection, SMALL)
    other_end = peer.accept()
    wire = other_end.socket.recv(1_000)
    other_end.write(flip.outbound(b"HTTP/1.1 204 No Content\r\n\r\n"))
    wait_readable(connection._socket)

    assert flip.inbound(wire) == SMALL
    assert [answer.status for _, answer in connection.harvest()] == [204]
    await connection.close(deadline=time.monotonic())


async def test_close_waits_for_the_answers(peer):
    """A proxy gives up a request whose client leaves before the answer."""
    connection = await connect(peer)
    await transmit(connection)
    other_end = peer.accept()
    other_end.read_request()
    closing = asyncio.ensure_future(connection.close(deadline=time.monotonic() + 5))
    await asyncio.sleep(0)
    assert not closing.done()
    other_end.answer(200)
    await closing

    assert other_end.is_closed_by_client()
    assert [answer.status for _, answer in connection.harvest()] == [200]


async def test_close_does_not_wait_beyond_its_deadline(peer):
    """A peer that never answers holds nobody up."""
    connection = await connect(peer)
    await transmit(connection)
    await connection.close(deadline=time.monotonic() + 0.02)
    other_end = peer.accept()

    assert other_end.read_request().body == b"small"
    assert other_end.is_closed_by_client()


async def test_a_refused_connection_says_by_whom_and_why(peer):
    """Host, port and the operating system's words."""
    port = peer.port
    peer.close()

    with pytest.raises(ConnectError, match=f"no connection to 127.0.0.1 port {port}") as caught:
        await Connection.open("127.0.0.1", port, deadline=time.monotonic() + 5, clock=time.monotonic)
    assert "refused" in caught.value.cause.lower()


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "host.invalid"])
async def test_a_name_that_leads_nowhere_is_a_refused_connection_too(host):
    """Whether the resolver does not know it, or it cannot be a name at all."""
    with pytest.raises(ConnectError, match=f"no connection to {host} port 80"):
        await Connection.open(host, 80, deadline=time.monotonic() + 5, clock=time.monotonic)


async def test_a_connection_that_does_not_open_in_time_is_given_up():
    """A listener with a full queue drops what comes; the budget ends the wait, and nothing is left behind."""
    peer = ScriptedPeer(backlog=0)
    before = open_descriptors()
    first = socket.create_connection(("127.0.0.1", peer.port))

    with pytest.raises(ConnectError, match="the budget ended"):
        await Connection.open("127.0.0.1", peer.port, deadline=time.monotonic() + 0.05, clock=time.monotonic)
    await asyncio.sleep(0)
    first.close()
    assert open_descriptors() == before
    peer.close()


async def test_opening_can_be_cancelled_without_leaving_anything_behind():
    """Also in the moment in which the connection is already there."""
    peer = ScriptedPeer()
    before = open_descriptors()
    for turns in range(6):
        task = asyncio.ensure_future(connect(peer))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()._lost("it was open already")
        for _ in range(3):
            await asyncio.sleep(0)

    assert open_descriptors() == before
    peer.close()


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
