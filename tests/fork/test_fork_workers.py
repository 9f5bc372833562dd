"""As Lambda's managed instances: a parent that begins, workers that are forked from it, and a receiver that adds up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.aggregator.serving import running
from tests.scripted_peer import PATIENCE
from tests.stepped_peer import SteppedPeer
from tests.tls import Authority

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

WORKERS, INVOCATIONS = 4, 30

SCRIPT = f"""
import asyncio, json, multiprocessing, os, signal
from emitter import Delivery, Emitter

signal.alarm(60)
metrics = Emitter(service="checkout", timeout=5)
orders = metrics.counter("orders")
sizes = metrics.histogram("sizes", boundaries=[5])
told = multiprocessing.get_context("fork").SimpleQueue()

@metrics.lambda_handler(delivery=Delivery.ANSWERED)
def handler(event, context):
    orders.add(event["amount"], worker=event["worker"])
    sizes.record(event["amount"])

@metrics.lambda_handler(delivery=Delivery.ANSWERED)
async def waits(event, context):
    await asyncio.sleep(0)
    orders.add(event["amount"], worker=event["worker"])
    sizes.record(event["amount"])

def work(number):
    for n in range({INVOCATIONS}):
        (handler if n % 2 else waits)({{"amount": number, "worker": str(number)}}, None)
    metrics.close_sync()
    told.put((metrics._registry.instance_id, metrics.stats.connections_opened, dict(metrics.stats.failed)))

for n in range(3):  # before there are workers, during INIT say
    handler({{"amount": 100, "worker": "parent"}}, None)
workers = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(1, {WORKERS} + 1)]
for worker in workers:
    worker.start()
work(10)
for worker in workers:
    worker.join()
print(json.dumps([[worker.exitcode for worker in workers], [told.get() for _ in range({WORKERS} + 1)]]))
"""

PARENT = 3 * 100 + 10 * INVOCATIONS
TOTALS = [PARENT, *(number * INVOCATIONS for number in range(1, WORKERS + 1))]


def work(endpoint: str, **environment: str) -> tuple[list[int], list[tuple[str, int, dict[str, int]]]]:
    """What the workers' exit codes were, and what each process says of itself."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "EMITTER_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    codes, told = json.loads(run.stdout)
    return codes, [tuple(each) for each in told]


async def test_an_aggregator_ends_with_exact_totals_over_a_parent_and_its_workers():
    """Each process is a sandbox, and their totals add up; no connection is used by two."""
    async with running() as aggregator:
        codes, told = await asyncio.to_thread(work, f"{aggregator.url}/v1/metrics")
        (service,) = await aggregator.totals()
    by_worker: dict[str, Any] = {
        each["attributes"].get("worker"): each["value"] for each in service["totals"] if each["name"] == "orders"
    }
    invocations = [each["value"] for each in service["totals"] if each["name"] == "faas.invocations"]

    assert codes == [0] * WORKERS
    assert len({instance for instance, _, _ in told}) == WORKERS + 1
    assert [(opened, failed) for _, opened, failed in told] == [(1, {})] * (WORKERS + 1)
    assert {name: value for name, value in by_worker.items() if name is not None} == {
        "parent": 300,
        **{str(number): number * INVOCATIONS for number in range(1, WORKERS + 1)},
        "10": 10 * INVOCATIONS,
    }
    assert sum(value or 0 for value in by_worker.values()) == sum(TOTALS)
    assert invocations == [3 + (WORKERS + 1) * INVOCATIONS]


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_each_process_has_one_connection_and_its_own_totals(kind, tmp_path: Path):
    """Over TLS as well, where two processes on one connection would break it at once."""
    authority = Authority()
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.pem)
    peer = SteppedPeer(authority.server() if kind == "tls" else None)
    with peer.going():
        codes, told = work(peer.endpoint, SSL_CERT_FILE=str(trusted))
    peer.close()

    assert codes == [0] * WORKERS
    assert sorted(peer.orders_of) == sorted(instance for instance, _, _ in told)
    assert sorted(peer.orders_of.values()) == sorted(TOTALS)
    assert peer.connections == WORKERS + 1
