"""Owns an aggregator as a process of its own, on this machine: started, asked for its totals, ended.

    async with LocalAggregator(folder / "metrics.sqlite3") as aggregator:
        ...  # three reports of the service "checkout" go to aggregator.endpoint
        services = await aggregator.settled({"checkout": 3})

Knows the aggregator only from outside: its command line and its HTTP interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["AggregatorError", "LocalAggregator"]

_START_SECONDS = 15.0
"""From the start of the process to its first line: a second on an idle machine, the rest for a busy one."""

_END_SECONDS = 5.0
"""Between the polite end (SIGTERM) and the other one (SIGKILL)."""

_SETTLE_SECONDS = 10.0
"""How long to wait for reports that are on their way; they take milliseconds on an idle machine."""

_POLL_SECONDS = 0.05
"""Between two looks at the totals: the aggregator has no way to tell by itself."""

_READY = "listening on "
"""What the aggregator's first line starts with; its address follows."""


class AggregatorError(Exception):
    """The aggregator did not start."""


class LocalAggregator:
    """One aggregator process on a free port, to be used as an asynchronous context manager.

    Args:
        database: The file that keeps the totals.
        answer_delay: How long each answer is held back, in seconds; 0 is not at all.

    Attributes:
        host: Where it listens.
        port: Where it listens.

    Raises:
        AggregatorError: On entering, when the process does not come up.
    """

    def __init__(self, database: Path, *, answer_delay: float = 0.0) -> None:
        self._database = database
        self._answer_delay = answer_delay
        self.host = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "emitter", "serve", "--host", "127.0.0.1", "--port", "0"),
                *("--database", str(self._database), "--answer-delay", str(self._answer_delay)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the one who started it, who then ends it
            )
            stack.push_async_callback(self._end)
            await self._read_address()
            self._http = await stack.enter_async_context(aiohttp.ClientSession())
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    @property
    def endpoint(self) -> str:
        """The URL that reports are POSTed to."""
        return f"http://{self.host}:{self.port}/v1/metrics"

    async def services(self) -> dict[str, dict[str, Any]]:
        """What the aggregator tells of each service, by name; the totals are added up over their attributes."""
        async with self._http.get(f"http://{self.host}:{self.port}/api/v1/totals") as answer:
            answer.raise_for_status()
            document = await answer.json()
        for service in document["services"]:
            sums: dict[str, float] = {}
            for total in service["totals"]:
                sums[total["name"]] = sums.get(total["name"], 0) + total.get("value", 0)
            service["sums"] = sums
        return {service["service"]: service for service in document["services"]}

    async def settled(self, reports: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """As `services`, once so many reports of each service have been counted, or after 10 s in any case."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_SECONDS
        while True:
            services = await self.services()
            received = {name: service["reports_received"] for name, service in services.items()}
            complete = all(received.get(name, 0) >= count for name, count in reports.items())
            if complete or loop.time() > deadline:
                return services
            await asyncio.sleep(_POLL_SECONDS)

    async def _read_address(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "asked for above"  # noqa: S101 - tells the type checker
        try:
            line = (await asyncio.wait_for(stdout.readline(), _START_SECONDS)).decode().strip()
        except asyncio.TimeoutError:
            line = ""
        if not line.startswith(_READY):
            self._log.seek(0)
            raise AggregatorError(f"the aggregator did not start: {line!r}\n{self._log.read().decode()}")
        address = line.removeprefix(_READY).removeprefix("http://")
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    async def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.communicate(), _END_SECONDS)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.communicate()
