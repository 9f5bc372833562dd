from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest

from emitter import ConnectError, Delivery, Emitter, UsageError, living
from emitter.outcomes import Verdict, Withheld
from emitter.testing import InMemoryEmitter, LambdaContext, recording
from tests.flushing import orders, totals

REFUSED = ConnectError("metrics.example.com", 443, "refused")


@pytest.fixture
def disabled(monkeypatch):
    """As the plugin has it."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")


@pytest.fixture
def module(disabled):
    """What stands at the top of a user's module: made once, for all tests."""

    class Module:
        metrics = Emitter(service="checkout")
        orders = metrics.counter("orders")
        bound = orders.bind(channel="web")
        gauge = metrics.gauge("temperature").bind()
        size = metrics.histogram("size")

        @staticmethod
        @metrics.lambda_handler
        def handler(event, context):
            Module.orders.add(1, channel=event)
            return event

    return Module


def test_each_recording_begins_at_zero(module):
    """Instruments, bound series and decorated handlers go on working; what was recorded outside is not there."""
    for _ in range(2):
        module.bound.add(100)
        module.gauge.set(100)
        with recording() as recorded:
            recorded.assert_nothing_recorded()
            module.bound.add()
            module.gauge.set(2)
            module.size.record(3)
            assert module.handler("web", LambdaContext()) == "web"
            module.handler("app", None)

            recorded.assert_counter("orders", 2, channel="web")
            recorded.assert_counter("orders", 1, channel="app")
            recorded.assert_gauge("temperature", 2)
            recorded.assert_histogram("size", count=1, sum=3)
            recorded.assert_counter("faas.invocations", 2)
            recorded.assert_counter("faas.coldstarts", 1)
            assert [totals(body)["faas.invocations"] for body in recorded.reports] == [1, 2]


def test_a_reset_begins_anew_in_the_middle(module):
    """No totals, no reports, no failure, and the next invocation is the sandbox's first."""
    with recording() as recorded:
        module.handler("web", None)
        recorded.fail_with(REFUSED)
        recorded.reset()
        recorded.assert_nothing_recorded()
        recorded.assert_counter("faas.invocations", 0)
        assert recorded.reports == []
        module.handler("app", None)

        recorded.assert_counter("orders", 1, channel="app")
        recorded.assert_not_recorded("orders", channel="web")
        recorded.assert_counter("faas.coldstarts", 1)
        assert len(recorded.reports) == 1


def test_nothing_goes_out_of_an_emitter_that_could(peer):
    """While it is recorded; before and after it does, and what was recorded is in no report."""
    metrics = Emitter(peer.endpoint, timeout=5.0)
    counter = metrics.counter("orders")
    handler = metrics.lambda_handler(lambda event, context: counter.add(event))
    handler(1, None)
    other_end = peer.accept()
    before = other_end.read_request()
    with recording() as recorded:
        handler(10, None)
        assert metrics.connect_sync()
        assert metrics.flush_sync(delivery=Delivery.ANSWERED).error is None
        metrics.close_sync()
        recorded.assert_counter("orders", 10)
        in_between = metrics.stats
    assert not peer.has_another_connection()
    handler(100, None)
    after = peer.accept().read_request()
    metrics.close_sync(timeout=0.0)

    assert orders(before.body) == 1
    assert orders(after.body) == 100
    assert totals(after.body)["faas.coldstarts"] == 1  # a sandbox of its own
    assert in_between.connections_opened == 0
    assert other_end.is_closed_by_client()


def test_only_the_emitters_that_are_named_are_recorded(peer, module, monkeypatch):
    """The others go on."""
    monkeypatch.delenv("EMITTER_DISABLED")
    metrics = Emitter(peer.endpoint, timeout=5.0)
    with recording(module.metrics) as recorded:
        metrics.counter("visits").add()
        module.bound.add()
        metrics.flush_sync()
        recorded.assert_counter("orders", 1, channel="web")
        recorded.assert_not_recorded("visits")
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0.0)

    assert totals(request.body)["visits"] == 1


def test_an_emitter_that_is_made_meanwhile_is_recorded_too(disabled):
    """A module that is imported in the middle of a test, say; also when it does not live to the end."""
    with recording() as recorded:
        recorded.fail_with(REFUSED)
        metrics = Emitter(service="late")
        metrics.counter("orders").add(2)
        flush = metrics.flush_sync()
        del metrics
        gc.collect()

        recorded.assert_counter("orders", 2)
        assert flush.error is REFUSED
    after = Emitter(service="later")
    after.counter("orders").add()

    assert after.flush_sync().withheld is Withheld.DISABLED


