"""Owns what may identify a series: the checking, cleaning and ordering of attributes. Knows no instrument."""

from __future__ import annotations

import math

from emitter.errors import RecordingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from emitter.record.snapshot import Attributes, AttributeValue

__all__ = ["INT64_MAX", "INT64_MIN", "LIMIT_CHARACTERS", "canonical", "clean_text", "is_clean", "shown"]

LIMIT_CHARACTERS = 255
"""Longest key and longest string value; the rest is cut. InfluxDB, StatsD bridges and most dashboards cut or
refuse at 255 or 256, and nobody reads more."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
"""OTLP carries integers as `sint64`/`sfixed64`; nothing beyond may reach an encoder."""

_LIMIT_SHOWN_BITS = 256
"""A longer integer says nothing to a reader; beyond 4,300 digits Python refuses to write it out at all."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_FIRST_PRINTABLE, _DELETE, _LAST_C1 = " ", "\x7f", "\x9f"
_FIRST_SURROGATE, _LAST_SURROGATE = "\ud800", "\udfff"


def _is_refused(character: str) -> bool:
    """A control character (C0, DEL, C1) or half of a surrogate pair, which UTF-8 cannot carry."""
    return (
        character < _FIRST_PRINTABLE
        or _DELETE <= character <= _LAST_C1
        or _FIRST_SURROGATE <= character <= _LAST_SURROGATE
    )


def is_clean(text: str) -> bool:
    """Whether no control character and no surrogate is in the text."""
    # `isprintable` runs in C and settles nearly every text; what it refuses (a no-break space, say) is looked at.
    return text.isprintable() or not any(map(_is_refused, text))


def clean_text(text: str) -> str:
    """Cut a text to the limit and replace what no receiver should see by U+FFFD."""
    text = text[:LIMIT_CHARACTERS]
    if is_clean(text):
        return text
    return "".join(_REPLACEMENT if _is_refused(character) else character for character in text)


def shown(value: object) -> str:
    """A value as a refusal tells it: a number as it is, anything else by its type, since it may be secret."""
    if not isinstance(value, (int, float)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > _LIMIT_SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def canonical(raw: Mapping[str, AttributeValue]) -> Attributes:
    """Check, clean and sort the attributes of one series.

    Args:
        raw: Keys and values as the user gave them, in any order.

    Returns:
        Pairs sorted by key, each key once. Subclasses (a `StrEnum` member, say) come back as the plain type.

    Raises:
        RecordingError: A key is no text or empty, or a value is no string, boolean, finite float or 64-bit integer.
    """
    for key in raw:
        if not isinstance(key, str) or not key:
            raise RecordingError(f"attribute key {key!r} was refused; expected a non-empty string")
    # Sorted before cleaning too, so that two keys which become equal are told apart the same way every time.
    cleaned = {clean_text(key): _value(key, raw[key]) for key in sorted(raw)}
    return tuple(sorted(cleaned.items()))


def _value(key: str, value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return clean_text(str.__str__(value))
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and INT64_MIN <= value <= INT64_MAX:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise RecordingError(
        f"attribute {key!r} is {shown(value)}; expected a string, a boolean, an integer of 64 bits or a finite float"
    )
