"""The other side of a signature, written from AWS's description of it: what the services do with a request.

Knows nothing of botocore or of the emitter, and shares no code with either. Source: AWS Identity and Access Management
user guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Account", "RefusedError", "canonical_request", "verify"]

LEEWAY = 300.0
"""Seconds that a signature may be old, or early."""

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), "
    r"Signature=([0-9a-f]{64})"
)


class Account(NamedTuple):
    """Whose requests are taken."""

    access_key: str
    secret_key: str
    token: str | None = None


class RefusedError(Exception):
    """Why a request is answered with 403."""


def verify(
    method: str,
    target: str,
    fields: Sequence[tuple[str, str]],
    body: bytes,
    *,
    accounts: Sequence[Account],
    service: str,
    region: str,
    now: float,
) -> tuple[str, ...]:
    """Find out who has signed a request as it arrived.

    Returns:
        The names of the fields that were signed.

    Raises:
        RefusedError: Nobody we know, or not this request, or not now.
    """
    given = _only(fields, "authorization")
    found = _AUTHORIZATION.fullmatch(given)
    if found is None:
        raise RefusedError("the field Authorization has another form")
    access_key, date, its_region, its_service, names, signature = found.groups()
    account = next((each for each in accounts if each.access_key == access_key), None)
    if account is None:
        raise RefusedError("the access key is not known")
    if (its_service, its_region) != (service, region):
        raise RefusedError(f"signed for {its_service} in {its_region}")
    moment = _only(fields, "x-amz-date")
    if moment[:8] != date or abs(calendar.timegm(time.strptime(moment, "%Y%m%dT%H%M%SZ")) - now) > LEEWAY:
        raise RefusedError(f"signed at {moment}")
    signed = tuple(names.split(";"))
    if list(signed) != sorted(set(signed)):
        raise RefusedError("the signed fields are not sorted")
    wanted = {name.lower() for name, _ in fields if name.lower().startswith("x-amz-")} | {"host", "content-type"}
    if not wanted <= set(signed):
        raise RefusedError(f"not signed: {', '.join(sorted(wanted - set(signed)))}")
    if account.token is not None and _only(fields, "x-amz-security-token") != account.token:
        raise RefusedError("the session token is another one")
    canonical = canonical_request(method, target, fields, signed, body)
    scope = f"{date}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + account.secret_key).encode()
    for part in (date, region, service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(key.hex(), signature):
        raise RefusedError("the signature does not match")
    return signed


def canonical_request(
    method: str, target: str, fields: Sequence[tuple[str, str]], signed: Sequence[str], body: bytes
) -> str:
    """A request in the one form in which both sides look at it."""
    path, _, query = target.partition("?")
    lines = [method, _canonical_path(path), _canonical_query(query)]
    lines += [f"{name}:{_value(fields, name)}" for name in signed]
    lines += ["", ";".join(signed), hashlib.sha256(body).hexdigest()]
    return "\n".join(lines)


def _canonical_path(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(_percent_encoded(segment.encode()))  # what was encoded already is encoded once more
    end = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(kept) + end


def _canonical_query(query: str) -> str:
    pairs = []
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        pairs.append((_percent_encoded(_percent_decoded(name)), _percent_encoded(_percent_decoded(value))))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _percent_encoded(data: bytes) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in data)


def _percent_decoded(text: str) -> bytes:
    return re.sub(rb"%([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode())


def _value(fields: Sequence[tuple[str, str]], name: str) -> str:
    values = [" ".join(value.split()) for each, value in fields if each.lower() == name]
    if not values:
        raise RefusedError(f"{name} is signed, and not there")
    return ",".join(values)


def _only(fields: Sequence[tuple[str, str]], name: str) -> str:
    values = [value for each, value in fields if each.lower() == name]
    if len(values) != 1:
        raise RefusedError(f"{len(values)} fields {name}")
    return values[0]
