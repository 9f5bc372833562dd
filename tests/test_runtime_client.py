from __future__ import annotations

import asyncio
import re
import socket
import sys
from contextlib import asynccontextmanager, contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import h11
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from examples.local_lambda import LocalLambda, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stock runtime client is Linux only")

FUNCTION = """
import asyncio
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")
loops = []

@metrics.lambda_handler
def handle(event, context):
    orders.add(1)
    return {"echo": event}

@metrics.lambda_handler
async def handle_async(event, context):
    await asyncio.sleep(0)
    orders.add(1)
    loops.append(asyncio.get_running_loop())
    return {"echo": event, "loops": len(set(loops))}

def fail(event, context):
    orders.add(1)
    raise LookupError("no such order: 17")

async def fail_late(event, context):
    await asyncio.sleep(0)
    fail(event, context)

decorated_fail = metrics.lambda_handler(fail)
decorated_fail_late = metrics.lambda_handler(fail_late)

@metrics.lambda_handler
async def flush_inside(event, context):
    orders.add(1)
    await metrics.flush()
    orders.add(1)
    return {}
"""

BUDGET_SECONDS = 0.25
"""What a flush may take unless it is told otherwise."""


class Peer:
    """A receiver that keeps each report, and answers 200, or never.

    Attributes:
        reports: The bodies, in order of arrival.
        connections: How many were opened.
    """

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._arrival = asyncio.Condition()
        self.reports: list[ExportMetricsServiceRequest] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection, for as long as it lasts."""
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        body = bytearray()
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    await self._keep(bytes(body))
                    body.clear()
                    # A peer that is silent for the sandbox still has to tell h11 that this exchange is over.
                    answer = connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    writer.write((answer or b"") * self._answers)
                    connection.send(h11.EndOfMessage())
                    connection.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except ConnectionError:
            return  # a killed sandbox resets its connections
        finally:
            writer.close()

    async def arrived(self, count: int) -> None:
        """Wait until so many reports are here."""
        async with self._arrival:
            await asyncio.wait_for(self._arrival.wait_for(lambda: len(self.reports) >= count), 10)

    async def _keep(self, body: bytes) -> None:
        async with self._arrival:
            self.reports.append(ExportMetricsServiceRequest.FromString(body))
            self._arrival.notify_all()


@asynccontextmanager
async def listening(*, answers: bool = True) -> AsyncIterator[tuple[Peer, str]]:
    """A peer on a free port, with its URL."""
    peer = Peer(answers=answers)
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield peer, f"http://{host}:{port}/v1/metrics"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The function's folder."""
    (tmp_path / "function.py").write_text(FUNCTION)
    return tmp_path


def sandbox_of(folder: Path, function: str, endpoint: str) -> LocalLambda:
    """The function under the stock runtime, with that handler."""
    return LocalLambda(f"function.{function}", cwd=folder, env={"EMITTER_ENDPOINT": endpoint})


def value(report: ExportMetricsServiceRequest, name: str) -> int | None:
    """A counter's total in a report; `None` if it is not there."""
    for scope in report.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            if metric.name == name:
                return sum(int(point.as_int) for point in metric.sum.data_points)
    return None


@pytest.mark.parametrize("function", ["handle", "handle_async"])
async def test_decorated_handlers_run_under_the_stock_runtime(folder: Path, function: str) -> None:
    """`def` and `async def`: results come out, totals arrive, over one connection that outlives every freeze."""
    async with listening() as (peer, endpoint), sandbox_of(folder, function, endpoint) as sandbox:
        results = []
        for number in range(4):
            results.append(await sandbox.invoke({"order": number}))
            await peer.arrived(number + 1)  # while the sandbox stands still

    assert [result.error for result in results] == [None] * 4
    assert [result.payload["echo"] for result in results] == [{"order": number} for number in range(4)]
    assert [result.payload.get("loops", 1) for result in results] == [1] * 4
    assert [value(report, "orders") for report in peer.reports] == [1, 2, 3, 4]
    assert [value(report, "faas.invocations") for report in peer.reports] == [1, 2, 3, 4]
    assert [value(report, "emitter.flushes") for report in peer.reports] == [1, 2, 3, 4]
    assert peer.connections == 1


