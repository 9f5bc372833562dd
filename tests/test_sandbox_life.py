from __future__ import annotations

import inspect
import threading

import pytest

from emitter import Emitter
from emitter import loop as loops
from emitter.client import _INIT_TIMEOUT
from tests.flushing import Bench, next_totals
from tests.scripted_peer import PATIENCE, wait_readable
from tests.test_aws_lambda import Context
from tests.test_guard import LEAD, Acts

# The decorator


def guard_of(handler):
    return inspect.getclosurevars(handler).nonlocals["invocations"]._guard


@pytest.mark.parametrize("error", [KeyError("mine"), SystemExit(1)])
def test_an_invocation_that_has_ended_is_not_watched_any_more(metrics, error):
    """However it ended: it would be counted as timed out, and killed nobody."""

    @metrics.lambda_handler(timeout_guard=True)
    def handler(event, context):
        armed.append(len(guard._armed))
        if event:
            raise error

    armed = []
    guard = guard_of(handler)
    handler(False, Context(600_000))
    with pytest.raises(type(error)):
        handler(True, Context(600_000))
    handler(False, Context(600_000))

    assert armed == [1, 1, 1]
    assert guard._armed == {}


def test_the_guard_leaves_the_flush_its_time_and_the_runtime_the_margin(metrics):
    """That is when it acts: the flush's timeout and 50 ms before the end."""
    leads = []

    @metrics.lambda_handler(timeout=2.0, timeout_guard=True)
    def handler(event, context):
        ((at, end),) = guard._armed.values()
        leads.append(end - at)

    guard = guard_of(handler)
    handler({}, Context(600_000))

    assert leads == [pytest.approx(2.05)]


def test_the_guards_flush_takes_no_more_than_the_time_that_is_left(metrics, monkeypatch):
    """As the one at the end, which it stands in for."""
    flushes = []
    acted = threading.Event()
    flush = metrics._flusher.flush

    def seen(timeout, delivery, **more):
        if more.get("last"):
            flushes.append(timeout)
            acted.set()
        return flush(timeout, delivery, **more)

    monkeypatch.setattr(metrics._flusher, "flush", seen)
    metrics.lambda_handler(timeout=5.0, timeout_guard=True)(lambda event, context: acted.wait(PATIENCE))(
        {}, Context(200)
    )

    (timeout,) = flushes
    assert timeout <= 0.05  # half of what it had is left, less the margin


def test_nothing_holds_the_report_before_a_timeout_up(metrics, peer):
    """It is the last of this sandbox: not even a receiver that asked to be left alone."""
    orders = metrics.counter("orders")
    metrics.last_calls.append(lambda: orders.add(5))
    orders.add()
    metrics.flush_sync()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(503, "Retry-After: 600")
    wait_readable(metrics._flusher._link.connection._socket)
    reported = []

    @metrics.lambda_handler(timeout_guard=True)
    def handler(event, context):
        reported.append(next_totals(other_end))

    handler({}, Context(60))

    assert reported[0]["orders"] == 6  # who records late was asked before
    assert reported[0]["faas.timeouts"] == 1


async def test_inside_a_running_loop_nothing_is_opened_before_the_handler(metrics, caplog):
    """As in a user's own async test: nobody could come back for it."""
    seen = []
    handler = metrics.lambda_handler(lambda event, context: seen.append(metrics._flusher._link.opening))
    handler({}, None)

    assert seen == [None]


def test_what_comes_before_the_handler_is_not_its_duration(metrics, monkeypatch, clock):
    """The function's own logic is what is measured."""
    monkeypatch.setattr("emitter.aws_lambda.perf_counter", clock)
    freshen = metrics._flusher.freshen

    def slow(**more):
        clock.now += 100
        return freshen(**more)

    monkeypatch.setattr(metrics._flusher, "freshen", slow)

    @metrics.lambda_handler
    def handler(event, context):
        clock.now += 3

    handler({}, None)
    duration = metrics.histogram(
        "faas.invoke_duration", unit="s", description="Duration of the function's logic execution."
    )

    assert duration.bind().point.sum == pytest.approx(3)


# INIT


