"""Receivers that do not answer for a while, behind proxies: no flush waits for them, and nothing is lost."""

from __future__ import annotations

import pytest

from emitter import Delivery
from emitter.outcomes import Outcome, Withheld
from emitter.transmit.connection import LIMIT_UNANSWERED

pytestmark = pytest.mark.parametrize("proxy", ["haproxy", "nginx"])


def test_no_flush_waits_for_a_receiver(house, proxy: str) -> None:
    """Nobody answers until the handler is long done; then both reports are there, in order, on one connection."""
    receivers = house.receivers()
    house.proxy(proxy, receivers)
    sandbox = house.sandbox()
    receivers.gate.clear()
    flushes = [sandbox.invoke(Delivery.TRANSMITTED) for _ in range(2)]
    unanswered = sandbox.unanswered
    receivers.wait_for(1)
    seen_before_any_answer = receivers.numbers()
    receivers.gate.set()
    last = sandbox.invoke(Delivery.ANSWERED)

    assert [flush.delivery for flush in flushes] == [Delivery.TRANSMITTED] * 2
    assert [flush.verdicts for flush in flushes] == [(), ()]
    assert unanswered == 2
    assert seen_before_any_answer == [1]  # a proxy takes the next request of a connection after the answer to the last
    assert [(verdict.report, verdict.outcome) for verdict in last.verdicts] == [
        (number, Outcome.ACCEPTED) for number in (1, 2, 3)
    ]
    assert receivers.numbers() == [1, 2, 3]
    assert receivers.orders() == 3
    assert sandbox.stats.connections_opened == 1


def test_so_many_reports_wait_for_their_answers_and_no_more(house, proxy: str) -> None:
    """The 17th is withheld, and its order goes out with the next that there is room for."""
    receivers = house.receivers()
    house.proxy(proxy, receivers)
    sandbox = house.sandbox()
    receivers.gate.clear()
    flushes = [sandbox.invoke(Delivery.TRANSMITTED) for _ in range(LIMIT_UNANSWERED)]
    refused = sandbox.invoke(Delivery.TRANSMITTED)
    receivers.gate.set()
    receivers.wait_for(LIMIT_UNANSWERED)
    sandbox.wait_for_answers()
    last = sandbox.invoke(Delivery.ANSWERED)

    assert {flush.delivery for flush in flushes} == {Delivery.TRANSMITTED}
    assert (refused.delivery, refused.withheld) == (None, Withheld.UNANSWERED)
    assert receivers.numbers() == list(range(1, LIMIT_UNANSWERED + 2))
    assert [report.orders for report in receivers.reports] == [*range(1, LIMIT_UNANSWERED + 1), LIMIT_UNANSWERED + 2]
    assert last.delivery is Delivery.ANSWERED
    assert sandbox.stats.failed == {}
    assert sandbox.stats.connections_opened == 1
