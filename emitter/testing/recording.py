"""Owns who is recorded, and for how long: emitters are taken over, and given back. Knows no assertion."""

# ruff: noqa: SLF001  what tests exchange in an emitter is nothing that its users ever see

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from emitter import living
from emitter.client import Emitter
from emitter.errors import UsageError
from emitter.testing.memory import Awaited, InMemoryFlusher
from emitter.testing.recorded import Recorded, Taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emitter.meter import Meter

__all__ = ["InMemoryEmitter", "recording"]


class InMemoryEmitter(Emitter):
    """An emitter that needs no endpoint and keeps its reports, for whoever passes emitters to their code.

    Args:
        endpoint: Shown in its `repr`; nothing is ever transmitted there.
        **options: As for `Emitter`.

    Attributes:
        recorded: What it has recorded, and assertions on it.
    """

    def __init__(self, endpoint: str = "http://memory.invalid/v1/metrics", **options: Any) -> None:
        super().__init__(endpoint, **options)
        self.recorded = Recorded()
        _take(self, self.recorded)


class _Recording:
    """Emitters that are taken over, and what they had."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self._before: list[tuple[Any, Any]] = []

    def take(self, emitter: Any) -> None:
        """From now on it counts from zero, and what it flushes stays here.

        An `AwaitedEmitter` may come too, which cannot be named in this module: it would bring aiohttp along.
        """
        if any(taken is emitter for taken, _ in self._before):
            return
        before = emitter._flusher
        if isinstance(before, (InMemoryFlusher, Awaited)):
            raise UsageError(
                f"{emitter!r} is being recorded already; expected one recording at a time, and reset() to begin anew"
            )
        self._before.append((emitter, before))
        _take(emitter, self.recorded)

    def take_new(self, emitter: Any) -> None:
        """As `take`, of an emitter that nobody has named: if it has a record of its own, it keeps to that."""
        if not isinstance(emitter, InMemoryEmitter):
            self.take(emitter)

    def give_back(self) -> None:
        """They go on with what they had, as a new sandbox."""
        for emitter, before in self._before:
            emitter._flusher = before
            before.after_fork()


def _take(emitter: Any, recorded: Recorded) -> None:
    registry, settings = emitter._registry, emitter._settings
    registry.restart()
    memory = InMemoryFlusher(registry, settings)
    emitter._flusher = memory if isinstance(emitter, Emitter) else Awaited(memory)
    recorded.take(Taken(emitter, dict(settings.resource)["service.name"], registry, memory))


@contextmanager
def recording(*emitters: Meter) -> Iterator[Recorded]:
    """Record what emitters count in a `with` block: totals begin at zero, nothing goes out, nothing stays.

    Args:
        *emitters: Which ones, `Emitter` or `AwaitedEmitter`. None given: every emitter of the process, those included
            that are made meanwhile, and those left out that are an `InMemoryEmitter`.

    Yields:
        What was recorded, and assertions on it. At the end of the block it is all forgotten.

    Raises:
        UsageError: One of them is being recorded already, or has a record of its own.
    """
    recording = _Recording()
    with ExitStack() as afterwards:
        afterwards.callback(recording.give_back)
        for emitter in emitters:
            if isinstance(emitter, InMemoryEmitter):
                raise UsageError(f"{emitter!r} has a record of its own; expected its `recorded` to be asked")
            recording.take(emitter)
        if not emitters:
            living.tell(recording.take_new)
            afterwards.callback(living.tell_no_more, recording.take_new)
            for emitter in living.emitters():
                recording.take_new(emitter)
        yield recording.recorded
