"""Signed and awaited reports are made in the same sandboxes as all others."""

from __future__ import annotations

import pytest

from tests.at_home.receiver import Report
from tests.sigv4.servers import verifying
from tests.sigv4.verifier import Account

REGION = "eu-central-1"
ROLE = Account("AKIDEXAMPLE", "a-secret", "a-token")

SIGNED = """
from emitter import Emitter
from emitter.sigv4 import SigV4

metrics = Emitter(service="checkout", signer=SigV4("execute-api"))
orders = metrics.counter("orders")

@metrics.lambda_handler
def handle(event, context):
    orders.add()
    return event
"""

AWAITED = """
from emitter import Emitter
from emitter.awaited import AwaitedEmitter

metrics = Emitter(service="checkout")
awaited = AwaitedEmitter(service="ledger")
bookings = awaited.counter("bookings")

@metrics.lambda_handler
async def handle(event, context):
    bookings.add()
    flush = await awaited.flush()
    return [verdict.status for verdict in flush.verdicts]
"""


@pytest.mark.parametrize("initialization", ["on-demand", "snap-start"])
async def test_each_report_of_a_sandbox_is_signed(function, initialization):
    """With the credentials of the function's role, as Lambda gives them; after a restore too."""
    role = {
        "AWS_ACCESS_KEY_ID": ROLE.access_key,
        "AWS_SECRET_ACCESS_KEY": ROLE.secret_key,
        "AWS_SESSION_TOKEN": ROLE.token,
    }
    with verifying("execute-api", REGION, [ROLE]) as server:
        options = {"env": role, "initialization": initialization}
        async with function(SIGNED, f"{server.url}/v1/metrics", **options) as sandbox:
            payloads = [(await sandbox.invoke(number)).payload for number in range(3)]
            output = sandbox.output

    assert payloads == [0, 1, 2]
    assert output == ""
    assert [arrival.refusal for arrival in server.arrivals] == [None] * 3
    assert [Report(arrival.body).value("orders") for arrival in server.arrivals] == [1, 2, 3]


async def test_a_handler_may_wait_for_the_answer_to_a_report(function, receiver):
    """On one connection that outlives every freeze, since the handler's loop does; beside the report at its end."""
    async with function(AWAITED, receiver.endpoint) as sandbox:
        results = [await sandbox.invoke() for _ in range(3)]
        await receiver.arrived(6)

    assert [result.error for result in results] == [None] * 3
    assert [result.payload for result in results] == [[200]] * 3
    bookings = [report.value("bookings") for report in receiver.reports]
    assert [each for each in bookings if each is not None] == [1, 2, 3]
    assert len(receiver.connections) == 2
