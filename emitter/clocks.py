"""Owns the two clocks of a sandbox, and how much time has gone by both. Knows nothing of what is timed.

While a sandbox is frozen the monotonic clock may stand still, and the wall clock may jump; neither alone tells how
long ago something was.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clocks", "Moment"]


class Moment(NamedTuple):
    """One moment, on both clocks, in seconds."""

    monotonic: float
    wall: float

    def since(self, earlier: Moment) -> float:
        """Seconds from an earlier moment to this one, by the clock that says more; infinite if wall time was set back.

        So it is never less than what has gone by, and what depends on it is given up too early rather than too late.
        """
        wall = self.wall - earlier.wall
        return math.inf if wall < 0 else max(wall, self.monotonic - earlier.monotonic)


class Clocks:
    """Both clocks.

    Args:
        monotonic: Seconds since some moment; never goes back, may stand still in a freeze.
        wall: Seconds since 1970; may be set forward and back.
    """

    __slots__ = ("monotonic", "wall")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        self.wall = wall

    def now(self) -> Moment:
        """This moment."""
        return Moment(self.monotonic(), self.wall())

    def since(self, moment: Moment) -> float:
        """Seconds since a moment; see `Moment.since`."""
        return self.now().since(moment)
