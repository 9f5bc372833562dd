from __future__ import annotations

import pytest

from examples.local_lambda import SandboxError
from tests.at_home.receiver import listening, silent

FUNCTION = """
import hashlib
import time
from emitter import Delivery, Emitter

metrics = Emitter(service="checkout", timeout=30.0)
orders = metrics.counter("orders")

@metrics.lambda_handler(connect=False)
def handle(event, context):
    orders.add()
    return event

@metrics.lambda_handler(connect=False)
async def handle_async(event, context):
    orders.add()
    return event

@metrics.lambda_handler(connect=False, delivery=Delivery.ANSWERED)
def until_answered(event, context):
    orders.add()
    return event

def without_decorator(event, context):
    orders.add()
    metrics.flush_sync()

guarded = metrics.lambda_handler(timeout_guard=True, timeout=0.25)

@guarded
def sleeps(event, context):
    orders.add()
    time.sleep(60)

@guarded
def computes_in_c(event, context):
    orders.add()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

@guarded
def spins(event, context):
    orders.add()
    while True:
        pass

@guarded
async def never_ends(event, context):
    orders.add()
    await asyncio.Event().wait()

@guarded
async def blocks_its_loop(event, context):
    orders.add()
    time.sleep(60)

@guarded
def in_time(event, context):
    orders.add()

@guarded
async def in_time_async(event, context):
    orders.add()
"""


@pytest.mark.parametrize("handler", ["handle", "handle_async"])
async def test_a_flush_leaves_the_runtime_the_time_to_hand_over_the_result(function, handler):
    """A budget of 30 s, an endpoint that says nothing, and 1 s until Lambda ends the invocation."""
    with silent() as endpoint:
        async with function(FUNCTION, endpoint, handler) as sandbox:
            result = await sandbox.invoke("event", timeout=1.0)
        async with function(FUNCTION, endpoint, "without_decorator") as sandbox:
            with pytest.raises(SandboxError, match="the task timed out"):  # or nothing would be shown above
                await sandbox.invoke(timeout=1.0)

    assert result.payload == "event"


async def test_so_does_one_that_waits_for_an_answer(function):
    """The report has arrived; what never comes is the answer."""
    async with (
        listening(answers=False) as receiver,
        function(FUNCTION, receiver.endpoint, "until_answered") as sandbox,
    ):
        result = await sandbox.invoke("event", timeout=1.0)
        await receiver.arrived(1)

    assert result.payload == "event"


@pytest.mark.parametrize("handler", ["sleeps", "computes_in_c", "spins", "never_ends", "blocks_its_loop"])
async def test_the_guard_reports_an_invocation_that_times_out_before_it_is_killed(function, receiver, handler):
    """The totals are there, with one timeout, whatever the handler is stuck in."""
    async with function(FUNCTION, receiver.endpoint, handler) as sandbox:
        with pytest.raises(SandboxError, match="the task timed out"):
            await sandbox.invoke(timeout=1.5)
        await receiver.arrived(1)
    (report,) = receiver.reports

    assert [report.value(name) for name in ("orders", "faas.timeouts", "faas.invocations")] == [1, 1, 0]


@pytest.mark.parametrize("handler", ["in_time", "in_time_async"])
async def test_the_guard_does_nothing_about_an_invocation_in_time(function, receiver, handler):
    """One report for each, and no timeout in any, however many have gone before."""
    async with function(FUNCTION, receiver.endpoint, handler) as sandbox:
        for number in range(1, 6):
            assert (await sandbox.invoke(timeout=10.0)).error is None
            await receiver.arrived(number)

    assert [report.value("orders") for report in receiver.reports] == [1, 2, 3, 4, 5]
    assert {report.value("faas.timeouts") for report in receiver.reports} == {0}
