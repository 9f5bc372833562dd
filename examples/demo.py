"""Four ways to get counters out of a Lambda function, side by side, on this machine.

Starts an aggregator that takes 0.95 s to answer, and one sandbox of the stock Lambda runtime for each way;
shows what each way costs, and what of it had arrived while the sandbox was frozen. Where network namespaces and TAP
devices are permitted, its whole machine is frozen (`local_network`), elsewhere its process. Owns the course of the
experiment; what is counted, emitted, watched, shown and drawn stands in the folder `demo_parts`.

    python examples/demo.py [--invocations N] [--out DIR] [--no-picture] [--no-namespaces]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_parts.report import print_conditions, print_results
from demo_parts.results import MEMORY_MB, Invocation, Way, WayResult, arrived_in_time
from demo_parts.shop import CATALOGUE_PRODUCTS, truth
from demo_parts.witness import ROUND_TRIP_SECONDS, Witness
from local_aggregator import LocalAggregator
from local_lambda import LocalLambda
from local_network import LocalNetwork, why_not
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANSWER_SECONDS = 0.95
"""How long the aggregator takes to answer: a slow day of a real receiver."""

PERIOD_SECONDS = 1.6
"""From one invocation of a sandbox to its next. The answer comes before it, and Linux takes the connection for idle: it
halves the congestion window for each retransmission timeout (0.22 s here) without a segment, down to ten segments."""

_WAYS = (
    Way("awaited", "wait for the answer", "aiohttp", ours=False, products=0),
    Way("not-awaited", "do not await", "create_task", ours=False, products=0),
    Way("drained", "drain(), 200 KB", "stream", ours=False, products=CATALOGUE_PRODUCTS),
    Way("emitter", "emitter, small", "flush_sync", ours=True, products=0),
    Way("emitter-large", "emitter, 200 KB", "flush_sync", ours=True, products=CATALOGUE_PRODUCTS),
)


@dataclass(slots=True)
class _Run:
    """One way while it is being tried."""

    way: Way
    network: LocalNetwork | None
    witness: Witness
    sandbox: LocalLambda
    measured: list[tuple[float, int, int]] = field(default_factory=list)

    async def wake(self) -> None:
        """Thaw the machine, and leave the process stopped: the kernel has time to itself before the next event.

        So TCP has been idle before each report, as it is in life while a handler works. (During a freeze the
        kernel's timers would go on here and retransmit, which those of a paused machine do not.)
        """
        if self.network is not None:
            await self.network.mend()
        self.witness.thaw()

    async def invoke(self, order: int) -> None:
        """Let it handle one order, and see what has arrived once it is frozen."""
        result = await self.sandbox.invoke({"order": order})
        missing_bytes = await self.witness.freeze()
        if result.error is not None:
            raise RuntimeError(f"{self.way.title}: {result.error}\n{self.sandbox.output}")
        self.measured.append((result.payload["seconds"], result.billed_ms, missing_bytes))

    @property
    def complete_requests(self) -> int:
        """How many requests have arrived, in time or late."""
        return sum(request.freezes is not None for request in self.witness.requests)

    def result(self, services: Mapping[str, Any]) -> WayResult:
        in_time = arrived_in_time(self.witness.requests)
        complete = [request for request in self.witness.requests if request.freezes is not None]
        service = services.get(self.way.key, {"sums": {}, "reports_received": 0, "reports_lost": 0})
        expected = truth(len(self.measured), self.way.products)
        return WayResult(
            way=self.way,
            invocations=tuple(
                Invocation(*each, arrived=number in in_time) for number, each in enumerate(self.measured, 1)
            ),
            report_bytes=len(complete[-1].body) if complete else 0,
            connections=self.witness.connections,
            truth=expected,
            totals={name: service["sums"].get(name, 0) for name in expected},
            reports_received=service["reports_received"],
            known_lost=service["reports_lost"],
        )


async def _experiment(invocations: int, console: Console, *, whole_machines: bool) -> list[WayResult]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emitter-demo-")))
        aggregator = LocalAggregator(folder / "metrics.sqlite", answer_delay=ANSWER_SECONDS)
        await stack.enter_async_context(aggregator)
        networks: list[LocalNetwork | None] = [None for _ in _WAYS]
        if whole_machines:
            networks = [await stack.enter_async_context(LocalNetwork(round_trip=ROUND_TRIP_SECONDS)) for _ in _WAYS]
        witnesses = [
            await stack.enter_async_context(Witness(aggregator.host, aggregator.port, network)) for network in networks
        ]
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,  # a refresh at any time would disturb what is being measured
        )
        async with contextlib.AsyncExitStack() as sandboxes:
            runs = [
                _Run(way, network, witness, await sandboxes.enter_async_context(_sandbox(way, witness, network)))
                for way, witness, network in zip(_WAYS, witnesses, networks, strict=True)
            ]
            pids = {
                "aggregator": [aggregator.pid],
                "sandboxes": [run.sandbox.pid for run in runs],
                "links": [network.pid for network in networks if network is not None],
            }
            listed = "; ".join(f"{what} {', '.join(map(str, each))}" for what, each in pids.items() if each)
            console.print(f"processes: {listed}\n", highlight=False, soft_wrap=True)
            stack.enter_context(progress)
            await _drive(runs, invocations, progress)
        # Here the sandboxes have been killed while they were frozen: what they still held is gone.
        services = await aggregator.settled({run.way.key: run.complete_requests for run in runs})
        return [run.result(services) for run in runs]


def _sandbox(way: Way, witness: Witness, network: LocalNetwork | None) -> LocalLambda:
    variables = {
        "DEMO_WAY": way.key,
        "DEMO_PRODUCTS": str(way.products),
        "EMITTER_ENDPOINT": witness.endpoint,
    }
    here = Path(__file__).parent
    return LocalLambda(
        "demo_parts.handlers.handler",
        cwd=here,
        env=variables,
        name=way.key,
        memory_mb=MEMORY_MB,
        machine=None if network is None else network.sandbox,
    )


async def _drive(runs: Sequence[_Run], invocations: int, progress: Progress) -> None:
    """Invoke all sandboxes at the same pace, each in a slot of its own so that no two handlers compete."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    bars = [progress.add_task(run.way.title, total=invocations) for run in runs]

    async def drive(place: int, run: _Run) -> None:
        for number in range(invocations):
            await run.wake()
            due = begin + PERIOD_SECONDS * (number + place / len(runs))
            await asyncio.sleep(due - loop.time())
            await run.invoke(order=number + 1)
            progress.update(bars[place], advance=1)
            progress.refresh()

    await asyncio.gather(*(drive(place, run) for place, run in enumerate(runs)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--invocations", type=int, default=15, metavar="N", help="of each way; at least 2")
    parser.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for the files")
    parser.add_argument("--no-picture", action="store_true", help="leave the picture out")
    parser.add_argument("--no-namespaces", action="store_true", help="freeze processes, not whole machines")
    arguments = parser.parse_args()
    if arguments.invocations < 2:
        parser.error("--invocations is less than 2; the first is cold, and a median needs a warm one")
    return arguments


async def _main() -> None:
    arguments = _arguments()
    task = asyncio.current_task()
    assert task is not None, "asyncio.run made one"  # noqa: S101 - tells the type checker
    for number in (signal.SIGINT, signal.SIGTERM):
        # The way out leads through every `finally`, so that no process stays behind.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    console = Console()
    why_no_machines = "--no-namespaces" if arguments.no_namespaces else why_not()
    print_conditions(console, ANSWER_SECONDS, PERIOD_SECONDS, why_no_machines)
    results = await _experiment(arguments.invocations, console, whole_machines=why_no_machines is None)
    print_results(console, results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {
        "answer_seconds": ANSWER_SECONDS,
        "why_no_machines": why_no_machines,
        "ways": [result.as_json() for result in results],
    }
    numbers = arguments.out / "results.json"
    numbers.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"numbers: {numbers}", soft_wrap=True)
    if not arguments.no_picture:
        from demo_parts.picture import draw  # noqa: PLC0415 - half a second that --no-picture saves

        for path in draw(results, ANSWER_SECONDS, arguments.out, whole_machines=why_no_machines is None):
            console.print(f"picture: {path}", soft_wrap=True)


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except asyncio.CancelledError:
        sys.exit("interrupted; everything that was started has been ended")
