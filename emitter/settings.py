"""Owns how an emitter is set up: arguments first, then the environment. Reads the environment only when asked.

    what        argument    environment, first that is set and not empty
    endpoint    endpoint    EMITTER_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
                            OTEL_EXPORTER_OTLP_ENDPOINT + /v1/metrics
    headers     headers     EMITTER_HEADERS, OTEL_EXPORTER_OTLP_METRICS_HEADERS, OTEL_EXPORTER_OTLP_HEADERS
    timeout     timeout     EMITTER_TIMEOUT, in seconds
    delivery    delivery    EMITTER_DELIVERY: buffered, transmitted, acknowledged, answered
    encoder     encoder     EMITTER_ENCODER: influx, json, otlp, otlp-json, remote-write
    disabled    -           EMITTER_DISABLED, OTEL_SDK_DISABLED
    service     service     OTEL_SERVICE_NAME, service.name in OTEL_RESOURCE_ATTRIBUTES,
                            POWERTOOLS_SERVICE_NAME, AWS_LAMBDA_FUNCTION_NAME

Headers from the environment go to the receiver that the endpoint beside them names, EMITTER_* or OTEL_*, and to no
other one: they may be its secrets. Where no endpoint stands beside them, they go to any. What an argument says of
credentials, as `user:password@` in the endpoint, wins over an Authorization among them.

An endpoint from OTEL_* has to be meant for OTLP over HTTP, if OTEL_EXPORTER_OTLP_METRICS_PROTOCOL or
OTEL_EXPORTER_OTLP_PROTOCOL says what it is meant for; whether as protobuf or as JSON then decides the encoder.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "Environment Variable Specification";
AWS Lambda developer guide, "Defined runtime environment variables".
"""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from emitter.encode import Encoder, encoder_named
from emitter.environment import first_of
from emitter.errors import ConfigurationError
from emitter.receiver import NOWHERE, endpoint_of, headers_of
from emitter.resource import resource_of
from emitter.transmit.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from emitter.endpoint import Endpoint
    from emitter.record.snapshot import Attributes

__all__ = [
    "DEFAULT_AGE_LIMIT",
    "DEFAULT_IDLE_LIMIT",
    "DEFAULT_REPORT_LIMIT_BYTES",
    "DEFAULT_TIMEOUT",
    "Settings",
    "Signer",
    "checked_delivery",
    "checked_switch",
    "checked_timeout",
]

DEFAULT_TIMEOUT = 0.25
"""Seconds for a whole flush: five round trips across a continent, and a quarter of what people complain of."""

DEFAULT_IDLE_LIMIT = 50.0
"""Seconds without a report after which a connection is replaced: load balancers close theirs after 60 s."""

DEFAULT_AGE_LIMIT = 3_500.0
"""Seconds after which a connection is replaced: AWS load balancers close theirs after 3,600 s."""

DEFAULT_REPORT_LIMIT_BYTES = 4 * 1024 * 1024
"""Of one request's body: what receivers usually take (gRPC's limit, which several of them have for HTTP too)."""

_LEAST_REPORT_LIMIT_BYTES = 1024
"""Room for the resource and some series; a smaller limit would make a request of each."""


