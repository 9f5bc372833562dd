"""What the decorator costs an invocation: by itself, with its guard, and where the connection has to be replaced."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from awslambdaric.lambda_context import LambdaContext
from measuring import in_turn, print_row, seconds_of
from over_the_wire import PATIENCE, Warm, trusting, wait_readable

sys.path.append(str(Path(__file__).parents[2]))  # the examples are no part of what is installed

from emitter import Emitter
from examples.local_network import LocalNetwork, why_not

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Handler = Callable[[object, LambdaContext], object]

ROUND_TRIP = 0.05
WORK_SECONDS = 0.2
RECONNECTS = 10
INVOCATIONS = 1_000
BATCHES = 50

_DEADLINE_SECONDS = 900  # the longest that Lambda has, so that no guard ever acts
_BATCH = 100
_invocations = count()
_PEER = Path(__file__).with_name("peer.py")


def contexts(many: int = 1) -> list[LambdaContext]:
    """What the stock runtime client gives to handlers, one after another: each has a later deadline."""
    now = time.time()
    return [
        LambdaContext("bench", None, None, int((now + _DEADLINE_SECONDS + next(_invocations) * 0.01) * 1e3))
        for _ in range(many)
    ]


def empty(event: object, context: object) -> None:
    """A handler that does nothing."""


def bench_decorator(peer: dict) -> None:
    """An empty handler: bare, decorated and guarded; without a flush and with one."""
    url = f"http://127.0.0.1:{peer['plain']}"
    plain, guarded = Warm(url), Warm(url)
    handlers = {
        "bare": empty,
        "decorated": plain.emitter.lambda_handler(empty, every=3600.0),
        "decorated, timeout_guard": guarded.emitter.lambda_handler(empty, every=3600.0, timeout_guard=True),
    }
    of_all = iter(contexts(len(handlers) * _BATCH * (BATCHES + 1)))
    calls = {name: partial(invoke_some, handler, of_all) for name, handler in handlers.items()}
    for call in calls.values():
        call()  # the first reports what the decorator has just made, or starts the guard
    seconds = {name: [took / _BATCH for took in each] for name, each in in_turn(calls, rounds=BATCHES).items()}
    print("\nan invocation of an empty handler, every=3600, so that nothing is flushed; processor time")
    for name, measured in seconds.items():
        print_row(name, measured, seconds["decorated"])
    print_guard(seconds["decorated, timeout_guard"], seconds["decorated"])
    for warm in (plain, guarded):
        warm.emitter.close_sync()
    bench_decorator_flushing(url)


def invoke_some(handler: Handler, of_all: Iterator[LambdaContext]) -> None:
    """One invocation after another."""
    for of_this in islice(of_all, _BATCH):
        handler(None, of_this)


def bench_decorator_flushing(url: str) -> None:
    """The same with a flush in each invocation, as it is by default."""
    alone, plain, guarded = Warm(url), Warm(url), Warm(url)
    rows: list[tuple[str, Warm, Handler]] = [
        ("add + flush_sync alone", alone, lambda event, context: alone.flush()),
        ("decorated", plain, plain.emitter.lambda_handler(empty)),
        ("decorated, timeout_guard", guarded, guarded.emitter.lambda_handler(empty, timeout_guard=True)),
    ]
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for number in range(INVOCATIONS):
        for name, warm, handler in rows:
            took = warm.measure(partial(handler, None, *contexts()))
            if number > 0:  # the first starts the guard
                seconds[name].append(took)
        rows.append(rows.pop(0))  # who comes after whom makes a difference
    print(f"\nthe same with a flush in each, warm, TRANSMITTED, plain HTTP; {INVOCATIONS} rounds")
    for name, measured in seconds.items():
        print_row(name, measured, seconds["decorated"])
    print_guard(seconds["decorated, timeout_guard"], seconds["decorated"])
    for warm in (alone, plain, guarded):
        assert warm.emitter.stats.flushes == INVOCATIONS + 1, warm.emitter.stats  # the guard has never acted
        warm.close()


def print_guard(guarded: list[float], others: list[float]) -> None:
    """The guard's share, out of medians."""
    print(f"  the guard itself: {(statistics.median(guarded) - statistics.median(others)) * 1e6:.1f} us")


