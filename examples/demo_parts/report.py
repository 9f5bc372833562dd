"""Owns what the demo prints: the conditions before, the table and its reading after. Measures nothing."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from .results import MEMORY_MB, PRICES_AS_OF
from .shop import BUDGET_SECONDS
from .witness import ETHERNET_MSS, ROUND_TRIP_SECONDS, WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .results import WayResult

__all__ = ["conditions", "print_conditions", "print_results", "reading"]


def conditions(answer_seconds: float, period_seconds: float, why_no_machines: str | None) -> str:
    """What is measured, how, and what this machine cannot show.

    Args:
        answer_seconds: How long the aggregator takes to answer.
        period_seconds: From one invocation of a sandbox to its next.
        why_no_machines: Why no whole machines are frozen here; `None` if they are.
    """
    versions = f"Python {platform.python_version()}, aiohttp {version('aiohttp')}"
    return (
        "One Lambda function, four ways to get its counters out, the last one with two sizes of report. "
        f"The aggregator takes {answer_seconds:.2f} s to answer. Each way runs in a process of its own under "
        f"the stock Lambda runtime ({versions}), once every {period_seconds:.2f} s. In the end it is killed while it "
        f"is frozen. The emitters have a budget of {BUDGET_SECONDS:g} s.\n\n"
    ) + (_FROZEN_MACHINES if why_no_machines is None else _STOPPED_PROCESSES.format(why_no_machines))


_PATH = f"{1000 * ROUND_TRIP_SECONDS:.0f} ms round trip"

_VERSIONS_MATTER = (
    "What a task that nobody awaits gets out depends on the versions above: from Python 3.12 on, aiohttp writes a "
    "small request at once if its connection is open."
)

_FROZEN_MACHINES = (
    "[bold]The freeze.[/bold] Each sandbox has a network namespace of its own, with its own TCP, joined to the "
    f"receiver's by a link of ours ({_PATH}). When the runtime asks for its next event, the link is cut and the "
    "process stopped (SIGSTOP): what the kernel has not transmitted by then stays behind, as in a paused machine, and "
    "what is on its way arrives.\n"
    "[bold]What is not shown.[/bold] Packet loss and TLS. Once all that was on its way has arrived, the machine is "
    "thawed and only its process stays stopped until the next event. So TCP has been idle before each report, as it is "
    f"while a handler works; in a burst of invocations its window would stay larger. {_VERSIONS_MATTER}"
)

_STOPPED_PROCESSES = (
    "[bold]What stands in for what.[/bold] Lambda freezes a whole machine; here SIGSTOP stops only a process, and its "
    "kernel goes on transmitting. The full freeze is not to be had: {}. So a witness, a proxy before the aggregator, "
    "takes nothing from a stopped sandbox. Loopback acknowledges at once; so the witness answers TCP like the far end "
    f"of a path: {_PATH}, segments of {ETHERNET_MSS} bytes, a window that begins with {WINDOW_BYTES // 1024} KiB and "
    f"stays under {2 * WINDOW_BYTES // 1024} KiB. All ways alike.\n"
    "[bold]What is not shown.[/bold] Packet loss, the round trips of connecting and of TLS, and the kernel's own "
    "congestion window, which is smaller than that window after a pause. A stopped process also goes on receiving: "
    "the answer waits in its kernel, where a frozen machine would only get it once the peer transmits it again, and "
    f"its clocks go on. {_VERSIONS_MATTER}"
)


def print_conditions(
    console: Console, answer_seconds: float, period_seconds: float, why_no_machines: str | None
) -> None:
    """Print the conditions."""
    console.print()
    console.print(conditions(answer_seconds, period_seconds, why_no_machines), highlight=False)
    console.print()


def print_results(console: Console, results: Sequence[WayResult]) -> None:
    """Print the table, how to read it, and what was seen."""
    console.print(_table(results))
    console.print(
        "First, median, worst: recording and emitting, by the handler's own clock. The first invocation also opens "
        "the connection; it is left out of median, worst and bill, but not of what arrived. Billed: from handing out "
        "the event until the runtime asks for the next, each invocation rounded up to 1 ms, on average. Cost: of a "
        f"million invocations at {MEMORY_MB} MB, x86, US East, prices of {PRICES_AS_OF}, requests included. Arrived "
        "before thaw: reports that were complete at the receiving end while the sandbox was still frozen.\n",
        style="dim",
        highlight=False,
    )
    console.print(reading(results), highlight=False)
    console.print()


def reading(results: Sequence[WayResult]) -> str:
    """What was seen, in two sentences made of nothing but the results."""
    ours = [result for result in results if result.way.ours]
    in_time = sum(each.arrived for each in ours)
    made = sum(len(each.invocations) for each in ours)
    counters = "all counters are exact" if all(each.exact for each in ours) else "counters are wrong"
    costs = ", ".join(f"{_ms(each.median_seconds)} ms ({each.report_bytes / 1000:.0f} KB)" for each in ours)
    others = "; ".join(_in_words(result) for result in results if not result.way.ours)
    return (
        f"With emitter {in_time} of {made} reports had arrived before the thaw and {counters}, for {costs} in the "
        f"handler (median). The other ways: {others}."
    )


def _table(results: Sequence[WayResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # fits into 80 columns, as a test shows
    table.add_column("way and report", no_wrap=True)
    for heading in ("first\nms", "median\nms", "worst\nms", "billed\nms", "cost\n$", "arrived\nbefore\nthaw"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("counters\nin the\nend", no_wrap=True)
    for result in results:
        table.add_row(
            Text(result.way.title).append(f"\n{result.way.means}, {_kilobytes(result)}", style="not bold dim"),
            _ms(result.first_seconds),
            _ms(result.median_seconds),
            _ms(result.worst_seconds),
            f"{result.mean_billed_ms:.1f}",
            f"{result.dollars_per_million:.2f}",
            _judged(f"{result.arrived}/{len(result.invocations)}", result.arrived == len(result.invocations)),
            _judged(_counters(result), result.exact),
            style="bold" if result.way.ours else "",
        )
    return table


def _kilobytes(result: WayResult) -> str:
    kilobytes = result.report_bytes / 1000
    return f"{kilobytes:.0f} KB" if kilobytes >= 10 else f"{kilobytes:.1f} KB"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _judged(text: str, good: bool) -> Text:
    return Text(text, style="green" if good else "red")


def _counters(result: WayResult) -> str:
    if result.exact:
        return "exact"
    name = next(name for name, value in result.truth.items() if result.totals[name] != value)
    return f"wrong\n{result.totals[name]} of {result.truth[name]}"


def _in_words(result: WayResult) -> str:
    counters = "counters exact" if result.exact else "counters wrong"
    arrived = f"{result.arrived} of {len(result.invocations)} in time"
    behind = f", {result.median_missing_bytes / 1000:.0f} KB of each left behind" if result.median_missing_bytes else ""
    return f"{result.way.title}: {arrived}{behind}, {counters}, {_ms(result.median_seconds)} ms"
