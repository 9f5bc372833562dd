from __future__ import annotations

import re
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from examples.local_lambda import LocalLambda, Result
from tests.at_home.receiver import listening, refusing, silent

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stock runtime client is Linux only")

FUNCTION = """
import asyncio
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")
loops = []

@metrics.lambda_handler
def handle(event, context):
    orders.add(1)
    return {"echo": event}

@metrics.lambda_handler
async def handle_async(event, context):
    await asyncio.sleep(0)
    orders.add(1)
    loops.append(asyncio.get_running_loop())
    return {"echo": event, "loops": len(set(loops))}

def fail(event, context):
    orders.add(1)
    raise LookupError("no such order: 17")

async def fail_late(event, context):
    await asyncio.sleep(0)
    fail(event, context)

decorated_fail = metrics.lambda_handler(fail)
decorated_fail_late = metrics.lambda_handler(fail_late)

@metrics.lambda_handler
async def flush_inside(event, context):
    orders.add(1)
    await metrics.flush()
    orders.add(1)
    return {}
"""

BUDGET_SECONDS = 0.25
"""What a flush may take unless it is told otherwise."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The function's folder."""
    (tmp_path / "function.py").write_text(FUNCTION)
    return tmp_path


def sandbox_of(folder: Path, function: str, endpoint: str) -> LocalLambda:
    """The function under the stock runtime, with that handler."""
    return LocalLambda(f"function.{function}", cwd=folder, env={"EMITTER_ENDPOINT": endpoint})


@pytest.mark.parametrize("function", ["handle", "handle_async"])
async def test_decorated_handlers_run_under_the_stock_runtime(folder: Path, function: str) -> None:
    """`def` and `async def`: results come out, totals arrive, over one connection that outlives every freeze."""
    async with listening() as peer, sandbox_of(folder, function, peer.endpoint) as sandbox:
        results = []
        for number in range(4):
            results.append(await sandbox.invoke({"order": number}))
            await peer.arrived(number + 1)  # while the sandbox stands still

    assert [result.error for result in results] == [None] * 4
    assert [result.payload["echo"] for result in results] == [{"order": number} for number in range(4)]
    assert [result.payload.get("loops", 1) for result in results] == [1] * 4
    assert [report.value("orders") for report in peer.reports] == [1, 2, 3, 4]
    assert [report.value("faas.invocations") for report in peer.reports] == [1, 2, 3, 4]
    assert [report.value("emitter.flushes") for report in peer.reports] == [1, 2, 3, 4]
    assert len(peer.connections) == 1


@pytest.mark.parametrize("decorated", ["decorated_fail", "decorated_fail_late"])
async def test_what_a_handler_raises_reaches_lambda_unchanged(folder: Path, decorated: str) -> None:
    """Type and message are those of the bare handler, and the report has gone out all the same."""
    async with listening() as peer:
        async with sandbox_of(folder, "fail", peer.endpoint) as sandbox:
            bare = await sandbox.invoke()
        async with sandbox_of(folder, decorated, peer.endpoint) as sandbox:
            result = await sandbox.invoke()
            await peer.arrived(1)

    assert bare.error is not None
    assert result.error is not None
    assert (result.error.type, result.error.message) == (bare.error.type, bare.error.message)
    assert result.error.document.keys() == bare.error.document.keys()
    assert result.error.document["stackTrace"][-1] == bare.error.document["stackTrace"][-1]
    report = peer.reports[0]
    assert [report.value(name) for name in ("orders", "faas.errors", "faas.invocations")] == [1, 1, 0]


async def test_a_flush_inside_an_async_handler_shares_its_connection_with_the_last_one(folder: Path) -> None:
    """What is awaited in the handler and what the decorator does after it go out on the same connection."""
    async with listening() as peer, sandbox_of(folder, "flush_inside", peer.endpoint) as sandbox:
        errors = []
        for number in range(3):
            errors.append((await sandbox.invoke()).error)
            await peer.arrived(2 * (number + 1))

    assert errors == [None] * 3
    assert [report.value("orders") for report in peer.reports] == [1, 2, 3, 4, 5, 6]
    assert len(peer.connections) == 1


async def test_a_peer_that_never_answers_holds_up_no_invocation(folder: Path) -> None:
    """Every report goes out and none is waited for: no answer is needed for the next one."""
    async with listening(answers=False) as peer, sandbox_of(folder, "handle", peer.endpoint) as sandbox:
        results = []
        for number in range(5):
            results.append(await sandbox.invoke())
            await peer.arrived(number + 1)

    assert [report.value("orders") for report in peer.reports] == [1, 2, 3, 4, 5]
    assert len(peer.connections) == 1
    assert median(result.billed_seconds for result in results) < BUDGET_SECONDS


@pytest.mark.parametrize("function", ["handle", "handle_async"])
async def test_an_endpoint_that_refuses_breaks_no_handler(folder: Path, function: str) -> None:
    """The result comes out, and the log says once that reports do not get through."""
    async with sandbox_of(folder, function, refusing()) as sandbox:
        results = [await sandbox.invoke(number) for number in range(3)]
        log = sandbox.output

    _assert_unharmed(results)
    assert re.fullmatch(r"\[WARNING\].*Connection refused.*\n", log), log


async def test_an_endpoint_that_says_nothing_costs_no_more_than_the_budget(folder: Path) -> None:
    """A connection that never opens: the handler is held up for the budget at most, the result comes out."""
    with silent() as endpoint:
        async with sandbox_of(folder, "handle", endpoint) as sandbox:
            results = [await sandbox.invoke(number) for number in range(6)]

    _assert_unharmed(results)
    assert results[0].billed_seconds > BUDGET_SECONDS  # otherwise the endpoint was not silent
    # Withheld. Not all have to be: the length of a back-off is a matter of chance.
    assert min(result.billed_seconds for result in results) < BUDGET_SECONDS


def _assert_unharmed(results: list[Result]) -> None:
    payloads: list[Any] = [result.payload for result in results]
    assert [result.error for result in results] == [None] * len(results)
    assert [payload["echo"] for payload in payloads] == list(range(len(results)))
