"""Unit tests of the function beside this file: no endpoint, no network, and each begins at zero.

`pip install lambda-emitter pytest`, and then `pytest`, in this directory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import checkout
import pytest

from emitter import ConnectError
from emitter.testing import InMemoryEmitter, LambdaContext

if TYPE_CHECKING:
    from emitter.testing import Recorded


def test_an_order_is_counted_by_its_channel(recorded: Recorded) -> None:
    """Every kind of instrument, and what the decorator counts by itself."""
    answer = checkout.handler({"amount": 9.5, "channel": "app"}, LambdaContext())

    assert answer == {"statusCode": 200}
    recorded.assert_counter("orders", 1, channel="app")
    recorded.assert_not_recorded("orders", channel="web")
    recorded.assert_gauge("orders.last_amount", 9.5)
    recorded.assert_histogram("payment.duration", provider="acme", count=1, within=(0, 1))
    recorded.assert_counter("faas.invocations", 1)


def test_a_refused_order_counts_as_that_and_as_nothing_else(recorded: Recorded) -> None:
    """Nothing is left of the test before, either."""
    checkout.handler({"amount": 0}, LambdaContext())

    recorded.assert_counter("orders.refused", 1)
    recorded.assert_not_recorded("orders")


def test_revenue_adds_up_over_all_channels(recorded: Recorded) -> None:
    """Of each channel, and of all together."""
    for channel, amount in (("app", 0.1), ("app", 0.2), ("web", 5)):
        checkout.handler({"amount": amount, "channel": channel}, LambdaContext())

    recorded.assert_counter("revenue", 0.3, channel="app")
    recorded.assert_total("revenue", 5.3)


def test_what_is_counted_outside_a_handler(recorded: Recorded) -> None:
    """A function that only records is called like any other."""
    with pytest.raises(ValueError, match="cannot be paid"):
        checkout.pay(-1)

    recorded.assert_nothing_recorded()


def test_an_async_handler_is_called_as_lambda_calls_it(recorded: Recorded) -> None:
    """What the decorator has made of it is no coroutine function. The flush in it finds a receiver in memory."""
    answer = checkout.status({}, LambdaContext())

    assert answer == {"statusCode": 200}
    recorded.assert_counter("status.asked", 1)
    assert len(recorded.reports) == 2


def test_an_async_handler_is_awaited_where_a_loop_runs_already(recorded: Recorded) -> None:
    """In a test that is `async def` itself: the handler alone, without what the decorator does."""

    async def test() -> None:
        assert await checkout.status.__wrapped__({}, LambdaContext()) == {"statusCode": 200}

    asyncio.run(test())
    recorded.assert_counter("status.asked", 1)
    recorded.assert_counter("faas.invocations", 0)


def test_a_flush_that_fails_on_purpose(recorded: Recorded) -> None:
    """What the function does then can be tested too."""
    recorded.fail_with(ConnectError("metrics.example.com", 443, "refused"))

    assert checkout.status({}, LambdaContext()) == {"statusCode": 503}
    assert recorded.reports == []


def test_code_that_is_given_its_emitter() -> None:
    """Where an emitter is an argument, no fixture is needed."""
    metrics = InMemoryEmitter(service="shop")
    metrics.counter("visits").add(2, {"http.route": "/"})

    metrics.recorded.assert_counter("visits", 2, {"http.route": "/"})
