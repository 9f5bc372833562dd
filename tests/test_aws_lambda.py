from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import signal
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from emitter import ConfigurationError, Delivery, Emitter
from emitter import loop as loops
from emitter.encode import Encoder


class Recorder(Encoder):
    """An encoder that keeps the totals of the last report: what a receiver would know."""

    content_type = "text/plain"

    def __init__(self) -> None:
        self.totals: dict[str, object] = {}

    def encode(self, snapshot):
        points = iter(snapshot.points)
        self.totals.update({metric.name: [next(points) for _ in metric.series][-1] for metric in snapshot.metrics})
        return b"report"


@pytest.fixture
def recorder():
    """What was reported last."""
    return Recorder()


@pytest.fixture
def metrics(peer, recorder):
    """An emitter on a scripted peer, closed at the end."""
    metrics = Emitter(peer.endpoint, encoder=recorder, timeout=5.0)
    yield metrics
    metrics.close_sync(timeout=0.0)


def test_a_handler_is_counted_and_its_totals_leave_at_the_end(metrics, recorder, peer):
    """Invocations, cold starts, durations; one report for each invocation, on one connection."""

    @metrics.lambda_handler
    def handler(event, context):
        return {"got": event}

    assert handler(1, None) == {"got": 1}
    assert handler(2, None) == {"got": 2}
    other_end = peer.accept()
    assert [other_end.read_request().body for _ in range(2)] == [b"report", b"report"]
    assert recorder.totals["faas.invocations"] == 2
    assert recorder.totals["faas.errors"] == 0
    assert recorder.totals["faas.coldstarts"] == 1
    assert recorder.totals["faas.invoke_duration"].count == 2


@pytest.mark.parametrize("error", [KeyError("missing"), SystemExit(3)])
def test_the_handlers_own_exception_comes_out_unchanged(metrics, recorder, error):
    """The very object; and the failed invocation is reported, as an error instead of an invocation."""

    @metrics.lambda_handler
    def handler(event, context):
        raise error

    with pytest.raises(type(error)) as caught:
        handler({}, None)
    assert caught.value is error
    assert recorder.totals["faas.errors"] == 1
    assert recorder.totals["faas.invocations"] == 0
    assert recorder.totals["faas.invoke_duration"].count == 1


def test_an_async_handler_can_be_called_like_any_other(metrics, recorder, peer):
    """It runs in the one loop that lives as long as the process, so what it opens can be used again."""
    seen = []

    @metrics.lambda_handler
    async def handler(event, context):
        seen.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        await metrics.flush()
        return event

    assert [handler(number, None) for number in (1, 2)] == [1, 2]
    assert seen[0] is seen[1] is loops.current()
    assert recorder.totals["faas.invocations"] == 2
    peer.accept()
    assert not peer.has_another_connection()


def test_an_async_handlers_exception_comes_out_unchanged(metrics, recorder):
    """As from any other."""

    @metrics.lambda_handler
    async def handler(event, context):
        raise LookupError(event)

    with pytest.raises(LookupError, match="42"):
        handler(42, None)
    assert recorder.totals["faas.errors"] == 1


def test_what_only_looks_synchronous_is_awaited_too(metrics):
    """A partial of an async function, and an object whose `__call__` is one."""

    async def add(one, event, context):
        return one + event

    class Handler:
        async def __call__(self, event, context):
            return event

    assert metrics.lambda_handler(functools.partial(add, 1))(2, None) == 3
    assert metrics.lambda_handler(Handler())(2, None) == 2


def test_name_docstring_and_signature_are_kept(metrics):
    """Tools that look at handlers see the user's."""

    @metrics.lambda_handler(timeout=0.1, delivery=Delivery.ACKNOWLEDGED)
    def handler(event: dict, context: object) -> str:
        """Says hello."""
        return "hello"

    assert (handler.__name__, handler.__doc__) == ("handler", "Says hello.")
    assert list(inspect.signature(handler).parameters) == ["event", "context"]
    assert inspect.signature(handler).return_annotation == "str"
    assert handler({}, None) == "hello"


def test_arguments_of_the_decorator_reach_the_flush(metrics, monkeypatch):
    """And stay out of it when they are not given."""
    calls = []
    flush = metrics._flusher.flush

    def seen(timeout, delivery, **more):
        calls.append((timeout, delivery, more))
        return flush(timeout, delivery, **more)

    monkeypatch.setattr(metrics._flusher, "flush", seen)
    metrics.lambda_handler(lambda event, context: None)({}, None)
    metrics.lambda_handler(timeout=0.1, delivery=Delivery.BUFFERED, every=60)(lambda event, context: None)({}, None)

    assert calls == [(5.0, Delivery.TRANSMITTED, {"every": 0.0}), (0.1, Delivery.BUFFERED, {"every": 60.0})]


