"""Owns the demo's picture: what each way costs, and what of it arrived, at a glance. Measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")  # before pyplot is loaded: no window, so no display is needed

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .results import WayResult

__all__ = ["draw"]

_GOOD = "#0b7a75"
_BAD = "#c8453b"
_INK = "#1f2933"
_QUIET = "#8a94a0"
_FAINT = "#e6e9ed"
"""What a colour says is said in words too: one man in twelve cannot tell green from red."""

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the picture is the same everywhere
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "svg.fonttype": "none",  # text stays text: searchable, and sharp at any size
}

_FREEZE = {
    True: "each sandbox on a host of its own (a network namespace), 20 ms from the receiver; between invocations the "
    "process is stopped and its link cut at once",
    False: "stopped between invocations; a witness before the receiver stands in for a path and for the freeze of a "
    "whole machine (as the demo prints)",
}

_DECADES_MS = (0.1, 1, 10, 100, 1000)


def draw(results: Sequence[WayResult], answer_seconds: float, folder: Path, *, whole_machines: bool) -> list[Path]:
    """Draw the results as SVG and PNG.

    Args:
        results: The ways, from top to bottom.
        answer_seconds: How long the aggregator takes to answer.
        folder: Where the files go; it exists.
        whole_machines: Whether whole machines were frozen, or processes stopped.

    Returns:
        The files.
    """
    with plt.style.context(_STYLE):
        figure, (times, arrivals, facts) = plt.subplots(
            ncols=3,
            sharey=True,
            figsize=(13.5, 5.2),
            gridspec_kw={"width_ratios": (5, 3.4, 2.9), "wspace": 0.05},
        )
        figure.subplots_adjust(left=0.19, right=0.985, top=0.74, bottom=0.17)
        figure.text(0.02, 0.93, "Counters out of a Lambda function", fontsize=17, weight="bold")
        figure.text(
            0.02,
            0.868,
            "What the handler pays, and what had arrived while the sandbox was frozen, "
            f"while the receiver takes {answer_seconds:.2f} s to answer",
            fontsize=11,
            color=_QUIET,
        )
        _draw_times(times, results, answer_seconds)
        _draw_arrivals(arrivals, results)
        _draw_facts(facts, results)
        times.set_ylim(len(results) - 0.5, -0.5)
        figure.text(
            0.02,
            0.03,
            f"Stock Lambda runtime, {_FREEZE[whole_machines]}.\n"
            "Ring: first invocation, which opens the connection. Bar: median of the others. "
            "Dollars: a million invocations of 512 MB, x86, by the mean billed time.",
            fontsize=8,
            color=_QUIET,
            linespacing=1.5,
        )
        paths = [folder / "demo.svg", folder / "demo.png"]
        for path in paths:
            figure.savefig(path, dpi=150)
        plt.close(figure)
    return paths


def _draw_times(axes: Axes, results: Sequence[WayResult], answer_seconds: float) -> None:
    every_ms = [1000 * each.handler_seconds for result in results for each in result.invocations]
    axes.set_xscale("log")
    axes.set_xlim(min(_DECADES_MS[0], *every_ms) / 1.3, max(_DECADES_MS[-1], *every_ms) * 2.2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("handler time in milliseconds (logarithmic)", labelpad=6)
    axes.grid(axis="x", color=_FAINT, zorder=0)
    axes.axvline(1000 * answer_seconds, color=_QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    axes.annotate(
        "the answer",
        (1000 * answer_seconds, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=_QUIET,
    )
    for row, result in enumerate(results):
        colour = _GOOD if result.way.ours else _INK
        warm = [1000 * each.handler_seconds for each in result.warm]
        spread = [row + 0.09 * ((place % 3) - 1) for place in range(len(warm))]  # so that dots do not hide dots
        axes.scatter(warm, spread, s=22, color=colour, alpha=0.45, linewidths=0, zorder=3)
        axes.scatter([1000 * result.first_seconds], [row], s=34, facecolors="none", edgecolors=colour, zorder=3)
        median_ms = 1000 * result.median_seconds
        axes.plot([median_ms] * 2, [row - 0.24, row + 0.24], color=colour, linewidth=2.6, zorder=4)
        axes.annotate(
            _short(median_ms),
            (median_ms, row - 0.24),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            weight="bold",
            color=colour,
        )
    axes.set_yticks(range(len(results)), [""] * len(results))
    for row, result in enumerate(results):
        axes.annotate(
            result.way.title,
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(-10, 6),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=10.5,
            weight="bold",
            color=_GOOD if result.way.ours else _INK,
        )
        axes.annotate(
            f"{result.way.means}, {result.report_bytes / 1000:.1f} KB on the wire",
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(-10, -9),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8.5,
            color=_QUIET,
        )
    axes.tick_params(axis="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_arrivals(axes: Axes, results: Sequence[WayResult]) -> None:
    invocations = max(len(result.invocations) for result in results)
    axes.set_xlim(-0.5, invocations * 1.28 + 0.5)
    for row, result in enumerate(results):
        for place, invocation in enumerate(result.invocations):
            axes.add_patch(
                Rectangle(
                    (place + 0.1, row - 0.2),
                    0.8,
                    0.4,
                    facecolor=_GOOD if invocation.arrived else "white",
                    edgecolor=_GOOD if invocation.arrived else _BAD,
                    linewidth=1.2,
                )
            )
        whole = result.arrived == len(result.invocations)
        axes.text(
            invocations + 0.5,
            row,
            f"{result.arrived}/{len(result.invocations)}",
            va="center",
            fontsize=10.5,
            weight="bold",
            color=_GOOD if whole else _BAD,
        )
    _title(axes, "Arrived before the thaw\n(one box an invocation)")
    axes.set_axis_off()


def _draw_facts(axes: Axes, results: Sequence[WayResult]) -> None:
    axes.set_xlim(0, 1)
    for row, result in enumerate(results):
        name = next(
            (name for name, value in result.truth.items() if result.totals[name] != value),
            next(iter(result.truth)),
        )
        colour = _GOOD if result.exact else _BAD
        axes.text(
            0.02,
            row - 0.09,
            "exact" if result.exact else "wrong",
            va="center",
            fontsize=10.5,
            weight="bold",
            color=colour,
        )
        counted = f"{result.totals[name]} of {result.truth[name]} {name}"
        axes.text(0.02, row + 0.17, counted, va="center", fontsize=8.5, color=_QUIET)
        dollars = f"${result.dollars_per_million:.2f}"
        axes.text(0.98, row, dollars, va="center", ha="right", fontsize=12, weight="bold")
    _title(axes, "Counters\nin the end")
    axes.text(0.98, 1.02, "A million\ninvocations", transform=axes.transAxes, ha="right", va="bottom", fontsize=9.5)
    axes.set_axis_off()


def _title(axes: Axes, text: str) -> None:
    axes.text(0.02, 1.02, text, transform=axes.transAxes, va="bottom", fontsize=9.5)


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
