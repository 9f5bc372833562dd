"""Owns the provider: when what was added becomes totals, and when these are reported."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import warnings
import weakref
from typing import TYPE_CHECKING

from aws_lambda_powertools.metrics import SchemaValidationError
from aws_lambda_powertools.metrics.provider import BaseProvider
from aws_lambda_powertools.metrics.provider import cold_start as cold_start_flag
from aws_lambda_powertools.metrics.provider.base import reset_cold_start_flag_provider

from emitter import forking
from emitter.client import Emitter
from emitter.errors import ConfigurationError
from emitter.loop import inside
from emitter.powertools.checks import (
    check_options,
    check_settings,
    checked_dimensions,
    checked_emitter,
    checked_text,
)
from emitter.powertools.environment import chosen, disabled, function_name
from emitter.powertools.logged import Invoked, logged
from emitter.powertools.metric_set import LIMIT_VALUES, MetricSet, Taken, Value
from emitter.powertools.totals import LIMIT_SHOWN, Totals, full_name
from emitter.powertools.units import MEASURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from aws_lambda_powertools.metrics import MetricResolution, MetricUnit

    from emitter.aws_lambda import Handler

__all__ = ["EmitterProvider", "SingleMetric"]

_EMPTY = "Must contain at least one metric."
_NOTHING_TO_PUBLISH = (
    "No application metrics to publish: none was added since the last flush. If there should always be one, "
    "use raise_on_empty_metrics=True"
)
"""Both begin as Powertools' own do: working code may look for them, and filter the second, by their first words."""

_logger = logging.getLogger("emitter.powertools")


class SingleMetric(MetricSet):
    """What `EmitterProvider.single_metric` gives: one value, to be given dimensions of its own."""

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        """Add the value. A second one is ignored, as in Powertools."""
        if self._empty:
            super().add_metric(name, unit, value, resolution)


