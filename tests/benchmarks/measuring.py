"""How the benchmarks measure and print: medians beside medians, from one run."""

from __future__ import annotations

import statistics
import time
from timeit import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turn(
    calls: Mapping[str, str | Callable[[], object]],
    rounds: int,
    repeats: int = 1,
    names: dict[str, object] | None = None,
) -> dict[str, list[float]]:
    """How much processor time each of several things takes, in turn, so that what disturbs one disturbs all.

    Processor time, for they wait for nothing: whatever else the machine does then matters little.

    Args:
        calls: By name; a statement is measured without a call around it.
        rounds: How often.
        repeats: How many executions each measurement is the mean of.
        names: What the statements may use.
    """
    timers = {name: Timer(call, timer=time.thread_time, globals=names) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(repeats) / repeats)
    return seconds


def print_row(name: str, seconds: list[float], beside: list[float], goal: float | None = None, note: str = "") -> None:
    """A line of a table: what it takes, and its ratio to what it is put beside."""
    median = statistics.median(seconds)
    worst = statistics.quantiles(seconds, n=100, method="inclusive")[-1]
    ratio = median / statistics.median(beside)
    aim = "" if goal is None else f"   goal {goal:.2f}"
    more = note and f"{'' if aim else ' ' * 12}   {note}"
    print(f"  {name:<40} median {median * 1e6:9.2f} us   99 % {worst * 1e6:9.2f} us   ratio {ratio:6.3f}{aim}{more}")
