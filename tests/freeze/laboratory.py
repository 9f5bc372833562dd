"""The freeze laboratory: which reports had arrived before the sandbox was thawed, for each way of emitting.

One experiment is one way, one size of report and one round trip, in a network of its own. Between two invocations the
sandbox's whole machine is frozen, as `examples.local_network` explains.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from examples.local_lambda import LocalLambda
from examples.local_network import LocalNetwork
from tests.freeze.receiver import Receiver
from tests.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

__all__ = ["ROUND_TRIPS", "SIZES", "WAYS", "WORK_SECONDS", "Experiment", "Outcome", "Size", "Way", "every", "run"]

WORK_SECONDS = 2.0
"""How long the handler works before it reports: long enough that Linux takes the connection for idle. It then halves
the congestion window for each retransmission timeout (0.2 s and a round trip) since the last segment, down to ten
segments (RFC 5681, section 4.1; `tcp_cwnd_restart`), so each report starts anew, as after any pause in life."""

_BATCH = 24
"""Experiments at a time. Each has two processes and two namespaces; the machine is idle most of the time."""

_SLOT_SECONDS = 0.08
"""From one sandbox's invocation to the next one's, so that few of them report at the same moment."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of emitting.

    Attributes:
        key: What `function.py` calls it.
        title: For people.
        ours: Whether it is `emitter`.
        tls: Whether over TLS.
    """

    key: str
    title: str
    ours: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """One size of report.

    Attributes:
        title: For people.
        series: How many series of 240 bytes it has beyond those that are always there.
    """

    title: str
    series: int

    @property
    def segments(self) -> int:
        """How many segments it fills at least."""
        return self.series * 240 // 1448


@dataclass(frozen=True, slots=True)
class Experiment:
    """One cell of the table; `round_trip` in seconds."""

    way: Way
    size: Size
    round_trip: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an experiment, the first invocation left out, which opens the connection.

    Attributes:
        arrived: For each invocation, whether its report was complete at the receiver before the thaw.
        handler_seconds: For each invocation, recording and emitting, by the handler's own clock.
        open_seconds: For each invocation, how long after recording the machine was not yet frozen, at most.
        said: For each invocation, what the flush said of its delivery; `None` where there is no emitter.
        body_bytes: The largest report that arrived, without HTTP's head.
        orders: How many orders were counted, the first included.
        orders_received: How many the last report that arrived tells of.
        connections: How many were opened.
        largest_frame_bytes: The largest that the sandbox transmitted.
        congestion_control: By which the sandbox's kernel transmitted.
    """

    arrived: tuple[bool, ...]
    handler_seconds: tuple[float, ...]
    open_seconds: tuple[float, ...]
    said: tuple[str | None, ...]
    body_bytes: int
    orders: int
    orders_received: int
    connections: int
    largest_frame_bytes: int
    congestion_control: str

    @property
    def complete(self) -> bool:
        """Whether every report had arrived."""
        return all(self.arrived)

    @property
    def median_seconds(self) -> float:
        """The handler time in the middle."""
        return median(self.handler_seconds)


WAYS = (
    Way("create_task", "create_task, not awaited"),
    Way("drain", "drain()"),
    Way("drain-0", "drain(), limit 0"),
    Way("transmitted", "emitter, TRANSMITTED", ours=True),
    Way("acknowledged", "emitter, ACKNOWLEDGED", ours=True),
    Way("transmitted", "emitter, TRANSMITTED, TLS", ours=True, tls=True),
)

SIZES = (
    # Nothing but the counters that are always there: the emitter's own, and the orders.
    Size("smallest", 0),
    Size("10 KB", 40),
    Size("30 KB", 123),
    Size("300 KB", 1_253),
)

ROUND_TRIPS = (0.001, 0.02, 0.08)
"""Within a zone, between regions of a continent, across an ocean; in seconds."""


