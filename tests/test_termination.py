from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from emitter import ConfigurationError, Emitter
from tests.flushing import next_totals
from tests.scripted_peer import PATIENCE

PROLOGUE = """
import os, signal, sys, threading, time
from emitter import Emitter
{before}
metrics = Emitter(service="s", timeout=5.0)
orders = metrics.counter("orders")

@metrics.lambda_handler(every=3600.0, flush_at_sigterm=True)
def handler(event, context):
    orders.add()

handler(1, None)
handler(2, None)
print("ready", flush=True)
{after}
"""


class Sandbox:
    """A process that has recorded two orders and reported one, and then goes on as the test says."""

    def __init__(self, peer, after: str, before: str = "") -> None:
        self._peer = peer
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE.format(before=before, after=after)],
            env={**os.environ, "EMITTER_ENDPOINT": peer.endpoint},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.other_end = peer.accept()
        self.said()

    def said(self) -> str:
        return self.process.stdout.readline().strip()

    def terminate(self) -> int:
        """Its exit code."""
        self.process.send_signal(signal.SIGTERM)
        with self.process:
            return self.process.wait(PATIENCE)

    def orders(self) -> int:
        """Of the next report."""
        return next_totals(self.other_end)["orders"]

    def end(self) -> None:
        self.process.kill()
        with self.process:
            self.process.wait(PATIENCE)


@pytest.fixture
def run(peer):
    """Starts sandboxes, and ends them."""
    sandboxes = []

    def start(after: str, before: str = "") -> Sandbox:
        sandboxes.append(Sandbox(peer, after, before))
        return sandboxes[-1]

    yield start
    for sandbox in sandboxes:
        sandbox.end()


def test_what_no_report_has_told_leaves_at_sigterm(run):
    """And then the process ends as it would have ended: by the signal."""
    sandbox = run("signal.pause()")
    status = sandbox.terminate()

    assert [sandbox.orders(), sandbox.orders()] == [1, 2]
    assert status == -signal.SIGTERM


def test_the_handler_of_before_is_called_afterwards(run):
    """With the same arguments, in the main thread; whether the process ends is its business."""
    before = """
def theirs(number, frame):
    assert threading.current_thread() is threading.main_thread()
    print(number, metrics.stats.flushes, flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, theirs)
"""
    sandbox = run("signal.pause()", before)
    sandbox.process.send_signal(signal.SIGTERM)

    assert sandbox.said() == f"{signal.SIGTERM.value} 2"
    assert sandbox.process.wait(PATIENCE) == 3


def test_whoever_ignored_it_goes_on_ignoring_it(run):
    """The totals leave all the same."""
    goes_on = """
while metrics.stats.transmitted < 2:  # the signal may come before or after the first look
    time.sleep(0.001)
print("on", flush=True)
"""
    sandbox = run(goes_on, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    sandbox.process.send_signal(signal.SIGTERM)

    assert sandbox.said() == "on"
    assert [sandbox.orders(), sandbox.orders()] == [1, 2]


def test_it_may_come_in_the_middle_of_a_recording(run):
    """The main thread holds the very lock that the flush needs: nobody waits for ever, and the process ends."""
    sandbox = run("metrics._registry._lock.acquire(); print('held', flush=True); signal.pause()")
    sandbox.said()

    assert sandbox.terminate() == -signal.SIGTERM


def test_somebody_elses_wakeup_descriptor_stays_theirs(run):
    """An event loop's, say: then the handler in the main thread wakes the flush."""
    before = """
import socket
ours, theirs = socket.socketpair()
ours.setblocking(False)
signal.set_wakeup_fd(ours.fileno())
"""
    sandbox = run("signal.pause()", before)
    status = sandbox.terminate()

    assert [sandbox.orders(), sandbox.orders()] == [1, 2]
    assert status == -signal.SIGTERM


def test_a_forked_child_reports_its_own_totals(run, peer):
    """And the signal is the child's alone: its parent is not woken by it."""
    sandbox = run("""
child = os.fork()
if child == 0:
    orders.add(7)
    print("child", flush=True)
    signal.pause()
print(child, flush=True)
print(os.waitpid(child, 0)[1], metrics.stats.flushes, flush=True)
""")
    pid = next(int(line) for line in (sandbox.said(), sandbox.said()) if line != "child")
    os.kill(pid, signal.SIGTERM)
    ended = sandbox.said()

    assert next_totals(peer.accept())["orders"] == 7
    assert ended == f"{signal.SIGTERM.value} 1"


def test_a_child_that_has_recorded_nothing_makes_no_series(run, peer):
    """Workers of a pool end by this signal: a report of zeros from each would be a sandbox for nothing."""
    sandbox = run("""
child = os.fork()
if child == 0:
    print("child", flush=True)
    signal.pause()
print(child, flush=True)
print(os.waitpid(child, 0)[1], flush=True)
""")
    pid = next(int(line) for line in (sandbox.said(), sandbox.said()) if line != "child")
    os.kill(pid, signal.SIGTERM)

    assert sandbox.said() == str(signal.SIGTERM.value)
    assert not peer.has_another_connection()


def test_a_child_has_a_descriptor_of_its_own_to_be_woken_by(run, peer):
    """Also if its number is another: the parent's is closed there, and may be anybody's by then."""
    sandbox = run(
        """
for each in low:
    each.close()
child = os.fork()
if child == 0:
    from emitter import termination
    (mine,) = termination._termination
    print(signal.set_wakeup_fd(-1) == mine._ours.fileno(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
""",
        before="low = [open(os.devnull) for _ in range(4)]",
    )

    assert sandbox.said() == "True"


def test_a_handler_that_came_later_is_called_once(run):
    """Somebody who does not chain knows nothing of us; a second signal would mean more to him than the first."""
    sandbox = run("""
calls = []
signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
print("later", flush=True)
while metrics.stats.transmitted < 2:
    time.sleep(0.001)
for thread in threading.enumerate():
    if thread.name == "emitter-sigterm":
        thread.join()
print(len(calls), flush=True)
""")
    assert sandbox.said() == "later"
    sandbox.process.send_signal(signal.SIGTERM)

    assert sandbox.said() == "1"


def test_a_second_signal_in_the_middle_of_the_first_changes_nothing(run):
    """Supervisors send more than one: the process ends all the same, once its report has left."""
    sandbox = run("""
from emitter import termination
(mine,) = termination._termination
held = mine._flushing
class Twice:
    def acquire(self, timeout):
        signal.raise_signal(signal.SIGTERM)
        return held.acquire(timeout=timeout)
    def release(self):
        held.release()
mine._flushing = Twice()
print("set", flush=True)
signal.pause()
""")
    sandbox.said()
    status = sandbox.terminate()

    assert [sandbox.orders(), sandbox.orders()] == [1, 2]
    assert status == -signal.SIGTERM


def test_it_has_to_be_asked_for_in_the_main_thread(peer):
    """Python lets nobody else handle a signal; the error says what to do."""
    caught = []

    def decorate():
        try:
            Emitter(peer.endpoint).lambda_handler(flush_at_sigterm=True)(lambda event, context: None)
        except ConfigurationError as error:
            caught.append(str(error))

    thread = threading.Thread(target=decorate)
    thread.start()
    thread.join(PATIENCE)

    assert len(caught) == 1
    assert "expected the handler to be decorated at the top of its module" in caught[0]
