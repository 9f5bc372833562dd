"""Owns how trials are shown: one line each, as text for a terminal or as Markdown. Knows what a column means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.trial import BUDGET, GRACE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.rows import Row
    from tests.faults.trial import Trial

__all__ = ["HEAD", "cells", "markdown", "text"]

HEAD = (
    "fault",
    "median ms",
    "p95 ms",
    "worst ms",
    f"within {BUDGET * 1e3:.0f}+{GRACE * 1e3:.0f} ms",
    "failed, by reason",
    "withheld",
    "connections",
    "KB grown",
    "objects grown",
    "files grown",
    "log lines",
    "until exact",
    "totals",
)

_WORDS = (0, 5, 6)  # columns that are read and not compared


def cells(row: Row, trial: Trial) -> tuple[str, ...]:
    """One line of the table."""
    failed = ", ".join(f"{reason} {count}" for reason, count in sorted(trial.during.failed.items()))
    withheld = ", ".join(f"{reason.value} {count}" for reason, count in trial.during.withheld.items())
    return (
        str(row),
        f"{trial.median * 1e3:.2f}",
        f"{trial.p95 * 1e3:.2f}",
        f"{max(trial.seconds) * 1e3:.2f}",
        f"{trial.within:.0%}",
        failed or "-",
        withheld or "-",
        str(trial.during.connections_opened),
        f"{trial.grown_bytes / 1024:.1f}",
        str(trial.grown_blocks),
        str(trial.grown_files),
        f"{len(trial.log_lines)} + {len(trial.log_lines_after)}",
        str(trial.recovery),
        "exact" if trial.exact else "WRONG",
    )


def text(lines: Iterable[tuple[str, ...]]) -> str:
    """Columns in line."""
    table = [HEAD, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in _WORDS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def markdown(lines: Iterable[tuple[str, ...]]) -> str:
    """A table for a document."""
    rule = tuple("---" if column in _WORDS else "---:" for column in range(len(HEAD)))
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, rule, *lines))
