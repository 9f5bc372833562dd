"""A receiver of one's own for `Emitter(url, encoder="json")`: POST reports to it, GET the totals of each service.

    pip install aiohttp
    python examples/json_receiver.py [PORT]

It follows the rule of `docs/report.schema.json`: of each series of each instance, what came with the greatest sequence
counts, so that a lost, repeated or late report changes nothing. (Of a histogram it keeps the count.) A start, for
trusted networks: a real one checks reports against the schema, and answers once the totals are in a database.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict

from aiohttp import web

LIMIT_BYTES = 8 << 20  # of a report, unpacked too; an emitter divides what is larger than 4 MiB

latest: dict[tuple[str, ...], tuple[int, float]] = {}  # (service, instance, name, attributes): (sequence, value)


async def take(request: web.Request) -> web.Response:
    """Keep of each series of the instance what came with the greatest sequence."""
    try:
        report = await request.json()
        if (report["version"], report["temporality"]) != (1, "cumulative"):
            raise ValueError("version or temporality")
        for total in report["totals"]:
            if total["kind"] != "gauge":  # what does not add up has no total
                series = (report["service"], report["instance"], total["name"], json.dumps(total["attributes"]))
                now = (report["sequence"], total["count" if total["kind"] == "histogram" else "value"] + 0)
                latest[series] = max(latest.get(series, now), now)
    except (LookupError, RecursionError, TypeError, ValueError, web.RequestPayloadError) as error:
        raise web.HTTPBadRequest(text=f"expected a report: {error!r}") from error
    return web.Response(status=204)


async def show(_request: web.Request) -> web.Response:
    """Add up over the instances."""
    services: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (service, _, *series), (_, value) in latest.items():
        services[service][" ".join(series)] += value  # type: ignore[assignment]  # floats too
    return web.json_response(services)


if __name__ == "__main__":
    application = web.Application(client_max_size=LIMIT_BYTES)
    application.add_routes([web.post("/", take), web.get("/", show)])
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]) if sys.argv[1:] else 8000)
