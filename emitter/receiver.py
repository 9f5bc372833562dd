"""Owns who gets the reports: the endpoint, and the header fields that are meant for it. See `emitter.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from emitter.endpoint import Endpoint, parse_url
from emitter.environment import first_of, pairs_in
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NOWHERE", "endpoint_of", "headers_of"]

NOWHERE = Endpoint("localhost", 4318, "localhost:4318", "/v1/metrics")
"""Of a disabled emitter that is given none."""


def endpoint_of(argument: str | None, environment: Mapping[str, str]) -> tuple[Endpoint, str]:
    """Where reports go, and the encoder that whoever said so has asked for.

    Raises:
        ConfigurationError: There is none, or it is no URL; where it came from, and what was expected.
    """
    if argument is not None:
        return parse_url("the endpoint", argument), "otlp"
    found = first_of(environment, "EMITTER_ENDPOINT")
    if found is not None:
        return parse_url(*found), "otlp"
    found = _otel_endpoint(environment)
    if found is None:
        raise ConfigurationError(
            "no endpoint was given; expected the URL that reports are POSTed to, as in "
            "Emitter('http://localhost:4318/v1/metrics') or in the environment variable EMITTER_ENDPOINT"
        )
    name, protocol = first_of(environment, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") or (
        "",
        "http/protobuf",
    )
    if protocol not in _OTEL_PROTOCOLS:
        raise ConfigurationError(
            f"{name} is {protocol!r} and the endpoint comes from {found[0]}; expected 'http/protobuf' or 'http/json', "
            "or the endpoint to be given in EMITTER_ENDPOINT"
        )
    return parse_url(*found), _OTEL_PROTOCOLS[protocol]


def _otel_endpoint(environment: Mapping[str, str]) -> tuple[str, str] | None:
    found = first_of(environment, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    if found is None:
        found = first_of(environment, "OTEL_EXPORTER_OTLP_ENDPOINT")
        if found is not None:
            base, mark, query = found[1].partition("?")
            found = found[0], base.rstrip("/") + "/v1/metrics" + mark + query
    return found


_OTEL_PROTOCOLS = {"http/protobuf": "otlp", "http/json": "otlp-json"}


def headers_of(
    argument: Mapping[str, str] | None, environment: Mapping[str, str], where: Endpoint
) -> tuple[tuple[str, str], ...]:
    """The header fields for a receiver, each name once.

    Raises:
        ConfigurationError: They are none; their values are not shown.
    """
    if argument is not None:
        if not isinstance(argument, Mapping):
            raise ConfigurationError(f"headers is a {type(argument).__name__}; expected a mapping of names to values")
        return _joined(argument.items())
    names: list[str] = []
    if _is_for(where, first_of(environment, "EMITTER_ENDPOINT")):
        names.append("EMITTER_HEADERS")
    if _is_for(where, _otel_endpoint(environment)):
        names += ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    found = first_of(environment, *names)
    return _joined(pairs_in(*found)) if found is not None else ()


def _is_for(where: Endpoint, named: tuple[str, str] | None) -> bool:
    """Whether what stands beside this variable may be told to that receiver: it names the same one, or none."""
    if named is None or where is NOWHERE:
        return True
    try:
        other = parse_url(*named)
    except ConfigurationError:  # meant for gRPC, say: it is for somebody else
        return False
    return (other.secure, other.host, other.port) == (where.secure, where.host, where.port)


def _joined(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Values of one name, however it is spelled, in one field (RFC 9110, 5.3): not all who sign keep several."""
    joined: list[tuple[str, str]] = []
    positions: dict[str, int] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            joined.append((name, value))  # refused by the request
            continue
        position = positions.setdefault(name.lower(), len(joined))
        if position == len(joined):
            joined.append((name, value))
        else:
            joined[position] = joined[position][0], f"{joined[position][1]},{value}"
    return tuple(joined)
