"""What a connection looks like after a freeze, and what is done about it before it is used again."""

from __future__ import annotations

import math
import select
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.transmit import kernel
from emitter.transmit.connection import SILENCE, Connection
from emitter.transmit.delivery import Delivery
from emitter.transmit.opening import Opening
from tests.scripted_peer import PATIENCE, wait_readable
from tests.transmit.connections import SMALL, request_of

if TYPE_CHECKING:
    import socket

IDLE, AGE = 50.0, 3_500.0


class Thawing:
    """A connection whose two clocks a test sets by hand."""

    def __init__(self, port: int) -> None:
        self.monotonic = 1_000.0
        self.wall = 1_700_000_000.0
        clocks = Clocks(lambda: self.monotonic, lambda: self.wall)
        self.connection: Connection = loops.run(
            Opening("127.0.0.1", port, tls=None, clocks=clocks).finish(self.monotonic + PATIENCE)
        )

    def transmit(self, request: bytes = SMALL, number: int = 1, wanted: Delivery = Delivery.TRANSMITTED) -> Delivery:
        return loops.run(self.connection.transmit(request, number, wanted, deadline=self.monotonic + PATIENCE))

    def harvest(self) -> list[int]:
        """The numbers of the reports that were answered, and `ended` brought up to date."""
        return [each.number for each in self.connection.harvest(idle_limit=IDLE, age_limit=AGE)]

    def answered(self, other_end, number: int = 1) -> None:
        """A whole exchange."""
        self.transmit(number=number)
        other_end.read_request()
        other_end.answer(200)
        wait_readable(self.connection._socket)
        assert self.harvest() == [number]


@pytest.fixture
def thawing(peer):
    """An open connection to the peer, with nothing unanswered."""
    thawing = Thawing(peer.port)
    yield thawing
    loops.run(thawing.connection.close(deadline=0))


@pytest.mark.parametrize(
    ("monotonic", "wall", "why"),
    [
        (51, 51, "it was idle for 51 s"),
        (0, 600, "it was idle for 600 s"),
        (51, 0, "it was idle for 51 s"),
        (1, -1, "the wall clock was set back"),
        (49, 49, None),
        (0, 0, None),
    ],
)
def test_idle_for_too_long_by_either_clock(peer, thawing, monotonic, wall, why):
    """In a freeze the monotonic clock may stand still; load balancers count on."""
    thawing.answered(peer.accept())
    thawing.monotonic += monotonic
    thawing.wall += wall
    thawing.harvest()

    assert (str(thawing.connection.ended) if thawing.connection.ended else None) == (
        f"the connection was given up: {why}" if why else None
    )


def test_an_answer_that_waited_through_a_freeze_is_read_first(peer, thawing):
    """Its verdict counts, though the connection is not used again; reading it does not make it any younger."""
    thawing.transmit()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(200)
    wait_readable(thawing.connection._socket)
    thawing.wall += 600

    assert thawing.harvest() == [1]
    assert thawing.connection.ended is not None


def test_each_report_makes_it_young_again(peer, thawing):
    """Idle is what nothing is written on; how old it is, is another matter."""
    other_end = peer.accept()
    for number in range(1, 4):
        thawing.answered(other_end, number)
        thawing.wall += IDLE - 1
        thawing.harvest()

    assert thawing.connection.ended is None


def test_too_old_a_connection_is_replaced_once_nothing_is_unanswered(peer, thawing):
    """A load balancer would close it soon; but closing it under a report would make a proxy give that up."""
    other_end = peer.accept()
    for number in range(1, 100):
        thawing.answered(other_end, number)
        thawing.monotonic += 40
        thawing.wall += 40
        if thawing.wall - 1_700_000_000 > AGE:
            break
        thawing.harvest()
        assert thawing.connection.ended is None
    thawing.transmit(number=500)
    other_end.read_request()
    thawing.harvest()
    unanswered = thawing.connection.ended
    other_end.answer(200)
    wait_readable(thawing.connection._socket)

    assert unanswered is None
    assert thawing.harvest() == [500]
    assert "it is older than 3500 s" in str(thawing.connection.ended)


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (None, "the peer has closed"),
        (b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "what nobody asked"),
        (b"GARBAGE", "not an HTTP/1.1 answer"),
    ],
    ids=["end of file", "a farewell", "garbage"],
)
def test_what_happened_meanwhile_is_seen_before_it_is_used(peer, thawing, wire, why):
    """Looking costs one system call that does not wait."""
    other_end = peer.accept()
    thawing.answered(other_end)
    if wire is None:
        other_end.close()
    else:
        other_end.write(wire)
    wait_readable(thawing.connection._socket)
    thawing.harvest()

    assert why in str(thawing.connection.ended)


def test_a_reset_meanwhile_is_seen_before_it_is_used(peer, thawing):
    """Nothing is written into it."""
    other_end = peer.accept()
    thawing.answered(other_end)
    other_end.reset()
    wait_readable(thawing.connection._socket)
    thawing.harvest()

    assert "reset" in str(thawing.connection.ended).lower()


