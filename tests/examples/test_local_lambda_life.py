from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.local_lambda import InitError, LocalLambda, SandboxError
from tests.at_home import gate as gates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.at_home.gate import Gate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric and /proc are Linux only")

FUNCTION = f"""
import os
import subprocess
{gates.WAITING}
calls = []

def look(event, context):
    return dict(type=os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], calls=calls, pid=os.getpid())

def wait(event, context):
    wait_at(event)
    return os.getpid()

def start_child(event, context):
    return subprocess.Popen(["sleep", "60"]).pid
"""

SNAPSHOT = """
from function import calls, look
from snapshot_restore_py import register_after_restore, register_before_snapshot

register_before_snapshot(calls.append, "before")
register_after_restore(calls.append, "after")
"""

FAILING = """
from function import look
from snapshot_restore_py import register_after_restore, register_before_snapshot

def fail():
    raise ArithmeticError("this hook fails")

register_{when}(fail)
"""

EXTENSION = """
import http.client
import json
import os
import signal
import threading
import time

from function import look, wait

def call(method, path, name=None, identifier=None, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    headers = {"Lambda-Extension-Name": name} if name else {"Lambda-Extension-Identifier": identifier}
    connection.request(method, "/2020-01-01/extension/" + path, json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("Lambda-Extension-Identifier"), json.loads(answer.read() or b"null")

def register(events, name="test"):
    return call("POST", "register", name=name, body={"events": events})

def ask(identifier):
    return call("GET", "event/next", identifier=identifier)

def register_late(event, context):
    return register([])

def live(identifier):
    while True:
        status, _, event = ask(identifier)
        print(event["eventType"], event["requestId"], flush=True)
        time.sleep(0.2)  # its work: the sandbox must not be frozen in it

def say_so(*_):
    print("SIGTERM", flush=True)
    if "STUBBORN" not in os.environ:
        os._exit(0)

refused = register(["INVOKE", "SHUTDOWN"])
unknown = ask("nobody")[0]
registered = register(["INVOKE"] if "TOLD" in os.environ else [])
again = register([])
threading.Thread(target=live, args=[registered[1]], daemon=True).start()
if "QUIET" not in os.environ:
    signal.signal(signal.SIGTERM, say_so)

def answers(event, context):
    return [refused[0], refused[2], unknown, again[0], registered[0], registered[2]]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A function's folder."""
    (tmp_path / "function.py").write_text(FUNCTION)
    (tmp_path / "snapshot.py").write_text(SNAPSHOT)
    (tmp_path / "extension.py").write_text(EXTENSION)
    for when in ("before_snapshot", "after_restore"):
        (tmp_path / f"failing_{when}.py").write_text(FAILING.format(when=when))
    return tmp_path


def state(pid: int) -> str:
    """What the kernel says of a process: R, S, T (stopped), Z, ..., or nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """A gate that is shut."""
    async with gates.gate() as gate:
        yield gate


@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency", "snap-start"])
async def test_a_function_is_told_how_its_sandbox_came_into_being(folder: Path, kind) -> None:
    """By Lambda's own variable."""
    async with LocalLambda("function.look", cwd=folder, initialization=kind) as sandbox:
        seen = (await sandbox.invoke()).payload["type"]

    assert seen == kind


@pytest.mark.parametrize("is_explicit", [True, False])
async def test_a_snapshot_is_taken_after_its_hooks_and_restored_once(folder: Path, is_explicit) -> None:
    """Frozen in between; the hooks after the restore run at the first invocation, or when asked for."""
    async with LocalLambda("snapshot.look", cwd=folder, initialization="snap-start") as sandbox:
        states = [state(sandbox.pid)]
        if is_explicit:
            await sandbox.restore()
            states.append(state(sandbox.pid))
        calls = [(await sandbox.invoke()).payload["calls"] for _ in range(2)]
        states.append(state(sandbox.pid))
        with pytest.raises(RuntimeError, match="no snapshot"):
            await sandbox.restore()

    assert calls == [["before", "after"]] * 2
    assert set(states) == {"T"}


async def test_the_hooks_after_a_restore_have_not_run_when_the_snapshot_is_taken(folder: Path) -> None:
    """Otherwise a snapshot that is never restored would look like one that is."""
    snapshot = SNAPSHOT + "register_before_snapshot(print, 'before')\nregister_after_restore(print, 'after')\n"
    (folder / "snapshot.py").write_text(snapshot)
    async with LocalLambda("snapshot.look", cwd=folder, initialization="snap-start") as sandbox:
        outputs = [sandbox.output]
        await sandbox.restore()
        outputs.append(sandbox.output)

    assert outputs == ["before\n", "before\nafter\n"]


async def test_a_hook_that_fails_is_an_init_error(folder: Path) -> None:
    """Before the snapshot it is one of entering, after the restore one of restoring."""
    with pytest.raises(InitError, match="ArithmeticError: this hook fails"):
        async with LocalLambda("failing_before_snapshot.look", cwd=folder, initialization="snap-start"):
            pass
    async with LocalLambda("failing_after_restore.look", cwd=folder, initialization="snap-start") as sandbox:
        with pytest.raises(InitError, match="ArithmeticError: this hook fails"):
            await sandbox.invoke()


async def test_a_managed_instance_handles_several_invocations_at_once_each_in_its_own_process(
    folder: Path, gate: Gate
) -> None:
    """None of them is ever stopped; one too many is refused."""
    async with LocalLambda("function.wait", cwd=folder, concurrency=3) as sandbox:
        invocations = [asyncio.create_task(sandbox.invoke(gate.port)) for _ in range(3)]
        await gate.visited(3)
        with pytest.raises(RuntimeError, match="handles 3 invocations at a time"):
            await sandbox.invoke(gate.port)
        gate.open()
        pids = {result.payload for result in await asyncio.gather(*invocations)}
        states = {state(pid) for pid in pids}

    assert len(pids) == 3
    assert sandbox.pid not in pids
    assert states <= {"R", "S"}