def test_flushes_fail_on_purpose_until_they_do_not(module):
    """The totals are kept. It does not back off, so that nothing is left to chance."""
    with recording() as recorded:
        module.bound.add()
        recorded.fail_with(REFUSED)
        failed = [module.metrics.flush_sync() for _ in range(3)]
        opened = module.metrics.connect_sync()
        recorded.fail_with(None)
        through = module.metrics.flush_sync()

        assert [(flush.error, flush.delivery, flush.withheld) for flush in failed] == [(REFUSED, None, None)] * 3
        assert not opened
        assert (through.error, through.delivery) == (None, Delivery.TRANSMITTED)
        assert [orders(body) for body in recorded.reports] == [1]
        assert dict(module.metrics.stats.failed) == {"connect": 4}
    with recording():
        assert module.metrics.flush_sync().error is None  # it is over with the recording


def test_looking_at_one_emitter_leaves_its_flushes_alone(module):
    """They go on failing, if that is what they were told; and the look has it said for that emitter alone."""
    with recording() as recorded:
        recorded.fail_with(REFUSED)
        module.bound.add()
        view = recorded.of(module.metrics)
        view.assert_counter("orders", 1, channel="web")

        assert module.metrics.flush_sync().error is REFUSED
        view.fail_with(None)
        assert module.metrics.flush_sync().error is None


def test_what_no_flush_fails_with_is_refused(module):
    """By name, where the mistake is made, and not in the next flush."""
    with recording() as recorded:
        for wrong in (ValueError("x"), UsageError("x"), ConnectError):
            with pytest.raises(UsageError, match="expected a NetworkError"):
                recorded.fail_with(wrong)

        assert module.metrics.flush_sync().error is None


async def test_an_emitter_that_awaits_its_answers_is_recorded_too(monkeypatch):
    """Nothing of aiohttp is asked to do anything. Each flush has its own verdict, or has failed."""
    awaited = pytest.importorskip("emitter.awaited", reason="pip install aiohttp")
    monkeypatch.setattr(awaited.client.Exchange, "post", lambda *_, **__: pytest.fail("it posted"))
    metrics = awaited.AwaitedEmitter("http://metrics.example.com/v1/metrics", service="checkout")
    counter = metrics.counter("orders")
    counter.add(100)
    with recording(metrics) as recorded:
        counter.add()
        flush, again = await metrics.flush(), await metrics.flush()
        counter.add()
        recorded.fail_with(REFUSED)
        failed = await metrics.flush()
        recorded.fail_with(None)
        last = await metrics.close()

        recorded.assert_counter("orders", 2)
        assert [orders(body) for body in recorded.reports] == [1, 2]
        assert (flush.delivery, flush.verdicts) == (Delivery.ANSWERED, (Verdict(1, 200),))
        assert again.withheld is Withheld.UNCHANGED
        assert (failed.delivery, failed.error) == (None, REFUSED)
        assert (last.delivery, last.verdicts) == (Delivery.ANSWERED, (Verdict(3, 200),))
        assert metrics.stats.flushes == 3
    assert metrics.stats.flushes == 0


def test_powertools_metrics_are_recorded_too(disabled):
    """Through the emitter that the provider makes for itself."""
    powertools = pytest.importorskip("emitter.powertools", reason="pip install aws-lambda-powertools")
    provider = powertools.EmitterProvider(service="checkout", namespace="shop")

    @provider.log_metrics
    def handler(event, context):
        provider.add_metric("Orders", "Count", 2)

    with recording() as recorded:
        handler({}, LambdaContext())

        recorded.assert_counter("shop.Orders", 2, service="checkout")


def test_one_recording_at_a_time(module):
    """A second one would take the totals of the first away. It is refused, and changes nothing."""
    with recording() as recorded:
        module.bound.add()
        with pytest.raises(UsageError, match="recorded already"), recording(module.metrics):
            pytest.fail("it began")
        with pytest.raises(UsageError, match="recorded already"), recording():
            pytest.fail("it began")

        recorded.assert_counter("orders", 1, channel="web")
        module.metrics.flush_sync()
        assert len(recorded.reports) == 1
    with recording() as again:  # nothing was left behind
        again.assert_nothing_recorded()


def test_a_recording_ends_however_its_block_does(module):
    """The emitter is given back."""
    before = module.metrics._flusher
    with pytest.raises(ZeroDivisionError), recording():
        raise ZeroDivisionError

    assert module.metrics._flusher is before
    assert living._told == []


