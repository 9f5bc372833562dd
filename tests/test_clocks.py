from __future__ import annotations

import math

import pytest

from emitter.clocks import Clocks


class Hands:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 1_000_000.0
        self.clocks = Clocks(lambda: self.monotonic, lambda: self.wall)


@pytest.mark.parametrize(
    ("monotonic", "wall", "seconds"),
    [(3, 3, 3), (0, 600, 600), (5, 2, 5), (0, 0, 0), (5, -1, math.inf)],
    ids=["both go", "monotonic stood still", "wall was set back a little", "no time at all", "wall was set back"],
)
def test_what_has_gone_by_is_what_the_bolder_clock_says(monotonic, wall, seconds):
    """In a freeze the monotonic clock may stand still; a wall clock that was set back tells nothing."""
    hands = Hands()
    then = hands.clocks.now()
    hands.monotonic += monotonic
    hands.wall += wall

    assert hands.clocks.since(then) == seconds


def test_the_clocks_are_the_systems_by_default():
    """Seconds, both."""
    clocks = Clocks()
    then = clocks.now()

    assert 0 <= clocks.since(then) < 10
    assert then.wall > 1.6e9