async def test_a_worker_that_passes_its_deadline_goes_on(folder: Path, gate: Gate) -> None:
    """Lambda reports the timeout and leaves the worker alone, and the others too."""
    async with LocalLambda("function.wait", cwd=folder, concurrency=2) as sandbox:
        late = asyncio.create_task(sandbox.invoke(gate.port, timeout=0.2))
        with pytest.raises(SandboxError, match=r"timed out after 0\.20 seconds"):
            await late
        invocations = [asyncio.create_task(sandbox.invoke(gate.port))]
        await gate.visited(2)
        gate.open()
        pids = {(await invocations[0]).payload}
        invocations = [asyncio.create_task(sandbox.invoke(gate.port)) for _ in range(2)]
        await gate.visited(2)  # the one that was late is of use again
        gate.open()
        pids |= {result.payload for result in await asyncio.gather(*invocations)}

    assert len(pids) == 2


async def test_workers_that_cannot_load_the_handler_are_one_init_error(folder: Path) -> None:
    """The first to say so is heard."""
    with pytest.raises(InitError, match="Handler 'missing' missing on module 'function'"):
        async with LocalLambda("function.missing", cwd=folder, concurrency=3):
            pass


async def test_everything_that_the_function_has_started_ends_with_it(folder: Path, gate: Gate) -> None:
    """Lambda destroys a machine, not a process: neither workers nor children stay."""
    async with LocalLambda("function.start_child", cwd=folder) as sandbox:
        child = os.pidfd_open((await sandbox.invoke()).payload)
    async with LocalLambda("function.look", cwd=folder, concurrency=2) as sandbox:
        worker = os.pidfd_open((await sandbox.invoke()).payload["pid"])

    for ended in (child, worker):
        assert select.select([ended], [], [], 20)[0]
        os.close(ended)


async def test_without_an_extension_there_is_no_sigterm(folder: Path) -> None:
    """It is killed where it stands."""
    async with LocalLambda("function.look", cwd=folder) as sandbox:
        await sandbox.invoke()

    assert sandbox.exit_code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("env", "exit_code", "output"),
    [
        ({}, 0, "SIGTERM\n"),
        ({"QUIET": "1"}, -signal.SIGTERM, ""),
        ({"STUBBORN": "1"}, -signal.SIGKILL, "SIGTERM\n"),
    ],
    ids=["one that leaves", "one that does not care", "one that stays"],
)
async def test_with_an_extension_there_is_a_sigterm_and_half_a_second(folder: Path, env, exit_code, output) -> None:
    """Thawed, or nothing would run; where the main thread is in Python while it waits, as from 3.12 on."""
    env = {**env, "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"}
    async with LocalLambda("extension.look", cwd=folder, env=env) as sandbox:
        await sandbox.invoke()
        frozen = state(sandbox.pid)
        await sandbox.shut_down()
        seen = sandbox.output

    assert frozen == "T"
    assert (sandbox.exit_code, seen) == (exit_code, output)


async def test_a_timeout_with_an_extension_is_an_end_with_a_sigterm_too(folder: Path, gate: Gate) -> None:
    """Lambda shuts the sandbox down; what was written until then is kept."""
    async with LocalLambda("extension.wait", cwd=folder) as sandbox:
        invocation = asyncio.create_task(sandbox.invoke(gate.port, timeout=1.0))
        await gate.visited(1)
        with pytest.raises(SandboxError, match="the task timed out after 1") as raised:
            await invocation

    assert raised.value.output == "SIGTERM\n"
    assert sandbox.exit_code == 0


async def test_the_sandbox_is_frozen_when_the_extension_waits_too(folder: Path) -> None:
    """An extension that is told of invocations has its share of the bill; it is told once for each."""
    async with LocalLambda("extension.look", cwd=folder, env={"TOLD": "1"}) as sandbox:
        results = [await sandbox.invoke() for _ in range(2)]
        frozen, output = state(sandbox.pid), sandbox.output

    assert frozen == "T"
    assert output.splitlines() == [f"INVOKE {result.request_id}" for result in results]
    assert min(result.billed_seconds - result.response_seconds for result in results) > 0.1


async def test_an_internal_extension_can_register_for_invocations_and_only_during_init(folder: Path) -> None:
    """It is a thread of the function: SHUTDOWN is for others, and who comes late is refused."""
    async with LocalLambda("extension.answers", cwd=folder, name="checkout") as sandbox:
        refused, why, unknown, again, registered, function = (await sandbox.invoke()).payload
    async with LocalLambda("extension.register_late", cwd=folder) as sandbox:
        late, *_ = (await sandbox.invoke()).payload

    assert (refused, unknown, again, registered, late) == (403, 403, 403, 200, 403)
    assert "is for ['INVOKE', 'SHUTDOWN']" in why["errorMessage"]
    assert function == {"functionName": "checkout", "functionVersion": "$LATEST", "handler": "extension.answers"}


async def test_an_extension_that_never_asks_for_an_event_holds_up_init(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INIT is over when everybody who has registered waits."""
    monkeypatch.setattr("examples.local_lambda.sandbox._INIT_SECONDS", 1.0)
    (folder / "silent.py").write_text(
        EXTENSION.replace("        status, _, event = ask(identifier)\n", "        return\n")
    )
    with pytest.raises(SandboxError, match="the handler was not loaded after 1"):
        async with LocalLambda("silent.look", cwd=folder):
            pass
