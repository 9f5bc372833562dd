"""The README's table of backends: its three lines, as they stand there, get a counter to where it says."""

from __future__ import annotations

import json
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emitter import Delivery, Emitter
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2].joinpath("README.md").read_text()
ROW = re.compile(r"^\| (.+?) \| `(\w+=.+?)`<br>`(\w+=.+?)`<br>`(\w+=.+?)` \| (.+?) \|$", re.MULTILINE)
ROWS = {found[1]: (found.groups()[1:4], found[5]) for found in ROW.finditer(README)}

# By the beginning of a row: the way that leads into the same server.
TRIED = {
    "the aggregator that comes along": "otlp-aggregator",
    "OpenTelemetry Collector": "otlp-aggregator",
    "the same as JSON": "otlp-json-aggregator",
    "VictoriaMetrics": "remote-write-victoria-metrics",
    "Prometheus": "remote-write-prometheus",
    "InfluxDB 1.x": "influx-influxdb",
    "VictoriaMetrics, as InfluxDB": "influx-victoria-metrics",
}
NOT_HERE = {"Mimir": "no package", "InfluxDB 2.x": "no package", "a REST service of your own": "tests/examples"}


def row_of(beginning: str) -> tuple[tuple[str, ...], str]:
    """The lines of the row that begins so, and what the counter is called there; the shortest if there are several."""
    return ROWS[min((name for name in ROWS if name.startswith(beginning)), key=len)]


def names_in(way) -> set[str]:
    """The names of everything that the service of this way has reported."""
    if hasattr(way, "stored"):
        return {series.labels["__name__"] for series in way.stored()}
    if hasattr(way, "database"):
        return {
            f"field `{field}` of `{each.measurement}`" for each in way.database.select("*") for field in each.fields
        }
    exposed = json.loads(json.dumps(way.server.totals(way.service)))
    return {total["name"] for total in exposed} | {f"{total['name']}_total" for total in exposed}


@pytest.mark.parametrize("beginning", TRIED)
def test_the_three_lines_lead_there(
    ways: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    """With host, port and database of the test's server, and a service that nobody else has."""
    way = ways(TRIED[beginning])
    lines, called = row_of(beginning)
    for line in lines:
        variable, _, value = line.partition("=")
        if "://" in value:
            url = urllib.parse.urlsplit(value)
            query = urllib.parse.urlsplit(way.endpoint()).query if "db=" in url.query else url.query
            value = urllib.parse.urlunsplit(("http", f"127.0.0.1:{way.port}", url.path, query, ""))
        monkeypatch.setenv(variable, way.service if variable == "OTEL_SERVICE_NAME" else value)
    metrics = Emitter(timeout=PATIENCE, strict=True)
    metrics.counter("orders").add(3, channel="web")
    flush = metrics.flush_sync(delivery=Delivery.ANSWERED)
    metrics.close_sync()
    expected = called if called.startswith("field") else called.strip("`").partition("{")[0]

    assert {verdict.status for verdict in flush.verdicts} <= {200, 204}
    assert expected in names_in(way)


def test_every_row_is_tried_or_said_not_to_be() -> None:
    """What cannot run here is named."""
    tried = {row_of(beginning) for beginning in TRIED}
    rest = {name for name, row in ROWS.items() if row not in tried}

    assert {next(each for each in NOT_HERE if name.startswith(each)) for name in rest} == set(NOT_HERE)