def test_an_unreachable_endpoint_never_reaches_the_caller(metrics, peer, caplog):
    """The handler's result comes back; the trouble is counted, and logged once."""
    metrics._flusher._network._jitter = lambda: 1.0  # back-off for longer than this takes
    peer.close()

    @metrics.lambda_handler
    def handler(event, context):
        return "fine"

    assert [handler({}, None) for _ in range(3)] == ["fine"] * 3
    assert metrics.stats.failed == {"connect": 1}
    assert len(caplog.records) == 1


def test_a_defect_in_emitting_never_reaches_the_caller(metrics, recorder, caplog, monkeypatch):
    """Not even one in an encoder; it is logged with a trace."""
    monkeypatch.setattr(recorder, "encode", lambda snapshot: 1 / 0)

    @metrics.lambda_handler
    def handler(event, context):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        handler({}, None)
    monkeypatch.undo()
    assert caplog.records[-1].levelno == logging.ERROR
    assert "ZeroDivisionError" in caplog.text


async def test_inside_a_running_loop_the_result_still_comes_back(metrics, caplog):
    """As in a user's own async test: the flush cannot block that loop, says so, and the result is right."""

    @metrics.lambda_handler
    def handler(event, context):
        return "fine"

    assert handler({}, None) == "fine"
    assert "await flush()" in caplog.text


async def test_an_async_handler_inside_a_running_loop_says_what_to_await(metrics):
    """As in a user's own async test: running it would block that loop."""

    @metrics.lambda_handler
    async def handler(event, context):
        return event

    with pytest.raises(RuntimeError, match=r"await handler\.__wrapped__\(event, context\)"):
        handler(42, None)
    assert await handler.__wrapped__(42, None) == 42


def test_an_async_handler_waits_for_its_loop_rather_than_take_another(metrics):
    """While another thread flushes, say: what the handler has opened belongs to the one loop."""
    loops._busy.acquire()
    threading.Timer(0.05, loops._busy.release).start()

    @metrics.lambda_handler
    async def handler(event, context):
        return asyncio.get_running_loop()

    assert handler({}, None) is loops.current()


def test_two_handlers_share_their_counts(metrics, recorder):
    """One sandbox, and one cold start."""
    first = metrics.lambda_handler(lambda event, context: 1)
    second = metrics.lambda_handler(lambda event, context: 2)
    first({}, None)
    second({}, None)

    assert recorder.totals["faas.invocations"] == 2
    assert recorder.totals["faas.coldstarts"] == 1


@pytest.mark.parametrize("wrong", [42, "handler"])
def test_what_cannot_be_called_is_refused(metrics, wrong):
    """Where the mistake is made."""
    with pytest.raises(ConfigurationError, match="expected a function of an event and a context"):
        metrics.lambda_handler(wrong)


class Context:
    """What Lambda gives, as far as an emitter looks at it."""

    def __init__(self, left) -> None:
        self.left = left

    def get_remaining_time_in_millis(self):
        if isinstance(self.left, Exception):
            raise self.left
        return self.left


@pytest.mark.parametrize(
    ("context", "budget"),
    [
        (Context(30_000), 5.0),
        (Context(1_050), 1.0),
        (Context(1_050.5), 1.0005),
        (Context(30), 0.0),
        (Context(0), 0.0),
        (Context(None), 5.0),
        (Context("soon"), 5.0),
        (Context(NotImplementedError()), 5.0),
        (Mock(), 5.0),
        (SimpleNamespace(function_name="mine"), 5.0),
        (None, 5.0),
    ],
)
def test_a_flush_takes_no_more_than_the_time_that_is_left(metrics, monkeypatch, context, budget):
    """Less the margin. Without a context of Lambda's, as in a test, nothing is known of it, and nothing is clipped."""
    budgets = []
    flush = metrics._flusher.flush
    monkeypatch.setattr(
        metrics._flusher,
        "flush",
        lambda timeout, *rest, **more: budgets.append(timeout) or flush(timeout, *rest, **more),
    )

    assert metrics.lambda_handler(lambda event, context: "done")({}, context) == "done"
    assert budgets == [pytest.approx(budget)]


