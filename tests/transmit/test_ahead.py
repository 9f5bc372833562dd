from __future__ import annotations

import os
import socket
import sys
import threading
import time

import pytest

from emitter.clocks import Clocks
from emitter.errors import ConnectError
from emitter.transmit.opening import LIMIT_AGE, Opening
from emitter.transmit.tls import TlsClient
from tests.scripted_peer import PATIENCE, ScriptedPeer
from tests.tls import TlsPeer
from tests.transmit.connections import open_descriptors, transmit
from tests.transmit.secrecy import CLIENT, SERVERS


def opening_to(peer, clocks=None, *, tls=False) -> Opening:
    client = TlsClient("127.0.0.1", peer.port, CLIENT) if tls else None
    return Opening("127.0.0.1", peer.port, tls=client, clocks=clocks or Clocks())


def aheads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "emitter-ahead"]


def wait_for_the_thread() -> None:
    for thread in aheads():
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it is still at it"


async def finish(opening: Opening):
    return await opening.finish(time.monotonic() + PATIENCE)


@pytest.fixture(autouse=True)
def _alone():
    """No thread of another test is at it any more: the last ends when its opening is stale."""
    for thread in aheads():
        thread.join(LIMIT_AGE + PATIENCE)


@pytest.fixture
def tls_peer():
    """One that speaks TLS 1.3."""
    peer = TlsPeer(SERVERS["TLSv1.3"])
    yield peer
    peer.close()


def test_it_opens_while_nobody_waits(peer):
    """As behind a synchronous handler: no event loop runs, and the connection is there when somebody comes back."""
    opening = opening_to(peer)
    opening.go_ahead()
    peer.accept()
    wait_for_the_thread()
    connection = opening.come_back()

    assert connection is not None
    assert opening.come_back() is connection
    connection._lost("the test is over")


def test_it_shakes_hands_while_nobody_waits(tls_peer):
    """Which takes somebody who answers, where a kernel alone makes a TCP connection."""
    accepted = tls_peer.accept_soon()
    opening = opening_to(tls_peer, tls=True)
    opening.go_ahead()
    accepted.result(PATIENCE)
    wait_for_the_thread()
    connection = opening.come_back()

    assert connection is not None
    connection._lost("the test is over")


async def test_whoever_comes_back_goes_on_where_it_stands(tls_peer):
    """In the middle of a handshake too: the thread ends at once, and the same connection is opened further."""
    opening = opening_to(tls_peer, tls=True)
    opening.go_ahead()  # says hello, and waits for the other side, which nobody has accepted yet
    assert opening.come_back() is None
    accepted = tls_peer.accept_soon()
    connection = await finish(opening)

    assert aheads() == []
    accepted.result(PATIENCE)
    connection._lost("the test is over")


async def test_finish_takes_it_out_of_its_thread(peer):
    """A flush at the end of a short handler need not know of threads."""
    opening = opening_to(peer)
    opening.go_ahead()
    connection = await finish(opening)
    other_end = peer.accept()
    await transmit(connection, b"x")

    assert other_end.socket.recv(1) == b"x"
    assert aheads() == []
    connection._lost("the test is over")


async def test_what_fails_in_the_thread_is_told_to_whoever_comes_back(peer):
    """As an error that another attempt may mend, and nothing is left behind."""
    port = peer.port
    peer.close()
    before = open_descriptors()
    opening = Opening("127.0.0.1", port, tls=None, clocks=Clocks())
    opening.go_ahead()
    wait_for_the_thread()
    assert opening.come_back() is None

    with pytest.raises(ConnectError) as caught:
        await finish(opening)
    assert not caught.value.unfinished
    assert opening.over
    assert open_descriptors() == before


def test_it_does_not_go_on_for_ever(clock):
    """A peer of which nothing comes back is left when the opening is stale, whatever else happens."""
    full = ScriptedPeer(backlog=0)
    with socket.create_connection(("127.0.0.1", full.port)):
        opening = opening_to(full, Clocks(monotonic=clock, wall=clock))
        opening.go_ahead()
        assert aheads()
        clock.now += LIMIT_AGE + 1
        wait_for_the_thread()  # looks at the clocks again by itself

        assert opening.come_back() is None
        opening.abandon()
    full.close()


def test_an_opening_in_its_thread_can_be_abandoned(tls_peer):
    """Which ends the thread first: nothing goes on behind anybody's back."""
    before = open_descriptors()
    opening = opening_to(tls_peer, tls=True)
    opening.go_ahead()
    opening.abandon()

    assert aheads() == []
    assert open_descriptors() == before


def test_without_threads_it_goes_on_when_somebody_waits(peer, monkeypatch):
    """A limit of the system costs time, not the connection, nor a descriptor."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    opening = opening_to(peer)
    before = open_descriptors()
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        opening.go_ahead()

    assert open_descriptors() == before
    assert opening.come_back() is None
    assert not opening.over
    opening.abandon()


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="looks into /proc; run on Linux")
def test_a_forked_child_has_neither_its_thread_nor_its_sockets(tls_peer):
    """It is the parent's: the child forgets it without waiting for anybody."""
    before = open_descriptors()
    opening = opening_to(tls_peer, tls=True)
    opening.go_ahead()
    deadline = time.monotonic() + PATIENCE
    while opening.stage != "the TLS handshake was over":  # a socket that is being made at the very moment is not known
        assert time.monotonic() < deadline
    child = os.fork()
    if child == 0:
        left = -1
        try:
            opening.disown()
            left = open_descriptors() - before
        finally:
            os._exit(left)
    _, status = os.waitpid(child, 0)
    opening.abandon()

    assert os.waitstatus_to_exitcode(status) == 0
