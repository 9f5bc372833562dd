"""Owns the way in for users of Powertools for AWS Lambda: a metrics provider that records into an emitter.

    metrics = Metrics(provider=EmitterProvider(namespace="ServerlessAirline", service="booking"))

Needs the extra `powertools`. `docs/powertools.md` says what becomes of units, dimensions, metadata and the rest.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("aws_lambda_powertools") is None:
    raise ModuleNotFoundError(
        "emitter.powertools needs Powertools for AWS Lambda; install it with: pip install 'lambda-emitter[powertools]'",
        name="aws_lambda_powertools",
    )

from emitter.powertools.metric_set import MetricSet
from emitter.powertools.provider import EmitterProvider, SingleMetric
from emitter.powertools.units import MEASURES, Measure

__all__ = ["MEASURES", "EmitterProvider", "Measure", "MetricSet", "SingleMetric"]
