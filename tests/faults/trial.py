"""Owns one trial: a handler invoked again and again while a fault lasts, and what it cost. Judges nothing."""

from __future__ import annotations

import gc
import logging
import random
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, cast

from emitter import Emitter
from tests.faults.receiver import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.outcomes import Stats
    from tests.faults.receiver import Totals
    from tests.faults.rows import Row
    from tests.faults.scenes import Scene

__all__ = ["BUDGET", "GRACE", "INVOCATIONS", "WATCHED", "Trial", "run"]

BUDGET = 0.05
"""Seconds for a flush: small, so that a peer that makes us wait is found out."""

GRACE = 0.01
"""Seconds that the whole invocation may take beyond it."""

INVOCATIONS = 40
"""Whose times are measured."""

WATCHED = 15
"""Further invocations, three times as many, whose memory is watched, which would spoil the times."""

_LOOKS, _MOST_LOOKS = 3, 8
"""At memory after so many; more as long as each has found more than the one before. A connection that ends every now
and then may be caught a little later in its life each time, with more reports unanswered, but not that often."""

_SHORT_BUDGET = 0.01  # while memory is watched, where all of it is used up: to save time
_WARM_UP = 10  # caches fill, lists grow to their size

_PAUSE, _SHORT_PAUSE = 0.25, 0.001
"""Seconds, at most, that are left to the peer between two invocations to do its worst: as long as a busy machine may
leave it without a processor. Short if it last did nothing in the longer time: there are faults that consist of nothing,
and flushes that are withheld."""

_LIMIT_RECOVERY = 40
"""Invocations after the end of the fault, before it is given up that the totals will ever be right."""

_RECOVERY_WAIT = 0.25
"""Seconds given to a report that was transmitted after the fault to be folded: long, so that it is only waited for in
vain when it is lost."""

_BIG_SERIES, _BIG_VALUE_CHARACTERS = 1_500, 230
_ALPHABET = "".join(map(chr, range(33, 127)))  # as random as text can be: to be compressed by a fifth at most


@dataclass(frozen=True, slots=True)
class Trial:
    """What happened in one row.

    Attributes:
        seconds: How long each whole call of the decorated handler took, in order.
        wrong_results: How often the handler's caller got anything but the handler's own result or exception.
        during: Counts when the fault ended.
        after: Counts at the end.
        report_bytes: Of the largest report that the receiver has folded.
        log_lines: What was logged while the fault lasted.
        log_lines_after: What was logged from then on.
        grown_bytes: What was allocated in `WATCHED` invocations, once warm, and not freed.
        grown_blocks: How many small objects were.
        grown_files: How many file descriptors were open at the end of the fault that were not before.
        recovery: How many invocations it took, once the fault had ended, until the totals were right.
        truth: What was recorded.
        totals: What the receiver has, of the same metrics.
        reports_numbered: The number of the last report as the receiver knows it.
        reports_attempted: The same as the emitter knows it.
    """

    seconds: tuple[float, ...]
    wrong_results: int
    during: Stats
    after: Stats
    report_bytes: int
    log_lines: tuple[str, ...]
    log_lines_after: tuple[str, ...]
    grown_bytes: int
    grown_blocks: int
    grown_files: int
    recovery: int
    truth: Totals
    totals: Totals
    reports_numbered: int
    reports_attempted: int

    @property
    def exact(self) -> bool:
        """Whether the receiver knows what is true, and of each attempt."""
        return self.totals == self.truth and self.reports_numbered == self.reports_attempted

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds."""
        return quantiles(self.seconds, n=20)[-1]

    @property
    def within(self) -> float:
        """The share of invocations that took no more than the budget and the grace."""
        return sum(each <= BUDGET + GRACE for each in self.seconds) / len(self.seconds)


class _Time:
    """The monotonic clock, and how much more has gone by."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


class _Subject:
    """An emitter, its handler, and the truth about what was recorded."""

    def __init__(self, row: Row, scene: Scene) -> None:
        more: dict[str, Any] = {"ssl_context": scene.ssl_context} if row.tls else {}
        self.metrics = Emitter(scene.endpoint, service="faults", timeout=BUDGET, compress=False, **more)
        self.time = _Time()
        _control(self.metrics, self.time, None if row.backs_off else lambda: 0.0)
        self.wrong_results = 0
        self._invocations = 0
        self._failed = 0
        self._ordered = {"": 0, "web": 0, "shop": 0}  # a counter reports 0 from the moment it is made
        self._orders = self.metrics.counter("orders")
        for channel in ("web", "shop"):
            self._orders.add(0, channel=channel)
        if row.big:
            chance = random.Random(300)  # noqa: S311  no secret, but the same in each run
            filler = self.metrics.counter("filler")
            for number in range(_BIG_SERIES):
                text = "".join(chance.choices(_ALPHABET, k=_BIG_VALUE_CHARACTERS))
                filler.add(1, text=f"{number} {text}")
        self.handler = self.metrics.lambda_handler(self._handle)
        timeout = _SHORT_BUDGET if row.stalls else BUDGET
        self.watched_handler = self.metrics.lambda_handler(self._handle, timeout=timeout)

    def _handle(self, event: int, context: object) -> dict[str, int]:
        self._orders.add(event % 3 + 1, channel="shop" if event % 2 else "web")
        if self._failure(event):
            raise LookupError(*self._failure(event))
        return {"event": event}

    def _failure(self, event: int) -> tuple[str, ...]:
        """What the handler fails with, which is its own result too: one event in five."""
        return () if event % 5 else (f"no such order: {event}",)

    def invoke(self, handler: Callable[[Any, Any], Any]) -> float:
        """Invoke once and check what comes back; the seconds that it took."""
        self._invocations += 1
        event = self._invocations
        self._ordered["shop" if event % 2 else "web"] += event % 3 + 1
        own: object = self._failure(event) or {"event": event}
        self._failed += own != {"event": event}
        started = time.perf_counter()
        try:
            result: object = handler(event, None)
        except LookupError as error:
            result = error.args
        took = time.perf_counter() - started
        self.wrong_results += result != own
        return took

    def truth(self) -> Totals:
        """What the receiver has to know in the end."""
        return {
            "orders": dict(self._ordered),
            "faas.invocations": {"": self._invocations - self._failed},
            "faas.errors": {"": self._failed},
            "faas.coldstarts": {"": 1},
            "faas.invoke_duration": {"": self._invocations},
        }