@pytest.mark.parametrize("guarded", [False, True])
def test_what_goes_wrong_before_the_handler_never_reaches_the_caller(metrics, monkeypatch, caplog, guarded):
    """A limit of threads, say: the handler runs, its report leaves, and the log has a trace."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    handler = metrics.lambda_handler(timeout_guard=guarded)(lambda event, context: "done")
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        assert handler({}, Context(30_000)) == "done"

    assert metrics.stats.transmitted == 1
    assert ("can't start new thread" in caplog.text) is guarded


@pytest.mark.parametrize("name", ["connect", "timeout_guard", "flush_at_sigterm"])
def test_a_switch_is_true_or_false(metrics, name):
    """A number of seconds there is a mistake."""
    with pytest.raises(ConfigurationError, match=f"{name} is 5; expected True or False"):
        metrics.lambda_handler(**{name: 5})


@pytest.mark.parametrize("every", [-1, float("nan"), True, "5"])
def test_an_interval_is_a_number_of_seconds(metrics, every):
    """Where the mistake is made."""
    with pytest.raises(ConfigurationError, match=r"every is .*; expected seconds"):
        metrics.lambda_handler(every=every)


def test_a_coroutine_that_a_function_returns_by_mistake_is_run(metrics, recorder):
    """Somebody forgot to await: Lambda gets what was meant, instead of an error about its JSON."""

    async def answer():
        await asyncio.sleep(0)
        return 42

    assert metrics.lambda_handler(lambda event, context: answer())({}, None) == 42
    assert recorder.totals["faas.invocations"] == 1


def test_a_forked_child_is_a_cold_start_of_its_own(metrics, recorder):
    """It is a sandbox of its own."""
    handler = metrics.lambda_handler(lambda event, context: None)
    handler({}, None)
    metrics._flusher.after_fork()
    handler({}, None)

    assert (
        metrics.counter("faas.coldstarts", unit="{coldstart}", description="Number of invocation cold starts.")
        .bind()
        .point
        == 1
    )


def test_an_invocation_that_times_out_has_told_its_cold_start(metrics, recorder):
    """The guard's report is the last of that sandbox, and a first invocation is the likeliest to time out."""
    reported = threading.Event()
    metrics.last_calls.append(reported.set)

    @metrics.lambda_handler(timeout_guard=True)
    def handler(event, context):
        assert reported.wait(5)
        metrics.flush_sync()  # waits for the guard's
        return recorder.totals["faas.coldstarts"], recorder.totals["faas.timeouts"]

    assert handler({}, Context(60)) == (1, 1)


def test_somebody_who_fails_at_the_last_call_costs_no_report(metrics, recorder, caplog):
    """It is logged, and the totals leave."""
    reported = threading.Event()
    metrics.last_calls += [lambda: 1 / 0, reported.set]

    @metrics.lambda_handler(timeout_guard=True)
    def handler(event, context):
        assert reported.wait(5)
        metrics.flush_sync()
        return recorder.totals["faas.timeouts"]

    assert handler({}, Context(60)) == 1
    assert "ZeroDivisionError" in caplog.text


def test_an_invocation_is_guarded_whatever_became_of_its_connection(metrics, monkeypatch, caplog):
    """The one has nothing to do with the other."""
    reported = threading.Event()
    metrics.last_calls.append(reported.set)

    @metrics.lambda_handler(timeout_guard=True)
    def handler(event, context):
        assert reported.wait(5)

    with monkeypatch.context() as broken:
        broken.setattr(metrics._flusher, "freshen", lambda **_: 1 / 0)
        handler({}, Context(60))

    assert "ZeroDivisionError" in caplog.text


def test_an_interrupt_before_the_handler_leaves_nothing_armed(metrics, monkeypatch):
    """The invocation is over, and nobody is to take it for timed out."""

    def interrupt(**_):
        raise KeyboardInterrupt

    handler = metrics.lambda_handler(timeout_guard=True)(lambda event, context: None)
    guard = inspect.getclosurevars(handler).nonlocals["invocations"]._guard
    with monkeypatch.context() as broken:
        broken.setattr(metrics._flusher, "freshen", interrupt)
        with pytest.raises(KeyboardInterrupt):
            handler({}, Context(60_000))

    assert guard._armed == {}


@pytest.mark.parametrize("left", [float("inf"), float("nan"), 1e16, sys.maxsize])
def test_a_context_that_knows_no_end_is_not_watched(metrics, left):
    """People's local contexts say such things."""
    handler = metrics.lambda_handler(timeout_guard=True)(lambda event, context: "done")

    assert handler({}, Context(left)) == "done"
    assert metrics.stats.transmitted == 1


def test_a_disabled_emitter_does_nothing_at_all(peer, monkeypatch):
    """No thread, no signal's handler, nothing that only the main thread may do."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")
    before = signal.getsignal(signal.SIGTERM), threading.active_count()
    results = []

    def elsewhere():
        metrics = Emitter(peer.endpoint)
        handler = metrics.lambda_handler(timeout_guard=True, flush_at_sigterm=True)(lambda event, context: "done")
        results.append(handler({}, Context(60_000)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(5)

    assert results == ["done"]
    assert (signal.getsignal(signal.SIGTERM), threading.active_count()) == before