@pytest.fixture
def on_demand(monkeypatch):
    """The INIT phase of an ordinary function."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")


def handlers_of(metrics, number: int) -> list:
    return [metrics.lambda_handler(lambda event, context: "done") for _ in range(number)]


@pytest.mark.usefixtures("on_demand")
def test_an_endpoint_that_is_down_costs_init_one_attempt(metrics, peer):
    """However many handlers a module has."""
    peer.close()
    handlers_of(metrics, 3)

    assert metrics.stats.failed == {"connect": 1}


@pytest.mark.usefixtures("on_demand")
def test_init_waits_no_longer_than_its_own_limit(metrics, monkeypatch):
    """INIT has 10 s for everything, and is paid for."""
    budgets = []
    connect = metrics._flusher.connect
    monkeypatch.setattr(metrics._flusher, "connect", lambda timeout: budgets.append(timeout) or connect(timeout))
    handlers_of(metrics, 1)

    assert budgets == [_INIT_TIMEOUT]


@pytest.mark.usefixtures("on_demand")
async def test_inside_a_running_loop_a_handler_can_be_decorated(metrics, peer):
    """A runtime of one's own imports modules wherever it likes: nothing is opened then, and nothing raised."""
    handlers_of(metrics, 1)

    assert not peer.has_another_connection()


@pytest.mark.parametrize(("phase", "connect"), [("snap-start", True), ("on-demand", False)])
def test_init_reads_the_trust_store_where_it_does_not_connect(monkeypatch, phase, connect):
    """It takes longer than any flush may, and is there in every sandbox afterwards."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", phase)
    metrics = Emitter("https://127.0.0.1:1/", service="s")
    before = metrics._flusher._link._tls._context
    metrics.lambda_handler(connect=connect)(lambda event, context: None)

    assert before is None
    assert metrics._flusher._link._tls._context is not None


# What there is to tell, and what a new sandbox forgets


def test_whether_there_is_news(bench, peer):
    """Anything recorded that no report has told: a failed report told nothing, an accepted one everything."""
    assert not bench.flusher.has_news
    bench.orders.bind()  # a series, and nothing in it
    assert not bench.flusher.has_news
    bench.orders.add()
    assert bench.flusher.has_news
    bench.flush()
    assert bench.flusher.has_news  # nobody has said that it arrived
    peer.accept().answer()
    bench.wait_for_input()
    loops.run(bench.flusher.freshen())

    assert not bench.flusher.has_news
    bench.orders.add()
    assert bench.flusher.has_news


def test_a_gauge_that_stands_at_zero_is_news(bench):
    """Somebody has set it."""
    bench.registry.gauge("depth").set(0)

    assert bench.flusher.has_news


def test_a_new_sandbox_knows_no_cookies_of_the_old_one(bench, peer):
    """A load balancer would take both for one client."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(200, "Set-Cookie: AWSALB=one")
    bench.wait_for_input()
    bench.record_and_flush()
    assert other_end.read_request().headers[b"cookie"] == b"AWSALB=one"
    bench.flusher.after_fork()
    bench.record_and_flush()

    assert b"cookie" not in peer.accept().read_request().headers


def test_a_new_sandbox_counts_from_zero_in_differences_too(peer, clock):
    """What the old one has reported is not taken from what the new one records."""
    bench = Bench(peer, clock, temporality="delta")
    bench.orders.add(5)
    bench.flush()
    assert next_totals(peer.accept())["orders"] == 5
    bench.flusher.after_fork()
    bench.orders.add(2)
    bench.flush()
    reported = next_totals(peer.accept())
    loops.run(bench.flusher.close(0.0))

    assert reported["orders"] == 2


# The guard


def test_who_arms_while_the_thread_looks_is_not_overlooked(acts, monkeypatch):
    """It has looked, and has not yet said until when it sleeps: whoever arms then wakes nobody."""
    looked, go_on = threading.Event(), threading.Event()
    look = acts.guard._next

    def slow():
        found = look()
        if not looked.is_set():
            looked.set()
            go_on.wait(PATIENCE)
        return found

    monkeypatch.setattr(acts.guard, "_next", slow)
    acts.guard.arm(1, 600.0)
    assert looked.wait(PATIENCE)
    acts.guard.arm(2, LEAD)
    go_on.set()

    assert acts.next() <= LEAD


def test_one_that_ends_while_another_is_acted_upon_is_left_alone(acts, monkeypatch):
    """Both were late when the thread looked; the flush for the first has taken a while."""
    both = threading.Event()
    look = acts.guard._next
    monkeypatch.setattr(acts.guard, "_next", lambda: both.wait(PATIENCE) and look())

    def act(left):
        acts.guard.disarm(2)
        acts.left.put(left)

    acts.guard._act = act
    acts.guard.arm(1, 0.0)
    acts.guard.arm(2, 0.0)
    both.set()
    acts.next()
    acts.guard.arm(3, -600.0)

    assert acts.next() <= -600  # the third, and no second


@pytest.fixture
def acts():
    """A guard, and what it does."""
    return Acts()
