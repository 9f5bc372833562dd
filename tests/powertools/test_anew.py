"""The provider when its emitter begins anew: in tests of users' metrics, and around SnapStart's snapshot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import snapshot_restore_py
from awslambdaric import lambda_runtime_hooks_runner

from emitter.powertools import EmitterProvider
from emitter.testing import LambdaContext, recording
from tests.powertools.reading import add_order, totals
from tests.scripted_peer import PATIENCE


@pytest.fixture
def provider(monkeypatch):
    """As at the top of the module under test."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")
    return EmitterProvider(namespace="Airline", service="booking")


@pytest.fixture
def handler(provider):
    """Counts an order."""

    @provider.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        add_order(provider)

    return handler


def leave_something(provider):
    """What a test of a helper leaves behind, which never gets to the end of a handler."""
    add_order(provider)
    provider.add_dimension(name="channel", value="web")
    provider.add_metadata(key="order", value=17)


def test_no_test_leaks_into_the_next_one(provider, handler):
    """Neither values nor dimensions nor metadata."""
    with recording():
        leave_something(provider)
    with recording() as recorded:
        assert (provider.look().metadata, provider.look().empty) == ({}, True)
        handler({}, None)

        recorded.assert_total("Airline.Orders", 1)
        recorded.assert_counter("Airline.Orders", 1, service="booking")


def test_a_recording_begins_without_what_was_added_before(provider, handler):
    """At the top of the module, say."""
    leave_something(provider)
    with recording() as recorded:
        handler({}, None)

        recorded.assert_counter("Airline.Orders", 1, service="booking")


def test_a_recording_that_is_reset_begins_anew(provider, handler):
    """Inside one test."""
    with recording() as recorded:
        leave_something(provider)
        provider.add_metric(name="Open", unit="Count", value=-1)
        provider._interrupt()
        assert provider.refused == 1
        leave_something(provider)
        recorded.reset()

        assert provider.look().empty
        assert provider.refused == 0
        handler({}, None)
        recorded.assert_counter("Airline.Orders", 1, service="booking")


def test_default_dimensions_stay(provider, handler):
    """They are no invocation's."""
    provider.set_default_dimensions(stage="test")
    with recording() as recorded:
        handler({}, None)

        recorded.assert_counter("Airline.Orders", 1, service="booking", stage="test")


def test_each_test_has_its_cold_start(handler):
    """As `faas.coldstarts` has; once in each."""
    for _ in range(2):
        with recording() as recorded:
            for _ in range(2):
                handler({}, LambdaContext())

            recorded.assert_counter("Airline.ColdStart", 1, service="booking", function_name="function")
            recorded.assert_counter("faas.coldstarts", 1)


COLD_STARTS = """
import contextlib, io, json
from aws_lambda_powertools.metrics import Metrics
from aws_lambda_powertools.metrics.provider import cold_start
from emitter.powertools import EmitterProvider
from emitter.testing import LambdaContext, recording

def counts(metrics):
    @metrics.log_metrics(capture_cold_start_metric=True)
    def handler(event, context):
        metrics.add_metric(name="Orders", unit="Count", value=1)
    handler({}, LambdaContext())

first = cold_start.is_cold_start
log = io.StringIO()
with contextlib.redirect_stdout(log):
    counts(Metrics(namespace="Airline"))
cold_start.is_cold_start = first
provider = EmitterProvider(namespace="Airline")
for _ in range(2):
    with recording() as recorded:
        counts(provider)
        ours = "Airline.ColdStart" in str(recorded)
        recorded.assert_counter("faas.coldstarts", 1)
print(json.dumps(["ColdStart" in log.getvalue(), ours]))
"""


@pytest.mark.parametrize("initialization", ["on-demand", "provisioned-concurrency"])
def test_a_recording_has_a_cold_start_where_powertools_has_one(initialization):
    """Under provisioned concurrency it knows of none. The emitter's own count is of first invocations."""
    environment = {**os.environ, "EMITTER_DISABLED": "true", "AWS_LAMBDA_INITIALIZATION_TYPE": initialization}
    done = subprocess.run(
        [sys.executable, "-c", COLD_STARTS], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    theirs, ours = json.loads(done.stdout)
    assert theirs == (initialization == "on-demand")
    assert ours == theirs


def test_a_reset_inside_an_invocation_leaves_it_running(provider):
    """It still ends once, and flushes once."""
    with recording() as recorded:

        @provider.log_metrics
        def handler(event, context):
            recorded.reset()
            add_order(provider)
            provider.flush_metrics()

        handler({}, None)

        assert provider._running == 0
        assert provider.emitter.stats.flushes == 1


@pytest.fixture
def hooks(monkeypatch):
    """Those that are registered in this test, in the lists that the stock runtime calls them from."""
    monkeypatch.setattr(snapshot_restore_py, "_before_snapshot_registry", [])
    monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", [])
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")


def test_what_init_has_added_is_counted_before_the_snapshot_and_in_no_sandbox(hooks, peer):
    """Every sandbox that is made of the snapshot would count it once more."""

    def serve():
        other_end = peer.accept()
        body = other_end.read_request().body
        other_end.answer()
        return body, other_end.is_closed_by_client()

    provider = EmitterProvider(endpoint=peer.endpoint, namespace="Airline", timeout=5.0)
    provider.add_metric(name="Models", unit="Count", value=3)
    provider.add_dimension(name="phase", value="init")
    with ThreadPoolExecutor(1) as executor:
        served = executor.submit(serve)
        lambda_runtime_hooks_runner.run_before_snapshot()
        body, closed = served.result(PATIENCE)
    before = totals(provider.emitter)
    lambda_runtime_hooks_runner.run_after_restore()
    provider._interrupt()
    after = totals(provider.emitter)
    provider.emitter.close_sync(timeout=0.0)

    assert b"Airline.Models" in body
    assert closed
    assert before == {("Airline.Models", frozenset({("phase", "init")})): (0, 3)}
    assert after == {}
    assert (provider.look().dimensions, provider.look().empty) == ({}, True)


def test_a_snapshot_of_a_provider_with_nothing_in_it_counts_nothing(hooks, peer):
    """Not even what is counted of no value; and what it has by default stays."""
    provider = EmitterProvider(endpoint=peer.endpoint, timeout=5.0, default_dimensions={"stage": "test"})
    lambda_runtime_hooks_runner.run_before_snapshot()
    counted = totals(provider.emitter, own=True)
    lambda_runtime_hooks_runner.run_after_restore()
    provider.emitter.close_sync(timeout=0.0)

    assert counted == {}
    assert provider.look().dimensions == {"stage": "test"}
