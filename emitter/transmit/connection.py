"""Owns one kept-open connection: open, transmit, harvest, close. Never sees a metric, an encoder or a retry.

The connection is the *socket*; asyncio's streams are put on a duplicate of it and can be replaced, because they
belong to one event loop and a connection outlives loops. Reading is paused from the start: answers wait in the
kernel, cost no wake-up, and are harvested straight from the socket without waiting.

    invariants  the write buffer is empty between two calls of `transmit`, or the connection has ended
                `_unanswered` holds the numbers of the reports whose answers are to come, oldest first
                readable with nothing unanswered: the peer has closed, or does not speak HTTP
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from emitter import loop as loops
from emitter.errors import AnswerError, BudgetExceededError, ConnectError, ConnectionLostError, NetworkError
from emitter.transmit import kernel, streams
from emitter.transmit.delivery import Delivery
from emitter.transmit.http1 import Answer, AnswerParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.errors import EmitterError

__all__ = ["LIMIT_UNANSWERED", "PATIENCE", "Connection", "Harvested", "Transform"]

LIMIT_UNANSWERED = 16
"""Reports without an answer; beyond this the peer is far behind, and more would only pile up at it."""

PATIENCE = 60.0
"""Seconds without an answer after which a connection is taken for dead; also what load balancers wait."""

_READ_BYTES = 64 * 1024
_LIMIT_HARVEST_BYTES = 4 * _READ_BYTES  # of one harvest: what a peer can make a single flush read

_SHORTEST_PAUSE, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.0005, 0.05, 1.5
"""Seconds between two looks at a queue that gives no event: from half a round trip, growing, because a peer may
delay an acknowledgement by 40 ms (Linux) and more."""


class Transform(Protocol):
    """What may stand between the HTTP bytes and the stream: the place of TLS. Has no I/O of its own."""

    def outbound(self, plain: bytes) -> bytes:
        """What is to be written so that the peer reads `plain`."""
        ...  # pragma: no cover  a protocol's body is never run

    def inbound(self, wire: bytes) -> bytes:
        """What the peer wrote, as far as `wire` completes it."""
        ...  # pragma: no cover  a protocol's body is never run


class Harvested(NamedTuple):
    """An answer, and the number of the report that it answers."""

    number: int
    answer: Answer


class Connection:
    """A TCP connection on which requests are written and answers read one flush later.

    Attributes:
        ended: Why nothing can be written any more; `None` while something can. An `AnswerError` if the peer does
            not speak HTTP, else a `ConnectionLostError`.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        *,
        clock: Callable[[], float],
        transform: Transform | None = None,
    ) -> None:
        self.ended: EmitterError | None = None
        self._clock = clock
        self._transform = transform
        self._parser = AnswerParser()
        self._unanswered: deque[tuple[int, float]] = deque()  # number of the report, when it was written
        self._harvested: list[Harvested] = []
        # A duplicate of our own: it outlives the stream's loop, and asyncio allows no second reader on its own.
        stream_socket = writer.get_extra_info("socket")
        if stream_socket is None:  # uvloop, when the peer was faster with a reset
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._socket = socket.socket(fileno=os.dup(stream_socket.fileno()))
        self._socket.setblocking(False)
        self._writer: asyncio.StreamWriter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passing = False
        self._attach(writer)

    @classmethod
    async def open(cls, host: str, port: int, *, deadline: float, clock: Callable[[], float]) -> Connection:
        """Open a connection.

        Args:
            host: Name or address.
            port: TCP port.
            deadline: When to give up, on `clock`.
            clock: Monotonic seconds.

        Raises:
            ConnectError: It could not be opened, or not in time.

        After failure and after cancellation: nothing is left behind.
        """
        await loops.loop_needed()
        opening = asyncio.ensure_future(streams.open_paused(host=host, port=port))
        try:
            # Not `wait_for`: before Python 3.12 it may swallow a cancellation that comes at the same moment.
            await asyncio.wait({opening}, timeout=max(0.0, deadline - clock()))
            if not opening.done():
                raise ConnectError(host, port, "the budget ended before the peer answered")
            try:
                reader, writer = opening.result()
                connection = cls(writer, clock=clock)
            except OSError as error:
                raise ConnectError(host, port, streams.in_words(error)) from error
            except (RuntimeError, UnicodeError) as error:
                # No thread for the resolver, at the interpreter's exit; or a name that its IDNA codec refuses.
                raise ConnectError(host, port, str(error)) from error
        except BaseException:
            opening.add_done_callback(streams.abort_unclaimed)
            opening.cancel()
            raise
        connection._take_over(reader)
        return connection

    @property
    def unanswered(self) -> int:
        """How many reports wait for their answer (or, once ended, never got one)."""
        return len(self._unanswered)

    def queues(self) -> kernel.Queues:
        """What the kernel still holds of what was written; nothing once the connection has ended."""
        return kernel.queues(self._socket) if self.ended is None else kernel.Queues(0, 0)

    async def transmit(self, request: bytes, number: int, wanted: Delivery, *, deadline: float) -> Delivery:
        """Write one request and wait until it got as far as wanted.

        Args:
            request: The whole request. `bytes`, since asyncio keeps a view of it and not a copy.
            number: What `harvest` calls the answer to it.
            wanted: How far it is to get.
            deadline: When to stop waiting, on the clock given to `open`. In the past: wait for nothing.

        Returns:
            How far it got: `wanted`, or less if the deadline came first or the kernel cannot tell.

        Raises:
            BudgetExceededError: The deadline came while bytes were still in this process.
            ConnectionLostError: The connection broke; its `untouched` tells whether any byte had been taken.

        After failure: the connection has ended. After cancellation: it has ended if bytes were still in this
        process; otherwise they are on their way and it is sound. When it returns, it is sound in any case.
        """
        writer = self._writer
        if writer is None or self._loop is not loops.current():
            writer = await self._adopt()
        transport = writer.transport
        wire = request if self._transform is None else self._transform.outbound(request)
        try:
            writer.write(wire)  # one `write`: it hands the bytes to the kernel at once, as far as there is room
            if transport.is_closing():
                raise ConnectionLostError("the kernel refused the first byte", untouched=True)
            self._unanswered.append((number, self._clock()))
            if transport.get_write_buffer_size():
                await self._drain(writer, deadline)
            else:
                await writer.drain()  # waits for nothing then, but raises what is known to be wrong
            if wanted is Delivery.ANSWERED:
                return await self._until_answered(number, deadline)
            reached = kernel.reached(self._socket, wanted)
            if reached < wanted <= kernel.BEST_KNOWN:
                reached = await self._until_reached(wanted, deadline)
            return reached
        except NetworkError as error:
            self._end(error)
            raise
        except OSError as error:
            self._lost(streams.in_words(error))
            raise ConnectionLostError(streams.in_words(error), untouched=False) from error
        except BaseException:  # cancelled
            if transport.get_write_buffer_size():
                self._lost("a report was given up half written")
            raise

    async def _drain(self, writer: asyncio.StreamWriter, deadline: float) -> None:
        """Wait until nothing is left in this process: exactly what `drain` tells when the limit is 0."""
        transport = writer.transport
        await loops.loop_needed()
        unwritten_bytes = 0

        def give_up() -> None:
            nonlocal unwritten_bytes
            unwritten_bytes = transport.get_write_buffer_size()
            if unwritten_bytes:  # the last of it may have gone in this very turn
                transport.abort()

        timer = asyncio.get_running_loop().call_later(max(0.0, deadline - self._clock()), give_up)
        try:
            await writer.drain()
        finally:
            timer.cancel()
        if unwritten_bytes:  # `drain` returns as if all were well when its transport is aborted
            raise BudgetExceededError(unwritten_bytes, *kernel.queues(self._socket))

    async def _until_reached(self, wanted: Delivery, deadline: float) -> Delivery:
        """Wait for the kernel's queues: on an event for TRANSMITTED, by the round trip for ACKNOWLEDGED."""
        await loops.loop_needed()
        pause = min(max(kernel.round_trip(self._socket) / 2, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        eventful = wanted is Delivery.TRANSMITTED
        if eventful:
            kernel.announce_when_transmitted(self._socket, on=True)
        try:
            while True:
                broken = kernel.error_of(self._socket)
                if broken:
                    raise ConnectionLostError(broken, untouched=False)
                reached = kernel.reached(self._socket, wanted)
                left = deadline - self._clock()
                if reached >= wanted or left <= 0:
                    return reached
                if eventful:
                    await streams.ready(self._socket, "write", left)
                    if kernel.reached(self._socket, wanted) >= wanted:
                        continue  # to the way out above
                # There is no event for an acknowledgement, and one segment may outlast the event for the rest.
                await asyncio.sleep(min(pause, max(0.0, deadline - self._clock())))
                pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
        finally:
            if eventful:
                with contextlib.suppress(OSError):  # a socket that has ended needs no mark
                    kernel.announce_when_transmitted(self._socket, on=False)

    async def _until_answered(self, number: int, deadline: float) -> Delivery:
        while True:
            self._read()
            if any(harvested.number == number for harvested in self._harvested):
                return Delivery.ANSWERED
            if self.ended is not None:
                raise ConnectionLostError(str(self.ended), untouched=False)
            left = deadline - self._clock()
            if left <= 0:
                return kernel.reached(self._socket, Delivery.ACKNOWLEDGED)
            await loops.loop_needed()
            await streams.ready(self._socket, "read", left)

    def harvest(self) -> list[Harvested]:
        """Read, without waiting, the answers that have arrived; each is returned once, oldest first.

        Afterwards `ended` tells whether the connection can still be written to: a peer that has closed, has asked
        to close, writes what nobody asked for or does not speak HTTP ends it, and so does `PATIENCE` seconds of
        silence. Never raises for what arrives, and reads a bounded amount.
        """
        self._read()
        harvested, self._harvested = self._harvested, []
        return harvested

    def _read(self) -> None:
        left = _LIMIT_HARVEST_BYTES
        while self.ended is None and left > 0:
            try:
                wire = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:  # a reset, most often
                self._lost(streams.in_words(error))
                break
            left -= len(wire)
            self._take(wire)
        if self._unanswered and self._clock() - self._unanswered[0][1] > PATIENCE:
            self._lost(f"the peer has left a report unanswered for {PATIENCE:.0f} s")

    def _take(self, wire: bytes) -> None:
        """Read on in the answers; `wire` is empty at the end of the stream."""
        try:
            if wire:
                self._parser.feed(wire if self._transform is None else self._transform.inbound(wire))
            else:
                self._parser.end()
        except AnswerError as error:
            self._end(error)
        for answer in self._parser.take():
            if not self._unanswered:
                self._lost("the peer answered what nobody asked")
                return
            self._harvested.append(Harvested(self._unanswered.popleft()[0], answer))
            if not answer.keep_alive:
                self._lost("the peer asked to close")
                return
        if not wire:
            self._lost("the peer has closed")
        elif self._parser.unfinished and not self._unanswered:
            self._lost("the peer writes what nobody asked for")

    async def _adopt(self) -> asyncio.StreamWriter:
        """Put a new stream, in the loop that is in use, on the socket (0.2 ms); what is on its way stays."""
        await loops.loop_needed()
        self._detach()
        try:
            reader, writer = await streams.open_paused(sock=self._socket.dup())
        except OSError as error:
            self._lost(streams.in_words(error))
            raise ConnectionLostError(streams.in_words(error), untouched=True) from error
        self._attach(writer)
        self._take_over(reader)
        if self.ended is not None:
            raise ConnectionLostError(str(self.ended), untouched=True)
        return writer

    def _attach(self, writer: asyncio.StreamWriter) -> None:
        # With a limit of 0, `drain` returns exactly when nothing is left in this process.
        writer.transport.set_write_buffer_limits(high=0)
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._passing = not loops.outlives_its_caller(self._loop)

    def _take_over(self, reader: asyncio.StreamReader) -> None:
        """Take what the stream has read before it was paused: nothing on the standard loop, but uvloop is faster."""
        while self.ended is None and not reader.at_eof():
            reading = reader.read(_READ_BYTES)
            try:
                reading.send(None)
            except StopIteration as read:  # it did not have to wait
                self._take(read.value)
            else:
                reading.close()
                return

    def rest(self) -> None:
        """Called between two uses: leaves a loop that may be gone by the next one. The process's own loop stays."""
        if self._passing:
            self._detach()

    def _detach(self) -> None:
        """Give up the stream and keep the socket. The loop closes the stream's duplicate when it next runs."""
        if self._writer is None or self._loop is None:
            return
        if self._loop is loops.current():
            streams.abort(self._writer)
        else:
            with contextlib.suppress(RuntimeError):  # its owner has closed that loop, and the stream with it
                self._loop.call_soon_threadsafe(streams.abort, self._writer)
        self._writer = self._loop = None

    async def close(self, *, deadline: float) -> None:
        """Close in order: only once all is acknowledged and answered, or the deadline has come.

        A proxy gives up a request whose client leaves before the answer, so an early close would lose the last
        report. Never raises for the network.
        """
        try:
            while self.ended is None and self._unanswered:
                left = deadline - self._clock()
                if left <= 0:
                    break
                await loops.loop_needed()
                await streams.ready(self._socket, "read", left)
                self._read()
        finally:
            self._lost("closed")
        await loops.loop_needed()
        await asyncio.sleep(0)  # the loop closes the stream's duplicate of the socket

    def _lost(self, why: str) -> None:
        self._end(ConnectionLostError(why, untouched=False))

    def _end(self, why: EmitterError) -> None:
        """Nothing is written or read any more; the first reason stays."""
        if self.ended is not None:
            return
        self.ended = why
        self._detach()
        with contextlib.suppress(OSError):  # it was broken before, or nothing is there
            # Closing a socket with unread input makes a reset, which throws away what the kernel still holds
            # (net/ipv4/tcp.c, `tcp_close`). So what is there is read first, as much as a harvest would.
            for _ in range(_LIMIT_HARVEST_BYTES // _READ_BYTES):
                if len(self._socket.recv(_READ_BYTES)) < _READ_BYTES:
                    break
        with contextlib.suppress(OSError):  # it was broken before
            # At once, though the stream's duplicate is only closed when its loop next runs.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
