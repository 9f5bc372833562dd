"""A Lambda function with an `async def` handler, which the stock Python runtime cannot await: the decorator does.

Deploy it with the handler `lambda_async.handler`, and `EMITTER_ENDPOINT` set to where reports go. There is one event
loop for as long as the process lives, so what you connect in it (a session of aiohttp, a pool of a database) stays
usable from one invocation to the next.
"""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Emitter

metrics = Emitter(service="checkout")  # the endpoint comes from EMITTER_ENDPOINT
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")
lookup_seconds = metrics.histogram("lookup.duration", unit="s", description="How long a supplier took.")


@metrics.lambda_handler
async def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept a batch of orders, all at the same time."""
    prices = await asyncio.gather(*(price(order) for order in event["orders"]))
    return {"statusCode": 200, "total": sum(prices)}


async def price(order: dict[str, Any]) -> float:
    """Ask the suppliers, and count the order."""
    channel = order.get("channel", "web")
    amount = await ask_supplier(order["amount"])
    orders.add(1, channel=channel)
    return amount


@lookup_seconds.time(supplier="acme")
async def ask_supplier(amount: float) -> float:
    """Stand in for a supplier's service, which refuses what is no amount."""
    await asyncio.sleep(0)
    if amount <= 0:
        raise ValueError(f"an order of {amount} cannot be priced")
    return amount
