"""A sandbox whose reports go through a proxy, and what can be asked of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from emitter import Delivery, Emitter
from emitter import loop as loops
from emitter.outcomes import Withheld
from tests.scripted_peer import PATIENCE, wait_readable

if TYPE_CHECKING:
    from emitter.outcomes import Flush, Stats
    from emitter.transmit.connection import Connection

_ATTEMPTS = 10
"""Reports until one must have been answered; two are enough, since a new connection has room for it."""


class Sandbox:
    """An emitter that counts orders. Everything that goes wrong is raised.

    Args:
        port: Where the proxy listens.
        ssl_context: For an https endpoint; `None` for a plain one.
        options: For the emitter.

    Attributes:
        orders: How many there were: the truth.
    """

    def __init__(self, port: int, *, ssl_context=None, **options) -> None:
        scheme = "http" if ssl_context is None else "https"
        self.metrics = Emitter(
            f"{scheme}://127.0.0.1:{port}/v1/metrics",
            timeout=PATIENCE,
            ssl_context=ssl_context,
            **{"strict": True, **options},
        )
        self.orders = 0
        self._counter = self.metrics.counter("orders")

    @property
    def stats(self) -> Stats:
        """What became of everything."""
        return self.metrics.stats

    def invoke(self, delivery: Delivery = Delivery.ANSWERED) -> Flush:
        """One order, and one report; by default with the answer, so that whatever it says has been learned."""
        self.orders += 1
        self._counter.add()
        return self.metrics.flush_sync(delivery=delivery)

    def insist(self) -> None:
        """Report until the last report is answered, perhaps by now, and do not mind any back-off."""
        for _ in range(_ATTEMPTS):
            self.wait_for_answers()
            flush = loops.run(self.metrics._flusher.flush(PATIENCE, Delivery.ANSWERED, last=True))
            if flush.delivery is Delivery.ANSWERED or flush.withheld is Withheld.UNCHANGED:
                return
        raise AssertionError(f"no report was answered: {flush}")

    @property
    def unanswered(self) -> int:
        """How many reports wait for their answer."""
        return self._connection.unanswered

    @property
    def ended(self) -> str:
        """Why nothing can be written to the connection any more; empty while something can."""
        ended = self._connection.ended
        return "" if ended is None else str(ended)

    def wait_for_answers(self) -> None:
        """Wait until no report waits for its answer any more. The verdicts are left to the next flush."""
        connection = self._connection
        while connection is not None and connection.ended is None and connection.unanswered:
            wait_readable(connection._socket)
            connection._read()

    def wait_for_the_end(self) -> None:
        """Wait for the event that the proxy has closed, where nothing else is to come, and leave it to be noticed."""
        assert not self._connection.unanswered
        wait_readable(self._connection._socket)

    @property
    def _connection(self) -> Connection | None:
        return self.metrics._flusher._link.connection

    def disconnect(self) -> None:
        """Close the connection in order; the next report makes a new one."""
        self.metrics.close_sync(timeout=PATIENCE)

    def end(self) -> None:
        """Go away without another word."""
        with contextlib.suppress(Exception):  # it is strict, and its receivers may have gone before
            self.metrics.close_sync(timeout=0.0)
