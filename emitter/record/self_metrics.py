"""Owns what an emitter counts of itself. Knows nothing of what makes these counts grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emitter.record.registry import Registry

__all__ = ["SelfMetrics"]


class SelfMetrics:
    """They ride along in every report, so that the receiver can tell how many reports it did not get.

    Attributes:
        flushes: Reports attempted.
        failures: Those that did not get as far as asked.
        withheld: Flushes that wrote no report.
    """

    def __init__(self, registry: Registry) -> None:
        self.flushes = registry.counter(
            "emitter.flushes", unit="{report}", description="Reports attempted, this one included.", own=True
        ).bind()
        self.failures = registry.counter(
            "emitter.failures", unit="{report}", description="Reports that did not get as far as asked.", own=True
        ).bind()
        self.withheld = registry.counter(
            "emitter.withheld", unit="{report}", description="Flushes that wrote no report.", own=True
        ).bind()
