from __future__ import annotations

import signal
import threading
import time

import pytest

from emitter.clocks import Clocks
from emitter.transmit.ahead import Ahead
from emitter.transmit.opening import Opening
from emitter.transmit.tls import TlsClient
from tests.scripted_peer import PATIENCE
from tests.transmit.connections import open_descriptors
from tests.transmit.secrecy import CLIENT
from tests.transmit.test_ahead import _alone, aheads  # noqa: F401  the one is a fixture


def test_a_stop_wakes_it_where_it_waits():
    """However long it was to wait there; and nothing is left behind."""
    before = open_descriptors()
    seen = []
    ahead = Ahead(lambda ahead: seen.append(ahead.stopped((), (), PATIENCE)))
    ahead.stop()

    assert seen == [True]
    assert aheads() == []
    assert open_descriptors() == before


def test_a_stop_that_was_interrupted_can_be_repeated():
    """By Ctrl-C, which may come anywhere: before the thread has ended, or when all is done but nobody knows."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    interrupted = threading.Event()

    def work(ahead):
        ahead.stopped((), (), PATIENCE)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        interrupted.wait(PATIENCE)

    before_it = signal.signal(signal.SIGUSR1, interrupt)
    try:
        ahead = Ahead(work)
        with pytest.raises(KeyboardInterrupt):
            ahead.stop()
    finally:
        signal.signal(signal.SIGUSR1, before_it)
    interrupted.set()
    ahead.stop()
    ahead.stop()

    assert not ahead._thread.is_alive()
    assert ahead._ours.fileno() == ahead._theirs.fileno() == -1


def test_part_of_a_millisecond_is_waited_for():
    """The system counts whole ones: rounded down, the last one would be spun away."""
    waited = []
    ended = threading.Event()

    def work(ahead):
        for _ in range(10):
            started = time.monotonic()
            ahead.stopped((), (), 0.0009)
            waited.append(time.monotonic() - started)
        ended.set()

    ahead = Ahead(work)
    assert ended.wait(PATIENCE)
    ahead.stop()

    assert min(waited) >= 0.0009


def test_it_can_go_ahead_again_after_somebody_came_back(peer):
    """The next handler may be the one that is slow enough."""
    tls = TlsClient("127.0.0.1", peer.port, CLIENT)
    opening = Opening("127.0.0.1", peer.port, tls=tls, clocks=Clocks())  # the peer never says hello
    opening.go_ahead()
    assert opening.come_back() is None
    assert aheads() == []
    opening.go_ahead()

    assert len(aheads()) == 1
    opening.abandon()
    assert aheads() == []
