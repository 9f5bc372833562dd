from __future__ import annotations

import gzip
import http.client
import json
import select
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emitter import Delivery, Emitter
from emitter.encode.json import JsonEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emitter.record.snapshot import Snapshot

RECEIVER = Path(__file__).parents[2] / "examples" / "json_receiver.py"
PATIENCE = 20.0
"""Seconds that a test waits at most for what should take milliseconds."""


class Receiver:
    """The example as a process: its address, and what it answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert select.select([process.stdout], [], [], PATIENCE)[0], "it does not start"
        self.url = process.stdout.readline().split()[3]  # ======== Running on http://127.0.0.1:8000 ========
        self.pid = process.pid

    @contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection of one's own."""
        connection = http.client.HTTPConnection(self.url.split("/")[2], timeout=PATIENCE)
        try:
            yield connection
        finally:
            connection.close()

    def post(self, *bodies: bytes, **headers: str) -> list[int]:
        """The answers to requests over one connection, each waited for."""
        statuses = []
        with self.connected() as connection:
            for body in bodies:
                connection.request("POST", "/", body, {"Content-Type": "application/json", **headers})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    def announce(self, length: str) -> int:
        """The answer to a request that has come as far as its head."""
        with self.connected() as connection:
            connection.putrequest("POST", "/")
            connection.putheader("Content-Length", length)
            connection.endheaders()
            return connection.getresponse().status

    def totals(self) -> dict[str, dict[str, float]]:
        """What it has added up: by service, by name and attributes."""
        with self.connected() as connection:
            connection.request("GET", "/")
            services: dict[str, dict[str, float]] = json.loads(connection.getresponse().read())
            return services


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A running one, on a free port."""
    with (
        tmp_path.joinpath("log").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-u", RECEIVER, "0"], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            yield Receiver(process)
        finally:
            process.kill()  # aiohttp would wait for connections that were left open
            process.wait(PATIENCE)


class Keeping(JsonEncoder):
    """Keeps a copy of each body."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def encode(self, snapshot: Snapshot) -> bytes:
        """As it is, and into the list, which copies of the encoder share."""
        self.bodies.append(super().encode(snapshot))
        return self.bodies[-1]


def flush(metrics: Emitter) -> None:
    """Get a report folded: the receiver answers afterwards."""
    assert metrics.flush_sync(timeout=PATIENCE, delivery=Delivery.ANSWERED).delivery is Delivery.ANSWERED


def value_of(totals: dict[str, float], name: str, **attributes: Any) -> float:
    """The total of one series."""
    return totals[f"{name} {json.dumps(attributes)}"]


def test_the_totals_of_several_sandboxes_are_exact(receiver: Receiver) -> None:
    """Two services, three sandboxes of the one; each kind of instrument; the connection stays open."""
    kept = [Keeping() for _ in range(4)]
    services = ("checkout", "checkout", "checkout", "billing")
    sandboxes = [
        Emitter(receiver.url, service=service, encoder=keeping) for service, keeping in zip(services, kept, strict=True)
    ]
    for turn in range(1, 4):
        for number, metrics in enumerate(sandboxes, start=1):
            metrics.counter("orders").add(10**number, channel="web")
            metrics.counter("orders").add(0.5, channel="app")
            metrics.up_down_counter("open").add(-number)
            metrics.gauge("heat").set(turn)
            metrics.histogram("sizes", boundaries=[1, 2]).record(number)
            flush(metrics)
    totals = receiver.totals()

    assert set(totals) == {"checkout", "billing"}
    checkout = totals["checkout"]
    assert value_of(checkout, "orders") == 0
    assert value_of(checkout, "orders", channel="web") == 3 * 1_110
    assert value_of(checkout, "orders", channel="app") == 4.5
    assert value_of(checkout, "open") == -18
    assert value_of(checkout, "emitter.flushes") == 9
    assert value_of(checkout, "sizes") == 9
    assert "heat {}" not in checkout
    assert value_of(totals["billing"], "orders", channel="web") == 30_000
    assert [metrics.stats.connections_opened for metrics in sandboxes] == [1, 1, 1, 1]
    assert {status for metrics in sandboxes for status in metrics.stats.verdicts} == {204}

    # And now all of it again, the oldest last; plain, packed, and each twice over.
    late = [body for keeping in kept for body in reversed(keeping.bodies)]
    assert receiver.post(*late, *late) == [204] * 24
    assert receiver.post(*map(gzip.compress, late), **{"Content-Encoding": "gzip"}) == [204] * 12
    assert receiver.totals() == totals
    for metrics in sandboxes:
        metrics.close_sync()


