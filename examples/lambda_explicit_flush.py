"""A Lambda function that flushes where it wants to, and looks at what became of it; synchronous and asynchronous.

Deploy it with the handler `lambda_explicit_flush.handler` or `lambda_explicit_flush.async_handler`, and
`EMITTER_ENDPOINT` set to where reports go. Flush last: what is recorded after it waits for the next invocation,
and there may be none.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from emitter import Delivery, Emitter

metrics = Emitter(service="checkout")  # the endpoint comes from EMITTER_ENDPOINT
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")
metrics.connect_sync()  # in the INIT phase, so that the first invocation need not


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept one order; flush without a decorator."""
    orders.add(1, channel=event.get("channel", "web"))
    flush = metrics.flush_sync()
    if flush.error is not None:  # nothing is lost by it: the next report carries these totals too
        logging.getLogger(__name__).warning("not reported yet: %s", flush.error)
    return {"statusCode": 200}


@metrics.lambda_handler
async def async_handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept a batch of orders; report once in the middle, with certainty, and once at the end.

    The stock runtime cannot await: the decorator runs the coroutine, in one loop that lives as long as the
    process, so that connections do too. It also flushes at the end.
    """
    await asyncio.gather(*(accept(order) for order in event["orders"]))
    await metrics.flush(delivery=Delivery.ACKNOWLEDGED)  # before the long part, in case we are killed in it
    await ship(event["orders"])
    return {"statusCode": 200}


async def accept(order: dict[str, Any]) -> None:
    """Stand in for what a shop awaits."""
    await asyncio.sleep(0)
    orders.add(1, channel=order.get("channel", "web"))


async def ship(batch: list[dict[str, Any]]) -> None:
    """Stand in for a step that may take longer than the function lives."""
    for _ in batch:
        await asyncio.sleep(0)