def _control(metrics: Emitter, clock: Callable[[], float], jitter: Callable[[], float] | None) -> None:
    """Put a clock and a chance of ours into an emitter, which users cannot: the one place that looks inside."""
    flusher = metrics._flusher
    flusher._clocks.monotonic = flusher._clock = clock
    if jitter is not None:
        for back_off in (flusher._network, flusher._receiver):
            back_off._jitter = jitter


class _Pause:
    """The time between two invocations, which ends as soon as the peer has done its worst."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._seconds = _PAUSE

    def leave(self) -> None:
        """Let the peer have its turn."""
        self._seconds = _PAUSE if self._scene.wait_for_misbehaviour(self._seconds) else _SHORT_PAUSE


class _Log(logging.Handler):
    """Keeps what is logged, asyncio's complaints included."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def run(row: Row, scene: Scene) -> Trial:
    """Meet a fault, see it end, and see the totals become right."""
    log = _Log()
    loggers = [logging.getLogger(name) for name in ("emitter", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(log)
        logger.setLevel(logging.INFO)
    subject = _Subject(row, scene)
    try:
        return _run(subject, row, scene, log)
    finally:
        subject.metrics.close_sync(timeout=0.0)
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(log)
            logger.setLevel(level)


def _run(subject: _Subject, row: Row, scene: Scene, log: _Log) -> Trial:
    metrics = subject.metrics
    files = _open_files()
    pause = _Pause(scene)
    gc.collect()
    seconds = []
    for _ in range(INVOCATIONS):
        seconds.append(subject.invoke(subject.handler))
        pause.leave()
    grown_bytes, grown_blocks = _watch(subject, pause)
    during, lines_during = metrics.stats, len(log.lines)
    grown_files = _open_files() - files

    scene.end()
    recovery = 0
    known = Known({}, 0)
    while recovery < _LIMIT_RECOVERY:
        subject.time.skipped += row.later  # each time: a report may be lost once more, and be waited for in vain
        subject.invoke(subject.handler)
        recovery += 1
        truth = subject.truth()
        known = scene.known("orders", sum(truth["orders"].values()), _RECOVERY_WAIT)
        if {name: known.totals.get(name) for name in truth} == truth:
            break
    return Trial(
        tuple(seconds),
        subject.wrong_results,
        during,
        metrics.stats,
        known.largest_bytes,
        tuple(log.lines[:lines_during]),
        tuple(log.lines[lines_during:]),
        grown_bytes,
        grown_blocks,
        grown_files,
        recovery,
        subject.truth(),
        {name: known.totals.get(name, {}) for name in subject.truth()},
        known.totals.get("emitter.flushes", {}).get("", 0),
        metrics.stats.flushes,
    )


def _watch(subject: _Subject, pause: _Pause) -> tuple[int, int]:
    """How many bytes and small objects `WATCHED` invocations leave behind.

    Several times, and the least counts: a connection that has got further than at the look before is no growth, and
    what grows for ever grows each time.
    """

    def look() -> tuple[int, int]:
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sys.getallocatedblocks()

    def invoke(times: int) -> None:
        for _ in range(times):
            subject.invoke(subject.watched_handler)
            pause.leave()

    def least_grown() -> tuple[int, int]:
        of_bytes, of_blocks = (
            min(after - before for before, after in pairwise(amounts)) for amounts in zip(*looks, strict=True)
        )
        return of_bytes, of_blocks

    # What measures coverage keeps some objects of each new thread that it traces.
    tracer = threading.gettrace()
    threading.settrace(cast("Any", None))
    tracemalloc.start()
    try:
        invoke(_WARM_UP)
        looks = [look()]
        while len(looks) <= _LOOKS or (len(looks) <= _MOST_LOOKS and least_grown()[1] >= WATCHED):
            invoke(WATCHED)
            looks.append(look())
    finally:
        tracemalloc.stop()
        threading.settrace(cast("Any", tracer))
    return least_grown()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
