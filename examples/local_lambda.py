"""Owns a small local AWS Lambda: the Runtime API, and one sandbox that is frozen between invocations.

The sandbox is the stock runtime, `python -m awslambdaric module.handler`, as a process of its own. It is
stopped (SIGSTOP) the moment it asks for its next event, continued (SIGCONT) when there is one, and killed
(SIGKILL) while it is frozen, as Lambda does. Knows nothing of metrics.

    async with LocalLambda("my_module.handler", cwd=folder, env={"STAGE": "test"}) as sandbox:
        result = await sandbox.invoke({"order": 1})
        print(result.payload, result.billed_ms)

Lambda freezes and destroys a whole virtual machine, here it is one process. Its kernel goes on transmitting what it
holds already, and resets its connections when it is killed, where a destroyed machine says nothing. To see the whole
freeze, give the sandbox a machine of its own, whose link is cut as long as it is frozen: `machine=network.sandbox`, see
`local_network`. The clocks go on in any case. Linux only, as `awslambdaric` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

__all__ = ["FunctionError", "InitError", "LocalLambda", "Machine", "Result", "SandboxError"]

_T = TypeVar("_T")

_API = "/2018-06-01/runtime"
"""The only version of the Runtime API; the runtime client has it built in."""

_INIT_SECONDS = 10.0
"""The INIT phase of an on-demand function may take this long."""

_STOP_SECONDS = 5.0
"""A signal takes effect within microseconds; a process that has not obeyed after this long never will."""

_REGION = "eu-central-1"
_ARN = f"arn:aws:lambda:{_REGION}:123456789012:function:{{name}}"
"""With the account number of Amazon's own examples."""

_FOREIGN_PREFIXES = ("AWS_", "EMITTER_", "LAMBDA_", "OTEL_", "POWERTOOLS_")
"""What a function in Lambda would not see of the developer's shell, and what would change its behaviour."""


class Machine(Protocol):
    """What a sandbox can live in: a host that stands still with it."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Call a function on this machine: sockets that it makes and processes that it starts belong there."""

    async def freeze(self) -> None:
        """Stand still, for anybody outside, from the moment that this returns. The process is stopped after it."""

    async def thaw(self) -> None:
        """Take back `freeze`. The process is continued after it."""


class _ThisMachine:
    """The one that we are on, which does not stand still."""

    def run(self, function: Callable[[], _T]) -> _T:
        return function()

    async def freeze(self) -> None:
        pass

    async def thaw(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class FunctionError:
    """What the runtime tells Lambda when a handler raises or cannot be loaded.

    Attributes:
        type: The name of the exception's class.
        message: The exception's text.
        document: The runtime's whole error JSON (`errorType`, `errorMessage`, `requestId`, `stackTrace`).
    """

    type: str
    message: str
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, body: bytes) -> FunctionError:
        """Read the runtime's error JSON."""
        document = json.loads(body)
        return cls(document.get("errorType", ""), document.get("errorMessage", ""), document)


@dataclass(frozen=True, slots=True)
class Result:
    """One finished invocation.

    Attributes:
        request_id: What the handler saw as `context.aws_request_id`.
        payload: What the handler returned, decoded from JSON; `None` if it raised.
        error: What the handler raised, `None` if it returned.
        response_seconds: From handing out the event until the response (or the error) was here.
        billed_seconds: From handing out the event until the runtime asked for the next: what Lambda bills.
    """

    request_id: str
    payload: Any
    error: FunctionError | None
    response_seconds: float
    billed_seconds: float

    @property
    def billed_ms(self) -> int:
        """The billed duration in whole milliseconds, rounded up as Lambda does."""
        return math.ceil(self.billed_seconds * 1000)


class SandboxError(Exception):
    """The sandbox ended, or did not do in time what it had to do.

    Attributes:
        output: What the function had written to stdout and stderr.
    """

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"{what}\n--- output of the function ---\n{output or '(none)'}")
        self.output = output


class InitError(SandboxError):
    """The runtime could not load the handler.

    Attributes:
        error: The error as the runtime reported it.
    """

    def __init__(self, error: FunctionError, output: str) -> None:
        super().__init__(f"{error.type}: {error.message}", output)
        self.error = error