def test_an_in_memory_emitter_keeps_its_own_record(module):
    """Whoever made it looks there; a recording of everybody else leaves it alone."""
    mine = InMemoryEmitter(service="mine")
    mine.counter("visits").add()
    with recording() as recorded:
        mine.counter("visits").add()
        InMemoryEmitter().counter("visits").add()
        mine.flush_sync()
        recorded.assert_nothing_recorded()

    mine.recorded.assert_counter("visits", 2)
    assert len(mine.recorded.reports) == 1


def test_an_in_memory_emitter_is_not_recorded_by_name():
    """The recording would stay empty, and every assertion that nothing was recorded would hold."""
    mine = InMemoryEmitter(service="mine")

    with (
        pytest.raises(UsageError, match="has a record of its own; expected its `recorded` to be asked"),
        recording(mine),
    ):
        pass


def test_an_in_memory_emitter_is_one_whatever_the_environment_says(monkeypatch):
    """No endpoint is needed, none is used, and one that is switched off keeps its reports all the same."""
    for disabled in ("", "true", "false"):
        monkeypatch.setenv("EMITTER_DISABLED", disabled)
        metrics = InMemoryEmitter()
        metrics.counter("orders").add()

        assert metrics.flush_sync().delivery is Delivery.TRANSMITTED
        assert orders(metrics.recorded.reports[0]) == 1


def test_an_in_memory_emitter_speaks_the_format_it_is_given():
    """Which is how to test a format of one's own."""
    metrics = InMemoryEmitter(encoder="influx", service="checkout")
    metrics.counter("orders").add(3, channel="web")
    metrics.flush_sync()

    assert any(
        line.startswith(b"orders,") and b"channel=web" in line for line in metrics.recorded.reports[0].split(b"\n")
    )


def test_https_and_a_signer_cost_a_test_nothing(monkeypatch):
    """Nothing is verified and nothing is signed where nothing goes out: no trust store, no credentials."""

    class NoCredentials:
        def check(self, url):
            """It would do."""

        def sign(self, method, url, headers, body):
            pytest.fail("it was asked to sign")

    monkeypatch.setattr("emitter.transmit.tls.default_context", lambda: pytest.fail("the trust store was read"))
    metrics = Emitter("https://metrics.example.com/v1/metrics", signer=NoCredentials())
    with recording() as recorded:
        metrics.counter("orders").add()
        assert metrics.connect_sync()
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
        metrics.lambda_handler(lambda event, context: event)(None, None)

        assert orders(recorded.reports[0]) == 1


def test_threads_and_loops_record_into_the_same(module):
    """Nothing of it depends on who calls."""
    with recording() as recorded:
        threads = [threading.Thread(target=module.handler, args=("web", None)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def invocation():
            module.bound.add()
            return await module.metrics.flush()

        flush = asyncio.run(invocation())

        assert flush.error is None
        recorded.assert_counter("orders", 9, channel="web")
        recorded.assert_counter("faas.invocations", 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is needed")
def test_a_forked_child_begins_at_zero_there_as_well(module):
    """As a sandbox of its own; the parent's record does not change."""
    with recording() as recorded:
        module.bound.add()
        module.metrics.flush_sync()
        child = os.fork()
        if child == 0:
            try:
                recorded.assert_nothing_recorded()
                module.bound.add(5)
                module.metrics.flush_sync()
                recorded.assert_counter("orders", 5, channel="web")
                fine = [orders(body) for body in recorded.reports] == [5]
            except AssertionError:
                fine = False
            os._exit(0 if fine else 1)

        assert os.waitpid(child, 0)[1] == 0
        recorded.assert_counter("orders", 1, channel="web")
        assert len(recorded.reports) == 1


def test_it_is_imported_without_pytest():
    """Unit tests of whatever framework may use it; and it brings in nothing that the emitter does not need itself."""
    code = (
        "import sys, emitter.testing\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'pytest', '_pytest', 'aiohttp', 'botocore'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_an_emitter_is_not_kept_alive(disabled):
    """By the list of those that live, nor by a recording that is over."""
    metrics = Emitter(service="short")
    with recording():
        metrics.counter("orders").add()
    name = repr(metrics)
    count = len([each for each in living.emitters() if repr(each) == name])
    del metrics
    gc.collect()

    assert len([each for each in living.emitters() if repr(each) == name]) < count
