"""Owns reports that stay in memory: a `Flusher` whose receiver is a list. Knows no socket and no assertion.

Everything but the way out is the flusher's own: what is withheld, what is counted, what a failure costs. The receiver
answers each report at once, and as ever the answer is read at the next flush.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emitter.flusher import Flusher
from emitter.outcomes import Verdict
from emitter.transmit.delivery import Delivery
from emitter.transmit.http1 import Answer

if TYPE_CHECKING:
    from emitter.errors import NetworkError
    from emitter.outcomes import Flush, Stats
    from emitter.record.registry import Registry
    from emitter.settings import Settings

__all__ = ["Awaited", "InMemoryFlusher"]

_ACCEPTED = Answer(200, (), keep_alive=True)


class InMemoryFlusher(Flusher):
    """Gets the totals of one registry into a list.

    Args:
        registry: The totals.
        settings: As of the emitter that is stood in for, whether it is disabled or not.

    Attributes:
        reports: The bodies, oldest first, as the encoder makes them.
        error: What each flush fails with; `None`: none does.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        settings = replace(settings, disabled=False, compress=False, signer=None)
        # Never backs off, and so nothing is left to chance: after a failure the next flush tries again.
        super().__init__(registry, settings, jitter=lambda: 0.0)
        self.error: NetworkError | None = None
        self.reports: list[bytes] = []
        self._unread: list[int] = []  # numbers of reports whose answers were not harvested yet

    def after_fork(self) -> None:
        """Begin anew: another sandbox, of which nothing was reported."""
        super().after_fork()
        self.reports.clear()
        self._unread.clear()

    def prepare(self) -> None:
        """There is nothing to be trusted."""

    async def freshen(self, *, every: float = 0.0) -> None:
        """There is no connection to be replaced."""

    async def connect(self, timeout: float) -> bool:  # noqa: ARG002  nothing here takes time
        """Whether a flush would get through."""
        if self.error is not None:
            self._ledger.note_error(self.error)
        return self.error is None

    async def _transmit_all(
        self,
        requests: list[bytes],
        wanted: Delivery,
        deadline: float,  # noqa: ARG002  nothing here takes time
        verdicts: list[Verdict],  # noqa: ARG002  nothing is harvested on the way
    ) -> Delivery:
        if self.error is not None:
            raise self.error
        for request in requests:
            self._reports.note_written()
            self.reports.append(request.partition(b"\r\n\r\n")[2])
            self._unread.append(self._reported)
        return wanted

    def _harvest(self) -> list[Verdict]:
        verdicts = [Verdict(number, _ACCEPTED.status) for number in self._unread]
        self._unread.clear()
        self._heed(verdicts, [_ACCEPTED] * len(verdicts), 0, self._clocks.wall())
        return verdicts


class Awaited:
    """The same for an `AwaitedEmitter`, which asks its flusher for less: each flush has its answer, or has failed."""

    def __init__(self, memory: InMemoryFlusher) -> None:
        self._memory = memory

    async def flush(self, timeout: float) -> Flush:
        """See `AwaitedEmitter.flush`."""
        return await self._memory.flush(timeout, Delivery.ANSWERED)

    async def close(self, timeout: float) -> Flush:
        """See `AwaitedEmitter.close`."""
        return await self.flush(timeout)

    @property
    def stats(self) -> Stats:
        """A frozen copy of the counts."""
        return self._memory.stats
