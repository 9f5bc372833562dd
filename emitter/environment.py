"""Owns how variables of the environment are read. Knows none of them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["first_of", "pairs_in"]


def first_of(environment: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Name and value of the first variable that is set and not empty."""
    for name in names:
        value = environment.get(name, "").strip()
        if value:
            return name, value
    return None


def pairs_in(name: str, text: str) -> tuple[tuple[str, str], ...]:
    """`key=value,key=value`, percent-encoded (OpenTelemetry: W3C Baggage without its properties)."""
    pairs = []
    for position, item in enumerate(filter(None, (item.strip() for item in text.split(","))), start=1):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            # Not shown: the values may be secret.
            raise ConfigurationError(f"item {position} of {name} is no pair; expected key=value,key=value")
        pairs.append((unquote(key.strip()), unquote(value.strip())))
    return tuple(pairs)
