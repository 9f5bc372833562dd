"""Forks at bad moments: in the middle of a change, of a flush; from threads, signals and loops."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.flushing import orders
from tests.fork.sandboxes import Peers, identity, tcp_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; run on Linux")


@pytest.fixture(params=["plain", "tls"])
def narrow(request: pytest.FixtureRequest) -> Iterator[Peers]:
    """Peers of either kind whose kernel takes little as long as they do not read."""
    peers = Peers(request.param, receive_buffer_bytes=4_096)
    yield peers
    peers.close()


COUNTER = """
metrics = Emitter(service="s", compress=False, report_limit_bytes=2**26)
metrics._flusher._network._jitter = lambda: 0.0  # leaves nobody alone after a failure
counter = metrics.counter("orders")
orders = counter.bind()
"""


def test_while_a_thread_records_without_a_pause_each_process_counts_exactly(plain):
    """Thirty children, each counts from zero; the parent loses nothing of what its thread recorded meanwhile."""
    script = (
        COUNTER
        + """
recorded, stop = 0, False
def record():
    global recorded
    while not stop:
        counter.add(1, n=recorded % 50)
        recorded += 1
thread = threading.Thread(target=record)
thread.start()
for number in range(30):
    child = os.fork()
    if child == 0:
        totals = {series.point for series in counter._series.values()}
        for n in range(number):
            counter.add(1, n=n % 50)
        total = sum(series.point for series in counter._series.values())
        os._exit(0 if totals == {0} and total == number else 1)
    say(status=os.waitpid(child, 0)[1])
stop = True
thread.join()
flushed(metrics)
say(recorded=recorded)
"""
    )
    with plain.run(script) as sandbox:
        assert [sandbox.said()["status"] for _ in range(30)] == [0] * 30
        report = plain.accept().read_request()
        recorded = sandbox.said()["recorded"]

    assert orders(report.body) == recorded > 0


@pytest.mark.parametrize("who", ["another thread", "this thread, interrupted by a signal"])
def test_a_lock_that_is_held_at_the_fork_holds_nobody_up(plain, who):
    """Neither the fork, nor anything in the child."""
    script = (
        COUNTER
        + """
flushed(metrics)
lock, held = metrics._registry._lock, threading.Event()
def hold():
    with lock, metrics._flusher._shared._lock, metrics._flusher._ledger._lock:
        held.set()
        heard()
"""
        + {
            "another thread": """
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    orders.add()
    say(**flushed(metrics))
    os._exit(0)
""",
            "this thread, interrupted by a signal": """
thread = threading.Thread(target=lambda: None)
thread.start()
def fork(*_):
    global child
    child = os.fork()
    if child == 0:
        orders.add()
        say(**flushed(metrics))
        os._exit(0)
signal.signal(signal.SIGUSR1, fork)
with lock:
    os.kill(os.getpid(), signal.SIGUSR1)
    heard()
""",
        }[who]
        + """
say(status=os.waitpid(child, 0)[1])
thread.join()
orders.add(2)
say(**flushed(metrics))
"""
    )
    with plain.run(script) as sandbox:
        parents_end = plain.accept()
        parents_end.read_request()
        child = sandbox.said()
        sandbox.go()
        status, parent = sandbox.said()["status"], sandbox.said()
        totals = orders(plain.accept().read_request().body), orders(parents_end.read_request().body)

    assert (child["delivery"], status) == ("TRANSMITTED", 0)
    assert parent["delivery"] == "TRANSMITTED"
    assert totals == (1, 2)


def test_threads_that_fork_at_once_have_children_that_are_all_told(plain):
    """Each child has a new identity, however the forks fall together."""
    script = (
        COUNTER
        + """
others = [Emitter(service="s") for _ in range(5)]
sys.setswitchinterval(1e-6)  # so that they get into each other's way
start = threading.Barrier(4)
def fork():
    start.wait()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            orders.add()
            say(instances=[each._registry.instance_id for each in (metrics, *others)], total=orders.point)
            os._exit(0)
        os.waitpid(child, 0)
