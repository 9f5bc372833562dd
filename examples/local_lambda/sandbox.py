"""Owns the life of a sandbox: INIT, snapshot and restore, invocations with a freeze between them, the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .api import REGION, Invocation, LambdaApi
from .process import SandboxProcess, ThisMachine
from .results import InitError, Result, SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from .process import Machine
    from .results import FunctionError

__all__ = ["LocalLambda"]

_INIT_SECONDS = 10.0
"""The INIT phase of an on-demand function may take this long."""

_LONG_INIT_SECONDS = 130.0
"""That of any other kind this long, or as long as an invocation, whichever is longer."""

_RESTORE_SECONDS = 10.0
"""A snapshot has to be restored, hooks included, within this time."""

_SHUTDOWN_SECONDS = 0.5
"""From SIGTERM to SIGKILL in a function with an internal extension. Without any extension there is no SIGTERM; with
external ones, which do not exist here, the runtime would have 0.3 s and they the rest of 2 s."""

_FOREIGN_PREFIXES = ("AWS_", "EMITTER_", "LAMBDA_", "OTEL_", "POWERTOOLS_")
"""What a function in Lambda would not see of the developer's shell, and what would change its behaviour."""

_MANAGED = "lambda-managed-instances"


class LocalLambda:
    """One sandbox of one function, to be used as an asynchronous context manager.

    Entering starts the process and returns when the handler is loaded and the sandbox frozen; leaving ends
    and reaps it.

    Args:
        handler: `module.function`, found from `cwd`.
        cwd: The function's folder (`LAMBDA_TASK_ROOT`); `None` is the current one.
        env: Variables for the function, over those of this process (less any `AWS_*`, `OTEL_*` and the like).
        name: The function's name.
        memory_mb: The function's configured memory; told to the function, not enforced.
        timeout: The function's configured timeout in seconds: the deadline that the handler sees.
        initialization: What brings the sandbox into being; the function sees it as `AWS_LAMBDA_INITIALIZATION_TYPE`.
        concurrency: How many invocations a managed instance handles at once; `None` is no managed instance.
        freeze: Whether to stop the process (and freeze the machine) between invocations.
        machine: Where the process and its APIs live; `None` is this machine.

    Raises:
        InitError: On entering, when the runtime cannot load the handler, or a hook before the snapshot fails.
        SandboxError: On entering, when the process ends or takes too long before it asks for an event.
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
        initialization: Literal["on-demand", "provisioned-concurrency", "snap-start"] = "on-demand",
        concurrency: int | None = None,
        freeze: bool = True,
        machine: Machine | None = None,
    ) -> None:
        self._handler = handler
        self._cwd = Path(cwd or Path.cwd()).resolve()
        self._env = dict(env or {})
        self._name = name
        self._memory_mb = memory_mb
        self._timeout = timeout
        self._is_managed = concurrency is not None
        self._initialization = _MANAGED if self._is_managed else initialization
        self._is_snapshot = initialization == "snap-start"
        self._concurrency = concurrency or 1
        self._freeze = freeze and not self._is_managed
        self._machine = machine or ThisMachine()
        self._running: dict[str, asyncio.Future[float]] = {}

    async def __aenter__(self) -> Self:
        self._idle = self._new_future()
        self._api = LambdaApi(self, name=self._name, handler=self._handler, is_managed=self._is_managed)
        async with contextlib.AsyncExitStack() as stack:
            # On the loopback device of the sandbox's machine, which may not be ours.
            listener = stack.enter_context(self._machine.run(lambda: socket.create_server(("127.0.0.1", 0))))
            await stack.enter_async_context(self._api.serve(listener))
            host, port = listener.getsockname()
            self._process = SandboxProcess(
                [sys.executable, "-m", "awslambdaric", self._handler],
                cwd=self._cwd,
                env=self._environment(f"{host}:{port}"),
                machine=self._machine,
            )
            await stack.enter_async_context(self._process)
            stack.push_async_callback(self.shut_down)
            longer = max(_LONG_INIT_SECONDS, self._timeout)
            seconds = _INIT_SECONDS if self._initialization == "on-demand" else longer
            await self._wait(self._idle, seconds, "the handler was not loaded")
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    @property
    def pid(self) -> int:
        """The id of the sandbox's process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the process has ended: minus the signal that killed it. `None` while it lives."""
        return self._process.exit_code

    @property
    def output(self) -> str:
        """What the function has written to stdout and stderr so far."""
        return self._process.output

    async def restore(self) -> None:
        """Restore the snapshot, and return when the sandbox has run its hooks and is frozen again.

        Raises:
            InitError: A hook has failed.
            SandboxError: The process ended, or has taken too long.
            RuntimeError: There is no snapshot, or it has been restored.
        """
        if not self._is_snapshot:
            raise RuntimeError("there is no snapshot to restore")
        self._is_snapshot = False
        self._idle = self._new_future()
        await self._process.thaw()
        self._api.restore()
        await self._wait(self._idle, _RESTORE_SECONDS, "the snapshot was not restored")

    async def invoke(self, event: object = None, *, timeout: float | None = None) -> Result:
        """Thaw the sandbox, hand it one event, and return when it is frozen again.

        One invocation at a time, as in Lambda; in a managed instance as many as its concurrency.

        Args:
            event: Anything that JSON can carry.
            timeout: Seconds until the deadline of this invocation; `None` is the function's own.

        Returns:
            What the handler returned or raised, with its durations. The process is then in state T (stopped),
            unless the sandbox is never frozen.

        Raises:
            SandboxError: The process ended, or the deadline passed (which ends the sandbox, as in Lambda; the worker
                of a managed instance goes on).
            InitError: The snapshot could not be restored.
            RuntimeError: As many other invocations as possible are running.
        """
        if len(self._running) >= self._concurrency:
            at_a_time = "one invocation" if self._concurrency == 1 else f"{self._concurrency} invocations"
            raise RuntimeError(f"a sandbox handles {at_a_time} at a time")
        if self.exit_code is not None:
            raise SandboxError(self._obituary(), self.output)
        if self._is_snapshot:
            await self.restore()
        invocation = Invocation.of(event, self._timeout if timeout is None else timeout)
        finished = self._running[invocation.request_id] = self._idle = self._new_future()
        try:
            await self._process.thaw()
            with self._api.running(invocation):
                return invocation.result(await self._wait(finished, invocation.timeout, "the task timed out"))
        finally:
            del self._running[invocation.request_id]

    async def shut_down(self) -> None:
        """End the sandbox as Lambda does; leaving the context does it too, and its output can then not be read."""
        if self._api.has_extensions:
            await self._process.terminate(_SHUTDOWN_SECONDS)
        self._process.kill()

    async def _wait(self, future: asyncio.Future[float], seconds: float, failure: str) -> float:
        """Wait for something that the sandbox has to do in time."""
        await asyncio.wait({future, self._process.exit}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if self._process.exit.done():
            raise SandboxError(self._obituary(), self.output)
        if not self._is_managed:
            await self.shut_down()
        raise SandboxError(f"{failure} after {seconds:.2f} seconds", self.output)

    # What the API tells.

    async def on_idle(self, asked: float) -> None:
        """The runtime and every extension wait for an event: freeze."""
        idle = self._idle
        try:
            if self._freeze:
                await self._process.freeze()
        except Exception as error:
            if not idle.done():
                idle.set_exception(error)
            raise
        if not idle.done() and not (self._is_managed and self._running):
            idle.set_result(asked)

    def on_failure(self, error: FunctionError) -> bool:
        """The runtime could not be initialized or restored."""
        if self._idle.done():
            return False
        self._idle.set_exception(InitError(error, self.output))
        return True

    def on_answer(self, invocation: Invocation) -> None:
        """The worker of a managed instance has no freeze to wait for."""
        finished = self._running.get(invocation.request_id)
        if self._is_managed and finished is not None and not finished.done():
            finished.set_result(invocation.responded)

    def _new_future(self) -> asyncio.Future[float]:
        return asyncio.get_running_loop().create_future()

    def _obituary(self) -> str:
        return f"the sandbox has ended with exit code {self.exit_code}"

    def _environment(self, api: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_PREFIXES)}
        stream = f"{time.strftime('%Y/%m/%d')}/[$LATEST]{uuid.uuid4().hex}"
        lambda_variables = {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self._memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": self._name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": self._initialization,
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self._name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "AWS_LAMBDA_RUNTIME_API": api,
            "AWS_REGION": REGION,
            "LAMBDA_TASK_ROOT": str(self._cwd),
            "TZ": ":UTC",
            "_HANDLER": self._handler,
        }
        if self._is_managed:  # its presence is what makes the runtime client fork workers
            lambda_variables["AWS_LAMBDA_MAX_CONCURRENCY"] = str(self._concurrency)
        return {**inherited, **lambda_variables, **self._env}
