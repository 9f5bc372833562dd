"""The function of the SAM template: it accepts orders, and counts them.

Where reports go, and under which name, stands in the template: `EMITTER_ENDPOINT` and `OTEL_SERVICE_NAME`.
"""

from __future__ import annotations

from typing import Any

from emitter import Emitter

metrics = Emitter()
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")


@metrics.lambda_handler
def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept one order."""
    orders.add(1, channel=event.get("channel", "web"))
    return {"statusCode": 200}
