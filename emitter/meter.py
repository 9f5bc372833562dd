"""Owns what a user makes instruments with, whichever way the totals then leave. Knows no report and no network."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from emitter.record.instruments import Counter, Gauge, Histogram, UpDownCounter
    from emitter.record.registry import Registry

__all__ = ["Meter"]


class Meter:
    """Instruments by name: asked for the same name again, it gives the same one.

    Args:
        registry: Where their totals are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def counter(self, name: str, *, unit: str = "", description: str = "") -> Counter:
        """The counter of this name: a total that only grows, and that reports 0 from the moment it is made.

        Args:
            name: Such as `orders`; OpenTelemetry's naming rules ask for lower case, and dots between words that nest.
            unit: A UCUM code such as `s`, `By` or `{order}`; empty for none.
            description: One sentence for people.

        Raises:
            ConfigurationError: A name, unit or description that cannot be reported.
            InstrumentConflictError: The name belongs to an instrument of another kind, unit or boundaries.
        """
        return self._registry.counter(name, unit=unit, description=description)

    def up_down_counter(self, name: str, *, unit: str = "", description: str = "") -> UpDownCounter:
        """The up-down counter of this name: a total that grows and shrinks. As `counter`."""
        return self._registry.up_down_counter(name, unit=unit, description=description)

    def gauge(self, name: str, *, unit: str = "", description: str = "") -> Gauge:
        """The gauge of this name: a value that was seen last. As `counter`."""
        return self._registry.gauge(name, unit=unit, description=description)

    def histogram(
        self, name: str, *, unit: str = "", description: str = "", boundaries: Iterable[float] | None = None
    ) -> Histogram:
        """The histogram of this name: how often values fell between boundaries. As `counter`.

        Args:
            name: As for `counter`.
            unit: As for `counter`.
            description: As for `counter`.
            boundaries: Upper bounds of the buckets, ascending, in the unit. `None`: OpenTelemetry's default, or
                for the unit `s` its advice for durations. Empty: count and sum only.
        """
        return self._registry.histogram(name, unit=unit, description=description, boundaries=boundaries)
