from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from examples.local_lambda import InitError, LocalLambda, Result, SandboxError
from examples.local_network import LocalNetwork, why_not

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric and /proc are Linux only")

FUNCTION = """
import os
import threading

def echo(event, context):
    print("the event is", event)
    return {"event": event, "pid": os.getpid()}

def refuse(event, context):
    raise LookupError("no such order: 17")

def look(event, context):
    return {
        "arn": context.invoked_function_arn,
        "function": context.function_name,
        "left_ms": context.get_remaining_time_in_millis(),
        "memory": context.memory_limit_in_mb,
        "request_id": context.aws_request_id,
    }

def environment(event, context):
    return {name: os.environ.get(name) for name in event}

def wait(event, context):
    threading.Event().wait()

def leave(event, context):
    print("good bye")
    os._exit(3)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A function's folder, with a module that loads and one that does not."""
    (tmp_path / "function.py").write_text(FUNCTION)
    (tmp_path / "broken.py").write_text("raise RuntimeError('this module does not load')\n")
    return tmp_path


def state(pid: int) -> str:
    """What the kernel says of a process: R, S, T (stopped), Z, ..., or nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


async def test_what_the_handler_returns_comes_out(folder: Path) -> None:
    """The event goes in as JSON, the payload comes out, again and again in one process."""
    async with LocalLambda("function.echo", cwd=folder) as sandbox:
        results = [await sandbox.invoke({"order": number}) for number in range(3)]
        pid = sandbox.pid

    assert [result.payload for result in results] == [{"event": {"order": n}, "pid": pid} for n in range(3)]
    assert [result.error for result in results] == [None] * 3


async def test_what_the_handler_raises_comes_out_as_the_runtime_tells_it(folder: Path) -> None:
    """Type, message and the runtime's own JSON; the sandbox lives on."""
    async with LocalLambda("function.refuse", cwd=folder) as sandbox:
        await sandbox.invoke({})
        result = await sandbox.invoke({})

    assert result.payload is None
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("LookupError", "no such order: 17")
    assert result.error.document["requestId"] == result.request_id
    assert "raise LookupError" in "".join(result.error.document["stackTrace"])


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        ("function.missing", "Runtime.HandlerNotFound", "Handler 'missing' missing on module 'function'"),
        ("broken.handler", "RuntimeError", "this module does not load"),
        ("nowhere.handler", "Runtime.ImportModuleError", "No module named 'nowhere'"),
    ],
)
async def test_a_handler_that_cannot_be_loaded_is_an_init_error(
    folder: Path, handler: str, kind: str, text: str
) -> None:
    """Entering raises what the runtime posted to /init/error, with what it had printed."""
    with pytest.raises(InitError, match=re.escape(text)) as raised:
        async with LocalLambda(handler, cwd=folder):
            pass

    assert raised.value.error.type == kind
    assert text in raised.value.output


async def test_the_process_stands_still_between_invocations_and_runs_during_them(folder: Path) -> None:
    """State T after entering and after each invocation, and not T while a handler works."""
    async with LocalLambda("function.echo", cwd=folder) as sandbox:
        states = [state(sandbox.pid)]
        pids = set()
        for _ in range(3):
            pids.add((await sandbox.invoke()).payload["pid"])
            states.append(state(sandbox.pid))

    assert states == ["T"] * 4
    assert pids == {sandbox.pid}


async def test_without_freeze_the_process_is_never_stopped(folder: Path) -> None:
    """It waits for the next event in a system call, as any process does."""
    async with LocalLambda("function.echo", cwd=folder, freeze=False) as sandbox:
        await sandbox.invoke()
        after = state(sandbox.pid)

    assert after in {"R", "S"}


async def test_at_the_end_the_sandbox_dies_frozen_and_is_reaped(folder: Path) -> None:
    """SIGKILL without SIGCONT; no process and no zombie stays."""
    async with LocalLambda("function.echo", cwd=folder) as sandbox:
        await sandbox.invoke()

    assert state(sandbox.pid) == ""
    assert sandbox.exit_code == -signal.SIGKILL


async def test_a_failing_block_ends_the_sandbox_too(folder: Path) -> None:
    """Whatever happens between entering and leaving, nothing stays behind."""
    sandbox = LocalLambda("function.echo", cwd=folder)
    with pytest.raises(ZeroDivisionError):
        async with sandbox:
            raise ZeroDivisionError

    assert state(sandbox.pid) == ""


async def test_the_context_is_that_of_a_lambda_function(folder: Path) -> None:
    """ARN, name, memory, request id, and a deadline that counts down from the timeout."""
    async with LocalLambda("function.look", cwd=folder, name="checkout", memory_mb=256, timeout=7) as sandbox:
        result = await sandbox.invoke()
        short = await sandbox.invoke(timeout=2)

    assert result.payload["arn"] == "arn:aws:lambda:eu-central-1:123456789012:function:checkout"
    assert result.payload["function"] == "checkout"
    assert result.payload["memory"] == "256"
    assert result.payload["request_id"] == result.request_id
    assert 2_000 < result.payload["left_ms"] <= 7_000
    assert 0 < short.payload["left_ms"] <= 2_000


