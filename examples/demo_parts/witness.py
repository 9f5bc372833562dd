"""Owns the witness: a TCP proxy between a sandbox and the aggregator that notes which requests are complete.

It forwards bytes as they come and changes none. Each way of emitting has a witness of its own, so whose
request it is needs no guessing; which report it is (the first, the second, ...) stands in the report.

Where the sandbox has a network of its own (see `local_network`), that is all. Where it has not, the witness stands in
for two things that one machine does not have, alike for all ways:

- *A path.* On loopback an acknowledgement takes no time, on a path it takes a round trip. So the witness
  reads only a round trip after bytes have come, and its window stays about what it is on a new connection.
- *The freeze of a whole machine.* SIGSTOP stops a process, and its kernel goes on transmitting. So from the
  moment that the process is known to stand still, the witness takes nothing more from it until it is thawed.

**Arrived before the thaw** means: the request is complete with what was in the witness's socket by then, which is what
had left the sandbox before its freeze.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from local_network import LocalNetwork
    from typing_extensions import Self

__all__ = ["Request", "Witness"]

ROUND_TRIP_SECONDS = 0.02
"""From one region to the next. Within one it is a millisecond, around the world 300."""

WINDOW_BYTES = 64 * 1024
"""What Linux offers on a new connection; fixed like this, it grows to less than twice as much. It stands in
for the congestion window, which after an idle spell is not even a quarter of that: ten segments (RFC 6928;
RFC 5681, section 4.1)."""

ETHERNET_MSS = 1460
"""Bytes in a TCP segment on an Ethernet of 1500. On loopback it would be 64 KB, and the sandbox's kernel,
which sizes its first send buffer by it, would swallow at once what on a network it takes in pieces."""

_CHUNK_BYTES = 256 * 1024


@dataclass(slots=True)
class Request:
    """One request, as far as it is here.

    Attributes:
        freezes: How many freezes there had been when it was complete; `None` as long as it is not.
        length_bytes: What `Content-Length` says; 0 as long as it is not known.
        body: The body, as far as it is here.
    """

    freezes: int | None = None
    length_bytes: int = 0
    body: bytearray = field(default_factory=bytearray)


class Witness:
    """The witness of one way of emitting, to be used as an asynchronous context manager.

    Args:
        host: Where the aggregator listens.
        port: Where the aggregator listens.
        network: The network on whose far end it stands; `None` is this machine, and it stands in for the network.

    Attributes:
        requests: Every request of which a byte has arrived, in order of arrival.
        freezes: How often `freeze` was called.
    """

    def __init__(self, host: str, port: int, network: LocalNetwork | None = None) -> None:
        self.upstream = (host, port)
        self.reading_delay = ROUND_TRIP_SECONDS if network is None else 0.0
        self._network = network
        self.requests: list[Request] = []
        self.freezes = 0
        self._flows: list[_Flow] = []

    async def __aenter__(self) -> Self:
        if self._network is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            # Nobody can have connected yet, so each connection inherits these.
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_MSS)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        else:
            far_end = self._network.receiver
            self._listener = far_end.run(lambda: socket.create_server((far_end.address, 0)))
        self._listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept_all)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for flow in self._flows:
            await flow.close()

    @property
    def endpoint(self) -> str:
        """The URL that reports are POSTed to."""
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}/v1/metrics"

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return len(self._flows)

    def thaw(self) -> None:
        """Take bytes again. To be called before the sandbox is continued."""
        for flow in self._flows:
            flow.watch()

    async def freeze(self) -> int:
        """Take what has arrived, and nothing more. To be called once the sandbox is known to stand still.

        Returns:
            How many bytes are missing from requests that are here in part.
        """
        if self._network is not None:
            await self._network.deliver()
        self._accept_all()
        for flow in self._flows:
            flow.hold()
        self.freezes += 1
        return sum(each.length_bytes - len(each.body) for each in self.requests if each.freezes is None)

    def _accept_all(self) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody else is waiting
            while True:
                client, _ = self._listener.accept()
                self._flows.append(_Flow(self, client))


class _Flow:
    """One connection of a sandbox, and its continuation to the aggregator."""

    def __init__(self, witness: Witness, client: socket.socket) -> None:
        self._witness = witness
        self._client = client
        self._client.setblocking(False)
        self._parser = httptools.HttpRequestParser(self)
        self._forward: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._acknowledging: asyncio.TimerHandle | None = None
        self._continuation = asyncio.create_task(self._continue())
        self.watch()

    def watch(self) -> None:
        """Take bytes, a round trip after they have come."""
        self._loop.add_reader(self._client, self._on_arrival)

    def hold(self) -> None:
        """Take what is in the socket now, and nothing more until `watch` is called."""
        self._loop.remove_reader(self._client)
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        self._take()

    async def close(self) -> None:
        """Close both sides."""
        self.hold()
        self._continuation.cancel()
        await asyncio.wait([self._continuation])
        self._client.close()

    def _on_arrival(self) -> None:
        self._loop.remove_reader(self._client)
        self._acknowledging = self._loop.call_later(self._witness.reading_delay, self._acknowledge)

    def _acknowledge(self) -> None:
        if self._take():
            self.watch()

    def _take(self) -> bool:
        """Read what is in the socket at this moment: reading opens the window, and more comes at once.

        Returns:
            Whether there may be more; not after the end of the stream. That is not passed on, since a sandbox
            that is destroyed says nothing either.
        """
        (count,) = struct.unpack("i", fcntl.ioctl(self._client, termios.FIONREAD, bytes(4)))
        if not count:
            return False
        chunk = self._client.recv(count)
        self._parser.feed_data(chunk)
        self._forward.put_nowait(chunk)
        return True

    async def _continue(self) -> None:
        """Pass bytes on in both directions until cancelled."""
        reader, writer = await asyncio.open_connection(*self._witness.upstream)
        answering = asyncio.create_task(self._pass_answers_on(reader))
        try:
            while True:
                writer.write(await self._forward.get())
                await writer.drain()
        finally:
            answering.cancel()
            await asyncio.wait([answering])
            writer.close()

    async def _pass_answers_on(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):  # the sandbox is gone: nobody is left to be answered
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._loop.sock_sendall(self._client, chunk)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._request = Request()
        self._witness.requests.append(self._request)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length":
            self._request.length_bytes = int(value)

    def on_body(self, chunk: bytes) -> None:
        self._request.body += chunk

    def on_message_complete(self) -> None:
        self._request.freezes = self._witness.freezes
