from __future__ import annotations

import time

import pytest

FUNCTION = """
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")
models = metrics.counter("models_loaded")
models.add(3)

@metrics.lambda_handler
def handle(event, context):
    orders.add()
    return event

@metrics.lambda_handler
async def handle_async(event, context):
    orders.add()
    return event
"""

both = pytest.mark.parametrize("handler", ["handle", "handle_async"])


async def test_before_the_snapshot_the_connection_is_closed_in_order(function, receiver):
    """What INIT has recorded is reported, and the receiver sees the end, no reset, while the snapshot lies there."""
    async with function(FUNCTION, receiver.endpoint, initialization="snap-start"):
        await receiver.arrived(1)
        await receiver.ended(receiver.connections[0])

    assert [connection.end for connection in receiver.connections] == ["in order"]
    assert [report.value("models_loaded") for report in receiver.reports] == [3]


async def test_after_the_restore_there_is_a_fresh_connection_before_the_first_invocation(function, receiver):
    """The hook has it opened by a thread, which no freeze holds up: what is restored is restored for an invocation."""
    async with function(FUNCTION, receiver.endpoint, initialization="snap-start", freeze=False) as sandbox:
        await receiver.all_accepted()
        before = len(receiver.connections)
        await sandbox.restore()
        await receiver.connected(2)
        reports = len(receiver.reports)
        await sandbox.invoke()
        await receiver.arrived(2)

    assert before == 1
    assert reports == 1
    assert [connection.reports for connection in receiver.connections] == [1, 1]


@both
async def test_a_restored_sandbox_is_a_new_one(function, receiver, handler):
    """New id, new start time, totals from zero: nothing that INIT has reported is reported again."""
    async with function(FUNCTION, receiver.endpoint, handler, initialization="snap-start") as sandbox:
        await receiver.arrived(1)
        restored = time.time()
        payloads = []
        for number in range(3):
            payloads.append((await sandbox.invoke(number)).payload)
            await receiver.arrived(number + 2)
    before, *after = receiver.reports

    assert payloads == [0, 1, 2]
    assert len({report.instance for report in after}) == 1
    assert before.instance != after[0].instance
    assert before.started("orders") < restored <= after[0].started("orders")
    assert {report.started("orders") for report in after} == {after[0].started("orders")}
    assert [report.value("orders") for report in after] == [1, 2, 3]
    assert {report.value("models_loaded") for report in after} == {0}
    assert [report.value("emitter.flushes") for report in after] == [1, 2, 3]


async def test_the_first_invocation_after_a_restore_is_the_cold_start(function, receiver):
    """One, not one of INIT and one of the restore."""
    async with function(FUNCTION, receiver.endpoint, initialization="snap-start") as sandbox:
        for number in range(3):
            await sandbox.invoke()
            await receiver.arrived(number + 2)

    assert [report.value("faas.coldstarts") for report in receiver.reports] == [0, 1, 1, 1]


@both
async def test_a_receiver_that_is_gone_after_the_restore_breaks_nothing(function, receiver, handler, tmp_path):
    """The hook that finds nobody does not end the sandbox."""
    async with function(FUNCTION, receiver.endpoint, handler, initialization="snap-start") as sandbox:
        await receiver.arrived(1)
        await receiver.stop()
        results = [await sandbox.invoke(number) for number in range(3)]
        log = sandbox.output

    assert [result.payload for result in results] == [0, 1, 2]
    assert log.count("Connection refused") == 1, log
