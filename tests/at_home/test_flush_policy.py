from __future__ import annotations

import asyncio
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from examples.local_lambda import SandboxError

EXAMPLES = Path(__file__).parents[2] / "examples"

FUNCTION = """
import os
import signal
import sys
from emitter import Emitter, termination

termination.PATIENCE = 20.0  # nothing hangs on how quick a machine is

if "EXTENSION" in os.environ:
    sys.path.append(os.environ["EXTENSION"])
    from internal_extension import register_extension
    assert register_extension()

def on_sigterm(number, frame):
    print("the handler of before", flush=True)
    os._exit(0)  # a SystemExit would wait for the runtime client's thread, on Python 3.13

if "HANDLED" in os.environ:
    signal.signal(signal.SIGTERM, on_sigterm)

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")
policy = metrics.lambda_handler(every=float(os.environ["EVERY"]), flush_at_sigterm=True)

@policy
def handle(event, context):
    orders.add()

@policy
async def handle_async(event, context):
    orders.add()

@policy
def waits(event, context):
    orders.add()
    wait_at(event)

@policy
def counts_on(event, context):
    while True:
        orders.add()
"""

NEVER = {"EVERY": "1000"}
EXTENDED = {**NEVER, "EXTENSION": str(EXAMPLES)}
LISTENS = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"}
"""By it the runtime client knows that it may wait in a thread, so that the main thread hears signals; from 3.12 on."""
DEAF = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"}
"""Here it waits in C code in the main thread."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """From SIGTERM to SIGKILL there is more time than in Lambda, so that nothing hangs on how quick a machine is."""
    monkeypatch.setattr("examples.local_lambda.sandbox._SHUTDOWN_SECONDS", 20.0)


both = pytest.mark.parametrize("handler", ["handle", "handle_async"])


@both
async def test_while_invocations_keep_coming_a_report_goes_out_once_in_an_interval(function, receiver, handler):
    """None earlier, and each with all that was recorded until then: nothing is lost by waiting."""
    invocations, until = 0, time.monotonic() + 20
    async with function(FUNCTION, receiver.endpoint, handler, env={"EVERY": "0.3"}) as sandbox:
        while len(receiver.reports) < 3 and time.monotonic() < until:
            assert (await sandbox.invoke()).error is None
            invocations += 1
    orders = [report.value("orders") for report in receiver.reports]
    made = [report.made("orders") for report in receiver.reports]

    assert len(orders) == 3 < invocations
    assert orders[0] == 1 < orders[1] < orders[2] <= invocations
    # Both clocks are read for the interval, and one of them a moment before the other.
    assert min(later - earlier for earlier, later in pairwise(made)) > 0.29


@both
async def test_sigterm_flushes_what_the_interval_kept_back_and_calls_the_handler_of_before(function, receiver, handler):
    """Between invocations, where the main thread is in Python meanwhile; the process ends as that handler says."""
    env = {**EXTENDED, **LISTENS, "HANDLED": "1"}
    async with function(FUNCTION, receiver.endpoint, handler, env=env) as sandbox:
        for _ in range(3):
            await sandbox.invoke()
        await receiver.arrived(1)
        before = [report.value("orders") for report in receiver.reports]
        await sandbox.shut_down()
        await receiver.arrived(2)
        output, exit_code = sandbox.output, sandbox.exit_code

    assert before == [1]
    assert [report.value("orders") for report in receiver.reports] == [1, 3]
    assert output == "the handler of before\n"
    assert exit_code == 0


async def test_without_a_handler_of_before_sigterm_ends_the_process_after_the_flush(function, receiver):
    """As it would have without us."""
    async with function(FUNCTION, receiver.endpoint, env={**EXTENDED, **LISTENS}) as sandbox:
        for _ in range(3):
            await sandbox.invoke()
        await sandbox.shut_down()
        await receiver.arrived(2)

    assert receiver.reports[-1].value("orders") == 3
    assert sandbox.exit_code == -signal.SIGTERM


async def test_on_python_3_11_between_invocations_sigterm_flushes_and_calls_nobody(function, receiver, monkeypatch):
    """The main thread waits in C and runs no handler until it is killed; the flush needs no main thread."""
    monkeypatch.setattr("examples.local_lambda.sandbox._SHUTDOWN_SECONDS", 3.0)  # all of it passes
    env = {**EXTENDED, **DEAF, "HANDLED": "1"}
    async with function(FUNCTION, receiver.endpoint, env=env) as sandbox:
        for _ in range(3):
            await sandbox.invoke()
        await sandbox.shut_down()
        output, exit_code = sandbox.output, sandbox.exit_code
        await receiver.arrived(2)

    assert (output, exit_code) == ("", -signal.SIGKILL)
    assert [report.value("orders") for report in receiver.reports] == [1, 3]


@pytest.mark.parametrize("env", [LISTENS, DEAF], ids=["3.12", "3.11"])
async def test_while_a_handler_runs_sigterm_is_heard_on_any_python(function, receiver, gate, env):
    """It is what a timeout begins with, if there is an extension: an order that no report has told is not lost."""
    async with function(FUNCTION, receiver.endpoint, "waits", env={**EXTENDED, **env, "HANDLED": "1"}) as sandbox:
        invocation = asyncio.create_task(sandbox.invoke(gate.port, timeout=1.0))
        await gate.visited()
        with pytest.raises(SandboxError, match="the task timed out") as raised:
            await invocation
        await receiver.arrived(1)

    assert [report.value("orders") for report in receiver.reports] == [1]
    assert raised.value.output == "the handler of before\n"


async def test_a_signal_in_the_middle_of_a_recording_waits_for_nobody(function, receiver):
    """It interrupts whatever the main thread does, most of the time inside `add`; the flush has a thread of its own."""
    async with function(FUNCTION, receiver.endpoint, "counts_on", env={**EXTENDED, "HANDLED": "1"}) as sandbox:
        with pytest.raises(SandboxError, match="the task timed out") as raised:
            await sandbox.invoke(timeout=2.0)  # by then the handler counts, however busy the machine is
        await receiver.arrived(1)

    assert receiver.reports[0].value("orders") > 1000
    assert raised.value.output == "the handler of before\n"


async def test_without_an_extension_what_was_kept_back_ends_with_the_sandbox(function, receiver):
    """Lambda gives no signal then, whoever would listen."""
    async with function(FUNCTION, receiver.endpoint, env={**NEVER, **LISTENS, "HANDLED": "1"}) as sandbox:
        for _ in range(3):
            await sandbox.invoke()
        await sandbox.shut_down()
        output, exit_code = sandbox.output, sandbox.exit_code

    assert (output, exit_code) == ("", -signal.SIGKILL)
    assert [report.value("orders") for report in receiver.reports] == [1]
