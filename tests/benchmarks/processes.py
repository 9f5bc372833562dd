"""Whole processes, measured from outside: from the start of an interpreter to where a function could be invoked."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_READY = "\nimport os, time\nos.write(1, str(time.process_time()).encode())"

_UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "SSL_CERT_", "EMITTER_", "OTEL_", "POWERTOOLS_", "AWS_")
"""How the names of variables begin that would change what is measured."""


class Process(NamedTuple):
    """An interpreter that is started anew for each measurement, and what it does."""

    code: str
    environment: Mapping[str, str]


class Took(NamedTuple):
    """Milliseconds of one process, or of how much longer than a bare one it took.

    Attributes:
        ready: Until its code was done. That is what a cold start waits for: Lambda kills a sandbox, and no
            interpreter ever gets to tidy up there.
        processor: Of that, what it worked itself.
        whole: Until it had ended.
    """

    ready: float
    processor: float
    whole: float


def above_bare(processes: Mapping[str, Process], rounds: int) -> tuple[Took, dict[str, Took]]:
    """Medians of a bare interpreter, and of how far the others are above it, all of them in turn."""
    everything = {"": Process("", next(iter(processes.values())).environment), **processes}
    for process in everything.values():  # so that its bytecode is there, and its files are in memory
        _run(process)
    seconds: dict[str, list[Took]] = {name: [] for name in everything}
    for _ in range(rounds):
        for name, process in everything.items():
            seconds[name].append(_run(process))
    bare = seconds.pop("")
    above = {
        name: [Took(*map(float.__sub__, one, beside)) for one, beside in zip(each, bare, strict=True)]
        for name, each in seconds.items()
    }
    return _medians(bare), {name: _medians(each) for name, each in above.items()}


@contextmanager
def bytecode(**more: str) -> Iterator[dict[str, str]]:
    """An environment with a place for bytecode: beside the source it may not be permitted, or out of date."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_UNWANTED)}
        yield {**kept, "PYTHONPYCACHEPREFIX": folder, **more}


def print_processes(above: Mapping[str, Took], beside: str, goals: Mapping[str, float] | None = None) -> None:
    """A table: milliseconds above the bare interpreter, and the ratio to one of them, until each was ready."""
    for name, took in above.items():
        ratio = took.ready / above[beside].ready
        aim = f"   goal {goals[name]:.1f} ms" if goals and name in goals else ""
        print(
            f"  {name:<40} ready {took.ready:6.1f} ms   processor {took.processor:6.1f} ms   "
            f"whole {took.whole:6.1f} ms   ratio {ratio:5.2f}{aim}"
        )


def _run(process: Process) -> Took:
    reading, writing = os.pipe()
    started = time.perf_counter()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", process.code + _READY],
        process.environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )
    os.close(writing)
    told = os.read(reading, 64)  # nothing if it has failed
    ready = time.perf_counter() - started
    _, status = os.waitpid(pid, 0)
    whole = time.perf_counter() - started
    os.close(reading)
    if status or not told:
        raise RuntimeError(f"a process has ended with {os.waitstatus_to_exitcode(status)}: {process.code}")
    return Took(ready * 1e3, float(told) * 1e3, whole * 1e3)


def _medians(rows: list[Took]) -> Took:
    return Took(*map(statistics.median, zip(*rows, strict=True)))