threads = [threading.Thread(target=fork) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(instances=[each._registry.instance_id for each in (metrics, *others)])
"""
    )
    with plain.run(script) as sandbox:
        said = [sandbox.said() for _ in range(41)]

    assert len({instance for each in said for instance in each["instances"]}) == 41 * 6
    assert [each["total"] for each in said[:-1]] == [1] * 40


@pytest.mark.parametrize("where", ["in the kernel", "in the process"])
@pytest.mark.parametrize("delivery", ["TRANSMITTED", "ANSWERED"])
def test_a_fork_in_the_middle_of_another_threads_flush_harms_neither(narrow, delivery, where):
    """The child does not wait for a thread that it does not have; the report of the parent arrives whole."""
    script = (
        COUNTER
        + f"""
padding = {{str(key): "x" * 240 for key in range({16 if where == "in the process" else 1})}}
for number in range(1_500):
    counter.add(1, padding, number=str(number))
metrics.connect_sync()
results = []
thread = threading.Thread(
    target=lambda: results.append(flushed(metrics, delivery=Delivery.{delivery}, timeout=20))
)
thread.start()
connection = metrics._flusher._link.connection
def waits():
    unwritten, untransmitted = connection._stream.unwritten_bytes, connection.queues().untransmitted
    return {"unwritten > 0" if where == "in the process" else "untransmitted > 0 == unwritten"}
while not waits():  # for a peer that does not read on
    time.sleep(0)
child = os.fork()
if child == 0:
    say(**facts(metrics))
    orders.add()
    heard()
    say(**flushed(metrics, timeout=20))
    sys.exit()
say(status=os.waitpid(child, 0)[1])
thread.join()
say(**results[0])
metrics.counter("more").add()
say(**flushed(metrics, timeout=20))
heard()  # ending with an answer unread would reset the connection, and take with it what the kernel still has
"""
    )
    with narrow.run(script) as sandbox:
        parents_end = narrow.accept()
        child = sandbox.said()
        leaked = tcp_sockets(child["pid"])
        sandbox.go()
        small = narrow.accept().read_request()
        childs = sandbox.said()
        status = sandbox.said()["status"]
        large = parents_end.read_request()
        parents_end.answer(200)
        first = sandbox.said()
        again = parents_end.read_request()
        second, stderr = sandbox.said(), sandbox.stderr
        sandbox.go()

    assert leaked == set()
    assert (childs["delivery"], status) == ("TRANSMITTED", 0)
    assert orders(small.body) == 1
    assert (first["delivery"], first["error"], second["delivery"]) == (delivery, None, "TRANSMITTED")
    assert orders(large.body) == orders(again.body) == 1_500
    assert identity(large) == identity(again) != identity(small)
    assert stderr == ""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_fork_inside_a_running_loop(peers, kind):
    """With a flush under way in that very loop, half written: the child runs its own loop, the parent goes on."""
    script = (
        COUNTER
        + f"""
if {kind == "uvloop"}:
    import uvloop
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
padding = {{str(key): "x" * 240 for key in range(16)}}
for number in range(1_500):
    counter.add(1, padding, number=str(number))

async def child():
    orders.add()
    say(**facts(metrics))
    flush = await metrics.flush(timeout=20)
    say(delivery=flush.delivery and flush.delivery.name, failed=dict(metrics.stats.failed))

async def parent():
    await metrics.connect()
    flushing = asyncio.ensure_future(metrics.flush(timeout=20))
    while metrics._flusher._link.connection._stream.unwritten_bytes == 0:
        await asyncio.sleep(0)
    pid = os.fork()
    if pid == 0:
        asyncio.run(child())
        os._exit(0)
    say(status=os.waitpid(pid, 0)[1])
    flush = await flushing
    say(delivery=flush.delivery and flush.delivery.name, failed=dict(metrics.stats.failed))
    orders.add()
    flush = await metrics.flush(timeout=20)
    say(delivery=flush.delivery and flush.delivery.name, failed=dict(metrics.stats.failed))

asyncio.run(parent())
"""
    )
    with peers.run(script) as sandbox:
        parents_end = peers.accept()
        child = sandbox.said()
        leaked = tcp_sockets(child["pid"])
        small = peers.accept().read_request()
        childs, status = sandbox.said(), sandbox.said()["status"]
        large = parents_end.read_request()
        first = sandbox.said()
        again = parents_end.read_request()
        second = sandbox.said()
        ended, stderr = sandbox.ended(), sandbox.stderr

    assert len(leaked) <= 1
    assert (orders(small.body), orders(large.body), orders(again.body)) == (1, 1_500, 1_501)
    assert identity(large) == identity(again) != identity(small)
    assert childs == first == second == {"delivery": "TRANSMITTED", "failed": {}}
    assert (status, ended, stderr) == (0, 0, "")


@pytest.mark.parametrize("options", [(), ("-X", "dev")])
def test_a_fork_after_streams_that_other_loops_have_left_behind(plain, options):
    """Their duplicates of the connection do not live on in the child: of a loop at rest, of one that is closed."""
    script = (
        COUNTER
        + """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)  # in the development mode it tells which selector it uses
logging.disable(logging.WARNING)
metrics.connect_sync()  # its stream is the one of the process's loop

async def adopt_and_leave():
    await metrics._flusher._link.connection.prepare()  # as a flush does; what it was for was cancelled

asyncio.run(adopt_and_leave())
if os.fork() == 0:
    say(**facts(metrics))
    heard()
    orders.add()
    say(**flushed(metrics))
    os._exit(0)
say(status=os.wait()[1])
orders.add(2)
say(**flushed(metrics))
say(**facts(metrics))
metrics.close_sync(timeout=0)
"""
    )
    with plain.run(script, *options) as sandbox:
        parents_end = plain.accept()
        child = sandbox.said()
        leaked = tcp_sockets(child["pid"])
        sandbox.go()
        totals = [orders(plain.accept().read_request().body)]
        childs = sandbox.said()
        sandbox.said()
        totals.append(orders(parents_end.read_request().body))
        parents, parent = sandbox.said(), sandbox.said()

    assert leaked == set()
    assert childs["delivery"] == parents["delivery"] == "TRANSMITTED"
    assert (child["idle"], parent["opened"], totals) == (True, 1, [1, 2])
