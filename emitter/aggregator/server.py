"""Owns the routes and the one worker thread behind them. Knows no arithmetic, no SQL and no protobuf fields.

Everything that takes time or touches the disk (unpacking, decoding, folding, adding up) happens in the
worker, one request after the other, so that the event loop goes on accepting and SQLite sees one thread.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import sqlite3
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]  # ships no types
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from emitter.aggregator.decode import decode
from emitter.aggregator.exposition import CONTENT_TYPE, as_json, as_prometheus
from emitter.aggregator.store import Store
from emitter.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

__all__ = ["BODY_LIMIT_BYTES", "BODY_SECONDS", "SHUTDOWN_SECONDS", "serving"]

BODY_LIMIT_BYTES = 4 * 1024 * 1024
"""Of a report, as it arrives and unpacked: some seventy times a report of 1,000 series."""

BODY_SECONDS = 30.0
"""For a body to arrive whole; a client that stalls for longer must not hold a connection for ever."""

SHUTDOWN_SECONDS = 2.0
"""For answers that are still held back at the end. What they answer has been folded and is durable."""

_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"

_log = logging.getLogger("emitter.aggregator")

_Result = TypeVar("_Result")


@asynccontextmanager
async def serving(
    database: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    answer_delay: float = 0.0,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_seconds: float = BODY_SECONDS,
) -> AsyncIterator[str]:
    """Serve one database while the context lasts.

    Args:
        database: The path of the SQLite file, made if it does not exist; `:memory:` keeps nothing.
        host: The name or address to listen on.
        port: The TCP port; 0 takes a free one.
        answer_delay: Seconds between a durable fold and its answer, to show what waiting would cost.
        body_limit_bytes: The largest report, as it arrives and unpacked.
        body_seconds: How long a body may take to arrive.

    Yields:
        The URL that is listened on, without a path. Connections are being accepted.

    Raises:
        ConfigurationError: The database cannot be used, or the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="emitter-aggregator") as worker:
        store = await loop.run_in_executor(worker, Store, database)
        try:
            aggregator = _Aggregator(store, worker, answer_delay, body_limit_bytes, body_seconds)
            runner = web.AppRunner(aggregator.application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
            await runner.setup()
            try:
                yield await _listen(runner, host, port)
            finally:
                await runner.cleanup()
        finally:
            await loop.run_in_executor(worker, store.close)


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    except UnicodeError as error:  # a name that cannot be one, found out by the resolver's IDNA codec
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error}") from error
    return f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"


class _Refusal(Exception):  # noqa: N818 - it never leaves this module; it is an answer, not an error
    """A request that is answered with a reason and changes nothing."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Aggregator:
    store: Store
    worker: ThreadPoolExecutor
    answer_delay: float
    body_limit_bytes: int
    body_seconds: float

    def application(self) -> web.Application:
        # aiohttp could unpack by itself, but which codings it knows, and whether a bomb is stopped in time,
        # depends on its version and on what else is installed.
        application = web.Application(
            middlewares=[_errors_as_json],
            client_max_size=self.body_limit_bytes + 1,  # some versions already refuse what is exactly this large
            handler_args={"auto_decompress": False},
        )
        application.router.add_post("/v1/metrics", self.receive)
        application.router.add_get("/metrics", self.prometheus)
        application.router.add_get("/api/v1/totals", self.totals)
        return application

    async def receive(self, request: web.Request) -> web.Response:
        as_json = _is_json(request)
        packed = _is_packed(request)
        body = await self._body(request)
        answer = await self._in_worker(lambda: self._fold(body, packed=packed, as_json=as_json))
        await asyncio.sleep(self.answer_delay)
        # OTLP specification, "OTLP/HTTP Response": in the format of the request.
        if as_json:
            return web.Response(text=MessageToJson(answer), content_type=_JSON)
        return web.Response(body=answer.SerializeToString(), content_type=_PROTOBUF)

    async def prometheus(self, _request: web.Request) -> web.Response:
        text = await self._in_worker(lambda: as_prometheus(self.store.totals()))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def totals(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._in_worker(lambda: as_json(self.store.totals())))

    async def _in_worker(self, job: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self.worker, job)

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await asyncio.wait_for(request.read(), self.body_seconds)
        except asyncio.TimeoutError as error:
            raise _Refusal(408, f"expected the whole body within {self.body_seconds:g} s") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            # Mostly for nobody: the connection is gone. Unhandled, aiohttp would log it as a fault of ours.
            raise _Refusal(400, f"expected a whole body, but it ended early: {error}") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise _Refusal(413, self._size_expected()) from error

    def _size_expected(self) -> str:
        return f"expected a body of at most {self.body_limit_bytes} bytes, as it arrives and unpacked"

    def _fold(self, body: bytes, *, packed: bool, as_json: bool) -> ExportMetricsServiceResponse:
        if packed:
            body = _unpack(body, self.body_limit_bytes + 1)
        if len(body) > self.body_limit_bytes:
            raise _Refusal(413, self._size_expected())
        decoded = decode(body, as_json=as_json)
        rejected = Counter(decoded.rejected)
        if rejected and not decoded.reports:  # nothing to be partial about; and who reads a success to its end?
            raise PeerError(
                "; ".join(f"{number} data points rejected: {why}" for why, number in sorted(rejected.items()))
            )
        rejected.update(self.store.fold(decoded.reports))
        response = ExportMetricsServiceResponse()
        if rejected:
            response.partial_success.rejected_data_points = rejected.total()
            response.partial_success.error_message = "; ".join(
                f"{number} data points rejected: {reason}" for reason, number in sorted(rejected.items())
            )
        return response


def _is_json(request: web.Request) -> bool:
    if request.content_type not in {_PROTOBUF, _JSON}:
        raise _Refusal(415, f"expected the content type {_PROTOBUF} or {_JSON}, got {request.content_type}")
    return request.content_type == _JSON


def _is_packed(request: web.Request) -> bool:
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in {"gzip", "identity"}:
        reason = f"expected the content encoding gzip or none, got {coding}"
        # RFC 9110, section 15.5.16: say which codings would have done.
        raise _Refusal(415, reason, {"Accept-Encoding": "gzip, identity"})
    return coding == "gzip"


def _unpack(body: bytes, most_bytes: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            return file.read(most_bytes)  # stops a bomb: nothing beyond this is ever unpacked
    except (OSError, EOFError, zlib.error) as error:
        raise PeerError(f"expected a body in gzip format, as its content encoding says: {error}") from error


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refusal as refusal:
        return _error(refusal.status, str(refusal), refusal.headers)
    except PeerError as error:
        return _error(400, str(error))
    except web.HTTPMethodNotAllowed as error:
        reason = f"expected {' or '.join(sorted(error.allowed_methods))} on this path"
        return _error(405, reason, {"Allow": error.headers["Allow"]})
    except web.HTTPNotFound:
        return _error(404, "expected one of the paths /v1/metrics, /metrics and /api/v1/totals")
    except sqlite3.Error as error:
        # A full disk may be emptied, a locked file released: 503 is what OTLP clients try again after.
        _log.error("the database failed, nothing of this request is kept: %s", error)
        return _error(503, f"the database failed, and nothing of this request is kept: {error}")


def _error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)
