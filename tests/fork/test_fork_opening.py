"""Forks while a connection is being opened: the parent finishes what it began, and the child begins its own."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.flushing import orders
from tests.fork.sandboxes import Peers, tcp_sockets
from tests.scripted_peer import ScriptedPeer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; run on Linux")


COUNTER = """
metrics = Emitter(service="s")
metrics._flusher._network._jitter = lambda: 0.0  # leaves nobody alone after a failure
counter = metrics.counter("orders")
orders = counter.bind()
"""


def test_a_fork_while_a_name_is_looked_up(peers):
    """The parent is told of the end of its own look-up although a child lives, and the child looks up by itself."""
    script = """
really, gate = socket.getaddrinfo, threading.Event()
def look_up(*arguments, flags=0, **more):
    if not flags and threading.current_thread() is not threading.main_thread():
        gate.wait()  # as long as a resolver takes
    return really(*arguments, flags=flags, **more)
socket.getaddrinfo = look_up
metrics = Emitter(os.environ["EMITTER_ENDPOINT"].replace("127.0.0.1", "localhost"), service="s")
metrics._flusher._network._jitter = lambda: 0.0  # as above
orders = metrics.counter("orders").bind()
say(**flushed(metrics, timeout=0.01))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    gate.set()
    orders.add()
    say(**flushed(metrics))
    say(**facts(metrics))
    os.read(reading, 1)  # it lives until the parent has done
    sys.exit()
heard()
gate.set()
say(open=metrics.connect_sync(timeout=5))
orders.add(2)
say(**flushed(metrics))
os.close(writing)
say(status=os.waitpid(child, 0)[1])
"""
    with peers.run(script) as sandbox:
        cut_short = sandbox.said()
        childs_end = peers.accept()
        totals = [orders(childs_end.read_request().body)]
        childs, child = sandbox.said(), sandbox.said()
        sockets = len(tcp_sockets(child["pid"]))
        sandbox.go()
        parents_end = peers.accept()
        totals.append(orders(parents_end.read_request().body))
        opened, parents, status = sandbox.said(), sandbox.said(), sandbox.said()["status"]
        stderr = sandbox.stderr

    assert "before the name was looked up" in cut_short["error"]
    assert (childs["delivery"], child["opened"], sockets) == ("TRANSMITTED", 1, 1)
    assert opened == {"open": True}
    assert parents["delivery"] == "TRANSMITTED"
    assert totals == [1, 2]
    assert status == 0
    assert "Exception" not in stderr


def test_a_fork_while_a_connection_is_being_made(plain):
    """The child gives up its copy of the attempt, and that of the parent goes on."""
    plain.peer.close()
    plain.peer = full = ScriptedPeer(backlog=0)
    with socket.create_connection(("127.0.0.1", full.port)) as first:  # takes the only place
        script = (
            COUNTER
            + """
orders.add(2)
say(**flushed(metrics, timeout=0.01))
if os.fork() == 0:
    say(**facts(metrics))
    heard()
    sys.exit()
say(open=metrics.connect_sync(timeout=20))
orders.add()
say(**flushed(metrics))
"""
        )
        with plain.run(script) as sandbox:
            cut_short, child = sandbox.said(), sandbox.said()
            leaked = tcp_sockets(child["pid"])
            full.accept()
            parents_end = full.accept()
            total = orders(parents_end.read_request().body)
            opened, parents = sandbox.said(), sandbox.said()
            no_other = not full.has_another_connection()

    assert first.fileno() == -1
    assert "before the peer answered" in cut_short["error"]
    assert (leaked, child["idle"]) == (set(), True)
    assert opened == {"open": True}
    assert parents["delivery"] == "TRANSMITTED"
    assert total == 3
    assert no_other


def test_a_fork_in_the_middle_of_a_handshake():
    """The child says nothing in it, also when it ends, and the parent finishes the very same."""
    peers = Peers("tls")
    script = (
        COUNTER
        + """
orders.add(2)
cut_short = flushed(metrics, timeout=0.05)
while "handshake" not in cut_short["error"]:  # reading what is trusted may take all of the budget, and the connect too
    cut_short = flushed(metrics, timeout=0.05)
say(**cut_short)
child = os.fork()
if child == 0:
    orders.add()
    say(**facts(metrics))
    heard()
    say(**flushed(metrics))
    sys.exit()
say(status=os.waitpid(child, 0)[1])
heard()
say(open=metrics.connect_sync(timeout=5), **facts(metrics))
orders.add()
say(**flushed(metrics))
"""
    )
    with peers.run(script) as sandbox:
        bare = peers.peer.accept_bare()
        cut_short, child = sandbox.said(), sandbox.said()
        leaked = tcp_sockets(child["pid"])
        sandbox.go()
        totals = [orders(peers.accept().read_request().body)]
        sandbox.said()
        status = sandbox.said()["status"]
        handshaking = peers.peer.soon(peers.peer.shake_hands, bare)
        sandbox.go()
        totals.append(orders(handshaking.result().read_request().body))
        parent, parents, stderr = sandbox.said(), sandbox.said(), sandbox.stderr
    peers.close()

    assert "before the TLS handshake was over" in cut_short["error"]
    assert (leaked, child["idle"], status) == (set(), True, 0)
    assert (parent["open"], parent["opened"]) == (True, 1)
    assert parents["delivery"] == "TRANSMITTED"
    assert totals == [1, 3]
    assert "Exception" not in stderr
