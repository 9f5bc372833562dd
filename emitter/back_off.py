"""Owns how long to leave somebody alone after a failure. Knows nothing of what failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.clocks import Clocks

__all__ = ["LONGEST_RETRY_AFTER", "BackOff", "chance"]

_FIRST, _LONGEST = 1.0, 60.0
"""Seconds within which the next attempt falls by chance, "full jitter": doubled with each failure in a row. Chance
keeps a fleet of sandboxes that failed together from coming back together."""

LONGEST_RETRY_AFTER = 3_600.0
"""Seconds: whoever asks to be left alone for longer is asked again after an hour."""


def chance() -> float:
    """From 0 up to 1. Asks the system: the state of a generator would be the same in all clones of a snapshot."""
    return int.from_bytes(os.urandom(6), "big") / 2**48


class BackOff:
    """Failures in a row, and the time that has to pass after them.

    Args:
        clocks: Time in a freeze counts too, so both clocks are asked.
        jitter: A random number from 0 up to 1.
    """

    def __init__(self, clocks: Clocks, jitter: Callable[[], float]) -> None:
        self._clocks = clocks
        self._jitter = jitter
        self._failures = 0
        self._seconds = 0.0
        self._since = clocks.now()

    @property
    def waiting(self) -> bool:
        """Whether it is too early for the next attempt."""
        return self._seconds > 0 and self._clocks.since(self._since) < self._seconds

    def fail(self, retry_after: float | None = None) -> None:
        """Begin to wait.

        Args:
            retry_after: Seconds that the other side asked for; they win over chance. `None`: it asked for nothing.
        """
        if retry_after is None:
            self._seconds = min(_LONGEST, _FIRST * 2.0 ** min(self._failures, 10)) * self._jitter()
        else:
            self._seconds = min(max(retry_after, 0.0), LONGEST_RETRY_AFTER)
        self._failures += 1
        self._since = self._clocks.now()

    def succeed(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._seconds = 0.0
