"""Owns the way in for users of Powertools for AWS Lambda: a metrics provider that records into an emitter.

    metrics = Metrics(provider=EmitterProvider(namespace="ServerlessAirline", service="booking"))

Needs the extra `powertools`. `docs/powertools.md` says what becomes of units, dimensions, metadata and the rest.
"""

from emitter.powertools.metric_set import MetricSet
from emitter.powertools.provider import EmitterProvider, SingleMetric
from emitter.powertools.units import MEASURES, Measure

__all__ = ["MEASURES", "EmitterProvider", "Measure", "MetricSet", "SingleMetric"]
