"""Owns the wait until what was written got as far as wanted: on an event where there is one, by the round trip else.

Never spins, and never writes or reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from emitter import loop as loops
from emitter.errors import ConnectionLostError
from emitter.transmit import kernel, streams
from emitter.transmit.delivery import Delivery

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["until_reached"]

_SHORTEST_PAUSE, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.0005, 0.05, 1.5
"""Seconds between two looks at a queue that gives no event, once an acknowledgement is due: from an eighth of a round
trip, growing, because a peer may delay it by 40 ms (Linux) and more."""


async def until_reached(sock: socket.socket, wanted: Delivery, deadline: float, clock: Callable[[], float]) -> Delivery:
    """Wait for the kernel's queues: on an event for TRANSMITTED, by the round trip for ACKNOWLEDGED.

    Args:
        sock: Connected; nothing else may wait for it in this loop.
        wanted: TRANSMITTED or ACKNOWLEDGED.
        deadline: When to stop waiting, on the clock. It also bounds a peer that delays its acknowledgement.
        clock: Monotonic seconds.

    Returns:
        How far all that was written got, at the end of the wait.

    Raises:
        ConnectionLostError: The connection broke, and the queues are empty for that reason.
        OSError: The socket was closed.

    After cancellation: the socket is as it was.
    """
    await loops.loop_needed()
    round_trip = kernel.round_trip(sock)
    pause = min(max(round_trip / 8, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    eventful = wanted is Delivery.TRANSMITTED
    due = clock() + (0.0 if eventful else round_trip)  # nothing can be acknowledged before
    if eventful:
        kernel.announce_when_transmitted(sock, on=True)
    try:
        while True:
            broken = kernel.error_of(sock)
            if broken:
                raise ConnectionLostError(broken, untouched=False)
            reached = kernel.reached(sock, wanted)
            left = deadline - clock()
            if reached >= wanted or left <= 0:
                return reached
            if eventful:
                await streams.ready(sock, "write", left)
                if kernel.reached(sock, wanted) >= wanted:
                    continue  # to the way out above
            # There is no event for an acknowledgement, and one segment may outlast the event for the rest.
            now = clock()
            await asyncio.sleep(max(0.0, min(max(pause, due - now), deadline - now)))
            if now >= due:
                pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
    finally:
        if eventful:
            with contextlib.suppress(OSError):  # a socket that has ended needs no mark
                kernel.announce_when_transmitted(sock, on=False)
