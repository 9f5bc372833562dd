from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.local_aggregator import AggregatorError, LocalAggregator
from examples.local_lambda import LocalLambda

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is Linux only")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def aggregator(tmp_path: Path) -> AsyncIterator[LocalAggregator]:
    """A real one, as a process of its own."""
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as running:
        yield running


async def test_the_decorator_example_counts_exactly(aggregator: LocalAggregator) -> None:
    """Three orders and a refused one: the totals are at the aggregator while the sandbox stands still."""
    env = {"EMITTER_ENDPOINT": aggregator.endpoint}
    async with LocalLambda("lambda_decorator.handler", cwd=EXAMPLES, env=env) as sandbox:
        answers = [(await sandbox.invoke({"amount": 10})).payload for _ in range(3)]
        refused = await sandbox.invoke({"amount": 0})
        checkout = (await aggregator.settled({"checkout": 4}))["checkout"]

    assert answers == [{"statusCode": 200}] * 3
    assert refused.error is not None
    assert (refused.error.type, refused.error.message) == ("ValueError", "an order of 0 cannot be paid")
    assert checkout["reports_received"] == 4
    assert checkout["reports_lost"] == 0
    sums = checkout["sums"]
    assert (sums["orders"], sums["faas.invocations"], sums["faas.errors"], sums["faas.coldstarts"]) == (3, 3, 1, 1)
    timed = [total for total in checkout["totals"] if total["name"] == "payment.duration"]
    assert [(total["attributes"], total["count"]) for total in timed] == [({"provider": "acme"}, 4)]


async def test_the_explicit_flush_example_counts_exactly(aggregator: LocalAggregator) -> None:
    """Without any decorator, one flush in each invocation."""
    env = {"EMITTER_ENDPOINT": aggregator.endpoint}
    async with LocalLambda("lambda_explicit_flush.handler", cwd=EXAMPLES, env=env) as sandbox:
        answers = [(await sandbox.invoke({"channel": "app"})).payload for _ in range(3)]
        output = sandbox.output
        checkout = (await aggregator.settled({"checkout": 3}))["checkout"]

    assert answers == [{"statusCode": 200}] * 3
    assert output == ""
    assert checkout["sums"]["orders"] == 3
    assert (checkout["reports_received"], checkout["reports_lost"]) == (3, 0)


async def test_the_asynchronous_example_counts_exactly(aggregator: LocalAggregator) -> None:
    """Two flushes in each invocation: one in the middle, one at its end."""
    env = {"EMITTER_ENDPOINT": aggregator.endpoint}
    batch = {"orders": [{"channel": "web"}, {"channel": "app"}, {}]}
    async with LocalLambda("lambda_explicit_flush.async_handler", cwd=EXAMPLES, env=env) as sandbox:
        answers = [(await sandbox.invoke(batch)).payload for _ in range(2)]
        checkout = (await aggregator.settled({"checkout": 4}))["checkout"]

    assert answers == [{"statusCode": 200}] * 2
    assert checkout["sums"]["orders"] == 6
    assert checkout["sums"]["faas.invocations"] == 2
    assert (checkout["reports_received"], checkout["reports_lost"]) == (4, 0)


async def test_the_explicit_example_goes_on_without_a_receiver() -> None:
    """Nobody listens: the function works, and its log says that the report is not out yet."""
    env = {"EMITTER_ENDPOINT": "http://127.0.0.1:9/v1/metrics"}  # the discard port: nobody listens there
    async with LocalLambda("lambda_explicit_flush.handler", cwd=EXAMPLES, env=env) as sandbox:
        result = await sandbox.invoke({})
        await sandbox.invoke({})

    assert result.error is None
    assert result.payload == {"statusCode": 200}


async def test_an_aggregator_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A database in a folder that is not there."""
    with pytest.raises(AggregatorError, match="did not start"):
        async with LocalAggregator(tmp_path / "nowhere" / "metrics.sqlite3"):
            pass