def test_a_lost_report_is_made_up_for_by_the_next(receiver: Receiver) -> None:
    """What was encoded and never arrived is in what comes after it, and changes nothing when it arrives late."""
    keeping = Keeping()
    metrics = Emitter(receiver.url, service="checkout", encoder=keeping)
    for _ in range(3):
        metrics.counter("orders").add(1, channel="web")
        keeping.encode(metrics._registry.snapshot())
    first, lost, last = keeping.bodies

    for bodies, orders in (((first,), 1), ((last,), 3), ((lost, first), 3)):
        assert receiver.post(*bodies) == [204] * len(bodies)
        assert value_of(receiver.totals()["checkout"], "orders", channel="web") == orders


def test_a_large_report_comes_in_several_requests_or_packed(receiver: Receiver) -> None:
    """Divided, its parts have one sequence and other series; together they are as exact as one."""
    divided, packed = Keeping(), Keeping()
    sandboxes = [
        Emitter(receiver.url, service="checkout", encoder=divided, report_limit_bytes=10_000),
        Emitter(receiver.url, service="checkout", encoder=packed),
    ]
    for metrics in sandboxes:
        for number in range(300):
            metrics.counter("orders").add(number, number=number)
        flush(metrics)
        metrics.close_sync(timeout=PATIENCE)  # once the answers to all parts are there
    totals = receiver.totals()["checkout"]

    assert [value_of(totals, "orders", number=number) for number in range(300)] == [2 * number for number in range(300)]
    parts = [json.loads(body) for body in divided.bodies if len(body) <= 10_000]
    numbers = [
        total["attributes"]["number"]
        for part in parts
        for total in part["totals"]
        if part["sequence"] == 1 and total["name"] == "orders" and total["attributes"]
    ]
    assert sum(part["sequence"] == 1 for part in parts) > 1
    assert numbers == [*range(300)]
    whole = packed.bodies[0]
    assert sandboxes[1].stats.bytes < len(whole) / 2


def test_what_is_no_report_is_refused_and_changes_nothing(receiver: Receiver) -> None:
    """Garbage, deltas, another version, a length that is none or too much: 400, and the next one is taken."""
    keeping = Keeping()
    metrics = Emitter(receiver.url, service="checkout", encoder=keeping)
    metrics.counter("orders").add(5, channel="web")
    flush(metrics)
    totals = receiver.totals()
    report = json.loads(keeping.bodies[0]) | {"sequence": 9}
    deltas = json.dumps(report | {"temporality": "delta"}).encode()
    refused = [
        b"",
        b"[]",
        b"nothing",
        b"\xff",
        b"[" * 100_000,
        b'{"version":1}',
        deltas,
        json.dumps(report | {"version": 2}).encode(),
    ]

    for body in refused:
        assert receiver.post(body) == [400]
    for length in ("-1", "many"):
        assert receiver.announce(length) == 400
    assert receiver.post(bytes(9 << 20)) == [413]
    assert receiver.post(keeping.bodies[0][:100], **{"Content-Encoding": "gzip"}) == [400]  # it is not
    assert receiver.totals() == totals
    metrics.counter("orders").add(5, channel="web")
    flush(metrics)
    assert value_of(receiver.totals()["checkout"], "orders", channel="web") == 10
    metrics.close_sync()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory a process has had")
def test_a_bomb_is_not_unpacked(receiver: Receiver) -> None:
    """256 MiB of zeros in 256 KiB: the process never holds them all."""
    bomb = gzip.compress(bytes(1 << 28))

    assert receiver.post(bomb, **{"Content-Encoding": "gzip"}) == [413]
    status = Path(f"/proc/{receiver.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 200 << 10  # KiB
