from __future__ import annotations

import os
import queue
import threading
import time

import pytest

from emitter.guard import Guard
from tests.scripted_peer import PATIENCE

LEAD = 0.05


class Acts:
    """What a guard has done: the seconds that were left each time."""

    def __init__(self) -> None:
        self.left: queue.Queue[float] = queue.Queue()
        self.guard = Guard(LEAD, self.left.put)

    def next(self) -> float:
        return self.left.get(timeout=PATIENCE)


@pytest.fixture
def acts():
    """A guard, and what it does."""
    return Acts()


def test_it_acts_before_the_time_is_over(acts):
    """By the lead that was asked for."""
    acts.guard.arm(1, LEAD + 0.02)

    assert 0 < acts.next() <= LEAD


def test_an_invocation_that_has_less_than_the_lead_has_half_of_it_first(acts):
    """Otherwise a function with a short time-out would be taken for timed out at its start."""
    started = time.monotonic()
    acts.guard.arm(1, LEAD)

    assert acts.next() <= LEAD / 2
    assert time.monotonic() - started >= LEAD / 2


def test_one_that_ends_in_time_is_left_alone(acts):
    """Another, armed after it, is acted upon: so the thread was awake after the time of the first."""
    acts.guard.arm(1, LEAD + 0.01)
    acts.guard.disarm(1)
    acts.guard.arm(2, LEAD + 0.02)
    acts.next()

    assert acts.left.empty()


def test_it_acts_once_for_each(acts):
    """Whatever else is armed meanwhile; one that has less time than those before it is acted upon first."""
    acts.guard.arm(1, 60.0)
    acts.guard.arm(2, LEAD + 0.04)
    acts.guard.arm(3, LEAD + 0.02)
    acts.next()
    acts.next()
    acts.guard.disarm(1)

    assert acts.left.empty()
    assert acts.guard._armed == {}


def test_there_is_one_thread_and_none_until_it_is_needed():
    """A function that is never invoked pays for none."""

    def guards():
        return [thread for thread in threading.enumerate() if thread.name == "emitter-guard"]

    before = len(guards())
    acts = Acts()
    assert len(guards()) == before
    for number in range(3):
        acts.guard.arm(number, 60.0)
        acts.guard.disarm(number)

    assert len(guards()) == before + 1


def test_arming_wakes_the_thread_only_if_it_would_sleep_for_too_long(acts):
    """That is what makes it cheap: each invocation's end is later than the one before it."""
    acts.guard.arm(1, LEAD + 0.01)
    acts.next()
    acts.guard.arm(2, 60.0)  # nothing is armed any more, so the thread sleeps until it is woken
    deadline = time.monotonic() + PATIENCE
    while acts.guard._woken.is_set():
        assert time.monotonic() < deadline, "the thread has not heard"
    for number in range(10):
        acts.guard.arm(number, 61.0)

    assert not acts.guard._woken.is_set()


def test_a_forked_child_watches_for_itself(acts):
    """A fork takes no thread along, and the parent's invocation is not the child's."""
    acts.guard.arm(1, 60.0)
    child = os.fork()
    if child == 0:
        acted = False
        try:
            fired = threading.Event()
            acts.guard._act = lambda left: fired.set()
            acts.guard.arm(2, LEAD)
            acted = fired.wait(PATIENCE) and not acts.guard._armed
        finally:
            os._exit(not acted)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_thread_that_could_not_be_started_is_tried_again(acts, monkeypatch):
    """A limit of the system leaves one invocation unguarded, and not the rest of the sandbox's life."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            acts.guard.arm(1, LEAD)
    acts.guard.disarm(1)
    acts.guard.arm(2, LEAD)

    assert acts.next() <= LEAD / 2


def test_it_can_wait_for_longer_than_a_system_can(acts):
    """It looks again every now and then."""
    acts.guard.arm(1, 1e12)
    acts.guard.arm(2, LEAD)

    assert acts.next() <= LEAD / 2
