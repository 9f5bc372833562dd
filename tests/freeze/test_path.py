"""An emitter on a real path: longer than the budget, or gone without a word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

from emitter import ConnectError, Delivery, Emitter
from emitter.outcomes import Flush, Withheld
from emitter.transmit.connection import SILENCE
from examples.local_network import LocalNetwork, why_not
from tests.freeze.receiver import Receiver
from tests.tls import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


class Path:
    """An emitter in the sandbox's namespace and a receiver in its own, with a path between them."""

    def __init__(self, network: LocalNetwork, receiver: Receiver, metrics: Emitter) -> None:
        self.network = network
        self.receiver = receiver
        self.metrics = metrics
        self.orders = metrics.counter("orders")

    async def invoke(self, work_seconds: float = 0.0, **options) -> Flush:
        """An invocation that takes a while, counts one order and flushes."""
        await asyncio.sleep(work_seconds)  # what the handler does; how long a budget lasts is looked at beside it
        self.orders.add()
        return await asyncio.to_thread(self.network.sandbox.run, lambda: self.metrics.flush_sync(**options))


@contextlib.asynccontextmanager
async def path(*, round_trip: float, tls: bool = False, **settings) -> AsyncIterator[Path]:
    authority = Authority()
    async with LocalNetwork(round_trip=round_trip) as network:
        server = authority.server(network.receiver.address) if tls else None
        async with Receiver(network.receiver, tls=server) as receiver:
            client = {"ssl_context": authority.client()} if tls else {}
            metrics = Emitter(receiver.endpoint, service="path", compress=False, **settings, **client)
            try:
                yield Path(network, receiver, metrics)
            finally:  # what a failed test left open would be laid at the door of another
                await asyncio.to_thread(network.sandbox.run, lambda: metrics.close_sync(timeout=2.0))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_budget_below_the_round_trip_delivers_after_a_few_flushes(tls, caplog):
    """Instead of never: what the budget cuts short is kept; the log says once what was measured beside the budget."""
    caplog.set_level(logging.INFO, logger="emitter")
    # Many invocations long, also where each is held up; and with TLS, twice that is less than the back-off.
    async with path(round_trip=0.25, tls=tls, timeout=0.02) as slow:
        slow.metrics._flusher._network._jitter = lambda: 1.0  # so that only the first flush spends its whole budget
        flushes = []
        while not flushes or flushes[-1].delivery is None:
            flushes.append(await slow.invoke(0.02))
            assert len(flushes) < 100
        await slow.invoke(0.2, timeout=5.0, delivery=Delivery.ANSWERED)
    advice = [message for message in caplog.messages if "3 flushes in a row" in message]

    assert flushes[-1].delivery is Delivery.TRANSMITTED
    assert isinstance(flushes[0].error, ConnectError)
    assert {flush.withheld for flush in flushes[1:-1]} == {Withheld.BACKING_OFF}
    assert slow.receiver.reports[-1].orders == len(flushes) + 1
    assert len(slow.receiver.connections) == 1
    assert len(advice) == 1
    assert "The budget is 20 ms" in advice[0]
    assert "and nothing has come back in " in advice[0]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_path_that_is_gone_without_a_word_costs_one_report(tls):
    """The write succeeds and is lost; the next flush sees that nothing was acknowledged, and all is right again."""
    # So long that no acknowledgement of what TCP transmits again is back before that flush looks.
    async with path(round_trip=0.1, tls=tls, timeout=5.0) as silent:
        first = await silent.invoke(delivery=Delivery.ANSWERED)
        await silent.network.shape(out={"drop_every": 1})
        lost = await silent.invoke()
        # The path is gone for longer than any TCP may keep an acknowledgement back, and the round trips as measured.
        await asyncio.sleep(SILENCE + 5 * silent.metrics._flusher._link.connection.round_trip)
        await silent.network.shape(out={"drop_every": 0})
        after = await silent.invoke(delivery=Delivery.ANSWERED)

        assert (first.delivery, lost.delivery, after.delivery) == (
            Delivery.ANSWERED,
            Delivery.TRANSMITTED,
            Delivery.ANSWERED,
        )
        assert silent.metrics.stats.connections_opened == 2
        assert silent.metrics.stats.failed == {"unanswered": 1}
        assert "does not acknowledge what was transmitted" in str(silent.metrics.stats.last_error)
        # The kernel goes on with what was lost, and may get it there after all: late, which harms no running total.
        assert max(report.orders for report in silent.receiver.reports) == 3


async def test_lost_and_reordered_frames_cost_nothing():
    """TCP mends them; nothing is taken for a silent path."""
    async with path(round_trip=0.02, timeout=5.0) as rough:
        for number in range(200):
            rough.orders.add(0, number=str(number), padding="x" * 200)  # some 50 KB
        await rough.network.shape(
            out={"drop_every": 17, "late_every": 7, "late_by": 0.005}, back={"drop_every": 13, "late_every": 5}
        )
        flushes = [await rough.invoke(delivery=Delivery.ACKNOWLEDGED) for _ in range(5)]
        last = await rough.invoke(delivery=Delivery.ANSWERED)

        assert [flush.delivery for flush in flushes] == [Delivery.ACKNOWLEDGED] * 5
        assert last.delivery is Delivery.ANSWERED
        assert rough.receiver.reports[-1].orders == 6
        assert rough.metrics.stats.connections_opened == 1
