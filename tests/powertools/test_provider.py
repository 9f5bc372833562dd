from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

import pytest
from aws_lambda_powertools.metrics import Metrics, SchemaValidationError
from aws_lambda_powertools.metrics import single_metric as powertools_single_metric

from emitter import ConfigurationError
from emitter.powertools import EmitterProvider
from emitter.powertools.metric_set import LIMIT_VALUES
from tests.powertools.reading import add_order, of_cloudwatch, orders, totals

LOG = "emitter.powertools"


def test_an_emitter_is_made_of_arguments_and_environment(peer, monkeypatch):
    """Whoever gives none need not know of it."""
    monkeypatch.setenv("EMITTER_ENDPOINT", peer.endpoint)
    provider = EmitterProvider(service="booking", timeout=5.0)
    add_order(provider)
    provider.flush_metrics()
    body = peer.accept().read_request().body
    provider.emitter.close_sync(timeout=0.0)

    assert b"Orders" in body
    assert b"booking" in body


def test_an_emitter_and_settings_for_another_one_are_refused(emitter):
    """One of them would be ignored."""
    with pytest.raises(ConfigurationError, match="endpoint, timeout; expected one or the other"):
        EmitterProvider(emitter, endpoint="http://x/", timeout=1)


def test_without_an_endpoint_the_provider_says_so():
    """At construction, where the emitter is made."""
    with pytest.raises(ConfigurationError, match="EMITTER_ENDPOINT"):
        EmitterProvider()


def test_the_namespace_stands_before_the_name(emitter):
    """As in Powertools' provider for Datadog."""
    provider = EmitterProvider(emitter, namespace="Airline")
    add_order(provider)
    provider.flush_metrics()

    assert totals(emitter) == {("Airline.Orders", frozenset()): (0, 1)}


def test_namespace_and_service_come_from_the_environment(emitter, monkeypatch):
    """And arguments win over it."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Airline")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "booking")
    for provider in (EmitterProvider(emitter), EmitterProvider(emitter, namespace="Own", service="own")):
        add_order(provider)
        provider.flush_metrics()

    assert totals(emitter) == {
        ("Airline.Orders", frozenset({("service", "booking")})): (0, 1),
        ("Own.Orders", frozenset({("service", "own")})): (0, 1),
    }


def test_a_flush_outside_any_handler_reports(provider, peer):
    """As it publishes in Powertools."""
    add_order(provider)
    provider.flush_metrics()

    assert b"Orders" in peer.accept().read_request().body


def test_flushes_inside_a_handler_make_one_report_at_its_end(metrics, emitter):
    """A handler that flushes for each of a hundred records is not to make a hundred requests."""

    @metrics.log_metrics
    def handler(event, context):
        for _ in range(100):
            add_order(metrics)
            metrics.flush_metrics()
        add_order(metrics)

    handler({}, None)

    assert emitter.stats.flushes == 1
    assert totals(emitter) == {orders(): (0, 101)}


async def test_a_flush_inside_a_running_loop_blocks_nothing(provider, emitter):
    """It counts, and the next flush that is awaited reports."""
    add_order(provider)
    provider.flush_metrics()
    assert emitter.stats.flushes == 0
    await emitter.flush()

    assert totals(emitter) == {orders(): (0, 1)}
    assert emitter.stats.flushes == 1


def test_a_single_metric_has_dimensions_of_its_own(emitter, caplog):
    """And leaves those of the others alone."""
    provider = EmitterProvider(emitter, service="booking", namespace="Airline", default_dimensions={"stage": "test"})
    provider.add_dimension(name="channel", value="web")
    add_order(provider)
    with (
        caplog.at_level(logging.INFO, LOG),
        provider.single_metric("Upgrades", "Count", 2, default_dimensions={"tier": "gold"}) as metric,
    ):
        metric.add_metric(name="Second", unit="Count", value=1)
        metric.add_dimension(name="seat", value="window")
        metric.add_metadata(key="flight", value="LH1")
    with provider.single_metric(name="Upgrades", unit="Count", value=1, namespace="Other"):
        pass
    provider.flush_metrics()

    assert totals(emitter) == {
        ("Airline.Orders", frozenset({("channel", "web"), ("service", "booking"), ("stage", "test")})): (0, 1),
        ("Airline.Upgrades", frozenset({("seat", "window"), ("service", "booking"), ("tier", "gold")})): (0, 2),
        ("Other.Upgrades", frozenset({("service", "booking")})): (0, 1),
    }
    assert '{"flight": "LH1"}' in caplog.text


def test_a_single_metric_has_the_service_of_the_provider(emitter, capsys, monkeypatch):
    """That of Powertools knows the environment only; the document says that this one knows the provider too."""
    for name in (None, "checkout"):
        if name is not None:
            monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", name)
        with powertools_single_metric("Upgrades", "Count", 1, namespace="Airline"):
            pass
        with EmitterProvider(emitter, namespace="Airline", service=name).single_metric("Upgrades", "Count", 1):
            pass
    assert totals(emitter) == of_cloudwatch(capsys.readouterr().out)
    monkeypatch.delenv("POWERTOOLS_SERVICE_NAME")
    with powertools_single_metric("Seats", "Count", 1, namespace="Airline"):
        pass
    provider = EmitterProvider(emitter, namespace="Airline", service="booking")
    with Metrics(provider=provider).provider.single_metric("Seats", "Count", 1):
        pass

    assert of_cloudwatch(capsys.readouterr().out) == {("Airline.Seats", frozenset()): (0, 1)}
    assert totals(emitter)["Airline.Seats", frozenset({("service", "booking")})] == (0, 1)


def test_a_single_metric_whose_block_raises_is_none(provider, emitter):
    """As in Powertools, where it is not published either."""
    with pytest.raises(LookupError), provider.single_metric("Upgrades", "Count", 1):
        raise LookupError

    assert totals(emitter) == {}


def test_metadata_goes_to_the_log_and_into_no_metric(metrics, emitter, caplog):
    """Where CloudWatch has it, it is there to be searched for: it has too many values for an attribute."""

    @metrics.log_metrics
    def handler(event, context):
        add_order(metrics)
        if event:
            metrics.add_metadata(key="order", value=event)
            metrics.add_metadata(key=10, value={1, 2})

    with caplog.at_level(logging.INFO, LOG):
        handler(17, None)
        handler(None, None)
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOG]

    assert json.loads(line.partition(": ")[2]) == {"order": 17, "10": "{1, 2}"}
    assert totals(emitter) == {orders(): (0, 2)}


def test_a_timestamp_is_ignored_and_said_to_be_so_once(metrics, emitter, caplog):
    """Totals are those of the moment of the report."""
    with caplog.at_level(logging.WARNING, LOG):
        for _ in range(2):
            metrics.set_timestamp(1_700_000_000_000)
    add_order(metrics)
    metrics.flush_metrics()

    assert [record.getMessage()[:24] for record in caplog.records] == ["set_timestamp is ignored"]
    assert totals(emitter) == {orders(): (0, 1)}


def test_the_set_can_be_looked_at_without_taking_it(emitter):
    """In base units, as a flush would count it."""
    provider = EmitterProvider(emitter, namespace="Airline", service="booking")
    with pytest.raises(SchemaValidationError):
        provider.serialize_metric_set()
    add_order(provider)
    provider.add_metric(name="Payment", unit="Milliseconds", value=250)
    provider.add_metric(name="Payment", unit="Seconds", value=1)
    provider.add_dimension(name="tier", value="gold")
    provider.add_metadata(key="order", value=17)
    expected = {
        "metrics": {
            "Airline.Orders": {"kind": "counter", "unit": "{count}", "values": [1]},
            "Airline.Payment": {"kind": "histogram", "unit": "s", "values": [0.25, 1.0]},
        },
        "dimensions": {"service": "booking", "tier": "gold"},
        "metadata": {"order": 17},
    }

    assert provider.serialize_metric_set() == expected
    assert Metrics(provider=provider).serialize_metric_set() == expected
    given = provider.serialize_metric_set({"Other": {"Unit": "Bits", "Value": [8.0]}}, dimensions={}, metadata={})
    assert given == {
        "metrics": {"Airline.Other": {"kind": "histogram", "unit": "By", "values": [1.0]}},
        "dimensions": {"service": "booking"},
        "metadata": {},
    }


def test_an_empty_flush_by_hand_raises_if_asked_to(metrics):
    """Powertools' own exception."""
    with pytest.raises(SchemaValidationError, match="at least one metric"):
        metrics.flush_metrics(raise_on_empty_metrics=True)


