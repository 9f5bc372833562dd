"""The provider under the stock runtime client, with a real receiver."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.local_aggregator import LocalAggregator
from examples.local_lambda import LocalLambda, SandboxError
from tests.at_home.receiver import listening

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stock runtime client is Linux only")

EXAMPLES = Path(__file__).parents[2] / "examples"

FUNCTION = """
import asyncio
import time
from aws_lambda_powertools import Metrics
from emitter.powertools import EmitterProvider

provider = EmitterProvider()
metrics = Metrics(provider=provider)

@metrics.log_metrics(capture_cold_start_metric=True)
def handle(event, context):
    metrics.add_dimension(name="channel", value=event)
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.add_metric(name="Payment", unit="Milliseconds", value=250)
    return {"echo": event}

loops = []

@metrics.log_metrics(capture_cold_start_metric=True)
async def handle_async(event, context):
    loops.append(asyncio.get_running_loop())
    metrics.add_metric(name="Orders", unit="Count", value=1)
    await asyncio.sleep(0)
    metrics.add_metric(name="Payment", unit="Milliseconds", value=250)
    metrics.add_dimension(name="channel", value=event)
    return {"echo": event, "loops": len(set(loops))}

@metrics.log_metrics
def fail(event, context):
    metrics.add_metric(name="Orders", unit="Count", value=1)
    raise LookupError("no such order: 17")

@metrics.log_metrics(raise_on_empty_metrics=True)
def nothing(event, context):
    return "a result"

@metrics.log_metrics(timeout_guard=True)
def never_ends(event, context):
    metrics.add_dimension(name="channel", value="web")
    metrics.add_metric(name="Orders", unit="Count", value=1)
    time.sleep(60)

@metrics.log_metrics
def legacy_flush(event, context):
    metrics.add_metric(name="Orders", unit="Count", value=1)
    metrics.flush_metrics()
    metrics.add_metric(name="Orders", unit="Count", value=1)
"""


@pytest.fixture
def function(tmp_path):
    """Makes a sandbox of the function above."""
    (tmp_path / "function.py").write_text(FUNCTION)

    def make(handler, endpoint="", *, env=(), **options):
        env = {**({"EMITTER_ENDPOINT": endpoint} if endpoint else {}), **dict(env)}
        return LocalLambda(f"function.{handler}", cwd=tmp_path, env=env, name="checkout-prod", **options)

    return make


def points(report, name):
    """By attributes: the total of a counter, or the count and the sum of a histogram."""
    found = {}
    for scope in report.message.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            if metric.name == name:
                for point in metric.sum.data_points or metric.histogram.data_points:
                    key = tuple(sorted((each.key, each.value.string_value) for each in point.attributes))
                    value = point.as_int if metric.sum.data_points else (point.count, point.sum)
                    if value:
                        found[key] = value
    return found


@pytest.mark.parametrize("handler", ["handle", "handle_async"])
async def test_what_handlers_add_arrives_while_the_sandbox_stands_still(function, handler):
    """`def` and `async def`: results come out, dimensions are those of each invocation, one report each."""
    env = {"POWERTOOLS_METRICS_NAMESPACE": "Airline", "POWERTOOLS_SERVICE_NAME": "booking"}
    async with listening() as receiver, function(handler, receiver.endpoint, env=env) as sandbox:
        results = []
        for number, channel in enumerate(["web", "app", "web"], start=1):
            results.append(await sandbox.invoke(channel))
            await receiver.arrived(number)
        output = sandbox.output
    service = ("service", "booking")
    last = receiver.reports[-1]

    assert [result.payload["echo"] for result in results] == ["web", "app", "web"]
    assert results[-1].payload.get("loops", 1) == 1
    assert points(last, "Airline.Orders") == {(("channel", "web"), service): 2, (("channel", "app"), service): 1}
    assert points(last, "Airline.Payment") == {
        (("channel", "web"), service): (2, 0.5),
        (("channel", "app"), service): (1, 0.25),
    }
    assert points(last, "Airline.ColdStart") == {(("function_name", "checkout-prod"), service): 1}
    assert [report.value("faas.invocations") for report in receiver.reports] == [1, 2, 3]
    assert len(receiver.connections) == 1
    assert output == ""


async def test_what_a_handler_raises_reaches_lambda_unchanged(function):
    """And what it had added has gone out."""
    async with listening() as receiver, function("fail", receiver.endpoint) as sandbox:
        result = await sandbox.invoke()
        await receiver.arrived(1)

    assert (result.error.type, result.error.message) == ("LookupError", "no such order: 17")
    assert points(receiver.reports[0], "Orders") == {(): 1}
    assert receiver.reports[0].value("faas.errors") == 1


async def test_an_invocation_that_adds_nothing_fails_if_it_was_told_to(function):
    """By Powertools' own exception."""
    async with listening() as receiver, function("nothing", receiver.endpoint) as sandbox:
        result = await sandbox.invoke()

    assert result.error.type == "SchemaValidationError"


