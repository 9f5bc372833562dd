from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.local_aggregator import LocalAggregator
from examples.local_lambda import LocalLambda

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is Linux only")

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_async_example_counts_exactly(tmp_path: Path) -> None:
    """Two batches of three orders, priced at the same time, and one that is refused."""
    batch = {"orders": [{"amount": 10}, {"amount": 20, "channel": "app"}, {"amount": 30}]}
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator:
        env = {"EMITTER_ENDPOINT": aggregator.endpoint}
        async with LocalLambda("lambda_async.handler", cwd=EXAMPLES, env=env) as sandbox:
            answers = [(await sandbox.invoke(batch)).payload for _ in range(2)]
            refused = await sandbox.invoke({"orders": [{"amount": -1}]})
            output = sandbox.output
            checkout = (await aggregator.settled({"checkout": 3}))["checkout"]

    assert answers == [{"statusCode": 200, "total": 60}] * 2
    assert refused.error is not None
    assert (refused.error.type, refused.error.message) == ("ValueError", "an order of -1 cannot be priced")
    assert "never awaited" not in output
    sums = checkout["sums"]
    assert (sums["orders"], sums["faas.invocations"], sums["faas.errors"], sums["faas.coldstarts"]) == (6, 2, 1, 1)
    channels = {
        total["attributes"].get("channel"): total["value"] for total in checkout["totals"] if total["name"] == "orders"
    }
    assert (channels["web"], channels["app"]) == (4, 2)
    (timed,) = [total for total in checkout["totals"] if total["name"] == "lookup.duration"]
    assert (timed["attributes"], timed["count"]) == ({"supplier": "acme"}, 7)
    assert (checkout["reports_received"], checkout["reports_lost"]) == (3, 0)
