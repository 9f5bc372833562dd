"""Owns which numbers an instrument takes, and the words in which it refuses others. Knows no totals."""

from __future__ import annotations

import math
import operator

from emitter.errors import RecordingError
from emitter.record.attributes import INT64_MAX, INT64_MIN, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from emitter.record.snapshot import Kind

__all__ = ["Rule"]

_VERBS = {"counter": "add", "up-down counter": "add", "gauge": "set", "histogram": "record"}
"""What each kind of instrument is asked to do with a number."""

_INSTEAD_OF_NEGATIVE = {"counter": "zero or more (an up-down counter may go down)", "histogram": "zero or more"}
"""What is expected of those whose totals only grow. To every receiver a total that shrinks looks like a restart."""


class Rule:
    """Which numbers one instrument takes."""

    __slots__ = ("_instead_of_negative", "_told", "grows")

    def __init__(self, kind: Kind, name: str) -> None:
        self._told = f"{kind} {name!r} was asked to {_VERBS[kind]}"
        self._instead_of_negative = _INSTEAD_OF_NEGATIVE.get(kind, "")
        self.grows = bool(self._instead_of_negative)

    def checked(self, value: object) -> float:
        """A value as a plain int or float that fits the wire.

        Raises:
            RecordingError: It is something else.
        """
        number = _number(value)
        if number is None:
            raise self.refusal(value, "a finite float or an integer of 64 bits")
        if self.grows and number < 0:
            raise self.refusal(number, self._instead_of_negative)
        return number

    def refusal(self, value: object, expected: str) -> RecordingError:
        """What to raise instead of recording a value."""
        return RecordingError(f"{self._told} {shown(value)}; expected {expected}")


def _number(value: object) -> float | None:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # numpy integers come this way
    except TypeError:
        return None
    return number if INT64_MIN <= number <= INT64_MAX else None
