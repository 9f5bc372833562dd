"""Proxies end connections when they see fit; nothing is lost by it."""

from __future__ import annotations

import pytest

from emitter import Delivery
from emitter.outcomes import Outcome

INVOCATIONS = 10


@pytest.mark.parametrize("delivery", [Delivery.TRANSMITTED, Delivery.ANSWERED])
def test_a_connection_for_every_three_requests_loses_nothing(house, delivery: Delivery) -> None:
    """With nginx's `keepalive_requests 3`; whether answers are waited for, or harvested once they have come."""
    receivers = house.receivers()
    house.proxy("nginx", receivers, server="keepalive_requests 3;")
    sandbox = house.sandbox()
    verdicts = []
    for _ in range(INVOCATIONS):
        verdicts += sandbox.invoke(delivery).verdicts
        sandbox.wait_for_answers()
    sandbox.disconnect()

    assert receivers.numbers() == list(range(1, INVOCATIONS + 1))
    assert receivers.orders() == INVOCATIONS
    assert sandbox.stats.connections_opened == 4  # of 3, 3, 3 and 1
    assert sandbox.stats.failed == {}
    assert sandbox.stats.verdicts == {200: INVOCATIONS}
    assert {verdict.outcome for verdict in verdicts} == {Outcome.ACCEPTED}


def test_an_answer_that_says_close_is_taken_at_its_word(house) -> None:
    """The third one has `Connection: close`: that alone ends the connection, before its end is seen."""
    receivers = house.receivers()
    house.proxy("nginx", receivers, server="keepalive_requests 3;")
    sandbox = house.sandbox()
    ends = []
    for _ in range(3):
        sandbox.invoke(Delivery.TRANSMITTED)
        sandbox.wait_for_answers()
        ends.append(sandbox.ended)

    assert ends == ["", "", "the connection was lost: the peer asked to close"]


def test_reports_that_nobody_waits_between_lose_no_total(house) -> None:
    """Those that were written after the last request that nginx takes get no answer: their totals go out again."""
    receivers = house.receivers()
    house.proxy("nginx", receivers, server="keepalive_requests 3;")
    sandbox = house.sandbox(strict=False)
    for _ in range(5 * INVOCATIONS):
        sandbox.invoke(Delivery.TRANSMITTED)
    sandbox.insist()

    assert receivers.orders() == sandbox.orders
    assert len(receivers.numbers()) == len(set(receivers.numbers()))
    assert sandbox.stats.flushes - len(receivers.reports) <= sum(sandbox.stats.failed.values())


@pytest.mark.parametrize(
    ("proxy", "limit"),
    [("nginx", {"server": "keepalive_timeout 1;"}), ("haproxy", {"frontend": "timeout http-keep-alive 500ms"})],
)
def test_a_connection_that_is_closed_when_idle_loses_nothing(house, proxy: str, limit: dict[str, str]) -> None:
    """The proxy closes between two invocations, and the next one sees it in time."""
    receivers = house.receivers()
    house.proxy(proxy, receivers, **limit)
    sandbox = house.sandbox()
    for _ in range(3):
        sandbox.invoke(Delivery.ANSWERED)
        sandbox.wait_for_the_end()
    sandbox.invoke(Delivery.ANSWERED)

    assert receivers.numbers() == [1, 2, 3, 4]
    assert receivers.orders() == 4
    assert sandbox.stats.connections_opened == 4
    assert sandbox.stats.failed == {}
