from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from emitter.errors import AnswerError, ConnectionLostError
from emitter.transmit.connection import PATIENCE
from emitter.transmit.delivery import Delivery
from tests.conftest import Clock
from tests.scripted_peer import wait_readable
from tests.transmit.connections import SMALL, connect, transmit


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


class Endless:
    """Stands for a socket of which there is no end, as a peer that is always ahead would make it."""

    def __init__(self, sock, clock) -> None:
        self._sock = sock
        self._clock = clock
        self.read_bytes = 0

    def recv(self, limit: int) -> bytes:
        self.read_bytes += limit
        self._clock.now += 0.003
        return bytes(limit)

    def __getattr__(self, name: str):
        return getattr(self._sock, name)


@pytest.mark.parametrize("slow", [False, True], ids=["by bytes", "by time"])
async def test_a_harvest_ends_though_there_is_always_more(peer, clock, slow):
    """Both the bytes and the time of one are bounded: it comes before the budget is looked at."""
    connection = await connect(peer, clock)
    await transmit(connection)
    peer.accept().write(b"HTTP/1.1 200 OK\r\n\r\n")  # a body until the end
    wait_readable(connection._socket)
    connection.harvest()
    sock = connection._socket
    connection._socket = endless = Endless(sock, clock if slow else Clock())
    connection.harvest()
    connection._socket = sock

    assert endless.read_bytes == (3 if slow else 4) * 65_536
    assert connection.ended is None
    await connection.close(deadline=0)


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
