from __future__ import annotations

import signal

from tests.scripted_peer import PATIENCE
from tests.test_termination import run  # noqa: F401  a fixture

PATIENT = "from emitter import termination; termination.PATIENCE = 10.0"
"""As long as a test has, so that nothing hangs on how quick a machine is."""

SAYS_WHAT_WAS_ANSWERED = f"""
{PATIENT}
def theirs(number, frame):
    print(metrics.stats.verdicts, flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, theirs)
"""


def test_the_process_waits_for_the_answer_to_its_last_report(run):  # noqa: F811
    """Whoever takes a request may drop it if its client has gone before the answer."""
    sandbox = run("signal.pause()", SAYS_WHAT_WAS_ANSWERED)
    sandbox.process.send_signal(signal.SIGTERM)
    assert [sandbox.orders(), sandbox.orders()] == [1, 2]
    sandbox.other_end.answer()
    sandbox.other_end.answer()

    assert sandbox.said() == "{200: 2}"
    assert sandbox.process.wait(PATIENCE) == 3


def test_who_records_late_is_asked_before_the_last_report(run):  # noqa: F811
    """What waits with him is in it; and once, though two handlers of this emitter have asked for it."""
    sandbox = run(
        """
metrics.last_calls.append(lambda: orders.add(5))
metrics.lambda_handler(flush_at_sigterm=True)(lambda event, context: None)
print("set", flush=True)
signal.pause()
""",
        SAYS_WHAT_WAS_ANSWERED.replace("metrics.stats.verdicts", "orders.bind().point"),
    )
    assert sandbox.said() == "set"
    sandbox.process.send_signal(signal.SIGTERM)
    assert [sandbox.orders(), sandbox.orders()] == [1, 7]
    sandbox.other_end.answer()
    sandbox.other_end.answer()

    assert sandbox.said() == "7"


def test_another_signal_is_not_taken_for_it(run):  # noqa: F811
    """The descriptor is told of all signals: an alarm, a child that ended. Each is read, and nothing done."""
    sandbox = run("""
import select
from emitter import termination
(mine,) = termination._termination
signal.signal(signal.SIGUSR1, lambda number, frame: None)
deadline = time.monotonic() + 10
for _ in range(2):  # the second is read only by somebody who has gone on listening after the first
    signal.raise_signal(signal.SIGUSR1)
    while select.select([mine._theirs], [], [], 0)[0]:
        assert time.monotonic() < deadline
print("read", metrics.stats.flushes, flush=True)
signal.pause()
""")

    assert sandbox.said() == "read 1"
    assert sandbox.terminate() == -signal.SIGTERM
    assert [sandbox.orders(), sandbox.orders()] == [1, 2]


def test_a_main_thread_that_sleeps_in_a_lock_is_woken(run):  # noqa: F811
    """As the stock runtime's does from Python 3.12 on, where the kernel gave the signal to another thread."""
    sandbox = run("""
def asleep():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"

def terminate():
    while not all(asleep() for _ in range(50)):
        pass
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()

threading.Thread(target=terminate, daemon=True).start()
lock = threading.Lock()
lock.acquire()
lock.acquire()
""")

    assert sandbox.process.wait(PATIENCE) == -signal.SIGTERM
    assert [sandbox.orders(), sandbox.orders()] == [1, 2]


def test_the_handler_of_before_is_called_once_though_the_thread_wakes_it(run):  # noqa: F811
    """It had run by itself when the thread was about to wake it; the order is forced here."""
    before = """
from emitter import termination
termination._MARGIN = 10.0
calls, done = [], threading.Event()
def theirs(number, frame):
    calls.append(number)
    done.set()
signal.signal(signal.SIGTERM, theirs)
"""
    sandbox = run(
        """
import socket
ours, theirs = socket.socketpair()
(mine,) = termination._termination
ask = signal.getsignal
def slow(number):
    if threading.current_thread() is not threading.main_thread():
        ours.send(b"x")  # the main thread comes out of C, and runs the handler, before the thread wakes it
        done.wait(10)
    return ask(number)
signal.getsignal = slow
thread = next(each for each in threading.enumerate() if each.name == "emitter-sigterm")
def end():  # if the signal came before the main thread was in C, nobody asks: then nothing is forced
    thread.join()
    ours.send(b"x")
threading.Thread(target=end, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # so the kernel gives it to another thread
print("set", flush=True)
theirs.settimeout(10)
theirs.recv(1)
thread.join()
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
print(len(calls), flush=True)
""",
        before,
    )
    assert sandbox.said() == "set"
    sandbox.process.send_signal(signal.SIGTERM)

    assert sandbox.said() == "1"


def test_a_forked_child_keeps_no_descriptor_of_its_parents_watch(run):  # noqa: F811
    """Workers that fork workers would run out of them."""
    sandbox = run("""
def descriptors():
    return len(os.listdir("/proc/self/fd"))

metrics.close_sync(timeout=0.0)  # a child closes its copy of the connection as well
before = descriptors()
if os.fork() == 0:
    print(descriptors() - before, flush=True)
    os._exit(0)
os.wait()
""")

    assert sandbox.said() == "0"
