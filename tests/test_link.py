from __future__ import annotations

import socket
from contextlib import closing

import pytest

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.link import Link
from emitter.transmit.opening import LIMIT_AGE
from tests.flushing import Bench
from tests.scripted_peer import ScriptedPeer
from tests.settled import resolved
from tests.test_flusher_freshen import wait_for_the_thread
from tests.transmit.secrecy import CLIENT
from tests.transmit.test_ahead import aheads


class SilentTlsPeer(ScriptedPeer):
    """Is said to speak TLS, and never says a word: a handshake with it stays under way."""

    @property
    def endpoint(self) -> str:
        """What to give to an emitter."""
        return super().endpoint.replace("http:", "https:")


@pytest.fixture
def silent():
    """A peer that a handshake stays under way with."""
    with closing(SilentTlsPeer()) as peer:
        yield peer


@pytest.fixture
def link(peer, clock):
    """A link to the peer, which opened nothing yet."""
    link = Link(resolved(endpoint=peer.endpoint).endpoint, None, Clocks(monotonic=clock, wall=clock))
    yield link
    link.abandon()
    if link.connection is not None:
        link.connection._lost("the test is over")


def go_ahead(link: Link, *, anew: bool = True) -> None:
    link.go_ahead(anew=anew)
    wait_for_the_thread()


def test_a_connection_is_taken_out_of_its_opening_once(link):
    """And counted once; the opening's place is free for another."""
    go_ahead(link)
    link.come_back()
    link.come_back()

    assert link.connection is not None
    assert link.opening is None
    assert link.opened == 1


@pytest.mark.parametrize("anew", [False, True])
def test_an_opening_that_died_is_replaced_behind_the_next_handler(link, peer, anew):
    """Nobody waits for it any more; whether another is begun is its caller's to say."""
    port = peer.port
    peer.close()
    go_ahead(link)
    with closing(ScriptedPeer(port=port)) as again:
        go_ahead(link, anew=anew)
        link.come_back()

        assert link.opening is None
        assert (link.connection is not None) is anew
        assert again.has_another_connection() is anew


@pytest.mark.parametrize("anew", [False, True])
def test_an_opening_that_is_stale_is_replaced_behind_the_next_handler(clock, anew):
    """TCP asks less and less often: a new one asks at once."""
    with closing(ScriptedPeer(backlog=0)) as full, socket.create_connection(("127.0.0.1", full.port)):
        link = Link(resolved(endpoint=full.endpoint).endpoint, None, Clocks(monotonic=clock, wall=clock))
        link.go_ahead(anew=True)
        stale = link.opening
        clock.now += LIMIT_AGE + 1
        wait_for_the_thread()  # it has seen that it is stale
        link.go_ahead(anew=anew)
        replaced = link.opening
        link.abandon()

    assert stale.over
    assert replaced is not stale
    assert (replaced is not None) is anew


def test_a_close_gives_up_what_is_under_way_behind_a_handler(silent, clock):
    """Its thread has ended by then, and the peer sees the end of it."""
    bench = Bench(silent, clock, ssl_context=CLIENT)
    loops.run(bench.flusher.freshen())
    other_end = silent.accept()
    assert other_end.socket.recv(1)  # in the middle of the handshake
    loops.run(bench.flusher.close(0.0, report=False))

    assert aheads() == []
    assert bench.flusher._link.opening is None
    while other_end.socket.recv(1 << 16):
        pass  # the rest of its hello; then the end


def test_a_close_finds_what_was_opened_behind_a_handler(bench, peer):
    """It is a connection like any other: counted, and closed in order."""
    loops.run(bench.flusher.freshen())
    other_end = peer.accept()
    wait_for_the_thread()
    loops.run(bench.flusher.close(5.0, report=False))

    assert other_end.is_closed_by_client()
    assert bench.stats.connections_opened == 1
    assert bench.flusher._link.connection is None
