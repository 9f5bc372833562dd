from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import pytest
import uvloop

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.errors import ConnectionLostError
from emitter.transmit.connection import Connection
from emitter.transmit.http1 import AnswerParser
from tests.scripted_peer import wait_readable
from tests.transmit.connections import connect, open_descriptors, transmit


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


def test_a_connection_that_cannot_be_adopted_leaves_the_request_untouched(peer):
    """No byte was taken, so the same request may go out on another connection."""
    connection = loops.run(connect(peer))
    connection._socket.close()  # stands for whatever the system may refuse: a duplicate, a registration

    with pytest.raises(ConnectionLostError) as caught:
        asyncio.run(transmit(connection))
    assert caught.value.untouched
    assert connection.ended is not None
    loops.run(one_turn())


async def one_turn() -> None:
    """Let the loop of the process close what was given up."""
    await loops.loop_needed()
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


async def test_somebodys_time_limit_is_not_taken_for_a_reset(peer, monkeypatch):
    """It is an `OSError` too, usually. The connection has ended: a part of an answer may be gone with it."""
    connection = await connect(peer)
    await transmit(connection)
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(200)
    wait_readable(connection._socket)

    def ring(*_: object) -> None:
        raise TimeoutError("mine")

    monkeypatch.setattr(AnswerParser, "feed", ring)
    with pytest.raises(TimeoutError, match="mine"):
        connection.harvest()

    assert "interrupted" in str(connection.ended)


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


async def test_a_connection_whose_peer_left_while_it_was_opened_is_not_written_to(peer):
    """A budget or a freeze may have come in between; the report may go out on another connection."""
    sock = socket.create_connection(("127.0.0.1", peer.port))
    sock.setblocking(False)
    peer.accept().close()
    wait_readable(sock)
    connection = Connection(sock, clocks=Clocks())
    await connection.prepare()

    assert "the peer has closed" in str(connection.ended)
    with pytest.raises(ConnectionLostError, match="the peer has closed") as caught:
        await transmit(connection)
    assert caught.value.untouched


def test_without_a_descriptor_left_a_flush_says_so(peer):
    """Wherever one is needed: for the process's loop, the resolver, the socket, its duplicate. Nothing escapes."""
    script = f"""
import os, resource
from emitter import Emitter
metrics = Emitter("http://HOST:{peer.port}/", service="s")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for _ in range(FREE):
    os.close(taken.pop())
metrics.connect_sync()
flush = metrics.flush_sync(timeout=5.0)
metrics.close_sync(timeout=0.0)
print(flush.error and flush.error.reason)
"""
    said = set()
    for host in ("127.0.0.1", "localhost"):
        for free in range(5):
            code = script.replace("HOST", host).replace("FREE", str(free))
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
            assert run.returncode == 0, (host, free, run.stderr)
            said.add(run.stdout)

    assert said == {"connect\n", "lost\n", "None\n"}
