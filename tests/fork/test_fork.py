"""What a fork leaves to each of the two processes, as their peer sees it; with real processes, plain and over TLS."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from emitter import Emitter, forking
from tests.flushing import decoded, totals
from tests.fork.sandboxes import Peers, Sandbox, has_ended, identity, is_quiet, tcp_sockets

if TYPE_CHECKING:
    from tests.scripted_peer import PeerConnection, Received

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; run on Linux")

COUNTS = """
metrics = Emitter(service="s")
orders = metrics.counter("orders").bind(shop="a")
sizes = metrics.histogram("sizes").bind()
level = metrics.gauge("level").bind()
orders.add(5)
sizes.record(3)
level.set(7)
metrics.flush_sync()
heard()  # the first report was answered
orders.add()
metrics.flush_sync()
say(**facts(metrics))
heard()
"""

FORKS = """
child = os.fork()
if child == 0:
    say(**facts(metrics))
    heard()
    orders.add()
    say(**flushed(metrics))
    heard()
    orders.add()
    say(**flushed(metrics))
    heard()
    {end}
else:
    _, status = os.waitpid(child, 0)
    say(status=status)
    heard()
    orders.add()
    say(**flushed(metrics))
    metrics.close_sync()
"""


def first_reports(peers: Peers, sandbox: Sandbox) -> tuple[PeerConnection, Received]:
    """See what `COUNTS` reports, and answer it."""
    other_end = peers.accept()
    other_end.read_request()
    other_end.answer(200, "Set-Cookie: AWSALB=parents; Path=/")
    sandbox.go()
    report = other_end.read_request()
    other_end.answer(200)
    return other_end, report


@pytest.mark.parametrize(
    "end", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "metrics.close_sync()"]
)
def test_a_forked_child_is_a_sandbox_of_its_own_and_leaves_its_parents_connection_alone(peers, end):
    """Whatever the child does and however it ends, nothing of it is seen on the connection of the parent."""
    with peers.run(COUNTS + FORKS.format(end=end)) as sandbox:
        parents_end, before = first_reports(peers, sandbox)
        parent = sandbox.said()
        sandbox.go()
        child = sandbox.said()
        assert tcp_sockets(child["pid"]) == set()
        assert is_quiet(parents_end)
        sandbox.go()
        childs_end = peers.accept()
        first = childs_end.read_request()
        assert sandbox.said() == {"delivery": "TRANSMITTED", "withheld": None, "error": None}
        assert len(tcp_sockets(child["pid"])) == len(tcp_sockets(parent["pid"])) == 1
        assert is_quiet(parents_end)
        sandbox.go()
        second = childs_end.read_request()
        sandbox.said()
        childs_end.answer(200)
        childs_end.answer(200)
        sandbox.go()
        assert has_ended(childs_end)
        status = sandbox.said()["status"]
        assert is_quiet(parents_end)
        sandbox.go()
        after = parents_end.read_request()
        delivered = sandbox.said()
        stderr = sandbox.stderr

    assert before.headers[b"cookie"] == after.headers[b"cookie"] == b"AWSALB=parents"
    assert not {b"cookie"} & {*first.headers, *second.headers}
    assert identity(before) == identity(after) == (parent["instance"], parent["start"])
    assert identity(first) == identity(second) == (child["instance"], child["start"])
    assert child["instance"] != parent["instance"]
    assert child["start"] > parent["start"]
    assert [child[each] for each in ("flushes", "opened", "bytes", "failed", "counted", "verdicts", "idle")] == [
        *(0, 0, 0, {}, {}, {}),
        True,
    ]
    assert totals(first.body) == {
        "orders": 1,
        "sizes": 0,
        "emitter.flushes": 1,
        "emitter.failures": 0,
        "emitter.withheld": 0,
    }
    assert decoded(first.body)["sizes"].histogram.data_points[0].count == 0
    assert totals(second.body)["orders"] == 2
    assert totals(after.body) == {
        "orders": 7,
        "sizes": 0,
        "level": 0,
        "emitter.flushes": 3,
        "emitter.failures": 0,
        "emitter.withheld": 0,
    }
    assert decoded(after.body)["sizes"].histogram.data_points[0].count == 1
    assert delivered["delivery"] == "TRANSMITTED"
    assert status == (9 if "SIGKILL" in end else 0)
    assert not getattr(childs_end.socket, "session_reused", False)
    assert stderr == ""


@pytest.mark.parametrize("leave", ["close", "kill"])
def test_a_peer_sees_that_the_parent_has_gone_although_children_live(peers, leave):
    """They keep nothing open of what was their parent's."""
    script = """
reading, writing = os.pipe()
for flushes in (True, False):
    if os.fork() == 0:
        os.close(writing)
        say(pid=os.getpid(), flushed=flushes and flushed(metrics))
        os.read(reading, 1)  # until the parent has ended
        heard()  # until the test has
    if flushes:
        heard()
heard()
metrics.close_sync()
"""
    with peers.run(COUNTS + script) as sandbox:
        parents_end, _ = first_reports(peers, sandbox)
        sandbox.said()
        sandbox.go()
        childs_end = peers.accept()
        childs_end.read_request()
        children = [sandbox.said()]
        sandbox.go()
        children.append(sandbox.said())
        sockets = [len(tcp_sockets(child["pid"])) for child in children]
        if leave == "kill":
            sandbox.kill()
        else:
            sandbox.go()
        gone = has_ended(parents_end)

        assert gone
        assert sockets == [1, 0]
        assert is_quiet(childs_end)
        assert all(tcp_sockets(child["pid"]) is not None for child in children), "a child has ended too"