@pytest.mark.parametrize("decorated", ["decorated_fail", "decorated_fail_late"])
async def test_what_a_handler_raises_reaches_lambda_unchanged(folder: Path, decorated: str) -> None:
    """Type and message are those of the bare handler, and the report has gone out all the same."""
    async with listening() as (peer, endpoint):
        async with sandbox_of(folder, "fail", endpoint) as sandbox:
            bare = await sandbox.invoke()
        async with sandbox_of(folder, decorated, endpoint) as sandbox:
            result = await sandbox.invoke()
            await peer.arrived(1)

    assert bare.error is not None
    assert result.error is not None
    assert (result.error.type, result.error.message) == (bare.error.type, bare.error.message)
    assert result.error.document.keys() == bare.error.document.keys()
    assert result.error.document["stackTrace"][-1] == bare.error.document["stackTrace"][-1]
    report = peer.reports[0]
    assert [value(report, name) for name in ("orders", "faas.errors", "faas.invocations")] == [1, 1, 0]


async def test_a_flush_inside_an_async_handler_shares_its_connection_with_the_last_one(folder: Path) -> None:
    """What is awaited in the handler and what the decorator does after it go out on the same connection."""
    async with listening() as (peer, endpoint), sandbox_of(folder, "flush_inside", endpoint) as sandbox:
        errors = []
        for number in range(3):
            errors.append((await sandbox.invoke()).error)
            await peer.arrived(2 * (number + 1))

    assert errors == [None] * 3
    assert [value(report, "orders") for report in peer.reports] == [1, 2, 3, 4, 5, 6]
    assert peer.connections == 1


async def test_a_peer_that_never_answers_holds_up_no_invocation(folder: Path) -> None:
    """Every report goes out and none is waited for: no answer is needed for the next one."""
    async with listening(answers=False) as (peer, endpoint), sandbox_of(folder, "handle", endpoint) as sandbox:
        results = []
        for number in range(5):
            results.append(await sandbox.invoke())
            await peer.arrived(number + 1)

    assert [value(report, "orders") for report in peer.reports] == [1, 2, 3, 4, 5]
    assert peer.connections == 1
    assert median(result.billed_seconds for result in results) < BUDGET_SECONDS


async def refusing() -> str:
    """The URL of a port that was free a moment ago: connecting to it is refused."""
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
    return f"http://{host}:{port}/v1/metrics"


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a port that does not even say no: its queue is full, so the kernel drops every SYN."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one connection, on Linux
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"http://{host}:{port}/v1/metrics"


@pytest.mark.parametrize("function", ["handle", "handle_async"])
async def test_an_endpoint_that_refuses_breaks_no_handler(folder: Path, function: str) -> None:
    """The result comes out, and the log says once that reports do not get through."""
    async with sandbox_of(folder, function, await refusing()) as sandbox:
        results = [await sandbox.invoke(number) for number in range(3)]
        log = sandbox.output

    _assert_unharmed(results)
    assert re.fullmatch(r"\[WARNING\].*Connection refused.*\n", log), log


async def test_an_endpoint_that_says_nothing_costs_no_more_than_the_budget(folder: Path) -> None:
    """A connection that never opens: the handler is held up for the budget at most, the result comes out."""
    with silent() as endpoint:
        async with sandbox_of(folder, "handle", endpoint) as sandbox:
            results = [await sandbox.invoke(number) for number in range(3)]

    _assert_unharmed(results)
    assert results[0].billed_seconds > BUDGET_SECONDS  # otherwise the endpoint was not silent
    assert median(result.billed_seconds for result in results) < BUDGET_SECONDS  # the others were withheld


def _assert_unharmed(results: list[Result]) -> None:
    payloads: list[Any] = [result.payload for result in results]
    assert [result.error for result in results] == [None] * len(results)
    assert [payload["echo"] for payload in payloads] == list(range(len(results)))
