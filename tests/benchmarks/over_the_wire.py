"""What a flush costs: beside a bare socket, by its level, over TLS, with answers that take their time."""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

import statsd
from datadog.dogstatsd import DogStatsd
from measuring import print_row, seconds_of

from emitter import Delivery, Emitter
from emitter import loop as loops
from emitter.clocks import Clocks
from emitter.transmit.opening import Opening
from emitter.transmit.tls import TlsClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.transmit.connection import Connection

ROUNDS = 3_000
HANDSHAKES = 200
PATIENCE = 5.0

_TURN_SECONDS = 0.005
_EMITTERS = 20  # of each kind; each has its turn every 0.2 s, so that ten slow answers are on their way: 16 may be


class Warm:
    """An emitter whose connection is open, and a flush whose answer to the one before has arrived.

    Args:
        url: Where to.
        more: For the emitter.
    """

    def __init__(self, url: str, **more) -> None:
        self.emitter = Emitter(f"{url}/v1/metrics", service="bench", **more)
        self._series = self.emitter.counter("orders").bind(channel="web")
        self._series.add()
        self.request_bytes = self.emitter.flush_sync(timeout=PATIENCE).bytes
        self._connection = self.emitter._flusher._link.connection

    def flush(self, delivery: Delivery = Delivery.TRANSMITTED) -> None:
        """What is measured."""
        self._series.add()
        self.emitter.flush_sync(delivery=delivery)

    def wait_for_answer(self) -> None:
        """So that each round harvests one."""
        wait_readable(self._connection._socket)

    def settle(self) -> None:
        """Read all answers before a round."""
        while self._connection.unanswered:
            self.wait_for_answer()
            self._connection._read()

    def measure(self, call: Callable[[], None] | None = None) -> float:
        """Seconds of one round."""
        self.wait_for_answer()
        return seconds_of(call or self.flush)

    def close(self) -> None:
        """That it stayed warm is what was measured."""
        assert self.emitter.stats.connections_opened == 1
        assert not self.emitter.stats.withheld
        self.emitter.close_sync()


def wait_readable(sock: socket.socket) -> None:
    """Until something has arrived."""
    assert select.select([sock], [], [], PATIENCE)[0]


def bench_flush(peer: dict) -> None:
    """A warm `flush_sync` beside the same bytes through a bare socket, and over TLS, in turn."""
    plain = Warm(f"http://127.0.0.1:{peer['plain']}")
    secure = Warm(f"https://127.0.0.1:{peer['tls']}", ssl_context=trusting(peer))
    bare = socket.create_connection(("127.0.0.1", peer["plain"]))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bare.setblocking(False)
    head = b"POST /v1/metrics HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    body_bytes = plain.request_bytes - len(head % 100)
    request = head % body_bytes + bytes(body_bytes)
    assert len(request) == plain.request_bytes

    def exchange() -> None:
        bare.recv(65_536)
        bare.sendall(request)

    bare.sendall(request)
    secure.flush()  # whose answer comes behind the tickets
    plain_seconds, secure_seconds, bare_seconds = [], [], []
    for _ in range(ROUNDS):
        plain_seconds.append(plain.measure())
        secure_seconds.append(secure.measure())
        wait_readable(bare)
        bare_seconds.append(seconds_of(exchange))
    bare.close()
    plain.close()
    secure.close()
    print(f"\none report of {len(request)} bytes, warm, the answer to the one before it harvested; {ROUNDS} rounds")
    print_row("add + flush_sync, TRANSMITTED", plain_seconds, bare_seconds, goal=2.0)
    print_row("bare sendall + recv of the same bytes", bare_seconds, bare_seconds)
    print("\nthe same over TLS")
    print_row("add + flush_sync, TRANSMITTED, TLS", secure_seconds, plain_seconds, goal=1.5)
    print_row("add + flush_sync, TRANSMITTED, plain", plain_seconds, plain_seconds)


