"""A Lambda function that counts, with the decorator: it flushes at the end of each invocation.

Deploy it with the handler `lambda_decorator.handler`, and `EMITTER_ENDPOINT` set to where reports go.
"""

from __future__ import annotations

from typing import Any

from emitter import Emitter

metrics = Emitter(service="checkout")  # the endpoint comes from EMITTER_ENDPOINT
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")
payment_seconds = metrics.histogram("payment.duration", unit="s", description="How long the provider took.")


@metrics.lambda_handler
def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept one order."""
    with payment_seconds.time(provider="acme"):
        pay(event["amount"])
    orders.add(1, channel=event.get("channel", "web"))
    return {"statusCode": 200}


def pay(amount: float) -> None:
    """Stand in for a payment provider, which refuses what is not worth its while."""
    if amount <= 0:
        raise ValueError(f"an order of {amount} cannot be paid")
