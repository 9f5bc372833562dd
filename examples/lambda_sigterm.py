"""A Lambda function that is invoked often: it reports every five seconds at most, and once more when its sandbox ends.

Deploy it with `internal_extension.py` beside it, the handler `lambda_sigterm.handler`, and `EMITTER_ENDPOINT` set to
where reports go. Without the extension Lambda gives no signal, and what was recorded since the last report is lost with
the sandbox.
"""

from __future__ import annotations

from typing import Any

from internal_extension import register_extension

from emitter import Emitter

metrics = Emitter(service="checkout")  # the endpoint comes from EMITTER_ENDPOINT
orders = metrics.counter("orders", unit="{order}", description="Orders accepted.")
register_extension()  # in the INIT phase, or Lambda refuses it


@metrics.lambda_handler(every=5.0, flush_at_sigterm=True)
def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Accept one order; most invocations write nothing to the network."""
    orders.add(1, channel=event.get("channel", "web"))
    return {"statusCode": 200}