def bench_levels(peer: dict) -> None:
    """What it costs to wait for more, on the loopback interface, where nothing is far away."""
    warm = Warm(f"http://127.0.0.1:{peer['plain']}")
    seconds: dict[Delivery, list[float]] = {level: [] for level in Delivery}
    for _ in range(ROUNDS // 6):
        for level, measured in seconds.items():
            warm.settle()  # so that the one after ANSWERED has no less to read than the others
            measured.append(seconds_of(lambda level=level: warm.flush(level)))
    warm.close()
    print("\none report, by how far it is waited for")
    for level, measured in seconds.items():
        print_row(f"add + flush_sync, {level}", measured, seconds[Delivery.TRANSMITTED])


def bench_slow_answers(peer: dict) -> None:
    """A flush whose answers take 2 s beside one whose answers come at once; each harvests one of an earlier report."""
    kinds = ("plain", "slow")
    emitters = [Warm(f"http://127.0.0.1:{peer[kind]}") for _ in range(_EMITTERS) for kind in kinds]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    turns = 30 * len(emitters)
    next_at = time.perf_counter()
    for turn in range(turns):
        next_at += _TURN_SECONDS
        time.sleep(max(0.0, next_at - time.perf_counter()))
        # One at a time: the second of two would find the processor awake and its caches warm.
        seconds[kinds[turn % 2]].append(seconds_of(emitters[turn % len(emitters)].flush))
    for warm in emitters:
        warm.close()
    fast, slow = (seconds[kind][turns // 4 :] for kind in kinds)  # by then the first slow answers have arrived
    print("\none report, its answer at once or 2 s later; an answer harvested with each")
    print_row("add + flush_sync, answers after 2 s", slow, fast, goal=1.1)
    print_row("add + flush_sync, answers at once", fast, fast)


def bench_reconnect(peer: dict) -> None:
    """Opening a connection, TCP included: with a session to resume, without one, and without TLS."""
    port, context = peer["tls"], trusting(peer)
    kept = TlsClient("127.0.0.1", port, context)
    close(opened(port, kept))
    full, resumed, plain = [], [], []
    for _ in range(HANDSHAKES):
        for measured, client in ((full, TlsClient("127.0.0.1", port, context)), (resumed, kept)):
            started = time.perf_counter()
            connection = opened(port, client)
            measured.append(time.perf_counter() - started)
            assert connection._tls.resumed is (client is kept)
            close(connection)
        started = time.perf_counter()
        connection = opened(peer["plain"], None)
        plain.append(time.perf_counter() - started)
        loops.run(connection.close(deadline=0.0))
    print(f"\na connection opened, TCP and TLS 1.3, RSA certificates, loopback interface; {HANDSHAKES} rounds")
    print_row("with a session resumed", resumed, full, goal=0.6)
    print_row("with a full handshake", full, full)
    print_row("without TLS", plain, full)


def opened(port: int, client: TlsClient | None) -> Connection:
    """A connection, as a flush opens it."""
    clocks = Clocks()
    return loops.run(Opening("127.0.0.1", port, tls=client, clocks=clocks).finish(clocks.monotonic() + PATIENCE))


def close(connection: Connection) -> None:
    """Take the tickets, as a harvest does, and close."""
    while not connection._tls._overhead_bytes:  # they may have come before the opening was over
        wait_readable(connection._socket)
        connection.harvest()
    loops.run(connection.close(deadline=0.0))


def trusting(peer: dict) -> ssl.SSLContext:
    """A context of those who trust the peer."""
    return ssl.create_default_context(cadata=peer["authority"])


def bench_invocation(peer: dict) -> None:
    """What an invocation does, 20 increments over 5 series and a flush: beside statsd and DogStatsD over UDP."""
    warm = Warm(f"http://127.0.0.1:{peer['plain']}")
    counter = warm.emitter.counter("orders")
    rival_peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rival_peer.bind(("127.0.0.1", 0))
    port = rival_peer.getsockname()[1]
    unbuffered = statsd.StatsClient("127.0.0.1", port)
    buffered = DogStatsd("127.0.0.1", port, disable_buffering=False, flush_interval=0)  # no thread that flushes
    channels = ["web", "app", "store", "phone", "partner"] * 4

    def ours() -> None:
        for channel in channels:
            counter.add(1, channel=channel)
        warm.emitter.flush_sync()

    def statsd_does() -> None:
        for channel in channels:
            unbuffered.incr(f"orders.{channel}")

    def dogstatsd_does() -> None:
        for channel in channels:
            buffered.increment("orders", tags=[f"channel:{channel}"])
        buffered.flush()

    ours_seconds, statsd_seconds, dogstatsd_seconds = [], [], []
    for _ in range(ROUNDS // 3):
        ours_seconds.append(warm.measure(ours))
        for measured, rival, datagrams in ((statsd_seconds, statsd_does, 20), (dogstatsd_seconds, dogstatsd_does, 1)):
            measured.append(seconds_of(rival))
            for _ in range(datagrams):
                wait_readable(rival_peer)
                rival_peer.recv(65_536)
    unbuffered.close()
    buffered.close_socket()
    rival_peer.close()
    warm.close()
    print("\n20 increments over 5 series, out of the process")
    print_row("20 adds + flush_sync, TRANSMITTED", ours_seconds, statsd_seconds, goal=0.8)
    print_row("20 statsd increments over UDP", statsd_seconds, statsd_seconds)
    print("\nthe same beside DogStatsD")
    print_row("20 adds + flush_sync, TRANSMITTED", ours_seconds, dogstatsd_seconds, goal=0.5)
    print_row("20 increments + flush over UDP", dogstatsd_seconds, dogstatsd_seconds)
