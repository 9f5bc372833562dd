from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from emitter.encode.otlp import OtlpEncoder
from emitter.record.registry import Registry
from examples.demo_parts import results
from examples.demo_parts.witness import Request, Witness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the demo needs awslambdaric, which is Linux only")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def post(body: bytes) -> bytes:
    """One report as an HTTP request."""
    return b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Receiver:
    """A peer behind the witness: keeps what comes, and answers when it is told to."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        self.writers.append(writer)
        while chunk := await reader.read(65536):
            self.received += chunk
            if self.received.endswith(b"THE END"):
                writer.write(ANSWER)
        writer.close()


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Witness, socket.socket, Receiver]]:
    """A receiver, the witness before it, and a connection of a sandbox to the witness."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, Witness(host, port) as witness:
        address = witness.endpoint.removeprefix("http://").removesuffix("/v1/metrics").split(":")
        with socket.create_connection((address[0], int(address[1]))) as sandbox:
            yield witness, sandbox, receiver
    for writer in receiver.writers:
        writer.close()


async def test_a_request_that_is_there_at_the_freeze_has_arrived() -> None:
    """Even if the witness has not yet accepted its connection: its bytes are in the witness's kernel."""
    async with watched() as (witness, sandbox, _):
        sandbox.sendall(post(b"x" * 1000))
        missing = await witness.freeze()

    assert missing == 0
    assert [(request.freezes, len(request.body)) for request in witness.requests] == [(0, 1000)]


async def test_a_request_that_is_half_there_at_the_freeze_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel of a stopped process transmits afterwards is not taken before the thaw."""
    monkeypatch.setattr("examples.demo_parts.witness.ROUND_TRIP_SECONDS", 0)  # a reader would read within a few turns
    async with watched() as (witness, sandbox, _):
        request = post(b"x" * 1000)
        sandbox.sendall(request[:-300])
        missing = await witness.freeze()
        sandbox.sendall(request[-300:])
        for _ in range(10):
            await asyncio.sleep(0)  # one turn of the loop
        while_frozen = witness.requests[0].freezes
        witness.thaw()
        missing_then = await witness.freeze()

    assert missing == 300
    assert while_frozen is None
    assert missing_then == 0
    assert witness.requests[0].freezes == 1


async def test_bytes_and_answers_pass_unchanged() -> None:
    """The receiver gets what the sandbox wrote, the sandbox what the receiver answered."""
    async with watched() as (witness, sandbox, receiver):
        sandbox.setblocking(False)
        request = post(b"y" * 1000 + b"THE END")
        await asyncio.get_running_loop().sock_sendall(sandbox, request)
        answer = await asyncio.get_running_loop().sock_recv(sandbox, 65536)

    assert receiver.received == request
    assert answer == ANSWER
    assert witness.connections == 1


def test_a_report_is_in_time_if_it_was_complete_before_its_own_freeze() -> None:
    """The number of a report stands in it; the second report must be there before the second freeze."""
    registry = Registry(resource=(("service.name", "shop"),))
    flushes = registry.counter("emitter.flushes")

    def report(freezes: int | None) -> Request:
        flushes.add(1)
        return Request(freezes=freezes, body=bytearray(OtlpEncoder().encode(registry.snapshot())))

    requests = [report(0), report(2), report(2), report(None)]

    assert results.arrived_in_time(requests) == {1, 3}


def test_the_bill_is_for_a_million_invocations_at_half_a_gigabyte() -> None:
    """10 ms at 512 MB, a million times, and the price of a million requests."""
    way = results.Way("awaited", "wait for the answer", "aiohttp", ours=False, products=0)
    invocations = tuple(results.Invocation(0.005, 10, 0, arrived=True) for _ in range(3))
    result = results.WayResult(way, invocations, 600, 1, {"orders": 3}, {"orders": 2}, 2, 0)

    assert result.dollars_per_million == pytest.approx(10_000 * 0.5 * 0.0000166667 + 0.20)
    assert result.reports_missing == 1
    assert not result.exact
