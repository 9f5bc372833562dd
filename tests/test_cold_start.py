"""What a cold start pays for: everything is imported in the INIT phase, and no invocation ever waits for an import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emitter.encode import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
PEER = Path(__file__).parent / "benchmarks" / "peer.py"

FUNCTION = """
import asyncio, json, sys
import emitter
metrics = emitter.Emitter(sys.argv[1], service="cold", timeout=5.0, {more})
orders = metrics.counter("orders")
stock = metrics.up_down_counter("stock")
load = metrics.gauge("load")
payment = metrics.histogram("payment.duration", unit="s")

def record():
    orders.add(1, channel="web")
    stock.add(-1)
    load.set(0.5, {{"host.name": "here"}})
    with payment.time(provider="acme"):
        pass
    for number in range({series}):
        orders.add(1, number=number)

@metrics.lambda_handler({arguments})
{handler}

imported = set(sys.modules)
handler({{}}, None)
record()
metrics.flush_sync(delivery=emitter.Delivery.ANSWERED)
handler({{}}, None)
metrics.close_sync()
late = sorted(set(sys.modules) - imported)
print(json.dumps([late, metrics.stats.transmitted >= 3, list(metrics.stats.failed)]))
"""
SYNCHRONOUS = "def handler(event, context):\n    record()"
ASYNCHRONOUS = "async def handler(event, context):\n    record()\n    await asyncio.sleep(0)"


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Iterator[dict]:
    """Where it listens, and where the certificate of its authority is kept."""
    command = [sys.executable, str(PEER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            authority = tmp_path_factory.mktemp("trusted") / "authority.pem"
            authority.write_text(told["authority"])
            yield {**told, "authority": authority}
        finally:
            process.terminate()


def imported_late(url: str, peer: dict, *, more="", series=0, arguments="", handler=SYNCHRONOUS, **environment) -> list:
    """What a function imports after its INIT phase, whether its reports were transmitted, and what has failed."""
    code = FUNCTION.format(more=more, series=series, arguments=arguments, handler=handler)
    child = subprocess.run(
        [sys.executable, "-c", code, url],
        env={**os.environ, "SSL_CERT_FILE": str(peer["authority"]), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not child.returncode, child.stderr
    return json.loads(child.stdout)


def urls(peer: dict) -> dict[str, str]:
    return {
        "plain": f"http://127.0.0.1:{peer['plain']}/v1/metrics",
        "TLS": f"https://127.0.0.1:{peer['tls']}/v1/metrics",
        "closing": f"https://127.0.0.1:{peer['tls_closing']}/v1/metrics",
        "name": f"http://localhost:{peer['plain']}/v1/metrics",
    }


@pytest.mark.parametrize("init", ["", "on-demand", "snap-start"])
@pytest.mark.parametrize("kind", ["plain", "name", "TLS", "closing"])
def test_no_invocation_imports_anything(peer, kind, init):
    """Whether the connection was opened in INIT, is opened by the first flush, or has to be opened again."""
    # Otherwise a report could be on its way to somebody who has just closed.
    arguments = "delivery=emitter.Delivery.ANSWERED" if kind == "closing" else ""
    late = imported_late(urls(peer)[kind], peer, arguments=arguments, AWS_LAMBDA_INITIALIZATION_TYPE=init)

    assert late == [[], True, []]


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_no_encoder_imports_anything_in_an_invocation(peer, encoder):
    """Nor does a report that is put into gzip."""
    late = imported_late(urls(peer)["plain"], peer, more=f"encoder={encoder!r}", series=1_000)

    assert late == [[], True, []]


@pytest.mark.parametrize(
    "options",
    [
        {"handler": ASYNCHRONOUS},
        {"arguments": "timeout_guard=True"},
        {"arguments": "flush_at_sigterm=True"},
        {"more": "temporality='delta'"},
        {"more": "report_limit_bytes=65_536, compress=False", "series": 1_999},
    ],
    ids=["async handler", "guard", "SIGTERM", "deltas", "a divided report"],
)
def test_no_way_of_use_imports_anything_in_an_invocation(peer, options):
    """Whatever is asked for is loaded when it is asked for."""
    late = imported_late(urls(peer)["TLS"], peer, **options)

    assert late == [[], True, []]


def test_an_outage_imports_nothing_in_an_invocation(peer):
    """Neither the errors nor the lines of the log."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}/v1/metrics"
    late = imported_late(url, peer)

    assert late == [[], False, ["connect"]]