def test_connection_close_on_the_last_answer_is_heeded(peer, thawing):
    """Load balancers say so before they close one that has become too old."""
    thawing.transmit()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(200, "Connection: close")
    wait_readable(thawing.connection._socket)

    assert thawing.harvest() == [1]
    assert "asked to close" in str(thawing.connection.ended)


def wait_until_acknowledged(sock: socket.socket) -> None:
    """Until the kernel holds nothing more; it makes the socket writable, but only for what is not transmitted."""
    poll = select.poll()
    for _ in range(1_000):
        if kernel.queues(sock).unacknowledged == 0:
            return
        poll.poll(10)  # nothing is registered: ten milliseconds of patience, a hundred times at most
    raise AssertionError("never acknowledged")


def test_a_slow_receiver_is_not_a_silent_one(peer, thawing):
    """Its TCP has acknowledged the report; the answer may take as long as it likes, within the idle time."""
    thawing.transmit()
    wait_until_acknowledged(thawing.connection._socket)
    thawing.monotonic += 40
    thawing.wall += 40
    thawing.transmit(number=2)  # not acknowledged yet, perhaps, but new
    thawing.harvest()

    assert thawing.connection.ended is None


def test_a_shut_window_is_not_silence(narrow_peer):
    """The peer acknowledges what it takes; the rest is not transmitted, and so not waited for."""
    thawing = Thawing(narrow_peer.port)
    loops.run(thawing.connection.transmit(request_of(200_000), 1, Delivery.BUFFERED, deadline=0))
    sock = thawing.connection._socket
    before = kernel.queues(sock)
    thawing.monotonic += 10
    thawing.wall += 10
    thawing.harvest()

    assert before.untransmitted > 0
    assert thawing.connection.ended is None
    loops.run(thawing.connection.close(deadline=0))


@pytest.mark.parametrize(("seconds", "silent"), [(SILENCE - 0.1, False), (SILENCE * 10, True)])
def test_transmitted_and_never_acknowledged_is_silence(peer, thawing, monkeypatch, seconds, silent):
    """The path is gone and nobody says so: noticed at the next flush. (A real such path is in tests/freeze.)."""
    thawing.transmit()
    monkeypatch.setattr(kernel, "queues", lambda _: kernel.Queues(0, len(SMALL)))
    thawing.monotonic += seconds
    thawing.wall += seconds
    thawing.harvest()

    assert (thawing.connection.ended is not None) is silent
    if silent:
        assert "does not acknowledge what was transmitted" in str(thawing.connection.ended)


def test_a_report_that_took_long_to_leave_is_not_silent_at_once(narrow_peer):
    """What counts is since when all of it is transmitted, and that may have been a moment ago."""
    thawing = Thawing(narrow_peer.port)
    loops.run(thawing.connection.transmit(request_of(200_000), 1, Delivery.BUFFERED, deadline=0))
    began, unacknowledged = thawing.monotonic, kernel.Queues(0, 1)
    ended = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel, "queues", lambda _: unacknowledged)  # the last flight is on its way
        for seconds in (10, 10 + SILENCE - 0.1, 10 + SILENCE + 5):
            thawing.wall += began + seconds - thawing.monotonic
            thawing.monotonic = began + seconds
            thawing.harvest()
            ended.append(thawing.connection.ended is not None)

    assert ended == [False, False, True]


def test_the_wait_for_the_window_is_no_silence(narrow_peer, monkeypatch):
    """A report that left after a wait is known to have left only then."""
    thawing = Thawing(narrow_peer.port)
    drain = thawing.connection._drain

    async def slow(writer, deadline):
        await drain(writer, deadline)
        thawing.monotonic += 10
        thawing.wall += 10

    monkeypatch.setattr(thawing.connection, "_drain", slow)
    size = 8_000_000  # more than the kernel takes, so that there is a wait

    def read() -> None:
        other_end, left = narrow_peer.accept().socket, size
        while left:
            left -= len(other_end.recv(left))

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        loops.run(thawing.connection.transmit(bytes(size), 1, Delivery.TRANSMITTED, deadline=math.inf))
        reading.result()
    monkeypatch.setattr(kernel, "queues", lambda _: kernel.Queues(0, 1))
    thawing.harvest()

    assert thawing.connection.ended is None
    loops.run(thawing.connection.close(deadline=0))


def test_a_long_round_trip_is_not_silence(peer, thawing, monkeypatch):
    """To the other side of the world, by satellite."""
    thawing.transmit()
    monkeypatch.setattr(kernel, "queues", lambda _: kernel.Queues(0, len(SMALL)))
    monkeypatch.setattr(kernel, "round_trip", lambda _: 1.0)
    thawing.monotonic += SILENCE + 3.5
    thawing.wall += SILENCE + 3.5
    thawing.harvest()

    assert thawing.connection.ended is None
