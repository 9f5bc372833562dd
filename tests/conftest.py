"""What the tests of several rooms share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from emitter import Emitter
from emitter import loop as loops
from tests.flushing import Bench
from tests.scripted_peer import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Iterator


# A deadline in wall time would turn tests red on a busy machine.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


class Clock:
    """Monotonic seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[pytest.TestReport]:
    """Where nothing may be skipped, a skipped test has failed: what it needs was to be installed.

    What a machine does not permit cannot be installed: such a test is skipped there too, with the reason.
    """
    report = yield
    if report.skipped and os.environ.get("EMITTER_REQUIRE_PEERS") == "1" and "permitted" not in str(report.longrepr):
        report.outcome = "failed"
    return report


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    """A peer that does what the test says."""
    peer = ScriptedPeer()
    yield peer
    peer.close()


@pytest.fixture
def bench(peer, clock):
    """A flusher on a scripted peer, closed at the end."""
    bench = Bench(peer, clock)
    yield bench
    loops.run(bench.flusher.close(0.0))


@pytest.fixture
def metrics(peer):
    """An emitter on a scripted peer, closed at the end."""
    metrics = Emitter(peer.endpoint, service="checkout", timeout=5.0)
    yield metrics
    metrics.close_sync(timeout=0.0)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the machine it runs on has set."""
    for name in list(os.environ):
        if name.startswith(("EMITTER_", "OTEL_", "POWERTOOLS_", "AWS_")) and name != "EMITTER_REQUIRE_PEERS":
            monkeypatch.delenv(name)
