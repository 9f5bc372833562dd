from __future__ import annotations

import asyncio
from statistics import median

import pytest

from examples.local_network import LocalNetwork, why_not
from tests.at_home.receiver import listening
from tests.tls import Authority

FUNCTION = """
from time import perf_counter, sleep
from emitter import Emitter

metrics = Emitter(service="checkout", timeout=5.0)
orders = metrics.counter("orders")

@metrics.lambda_handler
def handle(event, context):
    wait_at(event)
    orders.add()

@metrics.lambda_handler
async def handle_async(event, context):
    await wait_at_async(event)
    orders.add()

worked = 0.0

def work(event, context):
    global worked
    orders.add()
    started = perf_counter()
    sleep(0.2)  # four round trips
    worked = perf_counter() - started

decorated = metrics.lambda_handler(work)

def replaced_meanwhile(event, context):
    started = perf_counter()
    decorated(event, context)
    return perf_counter() - started - worked

def replaced_at_the_flush(event, context):
    started = perf_counter()
    work(event, context)
    metrics.flush_sync()
    return perf_counter() - started - worked
"""

ROUND_TRIP = 0.05


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trust(authority, tmp_path) -> dict[str, str]:
    """What makes a function trust the authority."""
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    return {"SSL_CERT_FILE": str(tmp_path / "authority.pem")}


@pytest.mark.parametrize("handler", ["handle", "handle_async"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_connection_that_was_closed_is_replaced_while_the_handler_works(
    function, gate, authority, trust, tls, handler
):
    """Handshake included, also where the handler blocks its thread; the flush then goes out over the new one."""
    server = authority.server() if tls else None
    async with (
        listening(tls=server) as receiver,
        function(FUNCTION, receiver.endpoint, handler, env=trust) as sandbox,
    ):
        for number in range(1, 4):
            invocation = asyncio.create_task(sandbox.invoke(gate.port))
            await gate.visited()
            await receiver.connected(number)  # while the handler waits at the gate
            gate.open()
            assert (await invocation).error is None
            await receiver.arrived(number)
            receiver.connections[-1].close()

    assert [connection.reports for connection in receiver.connections] == [1, 1, 1]
    assert [report.value("orders") for report in receiver.reports] == [1, 2, 3]


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_flush_after_a_hidden_reconnect_costs_no_round_trip(function, authority, trust, tls):
    """50 ms there and back, 200 ms of work: beside it, a flush that has to open the connection itself."""
    seconds = {}
    for handler in ("replaced_meanwhile", "replaced_at_the_flush"):
        async with LocalNetwork(round_trip=ROUND_TRIP) as network:
            server = authority.server(network.receiver.address) if tls else None
            async with (
                listening(tls=server, host=network.receiver) as receiver,
                function(FUNCTION, receiver.endpoint, handler, env=trust, machine=network.sandbox) as sandbox,
            ):
                flushes = []
                for number in range(1, 7):
                    flushes.append((await sandbox.invoke()).payload)
                    await receiver.arrived(number)
                    receiver.connections[-1].close()
                    await asyncio.sleep(2 * ROUND_TRIP)  # the way that its end takes through the network
                seconds[handler] = flushes[1:]
                connections = len(receiver.connections)

        assert connections == 6
    hidden, opening = (median(flushes) for flushes in seconds.values())

    assert min(seconds["replaced_at_the_flush"]) > ROUND_TRIP  # as long as light takes here
    assert hidden * 4 < opening, seconds
