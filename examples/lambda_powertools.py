"""A Lambda function that counts with Powertools' `Metrics`, and reports through an emitter.

Deploy it with the handler `lambda_powertools.handler` (or `async_handler`), and `EMITTER_ENDPOINT` set to where reports
go. What Powertools wrote into the log for CloudWatch goes out with one report at the end of each invocation.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

from emitter.powertools import EmitterProvider

provider = EmitterProvider(namespace="ServerlessAirline", service="booking")
metrics = Metrics(provider=provider)
metrics.set_default_dimensions(stage="demo")


@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Book a seat."""
    metrics.add_dimension(name="channel", value=event.get("channel", "web"))
    metrics.add_metric(name="SuccessfulBooking", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="PaymentLatency", unit=MetricUnit.Milliseconds, value=event.get("milliseconds", 250))
    metrics.add_metadata(key="booking_id", value=event.get("booking_id"))  # for the log: no metric has it
    with provider.single_metric(name="Upgrades", unit=MetricUnit.Count, value=event.get("upgrades", 0)) as upgrades:
        upgrades.add_dimension(name="tier", value="gold")
    return {"statusCode": 200}


@metrics.log_metrics
async def async_handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Book several seats at once."""
    await asyncio.gather(*(book(seat) for seat in event.get("seats", ["12A"])))
    return {"statusCode": 200}


async def book(seat: str) -> None:
    """Stand in for something that takes its time."""
    await asyncio.sleep(0)
    metrics.add_metric(name="SuccessfulBooking", unit=MetricUnit.Count, value=1 if seat else 0)
