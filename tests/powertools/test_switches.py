from __future__ import annotations

import asyncio
from collections import namedtuple

import pytest

from emitter import ConfigurationError
from emitter.powertools import EmitterProvider
from tests.powertools.reading import add_order, orders, totals

Context = namedtuple("Context", "function_name")  # noqa: PYI024  # as simple as that of a test


@pytest.mark.parametrize(
    ("disabled", "dev", "off"),
    [
        (None, None, False),
        ("true", None, True),
        ("1", "false", True),
        ("false", "true", False),
        (None, "true", True),
        (None, "0", False),
    ],
)
def test_powertools_switches_do_what_they_do_there(disabled, dev, off, provider, emitter, monkeypatch):
    """Disabled if told to be, or in development unless told not to be."""
    for name, value in (("POWERTOOLS_METRICS_DISABLED", disabled), ("POWERTOOLS_DEV", dev)):
        if value is not None:
            monkeypatch.setenv(name, value)

    @provider.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(provider)
        with provider.single_metric("Upgrades", "Count", 1):
            pass
        return event

    @provider.log_metrics
    async def async_handler(event, context):
        await asyncio.sleep(0)
        return handler.__wrapped__(event, context)

    assert [handler(1, None), async_handler(2, None)] == [1, 2]
    add_order(provider)
    provider.flush_metrics()
    assert (totals(emitter, own=True) == {}) == off
    assert (emitter.stats.flushes == 0) == off
    assert provider.look().empty


def test_where_metrics_are_disabled_no_endpoint_is_needed(monkeypatch):
    """Unit tests of working code set this variable and nothing else."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    provider = EmitterProvider()

    @provider.log_metrics(raise_on_empty_metrics=True)
    def handler(event, context):
        return event

    assert handler(1, None) == 1
    assert provider.flush_metrics(raise_on_empty_metrics=True) is None
    assert provider.refused == 0
    monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED")
    with pytest.raises(ConfigurationError, match="EMITTER_ENDPOINT"):
        handler(1, None)


def test_metrics_that_are_enabled_later_are_counted(monkeypatch, peer):
    """Powertools asks for its variables each time, so tests may change them."""
    monkeypatch.setenv("POWERTOOLS_DEV", "true")
    provider = EmitterProvider(endpoint=peer.endpoint)

    @provider.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(provider)

    handler({}, Context("it"))
    monkeypatch.delenv("POWERTOOLS_DEV")
    handler({}, Context("it"))
    provider.emitter.close_sync(timeout=0.0)

    assert totals(provider.emitter) == {
        orders(): (0, 1),
        ("ColdStart", frozenset({("function_name", "it")})): (0, 1),  # the first one was of nobody's interest
    }


@pytest.mark.parametrize("name", ["POWERTOOLS_METRICS_DISABLED", "POWERTOOLS_DEV"])
def test_a_switch_that_is_neither_on_nor_off_is_named(name, emitter, monkeypatch):
    """Where the provider is made."""
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(ConfigurationError, match=f"{name} is 'maybe'; expected true or false"):
        EmitterProvider(emitter)
