from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitter.back_off import LONGEST_RETRY_AFTER, BackOff
from emitter.clocks import Clocks


class Waits:
    """A back-off, and how long it waits by a clock set by hand."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.now = 0.0
        self.wall = 0.0
        self.back_off = BackOff(Clocks(lambda: self.now, lambda: self.wall), lambda: jitter)

    def seconds(self) -> float:
        """Until it is over, to a quarter of a second."""
        began = self.now
        while self.back_off.waiting:
            self.now += 0.25
            self.wall += 0.25
        return self.now - began


def test_nothing_failed_nothing_waits():
    """Not even for no time."""
    assert not Waits().back_off.waiting


def test_each_failure_in_a_row_doubles_the_time_up_to_a_minute():
    """1, 2, 4, ... 60; a success starts again."""
    waits = Waits()
    seconds = []
    for _ in range(8):
        waits.back_off.fail()
        seconds.append(waits.seconds())
    waits.back_off.succeed()
    waits.back_off.fail()
    seconds.append(waits.seconds())

    assert seconds == [1, 2, 4, 8, 16, 32, 60, 60, 1]


def test_chance_decides_how_much_of_it_is_waited_for():
    """Full jitter: anything from nothing to all of it, so that a fleet does not come back together."""
    for jitter, seconds in ((0.0, 0), (0.25, 0.25), (0.5, 0.5)):
        waits = Waits(jitter)
        waits.back_off.fail()

        assert waits.seconds() == seconds


@pytest.mark.parametrize(("asked", "seconds"), [(7.0, 7.0), (0.0, 0.0), (-5.0, 0.0), (1e12, LONGEST_RETRY_AFTER)])
def test_what_the_other_side_asks_for_wins_within_reason(asked, seconds):
    """Over chance, in both directions; an hour at most."""
    waits = Waits()
    waits.back_off.fail(retry_after=asked)

    assert waits.seconds() == seconds


def test_a_freeze_counts_as_waiting():
    """The monotonic clock may stand still in it, the wall clock does not."""
    waits = Waits()
    waits.back_off.fail(retry_after=30)
    waits.wall += 31

    assert not waits.back_off.waiting


def test_a_success_ends_the_waiting():
    """However long it would still have been."""
    waits = Waits()
    waits.back_off.fail(retry_after=30)
    waits.back_off.succeed()

    assert not waits.back_off.waiting


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), min_size=1, max_size=2_000))
def test_it_is_never_waited_for_ever(answers):
    """Whatever is asked for, and however often."""
    waits = Waits()
    for answer in answers:
        waits.back_off.fail(answer)
    waits.now += LONGEST_RETRY_AFTER
    waits.wall += LONGEST_RETRY_AFTER

    assert not waits.back_off.waiting