def test_threads_lose_nothing_while_others_flush(provider, emitter):
    """Each value is counted once, whichever flush took it."""
    added = 4_000

    def add():
        for _ in range(added):
            add_order(provider)
            provider.add_metric(name="Payment", unit="Milliseconds", value=1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            provider._interrupt()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    provider._interrupt()

    assert totals(emitter)[orders()] == (0, 4 * added)
    assert totals(emitter)["Payment", frozenset()][0] == 4 * added


def test_values_that_never_end_become_totals_on_the_way(provider, emitter):
    """The memory that they wait in is bounded; what the set is asked at the end, it still knows."""

    @provider.log_metrics(raise_on_empty_metrics=True)
    def handler(event, context):
        provider.add_dimension(name="tier", value="gold")
        for _ in range(LIMIT_VALUES):
            add_order(provider)
        assert provider.look().values == []

    handler({}, None)

    assert totals(emitter) == {orders(tier="gold"): (0, LIMIT_VALUES)}


FORKING = """
import os, sys
from emitter.outcomes import Withheld
from emitter.powertools import EmitterProvider

provider = EmitterProvider(endpoint="http://127.0.0.1:9/")
provider.set_default_dimensions(stage="test")
provider.add_metric(name="Orders", unit="Count", value=1)
provider._lock.acquire()  # as another thread would hold it
pid = os.fork()
if pid == 0:
    assert provider.look().empty
    provider.add_metric(name="Orders", unit="Count", value=1)
    assert provider.look().dimensions == {"stage": "test"}
    os._exit(7)
_, status = os.waitpid(pid, 0)
assert len(provider.look().values) == 1
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_begins_with_an_empty_set():
    """What its parent has added is its parent's to report; and it waits for no lock of a thread that it has not."""
    done = subprocess.run([sys.executable, "-c", FORKING], timeout=30, check=False)

    assert done.returncode == 7


LOADED = "import sys; {}; print(*sorted(name for name in sys.modules if 'powertools' in name or 'datadog' in name))"


def test_the_provider_loads_no_more_of_powertools_than_metrics_does():
    """Neither another provider nor the logger, the tracer or their dependencies."""
    loaded = [
        subprocess.run([sys.executable, "-c", LOADED.format(code)], capture_output=True, text=True, check=True).stdout
        for code in ("from aws_lambda_powertools.metrics import Metrics", "import emitter.powertools")
    ]
    theirs, ours = (set(each.split()) for each in loaded)

    assert {name for name in ours - theirs if not name.startswith("emitter.")} == set()
