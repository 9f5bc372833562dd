"""What the tests of the provider share: Powertools as it is in a new sandbox, and a look at totals."""

from __future__ import annotations

import pytest
from aws_lambda_powertools.metrics import Metrics
from aws_lambda_powertools.metrics.provider import cold_start

from emitter import Emitter
from emitter.powertools import EmitterProvider
from emitter.powertools import provider as provider_module

SHARED = (Metrics._metrics, Metrics._dimensions, Metrics._metadata, Metrics._default_dimensions)


@pytest.fixture(autouse=True)
def _new_sandbox(monkeypatch):
    """Powertools keeps what all `Metrics` share in their class, and whether this is a cold start in a module.

    We keep which providers live, and those of the test before may be garbage that nobody has collected.
    """
    provider_module._living.clear()
    monkeypatch.setattr(cold_start, "is_cold_start", True)
    for each in SHARED:
        each.clear()
    yield
    for each in SHARED:
        each.clear()


@pytest.fixture
def emitter(peer):
    """An emitter on a scripted peer, which no test has to read."""
    emitter = Emitter(peer.endpoint, timeout=5.0)
    yield emitter
    emitter.close_sync(timeout=0.0)


@pytest.fixture
def provider(emitter):
    """A provider without namespace or service; an empty namespace says that there is to be none."""
    return EmitterProvider(emitter, namespace="")


@pytest.fixture
def metrics(provider):
    """What users hold."""
    return Metrics(provider=provider)
