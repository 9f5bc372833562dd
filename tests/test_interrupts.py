"""Ctrl-C, and other people's time limits: what an interrupt leaves behind, wherever it comes."""

from __future__ import annotations

import gc
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from emitter import Delivery, Emitter
from emitter import loop as loops
from emitter.encode import ENCODERS, encoder_named
from emitter.record.registry import Registry
from tests.flushing import totals
from tests.interrupts import interrupted
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="tracing single instructions of code that has run is not permitted by 3.12"
)


def filled() -> Registry:
    registry = Registry((("service.name", "s"),))
    for number in range(3):
        registry.counter("orders").add(number, shop=number)
        registry.histogram("sizes", boundaries=[1, 2]).record(number, shop=number)
    return registry


def test_at_any_place_of_a_snapshot_the_next_one_is_whole() -> None:
    """Were the layout of the report left half made, no report could be encoded any more."""

    def prepare() -> Callable[[], object]:
        nonlocal registry
        registry = filled()
        registry.snapshot()
        registry.counter("more").add(1)
        registry.counter("orders").add(1, shop="new")
        return registry.snapshot

    registry = filled()
    expected = prepare()()
    for _ in interrupted(prepare, at_least=5):
        snapshot = registry.snapshot()

        assert (snapshot.metrics, snapshot.points) == (expected.metrics, expected.points)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_at_any_place_of_an_encoding_the_next_one_is_whole(name: str) -> None:
    """What an encoder remembers of the last layout only saves time."""
    before, snapshot, after = (registry := filled()).snapshot(), registry.snapshot(), registry.snapshot()

    def prepare() -> Callable[[], object]:
        nonlocal encoder
        encoder = encoder_named(name)
        encoder.encode(before)
        registry.counter("another").add(1)
        return lambda: encoder.encode(registry.snapshot())

    encoder = encoder_named(name)
    for _ in interrupted(prepare, at_least=5):
        assert bytes(encoder.encode(snapshot)) == bytes(encoder_named(name).encode(snapshot))
        assert bytes(encoder.encode(after)) == bytes(encoder_named(name).encode(after))


class Receiver(ThreadingHTTPServer):
    """Takes every report."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.orders: dict[str, int] = {}  # by the path of an endpoint

    def handle_error(self, *_: object) -> None:
        """A client that was interrupted may leave in the middle."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.orders[self.path] = max(totals(body)["orders"], self.server.orders.get(self.path, 0))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver in a thread."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def flushed(metrics: Emitter) -> Callable[[], object]:
    return metrics.flush_sync


def answered(metrics: Emitter) -> Callable[[], object]:
    return partial(metrics.flush_sync, delivery=Delivery.ANSWERED)


def connected(metrics: Emitter) -> Callable[[], object]:
    return metrics.connect_sync


def closed(metrics: Emitter) -> Callable[[], object]:
    return metrics.close_sync


def handled(metrics: Emitter) -> Callable[[], object]:
    return partial(metrics.lambda_handler(lambda event, context: None), {}, None)


def handled_async(metrics: Emitter) -> Callable[[], object]:
    async def handler(event: object, context: object) -> None:
        pass

    return partial(metrics.lambda_handler(handler), {}, None)


# What was made in that very moment, a socket, a coroutine, is nobody's yet, and ends by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("call", "warm"),
    [
        (flushed, False),
        (flushed, True),
        (answered, True),
        (connected, False),
        (closed, True),
        (handled, True),
        (handled_async, True),
    ],
)
def test_at_any_place_of_a_call_the_next_flush_gets_through(receiver, call, warm: bool) -> None:
    """And has all that was counted. The interrupt itself comes out."""
    number = 0

    def prepare() -> Callable[[], object]:
        nonlocal metrics, number
        metrics.close_sync(timeout=0)
        number += 1
        metrics = Emitter(f"http://127.0.0.1:{receiver.server_port}/{number}", timeout=PATIENCE)
        metrics.counter("orders").add()
        if warm:
            metrics.flush_sync()
        metrics.counter("orders").add()
        return call(metrics)

    metrics = Emitter(f"http://127.0.0.1:{receiver.server_port}/{number}")
    metrics.counter("orders")
    for place in interrupted(prepare, at_least=5):
        metrics.counter("orders").add()
        flush = metrics.flush_sync(delivery=Delivery.ANSWERED)

        assert (flush.error, flush.withheld, flush.delivery) == (None, None, Delivery.ANSWERED), place
        assert receiver.orders[f"/{number}"] == 3
        assert not loops._busy.locked()
    metrics.close_sync(timeout=0)
    gc.collect()  # here, where that is no mistake
