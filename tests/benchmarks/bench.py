"""Prints what an emitter costs beside what people would use instead; ratios from one run, medians.

Absolute times say more about the machine than about the code, so nothing here passes or fails: read the ratios.
"""

from __future__ import annotations

import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import statsd
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter

from emitter import Emitter

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3_000
IMPORT_ROUNDS = 15
PEER = Path(__file__).with_name("peer.py")


def bench_flush(port: int) -> None:
    """A warm `flush_sync` beside the same bytes through a bare socket, in turn."""
    emitter = Emitter(f"http://127.0.0.1:{port}/v1/metrics", service="bench")
    series = emitter.counter("orders").bind(channel="web")
    series.add()
    request_bytes = emitter.flush_sync(timeout=2.0).bytes
    ours = emitter._flusher._connection._socket

    bare = socket.create_connection(("127.0.0.1", port))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bare.setblocking(False)
    head = b"POST /v1/metrics HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    body_bytes = request_bytes - len(head % 100)
    request = head % body_bytes + bytes(body_bytes)
    assert len(request) == request_bytes

    def flush() -> None:
        series.add()
        emitter.flush_sync()

    def exchange() -> None:
        bare.recv(65_536)
        bare.sendall(request)

    bare.sendall(request)
    ours_seconds, bare_seconds = [], []
    for _ in range(ROUNDS):
        select.select([ours], [], [], 5)  # the answer to the report before, so that each round harvests one
        ours_seconds.append(_seconds(flush))
        select.select([bare], [], [], 5)
        bare_seconds.append(_seconds(exchange))
    bare.close()
    emitter.close_sync()
    print(f"\none report of {request_bytes} bytes, warm, the answer to the one before it harvested; {ROUNDS} rounds")
    _print_row("add + flush_sync, TRANSMITTED", ours_seconds, bare_seconds)
    _print_row("bare sendall + recv of the same bytes", bare_seconds, bare_seconds)


def bench_invocation(port: int) -> None:
    """What an invocation does: 20 increments over 5 series and a flush, beside 20 statsd increments over UDP."""
    emitter = Emitter(f"http://127.0.0.1:{port}/v1/metrics", service="bench")
    counter = emitter.counter("orders")
    rival_peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rival_peer.bind(("127.0.0.1", 0))
    rival = statsd.StatsClient("127.0.0.1", rival_peer.getsockname()[1])
    channels = ["web", "app", "store", "phone", "partner"] * 4

    def ours() -> None:
        for channel in channels:
            counter.add(1, channel=channel)
        emitter.flush_sync()

    def theirs() -> None:
        for channel in channels:
            rival.incr(f"orders.{channel}")

    emitter.flush_sync(timeout=2.0)
    wire = emitter._flusher._connection._socket
    ours_seconds, their_seconds = [], []
    for _ in range(ROUNDS // 3):
        select.select([wire], [], [], 5)
        ours_seconds.append(_seconds(ours))
        their_seconds.append(_seconds(theirs))
        while select.select([rival_peer], [], [], 0)[0]:
            rival_peer.recv(65_536)
    rival.close()
    rival_peer.close()
    emitter.close_sync()
    print("\n20 increments over 5 series, out of the process")
    _print_row("20 adds + flush_sync, TRANSMITTED", ours_seconds, their_seconds)
    _print_row("20 statsd increments over UDP", their_seconds, their_seconds)


def bench_record() -> None:
    """An `add` beside prometheus_client's `inc`."""
    emitter = Emitter("http://127.0.0.1:9/", service="bench")
    counter = emitter.counter("orders")
    bound = counter.bind(channel="web")
    rival = PrometheusCounter("orders", "Orders.", ["channel"], registry=CollectorRegistry())
    rows: dict[str, Callable[[], None]] = {
        "add with one attribute": lambda: counter.add(1, channel="web"),
        "bound add": lambda: bound.add(1),
        "prometheus_client labels().inc()": lambda: rival.labels("web").inc(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(50):
        for name, call in rows.items():
            started = time.perf_counter()
            for _ in range(1_000):
                call()
            seconds[name].append((time.perf_counter() - started) / 1_000)
    print("\none increment")
    for name in rows:
        _print_row(name, seconds[name], seconds["prometheus_client labels().inc()"])


def bench_import() -> None:
    """Whole processes, above the bare interpreter."""
    rows = {
        "import emitter": "import emitter",
        "import emitter; Emitter(...)": "import emitter; emitter.Emitter('http://127.0.0.1:9/')",
        "import asyncio": "import asyncio",
        "import prometheus_client": "import prometheus_client",
        "import aiohttp": "import aiohttp",
    }
    bare = []
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(IMPORT_ROUNDS):
        bare.append(_seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True)))
        for name, code in rows.items():
            run = [sys.executable, "-c", code]
            seconds[name].append(_seconds(lambda run=run: subprocess.run(run, check=True)) - bare[-1])
    print(f"\nwhole processes, above the bare interpreter ({statistics.median(bare) * 1e3:.1f} ms)")
    for name in rows:
        print(f"  {name:<40} {statistics.median(seconds[name]) * 1e3:7.1f} ms")


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _print_row(name: str, seconds: list[float], beside: list[float]) -> None:
    median = statistics.median(seconds)
    worst = statistics.quantiles(seconds, n=100)[-1]
    ratio = median / statistics.median(beside)
    print(f"  {name:<40} median {median * 1e6:7.2f} us   99 % {worst * 1e6:7.2f} us   ratio {ratio:5.2f}")


def main() -> None:
    """Run all of it against a peer in a process of its own."""
    with subprocess.Popen([sys.executable, str(PEER)], stdout=subprocess.PIPE, text=True) as peer:
        try:
            port = int(peer.stdout.readline())
            bench_flush(port)
            bench_invocation(port)
        finally:
            peer.terminate()
    bench_record()
    bench_import()


if __name__ == "__main__":
    main()
