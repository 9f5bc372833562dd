"""Owns what totals belong to: a service, a function. Source: OpenTelemetry semantic conventions, "Resource"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emitter.environment import first_of, pairs_in
from emitter.errors import ConfigurationError, RecordingError
from emitter.record.attributes import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emitter.record.snapshot import Attributes, AttributeValue

__all__ = ["resource_of"]

_MEGABYTE = 1024 * 1024


def resource_of(service: str | None, environment: Mapping[str, str]) -> Attributes:
    """The attributes that say what the totals belong to, the instance left out.

    Args:
        service: Its name; `None`: from the environment.
        environment: What it is set to.

    Raises:
        ConfigurationError: What was wrong, where it came from, and what was expected.
    """
    if service is not None and not isinstance(service, str):
        raise ConfigurationError(f"service is a {type(service).__name__}; expected a name, such as 'checkout'")
    given = first_of(environment, "OTEL_RESOURCE_ATTRIBUTES")
    attributes = _lambda_resource(environment)
    if given is not None:
        attributes.update(pairs_in(*given))
    named = service or _value(first_of(environment, "OTEL_SERVICE_NAME"))
    fallback = _value(first_of(environment, "POWERTOOLS_SERVICE_NAME", "AWS_LAMBDA_FUNCTION_NAME"))
    attributes["service.name"] = named or attributes.get("service.name") or fallback or "unknown_service"
    try:
        return canonical(attributes)
    except RecordingError as error:
        raise ConfigurationError(f"the service's name or OTEL_RESOURCE_ATTRIBUTES: {error}") from None


def _value(found: tuple[str, str] | None) -> str:
    return found[1] if found is not None else ""


def _lambda_resource(environment: Mapping[str, str]) -> dict[str, AttributeValue]:
    """What Lambda tells of the function, by OpenTelemetry's resource conventions for functions and clouds."""
    function = environment.get("AWS_LAMBDA_FUNCTION_NAME", "")
    if not function:
        return {}
    told: dict[str, AttributeValue] = {
        "cloud.provider": "aws",
        "cloud.platform": "aws_lambda",
        "cloud.region": environment.get("AWS_REGION", ""),
        "faas.name": function,
        "faas.version": environment.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
        "faas.instance": environment.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
    }
    memory = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if memory.isdecimal():
        told["faas.max_memory"] = int(memory) * _MEGABYTE
    return {key: value for key, value in told.items() if value != ""}