def test_a_callback_that_fails_in_the_child_leaves_the_parents_connection_alone(peers):
    """Whatever else there is to begin anew begins anew; the mistake is in the log."""
    fails = "metrics.at_restart.append(lambda: 1 / 0)\n"
    with peers.run(COUNTS + fails + FORKS.format(end="os._exit(0)")) as sandbox:
        parents_end, _ = first_reports(peers, sandbox)
        sandbox.said()
        sandbox.go()
        child = sandbox.said()
        assert tcp_sockets(child["pid"]) == set()
        sandbox.go()
        childs_end = peers.accept()
        childs_end.read_request()
        sandbox.said()
        sandbox.go()
        childs_end.read_request()
        sandbox.said()
        assert is_quiet(parents_end)
        sandbox.go()
        sandbox.said()
        sandbox.go()
        parents_end.read_request()
        parents_end.answer(200)
        sandbox.said()
        stderr = sandbox.stderr

    assert "what is called at a restart failed" in stderr
    assert "ZeroDivisionError" in stderr


def test_a_child_begins_without_its_parents_back_off(plain):
    """What went wrong for the one has not gone wrong for the other."""
    script = """
metrics = Emitter(service="s")
metrics.counter("orders").add()
metrics.flush_sync()
heard()  # it was refused
say(**flushed(metrics))
if os.fork() == 0:
    say(**flushed(metrics), **facts(metrics))
    os._exit(0)
os.wait()
say(**flushed(metrics), **facts(metrics))
"""
    with plain.run(script) as sandbox:
        parents_end = plain.accept()
        parents_end.read_request()
        parents_end.answer(503, "Retry-After: 100")
        sandbox.go()
        refused = sandbox.said()
        child, parent = sandbox.said(), sandbox.said()

    assert refused["withheld"] == parent["withheld"] == "backing off"
    assert child["delivery"] == "TRANSMITTED"
    assert (child["verdicts"], parent["verdicts"]) == ({}, {"503": 1})


def test_grandchildren_and_several_emitters_are_each_on_their_own(peers):
    """Three processes in a line, two emitters in each: six sandboxes, six connections, exact totals."""
    script = """
emitters = [Emitter(service=name) for name in "ab"]
counters = [metrics.counter("orders").bind() for metrics in emitters]
generation = 0
def report(amount):
    for metrics, counter in zip(emitters, counters):
        counter.add(amount)
        flushed(metrics)
report(1)
for _ in range(2):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        break
    generation += 1
    report(10 ** generation)
report(5)
say(generation=generation)
if generation == 0:
    heard()  # all is answered
    for metrics in emitters:
        metrics.close_sync()
"""
    with peers.run(script) as sandbox:
        ends = [peers.accept() for _ in range(6)]
        reports = [[end.read_request() for _ in range(2)] for end in ends]
        generations = [sandbox.said()["generation"] for _ in range(3)]
        for end in ends[:2]:
            end.answer(200)
            end.answer(200)
        sandbox.go()
        status, stderr = sandbox.ended(), sandbox.stderr

    assert generations == [2, 1, 0]
    assert [[totals(each.body)["orders"] for each in pair] for pair in reports] == [
        [1, 6], [1, 6], [10, 15], [10, 15], [100, 105], [100, 105],
    ]  # fmt: skip
    assert len({identity(report) for pair in reports for report in pair}) == 6
    assert (status, stderr) == (0, "")


def test_programs_that_are_started_get_nothing_of_the_connection(peers):
    """Neither one that is spawned nor a subprocess, with descriptors that are kept, and a function to call first."""
    script = """
LIST = '''
import os
for number in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass
'''
program = [sys.executable, "-I", "-c", LIST]
reading, writing = os.pipe()
spawned = os.posix_spawn(program[0], program, {}, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
os.waitpid(spawned, 0)
said = [os.read(reading, 1 << 16).decode()] + [
    subprocess.run(program, capture_output=True, text=True, check=True, **options).stdout
    for options in ({}, {"close_fds": False}, {"close_fds": False, "preexec_fn": lambda: None})
]
say(open=[each.split() for each in said])
heard()
orders.add()
say(**flushed(metrics), **facts(metrics))
"""
    with peers.run(COUNTS + script) as sandbox:
        parents_end, _ = first_reports(peers, sandbox)
        parent = sandbox.said()
        mine = tcp_sockets(parent["pid"])
        sandbox.go()
        opened = sandbox.said()["open"]
        quiet = is_quiet(parents_end)
        sandbox.go()
        after = parents_end.read_request()
        facts = sandbox.said()

    assert len(mine) == 1
    assert [mine & {*each} for each in opened] == [set()] * 4
    assert all(opened)
    assert quiet
    assert (facts["delivery"], facts["instance"]) == ("TRANSMITTED", parent["instance"])
    assert totals(after.body)["orders"] == 7


def test_an_emitter_that_is_gone_is_not_kept_for_the_next_fork(peer):
    """The hook knows of it as long as it lives."""
    gc.collect()  # those of the tests before
    watched = len(forking._watched)
    metrics = Emitter(peer.endpoint)
    metrics.flush_sync()
    metrics.close_sync(timeout=0)
    flusher = weakref.ref(metrics._flusher)
    during = len(forking._watched)
    del metrics
    gc.collect()

    assert flusher() is None
    assert (during, len(forking._watched)) == (watched + 1, watched)
