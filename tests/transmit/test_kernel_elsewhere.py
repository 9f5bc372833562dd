"""Kernels that tell less than Linux: how far a report got is said truly, and nobody waits for what cannot be told."""

from __future__ import annotations

import sys
import time

import pytest

from emitter.transmit import kernel
from emitter.transmit.delivery import Delivery
from tests.transmit.connections import connect, request_of, transmit


@pytest.fixture
def silent_kernel(monkeypatch):
    """One that tells nothing of its queues."""
    monkeypatch.setattr(sys, "platform", "other")
    monkeypatch.setattr(kernel, "BEST_KNOWN", Delivery.BUFFERED)


@pytest.fixture
def kernel_with_one_queue(monkeypatch):
    """One like macOS, which only knows what is not acknowledged; what it says is taken from Linux."""
    linux = kernel.queues
    monkeypatch.setattr(sys, "platform", "darwin")

    def queues(sock):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "linux")
            unacknowledged = linux(sock).unacknowledged
        return kernel.Queues(unacknowledged, unacknowledged)

    monkeypatch.setattr(kernel, "queues", queues)


@pytest.mark.parametrize("wanted", [Delivery.BUFFERED, Delivery.TRANSMITTED, Delivery.ACKNOWLEDGED])
async def test_where_nothing_is_told_it_is_buffered_and_nobody_waits(peer, connection, silent_kernel, wanted):
    """A wait that can have no end would cost the whole budget each time."""
    began = time.monotonic()
    reached = await transmit(connection, wanted=wanted)

    assert reached is Delivery.BUFFERED
    assert time.monotonic() - began < 2  # of 5


async def test_where_nothing_is_told_an_answer_still_tells_all(peer, connection, silent_kernel):
    """The kernel is not asked for it."""
    peer.accept().answer(200)

    assert await transmit(connection, wanted=Delivery.ANSWERED) is Delivery.ANSWERED


@pytest.mark.parametrize("wanted", [Delivery.TRANSMITTED, Delivery.ACKNOWLEDGED])
async def test_with_one_queue_transmitted_is_told_once_it_is_acknowledged(
    peer, connection, kernel_with_one_queue, wanted
):
    """Later than it could be, never earlier."""
    reached = await transmit(connection, request_of(50_000), wanted=wanted)

    assert reached is Delivery.ACKNOWLEDGED
    assert connection.queues() == (0, 0)


async def test_with_one_queue_a_peer_that_reads_nothing_is_not_taken_for_silent(narrow_peer, kernel_with_one_queue):
    """What is not acknowledged may not even be transmitted there, so nothing follows from it."""
    connection = await connect(narrow_peer)
    reached = await transmit(connection, request_of(200_000), seconds=0.05)

    assert reached is Delivery.BUFFERED
    assert not connection._is_silent(connection._clocks.now())
    await connection.close(deadline=time.monotonic())
