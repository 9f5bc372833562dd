"""Owns the process of a sandbox: its start, standing still, its output and its end. Knows no API and no event."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["Machine", "SandboxProcess", "ThisMachine"]

_T = TypeVar("_T")

_STOP_SECONDS = 5.0
"""A signal takes effect within microseconds; a process that has not obeyed after this long never will."""


class Machine(Protocol):
    """What a sandbox can live in: a host that stands still with it."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Call a function on this machine: sockets that it makes and processes that it starts belong there."""

    async def freeze(self) -> None:
        """Stand still, for anybody outside, from the moment that this returns. The process is stopped after it."""

    async def thaw(self) -> None:
        """Take back `freeze`. The process is continued after it."""


class ThisMachine:
    """The one that we are on, which does not stand still."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Call it."""
        return function()

    async def freeze(self) -> None:
        """Nothing can be done about it."""

    async def thaw(self) -> None:
        """It has never stood still."""


class SandboxProcess:
    """A process that is started on entering, and killed and reaped on leaving.

    Args:
        command: What to run.
        cwd: Its working directory.
        env: Its whole environment.
        machine: Where it lives.

    Attributes:
        exit: Done when the process has ended.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], machine: Machine) -> None:
        self._command = command
        self._cwd = cwd
        self._env = env
        self._machine = machine
        self._is_frozen = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.exit: asyncio.Future[None] = loop.create_future()
        with contextlib.ExitStack() as stack:
            self._output = stack.enter_context(tempfile.TemporaryFile())
            self._process = self._machine.run(self._start)
            stack.callback(self.kill)
            self._pidfd = os.pidfd_open(self.pid)
            stack.callback(os.close, self._pidfd)
            loop.add_reader(self._pidfd, self._on_exit)
            stack.callback(loop.remove_reader, self._pidfd)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._resources.close()

    @property
    def pid(self) -> int:
        """The id of the process, which is that of its group too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As `subprocess` has it: minus the signal that killed it. `None` while it lives."""
        return self._process.returncode

    @property
    def output(self) -> str:
        """What it has written to stdout and stderr so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    async def freeze(self) -> None:
        """Let its machine stand still, then it; returns when every thread of it has stopped."""
        await self._machine.freeze()
        self._is_frozen = True
        self._process.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(asyncio.to_thread(self._await_stop), _STOP_SECONDS)

    async def thaw(self) -> None:
        """Take back `freeze`."""
        if self._is_frozen:
            self._is_frozen = False
            await self._machine.thaw()
            self._process.send_signal(signal.SIGCONT)

    async def terminate(self, seconds: float) -> None:
        """SIGTERM, to the whole group as Lambda does, and that much time to end by itself."""
        if self.exit_code is not None:
            return
        if self._is_frozen:
            await self.thaw()
            # A paused machine goes on where it was. A stopped process wakes up first, and while its main thread does
            # that, the kernel gives its signals to other threads, where they would not wake Python.
            await asyncio.to_thread(self._await_sleep)
        os.killpg(self.pid, signal.SIGTERM)
        await asyncio.wait({self.exit}, timeout=seconds)

    def kill(self) -> None:
        """SIGKILL, to the whole group, and reap it. It needs no SIGCONT: a frozen sandbox dies frozen."""
        if self.exit_code is None:  # while it is not reaped, the id of its group can be no one else's
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)
            if not self.exit.done():
                self.exit.set_result(None)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this interpreter, and the handler that the caller named
            self._command,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the one who started the sandbox, who then kills it
        )

    def _on_exit(self) -> None:
        """The process has ended (its pidfd became readable): what is left of its group ends too."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.kill()

    def _await_sleep(self) -> None:
        """Block until the main thread waits for something, as it did when it was frozen."""
        stat = Path(f"/proc/{self.pid}/stat")
        until = time.monotonic() + _STOP_SECONDS
        while stat.read_text().rpartition(")")[2].split()[0] != "S" and time.monotonic() < until:
            os.sched_yield()

    def _await_stop(self) -> None:
        """Block until the kernel reports that every thread of the process has stopped."""
        # WNOWAIT leaves the news in place: an exit must still be there for Popen to reap.
        with contextlib.suppress(ChildProcessError):  # it has ended and been reaped: it stands still for good
            state = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if state is not None and state.si_code == os.CLD_STOPPED:
                # Take this news away, or the next freeze would seem complete before it is.
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
