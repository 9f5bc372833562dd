from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.errors import ConnectError
from emitter.transmit import opening as openings
from emitter.transmit.opening import ATTEMPT_DELAY, LIMIT_ADDRESSES, LIMIT_AGE, Opening
from tests.scripted_peer import PATIENCE, ScriptedPeer
from tests.transmit.connections import connect, open_descriptors, transmit

if TYPE_CHECKING:
    from emitter.transmit.connection import Connection


def opening_to(host: str, port: int, clocks: Clocks | None = None) -> Opening:
    return Opening(host, port, tls=None, clocks=clocks or Clocks())


async def finish(opening: Opening, seconds: float = PATIENCE) -> Connection:
    return await opening.finish(time.monotonic() + seconds)


class Names:
    """What the resolver says, and the threads it was asked in; a name may be held back until the test lets it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, list[tuple[str, int]]] = {}
        self.asked: list[str] = []
        self.let_go = threading.Event()
        self.let_go.set()
        self._really = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, name, port, **options):
        host = name.decode()
        if host not in self.known or options.get("flags"):
            return self._really(name, port, **options)
        self.asked.append(threading.current_thread().name)
        assert self.let_go.wait(PATIENCE)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, to_port))
            for address, to_port in self.known[host]
        ]


@pytest.fixture
def names(monkeypatch):
    """A resolver that knows what the test tells it, and the rest as ever."""
    names = Names(monkeypatch)
    yield names
    names.let_go.set()


@pytest.fixture
def full():
    """A port that swallows every attempt: the queue of its listener is full."""
    peer = ScriptedPeer(backlog=0)
    first = socket.create_connection(("127.0.0.1", peer.port))
    yield peer
    first.close()
    peer.close()


def join_lookups() -> None:
    """Wait until no resolver is at work: its thread has a descriptor of its own."""
    for thread in threading.enumerate():
        if thread.name == "emitter-lookup":
            thread.join(PATIENCE)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """No look-up of the test before is still closing what it had open."""
    join_lookups()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_an_address_needs_no_resolver(peer, monkeypatch):
    """Nor a thread."""
    monkeypatch.setattr(threading, "Thread", None)
    connection = await finish(opening_to("127.0.0.1", peer.port))
    await transmit(connection)
    connection._lost("the test is over")

    assert peer.accept().read_request().body == b"small"


async def test_a_name_is_looked_up_in_a_thread_of_its_own(peer, names):
    """The resolver blocks; no event loop waits for it, not even at its end."""
    names.known["metrics.example"] = [("127.0.0.1", peer.port)]
    connection = await finish(opening_to("metrics.example", peer.port))
    connection._lost("the test is over")

    assert names.asked == ["emitter-lookup"]
    assert peer.accept().is_closed_by_client()


async def test_a_refused_connection_says_by_whom_and_why(peer):
    """Host, port and the operating system's words."""
    port = peer.port
    peer.close()

    with pytest.raises(ConnectError, match=f"no connection to 127.0.0.1 port {port}") as caught:
        await finish(opening_to("127.0.0.1", port))
    assert "refused" in caught.value.cause.lower()
    assert not caught.value.unfinished


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "host.invalid"])
async def test_a_name_that_leads_nowhere_is_a_refused_connection_too(host):
    """Whether the resolver does not know it, or it cannot be a name at all."""
    before = open_descriptors()
    with pytest.raises(ConnectError, match=f"no connection to {host} port 80") as caught:
        await finish(opening_to(host, 80))
    join_lookups()

    assert not caught.value.unfinished
    assert open_descriptors() == before


async def test_a_resolver_that_finds_nothing_is_said_to(names):
    """It may return no address and no error."""
    names.known["nowhere.example"] = []

    with pytest.raises(ConnectError, match="the name has no address"):
        await finish(opening_to("nowhere.example", 80))


