"""What the tests of connections share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from emitter.transmit.connection import Connection
from emitter.transmit.delivery import Delivery

if TYPE_CHECKING:
    from tests.scripted_peer import ScriptedPeer

SMALL = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsmall"


def request_of(body_bytes: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % body_bytes + bytes(body_bytes)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def connect(peer: ScriptedPeer, clock=time.monotonic) -> Connection:
    return await Connection.open("127.0.0.1", peer.port, deadline=clock() + 5, clock=clock)


async def transmit(
    connection: Connection, request: bytes = SMALL, number: int = 1, wanted=Delivery.TRANSMITTED, seconds: float = 5
) -> Delivery:
    return await connection.transmit(request, number, wanted, deadline=time.monotonic() + seconds)