def every(ways: Sequence[Way] = WAYS, sizes: Sequence[Size] = SIZES) -> list[Experiment]:
    """All experiments of these ways and sizes, over every round trip."""
    return [Experiment(*each) for each in product(ways, sizes, ROUND_TRIPS)]


async def run(
    experiments: Sequence[Experiment],
    invocations: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> dict[Experiment, Outcome]:
    """Run experiments.

    Args:
        experiments: Which.
        invocations: Of each sandbox, after the first.
        on_batch: Called with the number of experiments that are done.
    """
    outcomes: dict[Experiment, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="emitter-freeze-") as folder:
        trusted = Path(folder) / "authority.pem"
        authority = Authority()
        trusted.write_bytes(authority.pem)
        for begin in range(0, len(experiments), _BATCH):
            async with contextlib.AsyncExitStack() as stack:
                trials = [_Trial(experiment, authority, trusted) for experiment in experiments[begin : begin + _BATCH]]
                for trial in trials:  # one after the other: starting takes all of a processor
                    await stack.enter_async_context(trial)
                await asyncio.gather(
                    *(trial.invoke(invocations + 1, place * _SLOT_SECONDS) for place, trial in enumerate(trials))
                )
                outcomes |= {trial.experiment: await trial.outcome() for trial in trials}
            on_batch(len(outcomes))
    return outcomes


class _Trial(contextlib.AbstractAsyncContextManager["_Trial"]):
    """One experiment under way: its network, its receiver, its sandbox."""

    def __init__(self, experiment: Experiment, authority: Authority, trusted: Path) -> None:
        self.experiment = experiment
        self._authority = authority
        self._trusted = trusted
        self._invocations: list[tuple[bool, float, float, str | None]] = []

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            way = self.experiment.way
            network = await stack.enter_async_context(LocalNetwork(round_trip=self.experiment.round_trip))
            tls = self._authority.server(network.receiver.address) if way.tls else None
            receiver = await stack.enter_async_context(Receiver(network.receiver, tls=tls))
            env = {
                "EMITTER_ENDPOINT": receiver.endpoint,
                "FREEZE_WAY": way.key,
                "FREEZE_WORK_SECONDS": str(WORK_SECONDS),
                "FREEZE_SERIES": str(self.experiment.size.series),
                **({"FREEZE_AUTHORITY": str(self._trusted)} if tls else {}),
            }
            sandbox = LocalLambda("function.handler", cwd=Path(__file__).parent, env=env, machine=network.sandbox)
            await stack.enter_async_context(sandbox)
            self._network, self._receiver, self._sandbox = network, receiver, sandbox
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    async def invoke(self, invocations: int, begin: float) -> None:
        """Invoke the sandbox so many times, and look after each what has arrived while it is frozen."""
        await asyncio.sleep(begin)  # not a wait for anything: it spreads the load
        for number in range(1, invocations + 1):
            result = await self._sandbox.invoke()
            frozen = time.perf_counter()  # the same clock in every process
            if result.error is not None:
                raise RuntimeError(f"{self.experiment}: {result.error}\n{self._sandbox.output}")
            # It is frozen. Nothing leaves it any more, so what has not arrived after this would not arrive in an hour.
            await self._network.deliver()
            await self._receiver.read()
            arrived = number in {report.number for report in self._receiver.reports}
            payload = result.payload
            self._invocations.append((arrived, payload["seconds"], frozen - payload["started"], payload["said"]))

    async def outcome(self) -> Outcome:
        """What came of it."""
        arrived, handler_seconds, open_seconds, said = zip(*self._invocations[1:], strict=True)
        counts = await self._network.counts()
        reports = self._receiver.reports
        return Outcome(
            arrived=arrived,
            handler_seconds=handler_seconds,
            open_seconds=open_seconds,
            said=said,
            body_bytes=max((report.body_bytes for report in reports), default=0),
            orders=len(self._invocations),
            orders_received=max((report.orders for report in reports), default=0),
            connections=len(self._receiver.connections),
            largest_frame_bytes=counts["out"]["largest_bytes"],
            congestion_control=self._network.congestion_control,
        )
