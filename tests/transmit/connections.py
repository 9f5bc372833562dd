"""What the tests of connections share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from emitter.clocks import Clocks
from emitter.transmit.delivery import Delivery
from emitter.transmit.opening import Opening

if TYPE_CHECKING:
    from emitter.transmit.connection import Connection
    from tests.scripted_peer import ScriptedPeer

SMALL = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsmall"


def request_of(body_bytes: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % body_bytes + bytes(body_bytes)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def connect(peer: ScriptedPeer, clock=time.monotonic) -> Connection:
    opening = Opening("127.0.0.1", peer.port, tls=None, clocks=Clocks(monotonic=clock))
    connection = await opening.finish(clock() + 5)
    await connection.prepare()
    return connection


async def transmit(
    connection: Connection, request: bytes = SMALL, number: int = 1, wanted=Delivery.TRANSMITTED, seconds: float = 5
) -> Delivery:
    return await connection.transmit(request, number, wanted, deadline=time.monotonic() + seconds)
