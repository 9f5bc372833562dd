"""Owns what has to be true of every trial. Runs nothing.

Of times only the median is judged, and of memory only what grows with each invocation: the machine may be busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.trial import BUDGET, INVOCATIONS, WATCHED

if TYPE_CHECKING:
    from tests.faults.rows import Row
    from tests.faults.trial import Trial

__all__ = ["complaints"]

_MOST_SECONDS = 1.8 * BUDGET
"""Of the median invocation: the budget is spent once and not twice, and what else there is to do is in no budget. That
is some milliseconds for a report of 300 KB, and a few times as many if the machine is busy."""

_MOST_LOG_LINES, _MOST_LOG_LINES_AFTER = 12, 6
"""What is wrong with the network and with the receiver; that the budget is too small for it. Then that it is over, for
both. And what is wrong now and then if the machine is busy, the small budget once more each time. A line with each
invocation would be 95."""

_MOST_GROWN_BLOCKS = WATCHED - 1
"""One object kept with each invocation would be one more."""

_MOST_GROWN_BYTES = 32 * 1024
"""Of a connection in another state; a report kept with each invocation would be more."""

_MOST_GROWN_FILES = 6
"""A connection, the stream's duplicate of it, an attempt at another, and the event loop's own three."""

_MOST_RECOVERY = 3
"""A connection that was cut unseen costs the report that finds it out, and a busy machine perhaps another. Where TCP or
the resolver has to try again first, it takes as long as that takes."""

_FEW_ACCEPTED = 1
"""A nuisance may slow down the answers, but they come."""

_BIG_BYTES = 300_000

_FREE = BUDGET / 5
"""Seconds that an invocation may take, most of the time, while there is nothing to do but to wait."""

_BUSY_MACHINE = frozenset(["connect", "budget", "unanswered"])
"""What a flush may fail with, now and then, in any row, if a peer in another process gets no processor: for the length
of a budget, or between an answer and the end of the connection. Now and then is less than half of the time."""


def complaints(row: Row, trial: Trial) -> list[str]:
    """What is not as it has to be, in words."""
    checks = [
        (trial.wrong_results == 0, f"{trial.wrong_results} callers did not get the handler's own result"),
        (trial.totals == trial.truth, f"the receiver knows {trial.totals}; true is {trial.truth}"),
        (
            trial.reports_numbered == trial.reports_attempted,
            f"the receiver knows report {trial.reports_numbered}; the last was {trial.reports_attempted}",
        ),
        (
            row.stalls or trial.recovery <= _MOST_RECOVERY,
            f"it took {trial.recovery} invocations until the totals were right",
        ),
        (trial.median <= _MOST_SECONDS, f"the median invocation took {trial.median * 1e3:.1f} ms"),
        (
            trial.grown_blocks <= _MOST_GROWN_BLOCKS,
            f"{trial.grown_blocks} objects were left by {WATCHED} invocations",
        ),
        (trial.grown_bytes <= _MOST_GROWN_BYTES, f"{trial.grown_bytes} bytes were left by {WATCHED} invocations"),
        (trial.grown_files <= _MOST_GROWN_FILES, f"{trial.grown_files} files were left open"),
        (not row.big or trial.report_bytes >= _BIG_BYTES, f"a big report had only {trial.report_bytes} bytes"),
    ]
    return [complaint for holds, complaint in checks if not holds] + _of_log(row, trial) + _of_counts(row, trial)


def _of_log(row: Row, trial: Trial) -> list[str]:
    found = [f"logged: {line}" for line in (*trial.log_lines, *trial.log_lines_after) if not _is_ours(line)]
    if len(trial.log_lines) > _MOST_LOG_LINES:
        found.append(f"{len(trial.log_lines)} lines were logged: {trial.log_lines}")
    if len(trial.log_lines_after) > _MOST_LOG_LINES_AFTER:
        found.append(f"{len(trial.log_lines_after)} lines were logged once it was over: {trial.log_lines_after}")
    if not row.delivers and not trial.log_lines:
        found.append("nothing was logged")
    return found


def _is_ours(line: str) -> bool:
    """Whether it tells of a change of state; an error would tell of a defect, and asyncio of something unattended."""
    return line.startswith(("WARNING emitter: ", "INFO emitter: "))


def _of_counts(row: Row, trial: Trial) -> list[str]:
    found = []
    failed = dict(trial.during.failed)
    foreseen = sum(count for reason, count in failed.items() if reason in row.reasons)
    unforeseen = sum(failed.values()) - foreseen
    if set(failed) - row.reasons - _BUSY_MACHINE or unforeseen > max(foreseen, trial.during.flushes // 2):
        found.append(f"failed: {failed}, instead of {sorted(row.reasons)}")
    if row.reasons and not foreseen:
        found.append(f"nothing failed, instead of {sorted(row.reasons)}")
    withheld = dict(trial.during.withheld)
    if row.withheld is not None and withheld.get(row.withheld, 0) < INVOCATIONS // 2:
        found.append(f"withheld: {withheld}, instead of {row.withheld} most of the time")
    if row.delivers and trial.during.verdicts.get(200, 0) < _FEW_ACCEPTED:
        found.append(f"answered: {dict(trial.during.verdicts)}, instead of 200 while the fault lasts")
    if row.stalls and trial.median < BUDGET / 2:
        found.append(f"the median invocation took {trial.median * 1e3:.1f} ms: this fault stalled nobody")
    if row.backs_off and trial.median > _FREE:
        found.append(f"the median invocation took {trial.median * 1e3:.1f} ms while backing off")
    return found