async def test_the_function_does_not_see_the_settings_of_the_developers_shell(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials, endpoints and the like do not pass; what was given, and what is Lambda's, does."""
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("EMITTER_ENDPOINT", "http://production.example/")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shell")
    names = ["AWS_PROFILE", "EMITTER_ENDPOINT", "OTEL_SERVICE_NAME", "STAGE", "LAMBDA_TASK_ROOT"]
    async with LocalLambda("function.environment", cwd=folder, env={"STAGE": "test"}) as sandbox:
        seen = (await sandbox.invoke(names)).payload

    assert seen == dict.fromkeys(names[:3]) | {"STAGE": "test", "LAMBDA_TASK_ROOT": str(folder)}


async def test_a_handler_that_passes_its_deadline_is_killed(folder: Path) -> None:
    """As Lambda does, and with Lambda's words; the sandbox is of no more use."""
    async with LocalLambda("function.wait", cwd=folder) as sandbox:
        with pytest.raises(SandboxError, match=r"the task timed out after 0\.20 seconds"):
            await sandbox.invoke(timeout=0.2)
        with pytest.raises(SandboxError, match="the sandbox has ended"):
            await sandbox.invoke()


async def test_a_process_that_ends_by_itself_says_so_with_its_output(folder: Path) -> None:
    """Nobody waits for an answer that cannot come."""
    started = time.monotonic()
    async with LocalLambda("function.leave", cwd=folder) as sandbox:
        with pytest.raises(SandboxError, match="exit code 3") as raised:
            await sandbox.invoke()
        with pytest.raises(SandboxError, match="exit code 3"):
            await sandbox.invoke()

    assert "good bye" in raised.value.output
    assert time.monotonic() - started < 20


async def test_the_output_of_the_function_is_kept(folder: Path) -> None:
    """For diagnosis: what was printed so far, stdout and stderr in one."""
    async with LocalLambda("function.echo", cwd=folder) as sandbox:
        await sandbox.invoke("first")
        await sandbox.invoke("second")
        output = sandbox.output

    assert output.splitlines() == ["the event is first", "the event is second"]


async def test_a_sandbox_handles_one_invocation_at_a_time(folder: Path) -> None:
    """A second one is refused, as Lambda would have started a second sandbox for it."""
    async with LocalLambda("function.wait", cwd=folder) as sandbox:
        first = asyncio.create_task(sandbox.invoke())
        await asyncio.sleep(0)  # one turn of the loop: the first is under way
        with pytest.raises(RuntimeError, match="one invocation at a time"):
            await sandbox.invoke()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first


async def test_the_bill_covers_the_response_and_what_comes_after_it(folder: Path) -> None:
    """Handing out, response, next request: in this order, so the bill is never the shorter one."""
    async with LocalLambda("function.echo", cwd=folder) as sandbox:
        result = await sandbox.invoke()

    assert 0 < result.response_seconds <= result.billed_seconds


class Machine:
    """A machine that writes down what is done to it, and whether the process stood still then."""

    def __init__(self) -> None:
        self.sandbox: LocalLambda | None = None
        self.log: list[str] = []
        self.is_stuck = False

    def run(self, function: Callable[[], T]) -> T:
        """Here, and nowhere else."""
        self.log.append("run")
        return function()

    async def freeze(self) -> None:
        """Would cut the link."""
        if self.is_stuck:
            raise OSError("the link cannot be cut")
        self._note("freeze")

    async def thaw(self) -> None:
        """Would mend the link."""
        self._note("thaw")

    def _note(self, what: str) -> None:
        assert self.sandbox is not None
        stopped = state(self.sandbox.pid) == "T"
        self.log.append(f"{what} while the process {'is stopped' if stopped else 'runs'}")


async def test_a_machine_is_frozen_before_the_process_is_stopped_and_thawed_before_it_goes_on(folder: Path) -> None:
    """In the other order, the kernel of a stopped process would go on transmitting. See `local_network`."""
    machine = Machine()
    machine.sandbox = LocalLambda("function.echo", cwd=folder, machine=machine)
    async with machine.sandbox:
        await machine.sandbox.invoke()

    freeze, thaw = "freeze while the process runs", "thaw while the process is stopped"
    assert machine.log == ["run", "run", freeze, thaw, freeze]


async def test_a_machine_that_cannot_be_frozen_fails_the_invocation(folder: Path) -> None:
    """Rather than let a sandbox run on that was to stand still."""
    machine = Machine()
    machine.sandbox = LocalLambda("function.echo", cwd=folder, machine=machine)
    async with machine.sandbox:
        machine.is_stuck = True
        with pytest.raises(OSError, match="the link cannot be cut"):
            await machine.sandbox.invoke()


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
async def test_a_sandbox_on_a_host_of_a_network_works_as_ever_and_is_in_its_namespace(folder: Path) -> None:
    """Its Runtime API is on that host's loopback device; nothing of it is left afterwards."""
    async with LocalNetwork() as network, LocalLambda("function.echo", cwd=folder, machine=network.sandbox) as sandbox:
        results = [await sandbox.invoke({"order": number}) for number in range(3)]
        namespace = Path(f"/proc/{sandbox.pid}/ns/net").stat().st_ino  # noqa: ASYNC240 - no disk is asked
        states, inode = [state(sandbox.pid)], network.inodes[0]

    assert [result.payload["event"] for result in results] == [{"order": number} for number in range(3)]
    assert namespace == inode
    assert states == ["T"]
    assert state(sandbox.pid) == ""


@pytest.mark.parametrize(("seconds", "billed_ms"), [(0.0001, 1), (0.001, 1), (0.0010001, 2), (0.9501, 951)])
def test_a_begun_millisecond_is_billed(seconds: float, billed_ms: int) -> None:
    """Lambda rounds up to whole milliseconds."""
    result = Result("id", payload=None, error=None, response_seconds=seconds, billed_seconds=seconds)

    assert result.billed_ms == billed_ms
