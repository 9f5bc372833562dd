from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.at_home.receiver import refusing, silent

FUNCTION = """
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")

@metrics.lambda_handler
def handle(event, context):
    orders.add()
    return event

@metrics.lambda_handler
async def handle_async(event, context):
    orders.add()
    return event
"""

WITHOUT = FUNCTION.replace("@metrics.lambda_handler\n", "@metrics.lambda_handler(connect=False)\n")

both = pytest.mark.parametrize("handler", ["handle", "handle_async"])


@both
@pytest.mark.parametrize("initialization", ["on-demand", "provisioned-concurrency"])
async def test_the_decorator_connects_before_the_first_invocation(function, receiver, initialization, handler):
    """The receiver sees the connection while the sandbox stands still, and the first report comes over it."""
    async with function(FUNCTION, receiver.endpoint, handler, initialization=initialization) as sandbox:
        await receiver.connected(1)
        before = len(receiver.reports)
        result = await sandbox.invoke("event")
        await receiver.arrived(1)

    assert before == 0
    assert result.payload == "event"
    assert [connection.reports for connection in receiver.connections] == [1]


@pytest.mark.parametrize(
    ("code", "initialization"), [(WITHOUT, "on-demand"), (FUNCTION, "snap-start")], ids=["connect=False", "SnapStart"]
)
async def test_nobody_connects_who_should_not(function, receiver, code, initialization):
    """Not if it is not wanted, and not where a snapshot of a connection would be of no use to anyone."""
    async with function(code, receiver.endpoint, initialization=initialization) as sandbox:
        await receiver.all_accepted()
        before = len(receiver.connections)
        await sandbox.invoke()
        await receiver.arrived(1)

    assert before == 0
    assert len(receiver.connections) == 1


async def test_outside_lambda_importing_a_function_connects_to_nothing(function, receiver, tmp_path):
    """A unit test imports it; a call then flushes as ever, with whatever stands in for the context."""
    function(FUNCTION, receiver.endpoint)
    env = {**os.environ, "EMITTER_ENDPOINT": receiver.endpoint}

    async def run(code: str) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path, env=env)
        assert await asyncio.wait_for(process.wait(), 20) == 0

    await run("import function")
    await receiver.all_accepted()
    imported = len(receiver.connections)
    await run("import function\nassert function.handle(1, None) == function.handle_async(1, object()) == 1")
    await receiver.arrived(2)

    assert imported == 0
    assert receiver.reports[-1].value("orders") == 2


@both
async def test_a_receiver_that_is_down_during_init_breaks_nothing(function, handler):
    """The handler is loaded and works; the log says once that reports do not get through."""
    async with function(FUNCTION, refusing(), handler) as sandbox:
        payloads = [(await sandbox.invoke(number)).payload for number in range(3)]
        log = sandbox.output

    assert payloads == [0, 1, 2]
    assert log.count("Connection refused") == 1, log


@both
async def test_a_receiver_that_says_nothing_during_init_delays_it_by_a_bounded_time(function, handler):
    """INIT has 10 s in all, which `LocalLambda` holds it to; the invocations then have their budget."""
    with silent() as endpoint:
        async with function(FUNCTION, endpoint, handler) as sandbox:
            payloads = [(await sandbox.invoke(number)).payload for number in range(3)]

    assert payloads == [0, 1, 2]


async def test_a_connection_that_ended_long_before_the_first_invocation_is_replaced(function, receiver, gate):
    """With provisioned concurrency hours may lie in between: the receiver has long closed what INIT had opened."""
    code = FUNCTION.replace("    orders.add()\n", "    wait_at(event)\n    orders.add()\n", 1)
    async with function(code, receiver.endpoint, initialization="provisioned-concurrency") as sandbox:
        await receiver.connected(1)
        receiver.connections[0].close()
        invocation = asyncio.create_task(sandbox.invoke(gate.port))
        await gate.visited()
        await receiver.connected(2)  # while the handler works
        gate.open()
        result = await invocation
        await receiver.arrived(1)

    assert result.error is None
    assert [connection.reports for connection in receiver.connections] == [0, 1]
    assert receiver.reports[0].value("faas.coldstarts") == 1
