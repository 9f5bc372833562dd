"""A running aggregator, and a client of it."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from emitter.aggregator import serving

from .otlp import attempts, number_point, one, total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


PROTOBUF = "application/x-protobuf"


class Aggregator:
    """A running aggregator, and a client to it over a real socket."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(
        self, body: bytes, content_type: str | None = PROTOBUF, coding: str | None = None
    ) -> tuple[int, bytes]:
        """Post one report; the answer's status and body."""
        headers = {"Content-Type": content_type, "Content-Encoding": coding}
        given = {name: value for name, value in headers.items() if value is not None}
        skip = [] if content_type else ["Content-Type"]
        url = f"{self.url}/v1/metrics"
        async with self.session.post(url, data=body, headers=given, skip_auto_headers=skip) as answer:
            assert answer.headers["Content-Type"].startswith(PROTOBUF if answer.status == 200 else "application/json")
            return answer.status, await answer.read()

    async def totals(self) -> list[dict[str, Any]]:
        """What `/api/v1/totals` shows."""
        async with self.session.get(f"{self.url}/api/v1/totals") as answer:
            assert answer.status == 200
            services: list[dict[str, Any]] = (await answer.json())["services"]
            return services

    async def orders(self) -> list[int]:
        """The total of the orders, per service."""
        return [t["value"] for s in await self.totals() for t in s["totals"] if t["name"] == "orders"]


@asynccontextmanager
async def running(database: str = ":memory:", **options: Any) -> AsyncIterator[Aggregator]:
    """Serve, and talk to it."""
    async with serving(database, **options) as url, aiohttp.ClientSession() as session:
        yield Aggregator(url, session)


def orders(value: int, number: int = 1, **identity: Any) -> bytes:
    """A numbered report of so many orders."""
    return one(attempts(number), total("orders", number_point(value, time=number)), **identity)


def raw_connection(aggregator: Aggregator, request_bytes: bytes) -> socket.socket:
    """A connection on which these bytes have been written already."""
    host, _, port = aggregator.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(request_bytes)
    connection.setblocking(False)
    return connection


HEAD = f"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: {PROTOBUF}\r\n".encode()
