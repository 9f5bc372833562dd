"""A histogram of ours and one of prometheus_client that saw the same values: a server tells the same of both."""

from __future__ import annotations

import itertools
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from emitter import Delivery
from emitter.record.registry import DEFAULT_BOUNDARIES, SECONDS_BOUNDARIES

if TYPE_CHECKING:
    from tests.peers.ways import PromqlWay

README = Path(__file__).parents[2] / "README.md"
QUANTILES = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0]
BOUNDARIES = {
    "seconds": SECONDS_BOUNDARIES,
    "milliseconds": DEFAULT_BOUNDARIES,
    "large": [1.0, 1e3, 123456.789, 1e6, 2.5e9, 1e15],
    "one": [0.5],
}
LIMIT_SCRAPE = 30.0
"""Seconds until Prometheus has scraped: five after its start (it looks for targets that seldom), a fraction of one
later."""


def values_for(boundaries) -> list[float]:
    """Values from below the first boundary to above the last, many in some buckets and none in others."""
    dice = random.Random(4)  # noqa: S311  nothing secret
    return [dice.choice([*boundaries, boundaries[-1] * 2]) * dice.choice([1, 0.5, dice.random()]) for _ in range(300)]


def quantiles(way: PromqlWay, buckets: str) -> list[float]:
    """What the server makes of the buckets that a selector matches."""
    return [way.server.value(f"histogram_quantile({quantile}, sum({buckets}) by (le))") for quantile in QUANTILES]


def scrape(way: PromqlWay, theirs: Histogram, name: str, count: int) -> None:
    """Let the server store what prometheus_client tells of a histogram, in the manner that the server is used in."""
    if not hasattr(way.server, "scraped"):
        registry = CollectorRegistry()
        registry.register(theirs)
        way.server.take(generate_latest(registry))
        return
    way.server.scraped.register(theirs)
    deadline = time.monotonic() + LIMIT_SCRAPE
    while [series.value for series in way.server.query(f"{name}_count")] != [count]:
        assert time.monotonic() < deadline, "it was not scraped"
        time.sleep(0.05)  # Prometheus scrapes when it wants to, and tells nobody


@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_quantiles_are_those_of_prometheus_client(promql_way, boundaries: str) -> None:
    """All of them, from the least to the greatest."""
    way = promql_way
    bounds = BOUNDARIES[boundaries]
    name = f"theirs_{way.service.replace('-', '_')}"
    theirs = Histogram(name, "The other one.", registry=None, buckets=bounds)
    metrics = way.emitter()
    ours = metrics.histogram("ours", boundaries=bounds)
    values = values_for(bounds)
    for value in values:
        theirs.observe(value)
        ours.record(value)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    scrape(way, theirs, name, len(values))
    expected = quantiles(way, f"{name}_bucket")

    assert quantiles(way, way.selector("ours_bucket")) == expected
    assert len(set(expected)) > 1


ASKED = re.findall(r"^\| (a total|a quantile) \| `(.+?)` \| `(.+?)` \|$", README.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("what", "of_prometheus", "of_victoria_metrics"), ASKED, ids=[row[0] for row in ASKED])
@pytest.mark.parametrize("name", ["remote-write-prometheus", "remote-write-victoria-metrics"])
def test_what_the_readme_asks_is_exact(
    ways, name: str, what: str, of_prometheus: str, of_victoria_metrics: str
) -> None:
    """Over sandboxes that reported once, and several times."""
    way = ways(name)
    values = [[0.3], [0.02, 0.02], [0.02, 0.3, 0.3], [0.004]]
    for recorded in values:
        metrics = way.emitter()
        for value in recorded:
            metrics.counter("orders").add(7)
            metrics.histogram("payment", unit="s").record(value)
            metrics.flush_sync(delivery=Delivery.ANSWERED)
        metrics.close_sync()
    everything = Histogram("payment", "", registry=(registry := CollectorRegistry()), buckets=SECONDS_BOUNDARIES)
    for value in itertools.chain(*values):
        everything.observe(value)
    query = of_prometheus if "prometheus" in name else of_victoria_metrics
    query = re.sub(r"(\w+)\[1h\]", lambda found: f"{way.selector(found[1])}[1h]", query)
    counts = {
        sample.labels["le"]: sample.value for sample in next(iter(registry.collect())).samples if "le" in sample.labels
    }
    told = way.server.value(query)

    assert len(ASKED) == 2
    if what == "a total":
        assert told == 7 * 7
    else:
        assert counts["0.025"] == 4  # so the median of seven is in the bucket that ends there
        assert 0.01 < told <= 0.025
