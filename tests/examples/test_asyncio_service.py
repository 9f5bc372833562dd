from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.local_aggregator import LocalAggregator
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = Path(__file__).parents[2] / "examples" / "asyncio_service.py"


@pytest.fixture
async def aggregator(tmp_path: Path) -> AsyncIterator[LocalAggregator]:
    """A real one, as a process of its own."""
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as running:
        yield running


class Service:
    """The example, as a process of its own.

    Args:
        process: It.
        port: Where it listens.
    """

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client."""
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        """Give it a signal; its exit code, and what it complained about."""
        self._process.send_signal(number)
        _, stderr = await asyncio.wait_for(self._process.communicate(), PATIENCE)
        return self._process.returncode, stderr.decode()


@asynccontextmanager
async def running(aggregator: LocalAggregator, seconds: float) -> AsyncIterator[Service]:
    """Run it while the context lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(SERVICE),
        env={**os.environ, "EMITTER_ENDPOINT": aggregator.endpoint, "REPORT_SECONDS": str(seconds)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 2 * PATIENCE)
        assert line.startswith(b"listening on "), await process.stderr.read()
        yield Service(process, int(line.split()[-1]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def order(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], lines: str) -> list[str]:
    """Order, and wait until each line was answered."""
    reader, writer = client
    writer.write(lines.encode())
    return [(await asyncio.wait_for(reader.readline(), PATIENCE)).decode() for _ in lines.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_last_report_has_everything(aggregator: LocalAggregator, number: signal.Signals) -> None:
    """Nothing was reported before, so all of it is in the report at the end; a client is still connected then."""
    async with running(aggregator, seconds=3_600) as service:
        client = await service.connect()
        answers = await order(client, "web 3\napp 4\nnonsense\nweb 5\n")
        before = await aggregator.services()
        ended = await service.end(number)
        services = await aggregator.settled({"orders": 1})
        client[1].close()

    assert answers == ["ok\n", "ok\n", "expected a channel and a number\n", "ok\n"]
    assert before == {}
    assert ended == (0, "")
    totals = services["orders"]
    assert (totals["reports_received"], totals["reports_lost"]) == (1, 0)
    assert totals["sums"]["orders"] == 3
    assert totals["sums"]["items"] == 12
    assert totals["sums"]["orders.refused"] == 1
    assert totals["sums"]["orders.waiting"] == 0
    assert sum(each.get("count", 0) for each in totals["totals"] if each["name"] == "order.duration") == 3


async def test_what_was_taken_is_worked_through_before_the_end(aggregator: LocalAggregator) -> None:
    """The signal comes while most of it is in the queue."""
    async with running(aggregator, seconds=3_600) as service:
        reader, writer = await service.connect()
        writer.write(b"web 1\n" * 900)
        await asyncio.wait_for(reader.readline(), PATIENCE)
        ended = await service.end(signal.SIGTERM)
        writer.close()
        services = await aggregator.settled({"orders": 1})

    assert ended == (0, "")
    assert services["orders"]["sums"]["orders"] == 900


async def test_it_reports_while_it_runs(aggregator: LocalAggregator) -> None:
    """At intervals; the last report has what came after the one before."""
    async with running(aggregator, seconds=0.05) as service:
        client = await service.connect()
        await order(client, "web 1\n")
        running_on = await aggregator.settled({"orders": 1})
        await order(client, "web 2\n")
        ended = await service.end(signal.SIGTERM)
        client[1].close()
        totals = (await aggregator.services())["orders"]

    assert running_on["orders"]["reports_received"] >= 1
    assert ended == (0, "")
    assert totals["sums"]["items"] == 3
    assert totals["reports_lost"] == 0