class Far(NamedTuple):
    """Seconds that emitting has added to handlers of `WORK_SECONDS`, by how it was done."""

    warm: list[float]
    reconnecting: list[float]
    hidden: list[float]


def bench_hidden_reconnect() -> None:
    """A flush whose connection is gone: it opens another, or finds one that was opened while the handler worked."""
    title = f"a flush after a handler of {WORK_SECONDS * 1e3:.0f} ms, over a round trip of {ROUND_TRIP * 1e3:.0f} ms"
    missing = why_not()
    if missing is not None:
        print(f"\n{title}: not measured, {missing}")
        return
    for kind, far in asyncio.run(measure_far()).items():
        print(f"\n{title}, {kind}; {RECONNECTS} rounds")
        print_row("warm", far.warm, far.reconnecting)
        print_row("connection gone, reconnects in the flush", far.reconnecting, far.reconnecting)
        print_row("connection gone, behind the handler", far.hidden, far.reconnecting, goal=0.2)


async def measure_far() -> dict[str, Far]:
    """Each on a host of its own, with the path between them."""
    async with LocalNetwork(round_trip=ROUND_TRIP) as network:
        command = [sys.executable, str(_PEER), network.receiver.address]
        with network.receiver.run(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
            try:
                told = json.loads(process.stdout.readline())
                host = network.receiver.address
                plain = f"http://{host}:{told['plain']}", f"http://{host}:{told['closing']}", None
                secure = f"https://{host}:{told['tls']}", f"https://{host}:{told['tls_closing']}", trusting(told)
                return {
                    kind: await asyncio.to_thread(network.sandbox.run, lambda urls=urls: far_from(*urls))
                    for kind, urls in (("plain HTTP", plain), ("TLS", secure))
                }
            finally:
                process.terminate()


def far_from(staying: str, closing: str, trusted: ssl.SSLContext | None) -> Far:
    """What emitting adds to an invocation: where the connection stays, and where the receiver ends it each time."""
    warm, reconnecting, hidden = Far([], [], [])
    emitters = {
        name: Emitter(f"{url}/v1/metrics", service="bench", ssl_context=trusted, timeout=PATIENCE)
        for name, url in (("warm", staying), ("reconnecting", closing), ("hidden", closing))
    }
    orders = emitters["reconnecting"].counter("orders").bind()
    worked = 0.0

    def work(event: object, context: object) -> None:
        nonlocal worked
        worked = seconds_of(lambda: time.sleep(WORK_SECONDS))  # as if it asked somebody else

    def by_hand(event: object, context: object) -> None:
        work(event, context)
        orders.add()
        emitters["reconnecting"].flush_sync()

    invocations = (
        (warm, emitters["warm"], emitters["warm"].lambda_handler(work)),
        (reconnecting, emitters["reconnecting"], by_hand),
        (hidden, emitters["hidden"], emitters["hidden"].lambda_handler(work)),
    )
    for number in range(RECONNECTS + 1):
        for seconds, emitter, handler in invocations:
            took = seconds_of(lambda handler=handler: handler(None, *contexts()))
            if number > 0:  # the first opens the first connection
                seconds.append(took - worked)
            wait_readable(
                emitter._flusher._link.connection._socket
            )  # for the answer, which the next invocation harvests
    for emitter in emitters.values():
        if emitter.stats.failed:  # a machine so busy that an answer took longer than a round
            print(f"  {emitter} has failed: {dict(emitter.stats.failed)}")
        emitter.close_sync()
    return Far(warm, reconnecting, hidden)
