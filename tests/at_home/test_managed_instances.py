from __future__ import annotations

import asyncio
import os

import pytest

FUNCTION = """
import os
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")

@metrics.lambda_handler
def handle(event, context):
    wait_at(event)
    orders.add()
    return os.getpid()

@metrics.lambda_handler
async def handle_async(event, context):
    await wait_at_async(event)
    orders.add()
    return os.getpid()
"""

WORKERS = 3


@pytest.mark.parametrize("handler", ["handle", "handle_async"])
async def test_each_worker_has_an_identity_of_its_own_and_their_totals_add_up(function, receiver, gate, handler):
    """They are forked processes of one sandbox: one file system, one log stream, and as many ids and connections."""
    pids = []
    async with function(FUNCTION, receiver.endpoint, handler, concurrency=WORKERS) as sandbox:
        await receiver.connected(WORKERS)
        for number in range(1, 4):
            invocations = [asyncio.create_task(sandbox.invoke(gate.port)) for _ in range(WORKERS)]
            await gate.visited(WORKERS)  # all of them at once, so each in a worker of its own
            gate.open()
            pids += [result.payload for result in await asyncio.gather(*invocations)]
            await receiver.arrived(number * WORKERS)
    orders: dict[str, list[int | None]] = {}
    cold_starts = []
    for report in receiver.reports:
        orders.setdefault(report.instance, []).append(report.value("orders"))
        cold_starts.append(report.value("faas.coldstarts"))

    assert len(set(pids)) == WORKERS
    assert sorted(orders.values()) == [[1, 2, 3]] * WORKERS
    assert set(cold_starts) == {1}
    assert [connection.reports for connection in receiver.connections] == [3] * WORKERS


async def test_an_emitter_that_was_made_before_the_fork_is_one_in_each_worker(function, receiver, gate, tmp_path):
    """The parent may have loaded the module, by way of `sitecustomize` say: its connection and totals stay its own."""
    made_before = FUNCTION.replace("@metrics.lambda_handler\n", "").replace("def handle", "def plain")
    (tmp_path / "sitecustomize.py").write_text("import early")
    (tmp_path / "early.py").write_text("from function import *\norders.add(10)\nconnected = metrics.connect_sync()\n")
    code = made_before + "\nhandle = metrics.lambda_handler(plain)\n"
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    async with function(code, receiver.endpoint, concurrency=2, env=env) as sandbox:
        invocations = [asyncio.create_task(sandbox.invoke(gate.port)) for _ in range(2)]
        await gate.visited(2)
        gate.open()
        results = await asyncio.gather(*invocations)
        await receiver.arrived(2)

    assert [result.error for result in results] == [None, None]
    assert len({report.instance for report in receiver.reports}) == 2
    assert [report.value("orders") for report in receiver.reports] == [1, 1]  # the 10 are the parent's
    assert sorted(connection.reports for connection in receiver.connections) == [0, 1, 1]