@dataclass(slots=True)
class _Invocation:
    """One event on its way through the sandbox; times are those of `time.perf_counter`."""

    request_id: str
    body: bytes
    timeout: float
    handed_out: float = 0.0
    responded: float = 0.0
    payload: Any = None
    error: FunctionError | None = None


class LocalLambda:
    """One sandbox of one function, to be used as an asynchronous context manager.

    Entering starts the process and returns when the handler is loaded and the sandbox frozen; leaving kills
    it while it is frozen, and reaps it.

    Args:
        handler: `module.function`, found from `cwd`.
        cwd: The function's folder (`LAMBDA_TASK_ROOT`); `None` is the current one.
        env: Variables for the function, over those of this process (less any `AWS_*`, `OTEL_*` and the like).
        name: The function's name.
        memory_mb: The function's configured memory; told to the function, not enforced.
        timeout: The function's configured timeout in seconds: the deadline that the handler sees.
        freeze: Whether to stop the process (and freeze the machine) between invocations.
        machine: Where the process and its Runtime API live; `None` is this machine.

    Raises:
        InitError: On entering, when the runtime cannot load the handler.
        SandboxError: On entering, when the process ends or takes more than 10 s before it asks for an event.
    """

    def __init__(
        self,
        handler: str,
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        name: str = "local",
        memory_mb: int = 512,
        timeout: float = 30.0,
        freeze: bool = True,
        machine: Machine | None = None,
    ) -> None:
        self._handler = handler
        self._cwd = Path(cwd or Path.cwd()).resolve()
        self._env = dict(env or {})
        self._name = name
        self._memory_mb = memory_mb
        self._timeout = timeout
        self._freeze = freeze
        self._machine = machine or _ThisMachine()
        self._invocations: asyncio.Queue[_Invocation] = asyncio.Queue()
        self._current: _Invocation | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._asked: asyncio.Future[float] = loop.create_future()
        async with contextlib.AsyncExitStack() as stack:
            # On the loopback device of the sandbox's machine, which may not be ours.
            listener = stack.enter_context(self._machine.run(lambda: socket.create_server(("127.0.0.1", 0))))
            runner = web.AppRunner(self._application(), access_log=None, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener).start()
            host, port = listener.getsockname()
            self._output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            self._process = self._machine.run(lambda: self._start(f"{host}:{port}"))
            stack.callback(self._end)
            self._pidfd = os.pidfd_open(self._process.pid)
            stack.callback(os.close, self._pidfd)
            loop.add_reader(self._pidfd, self._on_exit)
            stack.callback(loop.remove_reader, self._pidfd)
            await self._await_next(_INIT_SECONDS, "the handler was not loaded")
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    @property
    def pid(self) -> int:
        """The id of the sandbox's process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What the function has written to stdout and stderr so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    async def invoke(self, event: object = None, *, timeout: float | None = None) -> Result:
        """Thaw the sandbox, hand it one event, and return when it is frozen again.

        One invocation at a time, as in Lambda.

        Args:
            event: Anything that JSON can carry.
            timeout: Seconds until the deadline of this invocation; `None` is the function's own.

        Returns:
            What the handler returned or raised, with its durations. The process is then in state T (stopped),
            unless the sandbox was made with `freeze=False`.

        Raises:
            SandboxError: The process ended, or the deadline passed (which kills the sandbox, as in Lambda).
            RuntimeError: Another invocation is running.
        """
        if self._current is not None:
            raise RuntimeError("a sandbox handles one invocation at a time")
        if self._process.returncode is not None:
            raise SandboxError(self._obituary(), self.output)
        seconds = self._timeout if timeout is None else timeout
        invocation = _Invocation(str(uuid.uuid4()), json.dumps(event).encode(), seconds)
        self._asked = asyncio.get_running_loop().create_future()
        self._current = invocation
        try:
            if self._freeze:
                await self._machine.thaw()
                os.kill(self.pid, signal.SIGCONT)
            self._invocations.put_nowait(invocation)
            asked = await self._await_next(seconds, "the task timed out")
        finally:
            self._current = None
        return Result(
            request_id=invocation.request_id,
            payload=invocation.payload,
            error=invocation.error,
            response_seconds=invocation.responded - invocation.handed_out,
            billed_seconds=asked - invocation.handed_out,
        )

    async def _await_next(self, seconds: float, failure: str) -> float:
        """Wait until the runtime has asked for its next event and stands still; return when it asked."""
        try:
            asked = await asyncio.wait_for(self._asked, seconds)
        except asyncio.TimeoutError:
            self._process.kill()
            raise SandboxError(f"{failure} after {seconds:.2f} seconds", self.output) from None
        if self._freeze:
            await asyncio.wait_for(asyncio.to_thread(self._await_stop), _STOP_SECONDS)
        return asked

    def _await_stop(self) -> None:
        """Block until the kernel reports that every thread of the process has stopped."""
        # WNOWAIT leaves the news in place: an exit must still be there for Popen to reap.
        with contextlib.suppress(ChildProcessError):  # it has ended and been reaped: it stands still for good
            state = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if state is not None and state.si_code == os.CLD_STOPPED:
                # Take this news away, or the next freeze would seem complete before it is.
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)

    # The process.

    def _start(self, api: str) -> subprocess.Popen[bytes]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_PREFIXES)}
        stream = f"{time.strftime('%Y/%m/%d')}/[$LATEST]{uuid.uuid4().hex}"
        lambda_variables = {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self._memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": self._name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self._name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "AWS_LAMBDA_RUNTIME_API": api,
            "AWS_REGION": _REGION,
            "LAMBDA_TASK_ROOT": str(self._cwd),
            "TZ": ":UTC",
            "_HANDLER": self._handler,
        }
        return subprocess.Popen(  # noqa: S603 - this interpreter, and the handler that the caller named
            [sys.executable, "-m", "awslambdaric", self._handler],
            cwd=self._cwd,
            env={**inherited, **lambda_variables, **self._env},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the one who started the sandbox, who then kills it
        )

    def _on_exit(self) -> None:
        """The process has ended (its pidfd became readable): whoever waits for it must know."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._process.wait()
        if not self._asked.done():
            self._asked.set_exception(SandboxError(self._obituary(), self.output))

    def _obituary(self) -> str:
        return f"the sandbox has ended with exit code {self._process.returncode}"

    def _end(self) -> None:
        self._process.kill()  # SIGKILL needs no SIGCONT: a frozen sandbox dies frozen
        self._process.wait(_STOP_SECONDS)
        if self._asked.done() and not self._asked.cancelled():
            self._asked.exception()  # seen: an end that nobody was waiting for is no error

    # The Runtime API.

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=0)  # 0 is no limit: the function is our own
        application.router.add_get(f"{_API}/invocation/next", self._next)
        application.router.add_post(f"{_API}/invocation/{{request_id}}/response", self._respond)
        application.router.add_post(f"{_API}/invocation/{{request_id}}/error", self._fail)
        application.router.add_post(f"{_API}/init/error", self._fail_init)
        return application

    async def _next(self, _: web.Request) -> web.Response:
        asked = time.perf_counter()
        if self._freeze:
            try:
                await self._machine.freeze()
            except Exception as error:
                if not self._asked.done():
                    self._asked.set_exception(error)
                raise
            os.kill(self.pid, signal.SIGSTOP)
        if not self._asked.done():
            self._asked.set_result(asked)
        invocation = await self._invocations.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + invocation.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": _ARN.format(name=self._name),
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        }
        invocation.handed_out = time.perf_counter()
        return web.Response(body=invocation.body, content_type="application/json", headers=headers)

    async def _respond(self, request: web.Request) -> web.Response:
        body = await request.read()
        invocation = self._invocation(request)
        invocation.responded = time.perf_counter()
        invocation.payload = json.loads(body)
        return web.Response(status=202)

    async def _fail(self, request: web.Request) -> web.Response:
        body = await request.read()
        invocation = self._invocation(request)
        invocation.responded = time.perf_counter()
        invocation.error = FunctionError.from_json(body)
        return web.Response(status=202)

    async def _fail_init(self, request: web.Request) -> web.Response:
        error = FunctionError.from_json(await request.read())
        if not self._asked.done():
            self._asked.set_exception(InitError(error, self.output))
        return web.Response(status=202)

    def _invocation(self, request: web.Request) -> _Invocation:
        """The invocation that the runtime speaks of; any other is refused, as Lambda does."""
        if self._current is None or self._current.request_id != request.match_info["request_id"]:
            raise web.HTTPBadRequest(reason="no such invocation is running")
        return self._current
