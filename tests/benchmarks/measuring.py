"""How the benchmarks measure and print: medians beside medians, from one run."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def print_row(name: str, seconds: list[float], beside: list[float], goal: float | None = None) -> None:
    """A line of a table: what it takes, and its ratio to what it is put beside."""
    median = statistics.median(seconds)
    worst = statistics.quantiles(seconds, n=100)[-1]
    ratio = median / statistics.median(beside)
    aim = "" if goal is None else f"   goal {goal:.2f}"
    print(f"  {name:<40} median {median * 1e6:7.2f} us   99 % {worst * 1e6:7.2f} us   ratio {ratio:5.2f}{aim}")
