from __future__ import annotations

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import snapshot_restore_py
from awslambdaric import lambda_runtime_hooks_runner

from emitter import ConnectError, Emitter
from tests.flushing import next_totals, totals
from tests.scripted_peer import PATIENCE


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """Those that are registered in this test, in the lists that the stock runtime calls them from."""
    before, after = [], []
    monkeypatch.setattr(snapshot_restore_py, "_before_snapshot_registry", before)
    monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", after)
    return before, after


@pytest.fixture
def metrics(peer, monkeypatch):
    """An emitter that was made before a snapshot."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    metrics = Emitter(peer.endpoint, service="s", timeout=5.0)
    yield metrics
    metrics.close_sync(timeout=0.0)


@pytest.fixture
def snapshot(peer):
    """Take the snapshot, with a peer that answers meanwhile: what it was told."""

    def take():
        def serve():
            other_end = peer.accept()
            request = other_end.read_request()
            other_end.answer()
            return request.body, other_end.is_closed_by_client()

        with ThreadPoolExecutor(1) as executor:
            served = executor.submit(serve)
            lambda_runtime_hooks_runner.run_before_snapshot()
            return served.result(PATIENCE)

    return take


def test_only_snap_start_registers_hooks(peer, monkeypatch, hooks):
    """Elsewhere nobody would call them."""
    for phase in ("on-demand", "provisioned-concurrency", ""):
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", phase)
        Emitter(peer.endpoint)

    assert hooks == ([], [])


def test_what_init_recorded_is_told_once_and_the_connection_closed_in_order(metrics, snapshot):
    """Under the identity of INIT, which no sandbox will have; the answer is waited for."""
    metrics.counter("orders").add(3)
    report, closed = snapshot()

    assert totals(report)["orders"] == 3
    assert closed
    assert metrics.stats.verdicts == {200: 1}


def test_a_sandbox_with_nothing_to_tell_closes_without_a_report(metrics, peer):
    """One that nobody has recorded in would be a series for nothing, each time that a version is published."""
    metrics.connect_sync()
    other_end = peer.accept()
    lambda_runtime_hooks_runner.run_before_snapshot()

    assert other_end.is_closed_by_client()
    assert metrics.stats.flushes == 0


def test_after_the_restore_everything_is_new(metrics, peer, snapshot):
    """Identity, start time, totals, connection."""
    orders = metrics.counter("orders")
    orders.add(3)
    instance, started = metrics._registry.instance_id, metrics._registry._start_time_unix_nano
    snapshot()
    lambda_runtime_hooks_runner.run_after_restore()
    other_end = peer.accept()  # before anything is recorded
    orders.add()
    metrics.flush_sync()

    assert next_totals(other_end)["orders"] == 1
    assert metrics._registry.instance_id != instance
    assert metrics._registry._start_time_unix_nano > started


def test_a_hook_that_fails_does_not_end_the_sandbox(metrics, peer, monkeypatch, caplog):
    """The runtime would: whatever it is, it is logged with a trace, and the function lives."""
    with monkeypatch.context() as broken:
        broken.setattr(metrics._flusher, "close", lambda *_, **__: 1 / 0)
        lambda_runtime_hooks_runner.run_before_snapshot()

    assert "ZeroDivisionError" in caplog.text


def test_an_endpoint_that_is_down_delays_and_breaks_nothing(metrics, peer, caplog):
    """The network raises nothing in a hook either."""
    peer.close()
    metrics.counter("orders").add()
    lambda_runtime_hooks_runner.run_before_snapshot()
    lambda_runtime_hooks_runner.run_after_restore()

    assert isinstance(metrics.flush_sync().error, ConnectError)
    assert metrics.stats.failed == {"connect": 1}


@pytest.mark.parametrize("connect", [False, True])
def test_whoever_is_not_to_connect_does_not_after_a_restore_either(metrics, peer, connect):
    """It was said once, to the decorator."""
    metrics.lambda_handler(connect=connect)(lambda event, context: None)
    lambda_runtime_hooks_runner.run_before_snapshot()
    lambda_runtime_hooks_runner.run_after_restore()

    assert (metrics._flusher._link.opening is not None) is connect


def test_who_records_late_is_asked_before_the_snapshot_and_told_of_the_restore(metrics, snapshot):
    """What waits with him belongs to INIT, and to no sandbox."""
    orders = metrics.counter("orders")
    told = []
    metrics.last_calls.append(lambda: orders.add(5))
    metrics.at_restart.append(lambda: told.append("anew"))
    report, _ = snapshot()
    assert told == []
    lambda_runtime_hooks_runner.run_after_restore()

    assert totals(report)["orders"] == 5
    assert told == ["anew"]


def test_somebody_who_fails_around_a_snapshot_costs_nothing(metrics, snapshot, caplog):
    """The report of INIT, the orderly close and the new sandbox are there all the same; the mistake is in the log."""
    metrics.counter("orders").add(5)
    metrics.last_calls.append(lambda: 1 / 0)
    metrics.at_restart.append(lambda: 1 / 0)
    report, _ = snapshot()
    lambda_runtime_hooks_runner.run_after_restore()

    assert totals(report)["orders"] == 5
    assert metrics._flusher._reported == 0
    assert [record.getMessage() for record in caplog.records if record.name == "emitter"] == [
        "what is called last failed",
        "what is called at a restart failed",
    ]


def test_hooks_keep_no_emitter_alive(peer, monkeypatch):
    """They stay registered for ever."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    gone = weakref.ref(Emitter(peer.endpoint))
    gc.collect()
    lambda_runtime_hooks_runner.run_before_snapshot()

    assert gone() is None


def test_without_the_hooks_package_it_is_said(peer, monkeypatch, caplog):
    """A runtime of one's own may lack it, and then all sandboxes would have one identity."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    Emitter(peer.endpoint)

    assert "Add the package snapshot-restore-py" in caplog.text