class Signer(Protocol):
    """What signs requests, for receivers that take no others."""

    def check(self, url: str) -> None:
        """Refuse what can never be signed, and get ready for the rest. Called when an emitter that reports is made.

        Raises:
            ConfigurationError: What was wrong with the endpoint, and what was expected.
        """
        ...  # pragma: no cover  a protocol's body is never run

    def sign(self, method: str, url: str, headers: Mapping[str, str], body: bytes | bytearray) -> Mapping[str, str]:
        """The header fields to add to one request. Called in the middle of a flush, so it waits for nothing.

        Args:
            method: `POST`.
            url: Where it goes to, the query included.
            headers: The fields that it has so far, save those that whoever passes it on may change.
            body: As it goes out, compressed perhaps. Not to be kept: an encoder may use its buffer again.

        Raises:
            CredentialsError: There is nothing to sign it with. The totals are kept.
        """
        ...  # pragma: no cover  as above


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was decided when an emitter was made.

    Attributes:
        endpoint: Where reports go; meaningless if disabled.
        headers: Further header fields. May be secret, so they are in no `repr`.
        timeout: Seconds for a whole flush.
        delivery: How far a flush waits for its report to get.
        disabled: Whether nothing is ever reported.
        encoder: What turns a snapshot into the body of a request.
        deltas: Whether counters and histograms are reported as what was added since the report before.
        compress: Whether a body above 12 KB is put into gzip, if that makes it smaller.
        report_limit_bytes: Of one request's body, before compression; what is larger is divided.
        resource: What the totals belong to, the instance left out.
        ssl_context: Whom TLS trusts, and more; `None`: the operating system's trust store.
        signer: What signs each request; `None`: nothing does.
        sticky_cookies: Names of cookies to keep, besides those of AWS's load balancers.
        idle_limit: Seconds without a report after which a connection is replaced.
        age_limit: Seconds after which a connection is replaced.
    """

    endpoint: Endpoint
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    timeout: float
    delivery: Delivery
    disabled: bool
    resource: Attributes
    encoder: Encoder
    deltas: bool = False
    compress: bool = True
    report_limit_bytes: int = DEFAULT_REPORT_LIMIT_BYTES
    ssl_context: ssl.SSLContext | None = None
    signer: Signer | None = None
    sticky_cookies: Iterable[str] = ()
    idle_limit: float = DEFAULT_IDLE_LIMIT
    age_limit: float = DEFAULT_AGE_LIMIT

    @classmethod
    def resolve(
        cls,
        environment: Mapping[str, str],
        *,
        endpoint: str | None,
        service: str | None,
        headers: Mapping[str, str] | None,
        delivery: Delivery | None,
        timeout: float | None,
        encoder: str | Encoder | None = None,
        temporality: str = "cumulative",
        compress: bool = True,
        report_limit_bytes: int = DEFAULT_REPORT_LIMIT_BYTES,
        ssl_context: ssl.SSLContext | None = None,
        signer: Signer | None = None,
        sticky_cookies: Iterable[str] = (),
        idle_limit: float = DEFAULT_IDLE_LIMIT,
        age_limit: float = DEFAULT_AGE_LIMIT,
    ) -> Settings:
        """Decide, from arguments (`None`: not given) and the environment.

        Raises:
            ConfigurationError: What was wrong, where it came from, and what was expected.
        """
        disabled = _disabled(environment)
        where, protocol = (NOWHERE, "otlp") if disabled and endpoint is None else endpoint_of(endpoint, environment)
        given = headers_of(headers, environment, where)
        if headers is None and endpoint is not None and where.credentials:
            given = tuple((name, value) for name, value in given if name.lower() != "authorization")
        encoding = _encoder(encoder, environment, protocol)
        return cls(
            endpoint=where,
            headers=given,
            timeout=_timeout(timeout, environment),
            delivery=_delivery(delivery, environment),
            disabled=disabled,
            resource=resource_of(service, environment),
            encoder=encoding,
            deltas=_deltas(temporality, encoding),
            compress=checked_switch(compress, "compress"),
            report_limit_bytes=_report_limit(report_limit_bytes),
            ssl_context=_ssl_context(ssl_context, where, disabled=disabled),
            signer=_signer(signer, where, given, disabled=disabled),
            sticky_cookies=sticky_cookies,
            idle_limit=checked_timeout(idle_limit, "idle_limit"),
            age_limit=checked_timeout(age_limit, "age_limit"),
        )

    @property
    def request_headers(self) -> tuple[tuple[str, str], ...]:
        """The header fields of each request that are not the protocol's own."""
        named = {str(name).lower() for name, _ in self.headers}  # one that is no string is refused by the request
        extra = [("User-Agent", "lambda-emitter")] if "user-agent" not in named else []
        if self.endpoint.credentials and "authorization" not in named:
            extra.append(("Authorization", self.endpoint.credentials))
        return (*extra, *self.headers)


def _timeout(argument: float | None, environment: Mapping[str, str]) -> float:
    origin, raw = "timeout", argument
    if raw is None:
        found = first_of(environment, "EMITTER_TIMEOUT")
        if found is None:
            return DEFAULT_TIMEOUT
        origin, text = found
        try:
            raw = float(text)
        except ValueError:
            raise ConfigurationError(f"{origin} is {text!r}; expected seconds, such as 0.25") from None
    return checked_timeout(raw, origin)