@pytest.mark.parametrize("failing", ["socket", "thread"])
async def test_whatever_the_system_refuses_is_a_connect_error(peer, names, monkeypatch, failing):
    """No descriptor left, no thread left: never anything that escapes a flush."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files") if failing == "socket" else RuntimeError("no thread")

    names.known["metrics.example"] = [("127.0.0.1", peer.port)]
    before = open_descriptors()
    if failing == "socket":
        monkeypatch.setattr(openings.socket, "socket", refuse)
    else:
        monkeypatch.setattr(threading.Thread, "start", refuse)

    with pytest.raises(ConnectError, match="Too many open files" if failing == "socket" else "no thread"):
        await finish(opening_to("metrics.example" if failing == "thread" else "127.0.0.1", peer.port))
    monkeypatch.undo()
    assert open_descriptors() == before


async def test_an_address_that_refuses_is_followed_by_the_next_at_once(peer, names, monkeypatch):
    """A name with several addresses is as good as the best of them; the delay is for those that say nothing."""
    monkeypatch.setattr(openings, "ATTEMPT_DELAY", PATIENCE)  # so long that a busy machine is not taken for it
    names.known["metrics.example"] = [("127.0.0.1", closed_port()), ("127.0.0.1", peer.port)]
    began = time.monotonic()
    connection = await finish(opening_to("metrics.example", 80), 2 * PATIENCE)
    took = time.monotonic() - began
    connection._lost("the test is over")

    assert took < PATIENCE
    peer.accept()


async def test_an_address_that_is_silent_is_followed_by_the_next_a_little_later(peer, full, names):
    """Happy eyeballs (RFC 8305): the first to answer wins, and the others are closed."""
    names.known["metrics.example"] = [("127.0.0.1", full.port), ("127.0.0.1", peer.port)]
    before = open_descriptors()
    began = time.monotonic()
    connection = await finish(opening_to("metrics.example", 80))
    took = time.monotonic() - began
    join_lookups()

    assert took >= ATTEMPT_DELAY
    assert open_descriptors() == before + 1
    connection._lost("the test is over")
    peer.accept()


async def test_if_all_addresses_refuse_the_last_one_is_told(names):
    """After each had its turn."""
    names.known["metrics.example"] = [("::1", closed_port()), ("127.0.0.1", closed_port())]

    with pytest.raises(ConnectError, match="refused"):
        await finish(opening_to("metrics.example", 80))


def test_the_families_take_turns_and_there_is_an_end(names):
    """So that a dead family costs one attempt, not one for each of its addresses (RFC 8305, 4)."""
    names.known["many.example"] = [(f"::{n}", 80) for n in range(1, 6)] + [(f"127.0.0.{n}", 80) for n in range(1, 6)]
    found = [address for _, (address, _) in openings._resolve("many.example", 80)]

    assert found == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3", "127.0.0.3", "::4", "127.0.0.4"]
    assert len(found) == LIMIT_ADDRESSES


def test_what_a_budget_cuts_short_goes_on_at_the_next_call(peer, names):
    """In another event loop, too: the way stands still where it was, and the resolver goes on meanwhile."""
    names.known["metrics.example"] = [("127.0.0.1", peer.port)]
    names.let_go.clear()
    opening = opening_to("metrics.example", 80)
    for _ in range(3):
        with pytest.raises(ConnectError, match="the budget ended before the name was looked up") as caught:
            asyncio.run(finish(opening, 0.01))
        assert caught.value.unfinished
    names.let_go.set()
    connection = asyncio.run(finish(opening))
    connection._lost("the test is over")

    assert len(names.asked) == 1
    assert peer.accept().is_closed_by_client()
    assert not peer.has_another_connection()


def test_a_connect_that_was_cut_short_is_the_same_connection(full):
    """The peer has not answered yet; when it can, the attempt that was begun before succeeds."""
    opening = opening_to("127.0.0.1", full.port)
    for _ in range(3):
        with pytest.raises(ConnectError, match="the budget ended before the peer answered") as caught:
            loops.run(finish(opening, 0.01))
        assert caught.value.unfinished
    (attempt,) = opening._sockets
    full.accept()  # makes room; the next attempt of the kernel's, a second after the first, gets through
    connection = loops.run(finish(opening))

    assert connection._socket is attempt
    assert connection.round_trip > 0
    loops.run(connection.close(deadline=0))


def test_an_opening_that_was_left_too_long_is_stale(full, clock):
    """Peers give a handshake up, and TCP's own attempts become rare. By either clock: a freeze counts."""
    wall = 0.0
    opening = opening_to("127.0.0.1", full.port, Clocks(time.monotonic, lambda: wall))
    with pytest.raises(ConnectError):
        loops.run(finish(opening, 0))
    fresh = opening.stale
    wall = LIMIT_AGE + 1

    assert not fresh
    assert opening.stale
    opening.abandon()


def test_a_name_being_looked_up_is_never_stale(names):
    """The resolver has its own time-outs, and a second thread would only ask the same."""
    names.known["slow.example"] = [("127.0.0.1", 9)]
    names.let_go.clear()
    wall = 0.0
    opening = opening_to("slow.example", 80, Clocks(time.monotonic, lambda: wall))
    with pytest.raises(ConnectError):
        loops.run(finish(opening, 0))
    wall = LIMIT_AGE * 10

    assert not opening.stale
    opening.abandon()


def test_abandoning_leaves_nothing_behind(full, names):
    """At any stage."""
    names.known["slow.example"] = [("127.0.0.1", 9)]
    names.let_go.clear()
    join_lookups()
    loops.run(asyncio_turn())  # the loop of the process has its own descriptors
    before = open_descriptors()
    for host in ("slow.example", "127.0.0.1"):
        opening = opening_to(host, full.port)
        with pytest.raises(ConnectError):
            loops.run(finish(opening, 0.005))
        opening.abandon()
    names.let_go.set()
    join_lookups()

    assert open_descriptors() == before


async def asyncio_turn() -> None:
    await loops.loop_needed()
    await asyncio.sleep(0)


async def test_opening_can_be_cancelled_and_goes_on_later():
    """A cancelled flush keeps what was begun, and nothing else."""
    peer = ScriptedPeer()
    before = open_descriptors()
    for turns in range(6):
        opening = opening_to("localhost", peer.port)
        task = asyncio.ensure_future(finish(opening))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        connection = await finish(opening) if task.cancelled() else task.result()
        connection._lost("the test is over")
        peer.accept()

    join_lookups()
    peer.close()
    assert open_descriptors() == before - 1  # the listener's


async def test_a_connection_is_ready_for_small_writes(peer):
    """Nothing waits in the kernel for more to come (Nagle)."""
    connection = await connect(peer)

    assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    connection._lost("the test is over")
    await asyncio.sleep(0)