class EmitterProvider(MetricSet, BaseProvider):
    """A Powertools metrics provider whose metrics become running totals of an emitter.

        metrics = Metrics(provider=EmitterProvider(namespace="ServerlessAirline", service="booking"))

    It can also stand where `Metrics` stands: it has the same methods.

    Args:
        emitter: Whose totals they become. `None`: one that is made here, of `settings` and the environment.
        namespace: Stands, with a dot, before the name of each metric. `None`: `POWERTOOLS_METRICS_NAMESPACE`, else
            nothing does, and the log says so once. Empty: nothing does.
        service: The dimension `service` of each metric. `None`: `POWERTOOLS_SERVICE_NAME`, else they have none.
        default_dimensions: As for `set_default_dimensions`.
        function_name: The dimension `function_name` of the metric `ColdStart`. `None`:
            `POWERTOOLS_METRICS_FUNCTION_NAME`, else what the context says.
        **settings: What `Emitter` takes: `endpoint`, `headers`, `encoder`, `timeout` and so on.

    Attributes:
        namespace: As above; may be changed at any time.
        service: As above; may be changed at any time.

    Raises:
        ConfigurationError: As for `Emitter`; or an argument makes no sense, also where metrics are disabled; or an
            emitter was given together with settings; or `POWERTOOLS_METRICS_DISABLED` or `POWERTOOLS_DEV` is neither
            true nor false.
    """

    def __init__(
        self,
        emitter: Emitter | None = None,
        *,
        namespace: str | None = None,
        service: str | None = None,
        default_dimensions: Mapping[str, object] | None = None,
        function_name: str | None = None,
        **settings: Any,
    ) -> None:
        if emitter is not None and settings:
            raise ConfigurationError(
                f"EmitterProvider was given an emitter and {', '.join(sorted(settings))}; expected one or the other"
            )
        check_settings(settings, disabled=disabled())
        super().__init__(default_dimensions)
        self.namespace = chosen(checked_text(namespace, "namespace"), "POWERTOOLS_METRICS_NAMESPACE")
        self.service = chosen(checked_text(service, "service"), "POWERTOOLS_SERVICE_NAME")
        self._function_name = checked_text(function_name, "function_name")
        self._running = 0
        self._decorates = False
        self._namespace_missed = False
        self._unsettled_told = False
        self._settings = {"service": service, **settings}
        self._made = None if emitter is None else self._joined(checked_emitter(emitter))
        if not disabled():
            self._emitting()  # made now, which in Lambda is the INIT phase
        forking.watch(self)
        _living.add(self)

    @property
    def emitter(self) -> Emitter:
        """What the totals belong to. Where Powertools' metrics are disabled, it is made when it is first asked for."""
        return self._emitting()[0]

    @property
    def refused(self) -> int:
        """How many values could not be counted: a negative count, or a name that is something else already."""
        return self._made[1].refused if self._made is not None else 0

    def _emitting(self) -> tuple[Emitter, Totals]:
        if self._made is None:
            self._made = self._joined(Emitter(**self._settings))
        return self._made

    def _joined(self, emitter: Emitter) -> tuple[Emitter, Totals]:
        emitter.last_calls.append(self._interrupt)
        emitter.at_restart.append(self._begin_anew)
        return emitter, Totals(emitter)

    def after_fork(self) -> None:
        """Go on as a sandbox of its own, in a forked child: what was added belongs to the parent."""
        self._begin_anew()
        self._running = 0

    def _begin_anew(self) -> None:
        """Another sandbox begins, or a test: what was added belongs to the one before. An invocation goes on."""
        self._reset()  # replaces the lock: in a forked child some other thread's may hold it for ever
        if self._made is not None:
            self._made[1].begin_anew()
        # As Powertools begins: it knows of no cold start under provisioned concurrency (its first versions 3 did).
        if getattr(cold_start_flag, "initialization_type", None) != "provisioned-concurrency":
            reset_cold_start_flag_provider()  # type: ignore[no-untyped-call]  # Powertools' own

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        """Add one value; see `MetricSet.add_metric`."""
        super().add_metric(name, unit, value, resolution)
        if len(self._values) >= LIMIT_VALUES:
            self._record(self.take_values())

    @contextlib.contextmanager
    def single_metric(
        self,
        name: str,
        unit: MetricUnit | str,
        value: float,
        resolution: MetricResolution | int = 60,
        namespace: str | None = None,
        default_dimensions: Mapping[str, object] | None = None,
    ) -> Iterator[SingleMetric]:
        """One value with dimensions of its own: those of the other metrics, the default ones too, do not apply.

            with provider.single_metric(name="Upgrades", unit="Count", value=1) as metric:
                metric.add_dimension(name="tier", value="gold")

        It becomes a total when the block ends, unless that raises, and goes out with the next report.

        Args:
            name: As for `add_metric`.
            unit: As for `add_metric`.
            value: As for `add_metric`.
            resolution: As for `add_metric`.
            namespace: `None`: the provider's.
            default_dimensions: What it has from the start.
        """
        metric = SingleMetric(default_dimensions)
        metric.add_metric(name, unit, value, resolution)
        yield metric
        self._record(metric.take(), namespace)

    def serialize_metric_set(
        self,
        metrics: Mapping[str, Any] | None = None,
        dimensions: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What a flush would count now, for a test or a log. Nothing is taken away.

        Args:
            metrics: In the shape of Powertools' own set: `{"Orders": {"Unit": "Count", "Value": [1.0]}}`. `None`:
                what was added.
            dimensions: `None`: what was added, and the default ones.
            metadata: `None`: what was added.

        Returns:
            `metrics` by name (kind, base unit, values in it), `dimensions` and `metadata`.

        Raises:
            SchemaValidationError: There is no metric.
        """
        here = self.look()
        values = here.values
        if metrics is not None:
            values = [Value(name, each["Unit"], value) for name, each in metrics.items() for value in each["Value"]]
        if not values:
            raise SchemaValidationError(_EMPTY)
        found: dict[str, Any] = {}
        for name, unit, value in values:
            measure = MEASURES[unit]
            metric = {"kind": measure.kind, "unit": measure.unit, "values": []}
            metric = found.setdefault(full_name(self.namespace, name), metric)
            metric["values"].append(measure.converted(value))
        return {
            "metrics": found,
            "dimensions": self._attributes(here.dimensions if dimensions is None else dimensions),
            "metadata": dict(here.metadata if metadata is None else metadata),
        }

    def flush_metrics(self, raise_on_empty_metrics: bool = False) -> None:
        """Make totals of what was added, and begin anew.

        Inside a handler that `log_metrics` decorates they go out at its end, together. Elsewhere they go out now;
        but inside a running event loop, which that would block, with the next flush: `await provider.emitter.flush()`.

        Raises:
            SchemaValidationError: Nothing was added, and `raise_on_empty_metrics`.
        """
        if not self.look().empty:
            self._record(self.take())
        elif not raise_on_empty_metrics:  # and no dimension is taken away, as in Powertools
            warnings.warn(_NOTHING_TO_PUBLISH, stacklevel=2)
        elif not disabled():
            raise SchemaValidationError(_EMPTY)
        if not self._running and not disabled() and not inside():
            self.emitter.flush_sync()

    def add_cold_start_metric(self, context: Any) -> None:
        """Count this cold start, with no dimensions but the function's name and `service`."""
        name = function_name(self._function_name, context)
        dimensions = {"function_name": name} if name else {}
        self._record(Taken([Value("ColdStart", "Count", 1)], dimensions, {}, empty=False))

    def log_metrics(
        self,
        lambda_handler: Callable[..., Any] | None = None,
        capture_cold_start_metric: bool = False,
        raise_on_empty_metrics: bool = False,
        default_dimensions: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Any:
        """Decorate a handler, `def` or `async def`: what it adds goes out in one report at its end.

        Args:
            lambda_handler: What Lambda calls with an event and a context.
            capture_cold_start_metric: Whether the first invocation counts 1 for the metric `ColdStart`.
            raise_on_empty_metrics: Whether an invocation that adds no metric raises a `SchemaValidationError`, if
                it raises nothing itself.
            default_dimensions: As for `set_default_dimensions`.
            **options: What `Emitter.lambda_handler` takes: `timeout`, `delivery` and so on.

        Raises:
            ConfigurationError: The decorated object cannot be called, or an option makes no sense; also where
                metrics are disabled.
        """
        check_options(options)
        self.set_default_dimensions(**checked_dimensions(default_dimensions))
        if lambda_handler is None:
            return functools.partial(
                self.log_metrics,
                capture_cold_start_metric=capture_cold_start_metric,
                raise_on_empty_metrics=raise_on_empty_metrics,
                **options,
            )
        self._decorates = True
        end = functools.partial(self._end, cold_start=capture_cold_start_metric, never_empty=raise_on_empty_metrics)
        invoked = Invoked(self._begin, end)
        return logged(lambda_handler, invoked, functools.partial(self._decorated, options))

    def _decorated(self, options: Mapping[str, Any], handler: Handler) -> Handler:
        decorated: Handler = self.emitter.lambda_handler(**options)(handler)
        return decorated

    def _begin(self) -> None:
        with self._lock:
            self._running += 1

    def _interrupt(self) -> None:
        """The handler may never end: count what it has added so far. Called by another thread."""
        self._record(self.take_values())

    def _end(self, context: Any, *, cold_start: bool, never_empty: bool) -> None:
        try:
            with self._lock:
                self._running -= 1
            if cold_start and not disabled():
                self._add_cold_start_metric(context)
            taken = self.take()
            self._record(taken)
            if taken.empty and not never_empty:
                warnings.warn(_NOTHING_TO_PUBLISH, stacklevel=2)
            _tell_of_unsettled()
        except Exception:
            # A mistake in the code around us, or a warning that is to be an error: the handler has its own result.
            _logger.exception("what an invocation has added could not be counted")
        else:
            if taken.empty and never_empty and not disabled():
                raise SchemaValidationError(_EMPTY)

    def _record(self, taken: Taken, namespace: str | None = None) -> None:
        if disabled():
            return
        namespace = self.namespace if namespace is None else namespace
        if namespace is None and taken.values and not self._namespace_missed:
            self._namespace_missed = True
            _logger.warning(
                "the metric %r has no namespace: give EmitterProvider(namespace=...), an empty one if there is to be "
                "none, or set POWERTOOLS_METRICS_NAMESPACE. Metrics(namespace=..., service=...) keeps both to itself",
                taken.values[0].name[:LIMIT_SHOWN],
            )
        self._emitting()[1].record(taken.values, self._attributes(taken.dimensions), namespace)
        # Where it was with CloudWatch: in the log. It is there to be searched for; for a metric it has too many values.
        if taken.metadata and _logger.isEnabledFor(logging.INFO):
            _logger.info("metadata of the metrics: %s", json.dumps(taken.metadata, default=str))

    def _tell_if_unsettled(self) -> None:
        if self._decorates or self._unsettled_told or disabled():
            return
        waiting = len(self.look().values)
        if waiting:
            self._unsettled_told = True
            _logger.warning(
                "the provider of namespace %r and service %r holds values (%d), and no log_metrics of its own counts "
                "them when the handler ends: share one provider among modules, or call flush_metrics() of this one",
                self.namespace,
                self.service,
                waiting,
            )

    def _attributes(self, dimensions: Mapping[str, str]) -> dict[str, str]:
        return {"service": str(self.service), **dimensions} if self.service else dict(dimensions)


_living: weakref.WeakSet[EmitterProvider] = weakref.WeakSet()


def _tell_of_unsettled() -> None:
    """Log once of each provider that holds values at the end of an invocation, and has no handler that counts them.

    All `Metrics` of Powertools' own share what they hold, so working code may make one in each module.
    """
    for provider in [*_living]:
        provider._tell_if_unsettled()  # noqa: SLF001  one of us