async def test_the_report_before_a_timeout_has_what_was_added_so_far(function):
    """With its dimensions, though the handler never ended."""
    async with listening() as receiver, function("never_ends", receiver.endpoint) as sandbox:
        with pytest.raises(SandboxError, match="timed out"):
            await sandbox.invoke(timeout=1.0)
        await receiver.arrived(1)

    assert points(receiver.reports[0], "Orders") == {(("channel", "web"),): 1}
    assert receiver.reports[0].value("faas.timeouts") == 1


async def test_a_flush_by_hand_makes_no_report_of_its_own(function):
    """All of an invocation is in one."""
    async with listening() as receiver, function("legacy_flush", receiver.endpoint) as sandbox:
        for number in (1, 2):
            await sandbox.invoke()
            await receiver.arrived(number)

    assert [points(report, "Orders") for report in receiver.reports] == [{(): 2}, {(): 4}]


async def test_the_connection_is_open_before_the_first_invocation(function):
    """The decorator opens it in the INIT phase."""
    async with listening() as receiver, function("handle", receiver.endpoint):
        await receiver.connected(1)

    assert receiver.reports == []


@pytest.mark.parametrize("variable", ["POWERTOOLS_METRICS_DISABLED", "POWERTOOLS_DEV"])
@pytest.mark.parametrize("handler", ["handle", "handle_async"])
async def test_a_disabled_provider_says_nothing_to_anybody(function, handler, variable):
    """No endpoint is needed, no connection opened, and handlers of both kinds run."""
    async with listening() as receiver:
        for endpoint in ("", receiver.endpoint):
            async with function(handler, endpoint, env={variable: "true"}) as sandbox:
                result = await sandbox.invoke("web")

            assert result.payload["echo"] == "web"
        await receiver.all_accepted()

    assert receiver.connections == []


async def test_each_worker_of_a_managed_instance_counts_for_itself(function):
    """The runtime forks them: identities of their own, and a cold start each."""
    async with listening() as receiver, function("handle", receiver.endpoint, concurrency=2) as sandbox:
        for number in range(1, 5):
            await sandbox.invoke("web")
            await receiver.arrived(number)
    last = {report.instance: report for report in receiver.reports}

    assert sum(points(report, "Orders")[("channel", "web"),] for report in last.values()) == 4
    assert all(points(report, "ColdStart") == {(("function_name", "checkout-prod"),): 1} for report in last.values())


async def test_the_example_counts_exactly(tmp_path):
    """Both of its handlers, through a real aggregator."""
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator:
        env = {"EMITTER_ENDPOINT": aggregator.endpoint}
        async with LocalLambda("lambda_powertools.handler", cwd=EXAMPLES, env=env, name="book") as sandbox:
            answers = [(await sandbox.invoke({"milliseconds": 500, "upgrades": 2})).payload for _ in range(3)]
            await aggregator.settled({"booking": 3})
        async with LocalLambda("lambda_powertools.async_handler", cwd=EXAMPLES, env=env, name="book") as sandbox:
            answers.append((await sandbox.invoke({"seats": ["1A", "1B"]})).payload)
            booking = (await aggregator.settled({"booking": 4}))["booking"]
    counted = {
        (total["name"].removeprefix("ServerlessAirline."), *sorted(total["attributes"].items())): total
        for total in booking["totals"]
    }
    service, stage = ("service", "booking"), ("stage", "demo")

    assert answers == [{"statusCode": 200}] * 4
    assert counted["SuccessfulBooking", ("channel", "web"), service, stage]["value"] == 3
    assert counted["SuccessfulBooking", service, stage]["value"] == 2
    assert counted["PaymentLatency", ("channel", "web"), service, stage]["sum"] == 1.5
    assert counted["Upgrades", service, ("tier", "gold")]["value"] == 6
    assert counted["ColdStart", ("function_name", "book"), service]["value"] == 1
