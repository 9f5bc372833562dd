"""Owns the Runtime API and the Extensions API: what the function's side asks, and what it is told.

Knows the sandbox by three calls: it is idle, it has failed, an invocation is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from .results import FunctionError, Result

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

__all__ = ["ARN", "REGION", "Invocation", "LambdaApi", "Sandbox"]

REGION = "eu-central-1"
ARN = f"arn:aws:lambda:{REGION}:123456789012:function:{{name}}"
"""With the account number of Amazon's own examples."""

_RUNTIME_API = "/2018-06-01/runtime"
"""The only version of the Runtime API; the runtime client has it built in."""

_EXTENSIONS_API = "/2020-01-01/extension"
"""The only version of the Extensions API."""

_RUNTIME = "the runtime"
"""Its name among those who are awaited; the others are extensions, by their ids."""


@dataclass(slots=True)
class Invocation:
    """One event on its way through the sandbox; times are those of `time.perf_counter`."""

    request_id: str
    body: bytes
    timeout: float
    handed_out: float = 0.0
    responded: float = 0.0
    payload: Any = None
    error: FunctionError | None = None

    @classmethod
    def of(cls, event: object, timeout: float) -> Invocation:
        """A new one, for anything that JSON can carry."""
        return cls(str(uuid.uuid4()), json.dumps(event).encode(), timeout)

    @property
    def deadline_ms(self) -> int:
        """The wall time, in milliseconds, by which it has to be finished if it begins now."""
        return int((time.time() + self.timeout) * 1000)

    def result(self, finished: float) -> Result:
        """What came of it."""
        return Result(
            request_id=self.request_id,
            payload=self.payload,
            error=self.error,
            response_seconds=self.responded - self.handed_out,
            billed_seconds=finished - self.handed_out,
        )


class Sandbox(Protocol):
    """Who is told what has happened."""

    async def on_idle(self, asked: float) -> None:
        """The runtime and every extension wait for an event; the last of them has asked at that time."""

    def on_failure(self, error: FunctionError) -> bool:
        """The runtime could not be initialized or restored; returns whether that is news."""

    def on_answer(self, invocation: Invocation) -> None:
        """The handler has returned or raised."""