def checked_timeout(raw: float, origin: str = "timeout") -> float:
    """Seconds as they can be waited for, or a `ConfigurationError` that names the origin."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 0 <= raw < math.inf:
        raise ConfigurationError(f"{origin} is {raw!r}; expected seconds, zero or more, such as 0.25")
    return float(raw)


def checked_delivery(raw: Delivery) -> Delivery:
    """A level of delivery, or a `ConfigurationError`."""
    if not isinstance(raw, Delivery):
        raise ConfigurationError(f"delivery is {raw!r}; expected a Delivery, such as Delivery.TRANSMITTED")
    return raw


def _ssl_context(context: ssl.SSLContext | None, endpoint: Endpoint, *, disabled: bool) -> ssl.SSLContext | None:
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(
            f"ssl_context is a {type(context).__name__}; expected an ssl.SSLContext, as ssl.create_default_context() "
            "makes one"
        )
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(
            "ssl_context is one for servers; expected one for clients, as ssl.create_default_context() makes one"
        )
    if not endpoint.secure and not disabled:
        raise ConfigurationError(
            f"ssl_context was given, and the endpoint {endpoint.shown} is no https URL; expected https://, or no "
            "ssl_context"
        )
    return context


def _signer(
    signer: Signer | None, endpoint: Endpoint, headers: Iterable[tuple[str, str]], *, disabled: bool
) -> Signer | None:
    if signer is None:
        return None
    if isinstance(signer, type):
        raise ConfigurationError(
            f"signer is the class {signer.__name__}; expected an object of it: {signer.__name__}()"
        )
    if not callable(getattr(signer, "sign", None)) or not callable(getattr(signer, "check", None)):
        raise ConfigurationError(
            f"signer is a {type(signer).__name__}, which lacks a method `check` or `sign`; expected one such as "
            "emitter.sigv4.SigV4()"
        )
    if endpoint.credentials or any(str(name).lower() == "authorization" for name, _ in headers):
        raise ConfigurationError(
            "signer and an Authorization (in headers, or user:password in the endpoint) were both given; expected one"
        )
    if not disabled:
        signer.check(endpoint.url)
    return signer


def _delivery(argument: Delivery | None, environment: Mapping[str, str]) -> Delivery:
    if argument is not None:
        return checked_delivery(argument)
    found = first_of(environment, "EMITTER_DELIVERY")
    if found is None:
        return Delivery.TRANSMITTED
    try:
        return Delivery[found[1].upper()]
    except KeyError:
        known = ", ".join(level.name.lower() for level in Delivery)
        raise ConfigurationError(f"EMITTER_DELIVERY is {found[1]!r}; expected one of {known}") from None


def _encoder(argument: str | Encoder | None, environment: Mapping[str, str], otherwise: str) -> Encoder:
    if isinstance(argument, str):
        return encoder_named(argument)
    if argument is None:
        name, text = first_of(environment, "EMITTER_ENCODER") or ("encoder", otherwise)
        return encoder_named(text, name)
    if not isinstance(argument, Encoder):
        shown = f"the class {argument.__name__}" if isinstance(argument, type) else f"a {type(argument).__name__}"
        raise ConfigurationError(
            f"encoder is {shown}; expected a name, or an emitter.encode.Encoder: as_encoder makes one out of a function"
        )
    return argument


def _deltas(temporality: str, encoder: Encoder) -> bool:
    if temporality not in {"cumulative", "delta"}:
        raise ConfigurationError(f"temporality is {temporality!r}; expected 'cumulative' or 'delta'")
    if temporality == "delta" and not encoder.deltas:
        raise ConfigurationError(
            f"temporality is 'delta', which {type(encoder).__name__} cannot carry; expected 'cumulative', or another "
            "encoder"
        )
    return temporality == "delta"


def checked_switch(raw: bool, origin: str) -> bool:
    """True or False, or a `ConfigurationError` that names the origin."""
    if not isinstance(raw, bool):
        raise ConfigurationError(f"{origin} is {raw!r}; expected True or False")
    return raw


def _report_limit(limit_bytes: int) -> int:
    if not isinstance(limit_bytes, int) or isinstance(limit_bytes, bool) or limit_bytes < _LEAST_REPORT_LIMIT_BYTES:
        raise ConfigurationError(
            f"report_limit_bytes is {limit_bytes!r}; expected an integer, {_LEAST_REPORT_LIMIT_BYTES} or more"
        )
    return limit_bytes


def _disabled(environment: Mapping[str, str]) -> bool:
    found = first_of(environment, "EMITTER_DISABLED", "OTEL_SDK_DISABLED")
    if found is None:
        return False
    name, text = found
    if text.lower() not in {"0", "1", "false", "true", "no", "yes"}:
        raise ConfigurationError(f"{name} is {text!r}; expected true or false")
    return text.lower() in {"1", "true", "yes"}
