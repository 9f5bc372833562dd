"""A Lambda function that counts, as it would be deployed: nothing in it is there for its tests."""

from __future__ import annotations

from typing import Any

from emitter import Emitter

metrics = Emitter(service="checkout")  # the endpoint comes from EMITTER_ENDPOINT, which no unit test has
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")
revenue = metrics.counter("revenue", unit="EUR", description="What they were worth.")
refusals = metrics.counter("orders.refused", unit="{order}", description="Orders that could not be paid.").bind()
last_amount = metrics.gauge("orders.last_amount", unit="EUR", description="What the last order was worth.")
payment_seconds = metrics.histogram("payment.duration", unit="s", description="How long the provider took.")


@metrics.lambda_handler
def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept one order."""
    amount, channel = event["amount"], event.get("channel", "web")
    try:
        with payment_seconds.time(provider="acme"):
            pay(amount)
    except ValueError:
        refusals.add()
        return {"statusCode": 402}
    orders.add(1, channel=channel)
    revenue.add(amount, channel=channel)
    last_amount.set(amount)
    return {"statusCode": 200}


@metrics.lambda_handler
async def status(_event: object, _context: object) -> dict[str, Any]:
    """Say whether the totals get through, which takes a flush of its own."""
    metrics.counter("status.asked").add()
    flush = await metrics.flush()
    return {"statusCode": 200 if flush.error is None else 503}


def pay(amount: float) -> None:
    """Stand in for a payment provider, which refuses what is not worth its while."""
    if amount <= 0:
        raise ValueError(f"an order of {amount} cannot be paid")