@dataclass(slots=True)
class _Extension:
    """An internal extension: a thread of the function's process."""

    name: str
    is_told: bool
    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class LambdaApi:
    """Both APIs, for one sandbox.

    Args:
        sandbox: Who is told.
        name: The function's name.
        handler: The function's handler.
        is_managed: Whether the workers of a managed instance ask, several at once.
    """

    def __init__(self, sandbox: Sandbox, *, name: str, handler: str, is_managed: bool) -> None:
        self._sandbox = sandbox
        self._name = name
        self._handler = handler
        self._is_managed = is_managed
        self._arn = ARN.format(name=name)
        self._busy = {_RUNTIME}
        self._is_initialized = False
        self._extensions: dict[str, _Extension] = {}
        self._events: asyncio.Queue[Invocation] = asyncio.Queue()
        self._running: dict[str, Invocation] = {}
        self._restored = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serve(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer on a listening socket."""
        application = web.Application(client_max_size=0)  # 0 is no limit: the function is our own
        application.router.add_get(f"{_RUNTIME_API}/invocation/next", self._next)
        application.router.add_post(f"{_RUNTIME_API}/invocation/{{request_id}}/response", self._respond)
        application.router.add_post(f"{_RUNTIME_API}/invocation/{{request_id}}/error", self._fail)
        application.router.add_post(f"{_RUNTIME_API}/init/error", self._fail_init)
        application.router.add_get(f"{_RUNTIME_API}/restore/next", self._restore_next)
        application.router.add_post(f"{_RUNTIME_API}/restore/error", self._fail_init)
        application.router.add_post(f"{_EXTENSIONS_API}/register", self._register)
        application.router.add_get(f"{_EXTENSIONS_API}/event/next", self._extension_next)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            for _ in range(4):  # turns of the loop until whoever knocked last is a connection, and ends with the others
                await asyncio.sleep(0)
            await runner.cleanup()

    # What Lambda does.

    @property
    def has_extensions(self) -> bool:
        """Whether an extension is registered."""
        return bool(self._extensions)

    @contextlib.contextmanager
    def running(self, invocation: Invocation) -> contextlib.Iterator[None]:
        """Hand out an event, and word of it to the extensions; what the runtime says of it later is refused."""
        told = {identifier: extension for identifier, extension in self._extensions.items() if extension.is_told}
        self._busy = {_RUNTIME, *told}
        self._running[invocation.request_id] = invocation
        self._events.put_nowait(invocation)
        for extension in told.values():
            extension.events.put_nowait(
                {
                    "eventType": "INVOKE",
                    "deadlineMs": invocation.deadline_ms,
                    "requestId": invocation.request_id,
                    "invokedFunctionArn": self._arn,
                }
            )
        try:
            yield
        finally:
            del self._running[invocation.request_id]

    def restore(self) -> None:
        """Tell the runtime that it is a restored snapshot."""
        self._busy = {_RUNTIME}
        self._restored.set()

    async def _is_waiting(self, who: str) -> None:
        """Somebody asks for the next event: when all do, the sandbox is idle."""
        asked = time.perf_counter()
        self._busy.discard(who)
        if not self._busy:
            self._is_initialized = True
            await self._sandbox.on_idle(asked)

    # What the runtime asks.

    async def _next(self, _: web.Request) -> web.Response:
        await self._is_waiting(_RUNTIME)
        invocation = await self._events.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        }
        invocation.handed_out = time.perf_counter()
        return web.Response(body=invocation.body, content_type="application/json", headers=headers)

    async def _respond(self, request: web.Request) -> web.Response:
        payload = json.loads(await request.read())
        invocation = self._answered(request)
        invocation.payload = payload
        self._sandbox.on_answer(invocation)
        return web.Response(status=202)

    async def _fail(self, request: web.Request) -> web.Response:
        error = FunctionError.from_json(await request.read())
        invocation = self._answered(request)
        invocation.error = error
        self._sandbox.on_answer(invocation)
        return web.Response(status=202)

    def _answered(self, request: web.Request) -> Invocation:
        """The invocation that the runtime speaks of; any other is refused, as Lambda does."""
        invocation = self._running.get(request.match_info["request_id"])
        if invocation is None:
            raise web.HTTPBadRequest(reason="no such invocation is running")
        invocation.responded = time.perf_counter()
        return invocation

    async def _fail_init(self, request: web.Request) -> web.Response:
        is_news = self._sandbox.on_failure(FunctionError.from_json(await request.read()))
        # The second worker of a managed instance that says so is refused, which the runtime client expects.
        return web.Response(status=202 if is_news else 403)

    async def _restore_next(self, _: web.Request) -> web.Response:
        """The hooks before the snapshot have run: this is the moment of the snapshot."""
        await self._is_waiting(_RUNTIME)
        await self._restored.wait()
        return web.Response(status=200)

    # What extensions ask.

    async def _register(self, request: web.Request) -> web.Response:
        name = request.headers.get("Lambda-Extension-Name", "")
        events = json.loads(await request.read())["events"]
        # The end comes to an internal extension as SIGTERM; in a managed instance it is not told of invocations either.
        allowed = [] if self._is_managed else ["INVOKE"]
        if not name or not {*events} <= {*allowed}:
            return _forbidden(f"an internal extension registers by its name, for {allowed}; this one is for {events}")
        if self._is_initialized or name in (extension.name for extension in self._extensions.values()):
            return _forbidden("an extension registers once, during INIT")
        identifier = str(uuid.uuid4())
        self._extensions[identifier] = _Extension(name, is_told="INVOKE" in events)
        self._busy.add(identifier)  # INIT ends when it asks for its first event
        function = {"functionName": self._name, "functionVersion": "$LATEST", "handler": self._handler}
        return web.json_response(function, headers={"Lambda-Extension-Identifier": identifier})

    async def _extension_next(self, request: web.Request) -> web.Response:
        identifier = request.headers.get("Lambda-Extension-Identifier", "")
        extension = self._extensions.get(identifier)
        if extension is None:
            return _forbidden("no extension has registered under this identifier")
        await self._is_waiting(identifier)
        return web.json_response(await extension.events.get())


def _forbidden(why: str) -> web.Response:
    return web.json_response({"errorType": "Extension.Forbidden", "errorMessage": why}, status=403)
