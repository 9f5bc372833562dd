from __future__ import annotations

import pytest

from tests.at_home.receiver import listening, refusing, silent

FUNCTION = """
import os
from emitter import Emitter

business = Emitter(os.environ["BUSINESS"], service="shop")
technical = Emitter(os.environ["TECHNICAL"], service="checkout")
orders = business.counter("orders")
retries = technical.counter("retries")

@business.lambda_handler
@technical.lambda_handler
def handle(event, context):
    orders.add()
    retries.add(2)
    return event

@technical.lambda_handler
@business.lambda_handler
async def handle_async(event, context):
    orders.add()
    retries.add(2)
    return event

@business.lambda_handler
@technical.lambda_handler
def fail(event, context):
    raise LookupError("no such order: 17")
"""

both = pytest.mark.parametrize("handler", ["handle", "handle_async"])


@both
async def test_stacked_decorators_report_each_to_its_own_receiver(function, handler):
    """Each its own instruments and its own count of invocations, over its own connection."""
    async with listening() as business, listening() as technical:
        env = {"BUSINESS": business.endpoint, "TECHNICAL": technical.endpoint}
        async with function(FUNCTION, "http://nobody.invalid/", handler, env=env) as sandbox:
            payloads = []
            for number in range(1, 4):
                payloads.append((await sandbox.invoke(number)).payload)
                await business.arrived(number)
                await technical.arrived(number)

    assert payloads == [1, 2, 3]
    assert [report.value("orders") for report in business.reports] == [1, 2, 3]
    assert [report.value("retries") for report in technical.reports] == [2, 4, 6]
    assert {report.value("retries") for report in business.reports} == {None}
    for receiver in (business, technical):
        assert [report.value("faas.invocations") for report in receiver.reports] == [1, 2, 3]
        assert [report.value("faas.coldstarts") for report in receiver.reports] == [1, 1, 1]
        assert len(receiver.connections) == 1


@pytest.mark.parametrize("down", ["BUSINESS", "TECHNICAL"])
@pytest.mark.parametrize("how", ["refusing", "silent"])
@both
async def test_one_that_is_down_does_not_hurt_the_other(function, receiver, handler, how, down):
    """Whether it is the inner or the outer one, and whether it refuses or says nothing."""
    (up,) = {"BUSINESS", "TECHNICAL"} - {down}
    with silent() as nobody:
        env = {up: receiver.endpoint, down: refusing() if how == "refusing" else nobody}
        async with function(FUNCTION, "http://nobody.invalid/", handler, env=env) as sandbox:
            payloads = []
            for number in range(1, 4):
                payloads.append((await sandbox.invoke(number)).payload)
                await receiver.arrived(number)

    assert payloads == [1, 2, 3]
    assert [report.value("faas.invocations") for report in receiver.reports] == [1, 2, 3]


async def test_what_a_handler_raises_goes_through_both(function):
    """Unchanged, and counted by each."""
    async with listening() as business, listening() as technical:
        env = {"BUSINESS": business.endpoint, "TECHNICAL": technical.endpoint}
        async with function(FUNCTION, "http://nobody.invalid/", "fail", env=env) as sandbox:
            error = (await sandbox.invoke()).error
            await business.arrived(1)
            await technical.arrived(1)

    assert (error.type, error.message) == ("LookupError", "no such order: 17")
    assert business.reports[0].value("faas.errors") == technical.reports[0].value("faas.errors") == 1
