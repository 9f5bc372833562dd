"""Owns one kept-open connection: transmit, harvest, close. Never sees a metric, an encoder or a retry.

The connection is the *socket*; asyncio's stream is put on a duplicate of it and can be replaced, because it belongs
to one event loop and a connection outlives loops. Reading is paused from the start: answers wait in the kernel, cost
no wake-up, and are harvested straight from the socket without waiting.

    invariants  the write buffer is empty between two calls of `transmit`, or the connection has ended
                `_unanswered` holds the reports whose answers are to come, oldest first
                readable (inside TLS: with plain bytes) and nothing unanswered: the peer has closed, or is no HTTP
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emitter import loop as loops
from emitter.errors import AnswerError, BudgetExceededError, ConnectionLostError, NetworkError
from emitter.transmit import kernel, progress, streams
from emitter.transmit.delivery import Delivery
from emitter.transmit.http1 import Answer, AnswerParser

if TYPE_CHECKING:
    from emitter.clocks import Clocks, Moment
    from emitter.errors import EmitterError
    from emitter.transmit.tls import Tls

__all__ = ["LIMIT_UNANSWERED", "PATIENCE", "SILENCE", "Connection", "Harvested"]

LIMIT_UNANSWERED = 16
"""Reports without an answer; beyond this the peer is far behind, and more would only pile up at it."""

PATIENCE = 60.0
"""Seconds without an answer after which a connection is taken for dead; also what load balancers wait."""

SILENCE = 0.5
"""Seconds, and some round trips, without an acknowledgement of what was transmitted, after which a connection is
taken for dead. No TCP may keep one back for longer (RFC 1122, 4.2.3.2), and Linux transmits again after 200 ms."""
_ROUND_TRIPS_OF_SILENCE = 4

_READ_BYTES = 64 * 1024
_LIMIT_HARVEST_BYTES = 4 * _READ_BYTES  # of one harvest: what a peer can make a single flush read
_HONEST_BYTES = 4 * 1024  # of sixteen answers; whoever writes more at a time is looked at more closely
_LIMIT_HARVEST_SECONDS = 0.005
"""Of one harvest of more than that, beyond what one read brings: it comes before the budget is looked at. An honest
answer takes some microseconds, and what is left is read at the next flush."""


class Harvested(NamedTuple):
    """An answer, and the number of the report that it answers."""

    number: int
    answer: Answer


@dataclass(slots=True)
class _Unanswered:
    """A report that was written: its number, when, and how many bytes had been written with it."""

    number: int
    written: Moment
    written_bytes: int
    transmitted: Moment | None = None  # when all of it was first known to have left


class Connection:
    """A TCP connection on which requests are written and answers read one flush later. Made by `Opening.finish`.

    Args:
        sock: Connected and non-blocking; the connection closes it.
        clocks: Both clocks; deadlines are on the monotonic one.
        tls: TLS, its handshake over; `None`: none.

    Attributes:
        ended: Why nothing can be written any more; `None` while something can. An `AnswerError` if the peer does
            not speak HTTP, else a `ConnectionLostError`.
        answered: How many reports were answered on it.
        written: How many requests were begun to be written to it.
    """

    def __init__(self, sock: socket.socket, *, clocks: Clocks, tls: Tls | None = None) -> None:
        self.ended: EmitterError | None = None
        self.answered = 0
        self.written = 0
        self._socket = sock
        self._stream = streams.Stream(sock)
        self._clocks = clocks
        self._tls = tls
        self._parser = AnswerParser()
        self._unanswered: deque[_Unanswered] = deque()
        self._harvested: list[Harvested] = []
        self._written_bytes = 0
        self._opened = self._used = clocks.now()
        # What came along with the handshake, or while nobody looked: the peer may have left already.
        if tls is not None:
            self._take_inside(tls, b"")
        self._read()

    @property
    def unanswered(self) -> int:
        """How many reports wait for their answer (or, once ended, never got one)."""
        return len(self._unanswered)

    def awaits(self, number: int) -> bool:
        """Whether anything that was written under this number waits for its answer (or never got one)."""
        return any(each.number == number for each in self._unanswered)

    def queues(self) -> kernel.Queues:
        """What the kernel still holds of what was written; nothing once the connection has ended."""
        return kernel.queues(self._socket) if self.ended is None else kernel.Queues(0, 0)

    @property
    def age(self) -> float:
        """Seconds since it was opened, by whichever clock says more."""
        return self._clocks.since(self._opened)

    @property
    def round_trip(self) -> float:
        """Seconds, as TCP has measured them; 0.0 where it is unknown, and once the connection has ended."""
        return kernel.round_trip(self._socket) if self.ended is None else 0.0

    async def prepare(self) -> None:
        """Bring the stream into the loop that is in use, so that the next `transmit` finds it there.

        After failure: the connection has ended. Never raises for the network.
        """
        if self.ended is None and self._stream.writer is None:
            with contextlib.suppress(ConnectionLostError):  # `ended` says so
                await self._adopt()

    async def transmit(self, request: bytes, number: int, wanted: Delivery, *, deadline: float) -> Delivery:
        """Write one request and wait until it got as far as wanted.

        Args:
            request: The whole request. `bytes`, since asyncio keeps a view of it and not a copy.
            number: What `harvest` calls the answer to it. Several requests may have the same one.
            wanted: How far it is to get.
            deadline: When to stop waiting, on the monotonic clock. In the past: wait for nothing.

        Returns:
            How far it got: `wanted`, or less if the deadline came first or the kernel cannot tell.

        Raises:
            BudgetExceededError: The deadline came while bytes were still in this process.
            ConnectionLostError: The connection broke; its `untouched` tells whether any byte had been taken.

        After failure: the connection has ended. After cancellation: it has ended if bytes were still in this
        process; otherwise they are on their way and it is sound. When it returns, it is sound, unless it was to
        wait for the answer and that asks to close: see `ended`.
        """
        if self.ended is not None:
            raise ConnectionLostError(self._why(), untouched=True)
        begun = noted = False
        try:
            writer = self._stream.writer or await self._adopt()
            begun = True
            wire = request if self._tls is None else self._tls.outbound(request)
            self.written += 1  # first: an interrupt after the write would leave it unsaid
            writer.write(wire)  # one `write`: it hands the bytes to the kernel at once, as far as there is room
            if writer.transport.is_closing():
                self.written -= 1
                self._read()  # as below
                raise ConnectionLostError(self._why("the kernel refused the first byte"), untouched=True)
            self._used = self._clocks.now()
            self._written_bytes += len(wire)
            self._unanswered.append(_Unanswered(number, self._used, self._written_bytes))
            noted = True
            if writer.transport.get_write_buffer_size():
                await self._drain(writer, deadline)
                self._used = self._clocks.now()
            else:
                await writer.drain()  # waits for nothing then, but raises what is known to be wrong
            if wanted is Delivery.ANSWERED:
                return await self._until_answered(number, deadline)
            reached = kernel.reached(self._socket, wanted)
            if reached < wanted <= kernel.BEST_KNOWN:
                reached = await progress.until_reached(self._socket, wanted, deadline, self._clocks.monotonic)
                self._used = self._clocks.now()
            self._note_transmitted(reached)
            return reached
        except NetworkError as error:
            self._read()  # a peer that closes under a report may have said why: 413, say
            self._end(error)
            raise
        except OSError as error:
            self._read()  # as above
            self._lost(streams.in_words(error))
            raise ConnectionLostError(streams.in_words(error), untouched=False) from error
        except BaseException:  # cancelled, or interrupted (Ctrl-C, an alarm)
            if self._stream.unwritten_bytes or (begun and not noted):
                self._lost("a report was given up half written")
            raise

    def _note_transmitted(self, reached: Delivery) -> None:
        """What was written before the last report got at least as far as it did."""
        if reached >= Delivery.TRANSMITTED:
            for each in reversed(self._unanswered):
                if each.transmitted is not None:
                    break
                each.transmitted = self._used

    async def _adopt(self) -> asyncio.StreamWriter:
        """Bring the stream into the loop that is in use."""
        try:
            writer = await self._stream.adopt(self._take)
        except OSError as error:
            self._end(ConnectionLostError(streams.in_words(error), untouched=True))
            raise ConnectionLostError(streams.in_words(error), untouched=True) from error
        if self.ended is not None:  # by what the loop has read meanwhile
            self._stream.detach()
            raise ConnectionLostError(self._why(), untouched=True)
        return writer

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

        left = max(0.0, deadline - self._clocks.monotonic())
        timer = asyncio.get_running_loop().call_later(left, give_up)
        try:
            await writer.drain()
        finally:
            timer.cancel()
        if unwritten_bytes:  # `drain` returns as if all were well when its transport is aborted
            raise BudgetExceededError(unwritten_bytes, *kernel.queues(self._socket))

    async def _until_answered(self, number: int, deadline: float) -> Delivery:
        while True:
            self._read()
            if not self.awaits(number):
                return Delivery.ANSWERED
            if self.ended is not None:
                raise ConnectionLostError(self._why(), untouched=False)
            left = deadline - self._clocks.monotonic()
            if left <= 0:
                return kernel.reached(self._socket, Delivery.ACKNOWLEDGED)
            await loops.loop_needed()
            await streams.ready(self._socket, "read", left)

    def harvest(self, *, idle_limit: float = math.inf, age_limit: float = math.inf) -> list[Harvested]:
        """Read, without waiting, the answers that have arrived; each is returned once, oldest first.

        Afterwards `ended` tells whether the connection can still be written to: a peer that has closed, has asked
        to close, writes what nobody asked for or does not speak HTTP ends it, and so does silence. Never raises for
        what arrives, and reads a bounded amount.

        Args:
            idle_limit: Seconds after the last write from which it is not used again, by whichever clock says more.
            age_limit: Seconds after opening from which it is not used again, once nothing is unanswered.
        """
        self._read()
        if self.ended is None:
            self._look_at_the_clocks(idle_limit, age_limit)
        harvested, self._harvested = self._harvested, []
        return harvested

    def _look_at_the_clocks(self, idle_limit: float, age_limit: float) -> None:
        """End what a load balancer, a NAT gateway or the peer has forgotten, or is about to."""
        now = self._clocks.now()
        idle = now.since(self._used)
        if idle > idle_limit:
            self._retire(f"it was idle for {idle:.0f} s" if idle < math.inf else "the wall clock was set back")
        elif not self._unanswered:
            if now.since(self._opened) > age_limit:
                self._retire(f"it is older than {age_limit:.0f} s")
        elif now.monotonic - self._unanswered[0].written.monotonic > PATIENCE:
            self._lost(f"the peer has left a report unanswered for {PATIENCE:.0f} s")
        elif self._is_silent(now):
            self._lost("the peer does not acknowledge what was transmitted")

    def _is_silent(self, now: Moment) -> bool:
        """Whether the oldest report was transmitted and not acknowledged, though the peer has had the time.

        A peer whose window is shut is not silent: it acknowledges what it has taken, and the rest is not transmitted.
        """
        oldest = self._unanswered[0]
        if now.since(oldest.transmitted or oldest.written) < SILENCE:
            return False
        untransmitted, unacknowledged = kernel.queues(self._socket)
        written_later = self._written_bytes - oldest.written_bytes
        if not unacknowledged > written_later >= untransmitted:
            return False
        if oldest.transmitted is None:  # nobody knows when the last of it left: perhaps a moment ago
            oldest.transmitted = now
            return False
        patience = SILENCE + _ROUND_TRIPS_OF_SILENCE * kernel.round_trip(self._socket)
        return now.since(oldest.transmitted) > patience

    def _read(self) -> None:
        left = _LIMIT_HARVEST_BYTES
        until = math.inf
        try:
            while self.ended is None and left > 0:
                try:
                    wire = self._socket.recv(_READ_BYTES)
                except BlockingIOError:
                    return
                except OSError as error:  # a reset, most often
                    self._lost(streams.in_words(error))
                    return
                left -= len(wire)
                if len(wire) > _HONEST_BYTES:
                    now = self._clocks.monotonic()
                    until = min(until, now + _LIMIT_HARVEST_SECONDS)
                    left = left if now < until else 0
                self._take(wire)
        except BaseException:  # an interrupt: a part of the answers may be gone, so nobody knows what the rest is about
            self._lost("the reading of answers was interrupted")
            raise

    def _take(self, wire: bytes) -> None:
        """Read on in what the peer wrote; `wire` is empty at the end of the stream."""
        if self._tls is not None and wire:
            self._take_inside(self._tls, wire)
        else:
            self._take_plain(wire)

    def _take_inside(self, tls: Tls, wire: bytes) -> None:
        try:
            plain = tls.inbound(wire)
        except ConnectionLostError as error:
            self._end(error)
            return
        if plain:
            self._take_plain(plain)
        if self.ended is None and tls.ended:
            self._take_plain(b"")

    def _take_plain(self, plain: bytes) -> None:
        """Read on in the answers; `plain` is empty at their end.

        That the end comes without TLS's close alert, so that somebody else may have made it (RFC 8446, 6.1), changes
        nothing: a status is read whole or not at all, and of a body nothing is kept.
        """
        try:
            if plain:
                self._parser.feed(plain)
            else:
                self._parser.end()
        except AnswerError as error:
            self._end(error)
        for answer in self._parser.take():
            if not self._unanswered:
                # No fault of a report: it may be a farewell (408, RFC 9110, 15.5.9).
                self._lost("the peer answered what nobody asked")
                return
            self._harvested.append(Harvested(self._unanswered.popleft().number, answer))
            self.answered += 1
            if not answer.keep_alive:
                self._lost("the peer asked to close")
                return
        if not plain:
            self._lost("the peer has closed")
        elif self._parser.unfinished and not self._unanswered:
            self._lost("the peer writes what nobody asked for")

    def rest(self) -> None:
        """Called between two uses: leaves a loop that may be gone by the next one."""
        self._stream.rest()

    async def close(self, *, deadline: float) -> None:
        """Close in order: only once all is acknowledged and answered, or the deadline has come.

        A proxy gives up a request whose client leaves before the answer, so an early close would lose the last
        report. Never raises for the network.
        """
        try:
            while self.ended is None and self._unanswered:
                left = deadline - self._clocks.monotonic()
                if left <= 0:
                    break
                await loops.loop_needed()
                await streams.ready(self._socket, "read", left)
                self._read()
        finally:
            self._lost("closed")
        await loops.loop_needed()
        await asyncio.sleep(0)  # the loop closes the stream's duplicate of the socket

    def disown(self) -> None:
        """Forget the connection in a forked child, without a word on the wire: it is the parent's."""
        self.ended = ConnectionLostError("it belongs to the parent process", untouched=True)
        self._socket.close()  # this process's copy; the parent's stays open
        self._stream.disown()  # after that, since it needs a descriptor

    def _why(self, otherwise: str = "") -> str:
        """Why it has ended, in words for a new error; `otherwise` while it has not."""
        if self.ended is None:
            return otherwise
        return self.ended.cause if isinstance(self.ended, ConnectionLostError) else str(self.ended)

    def _lost(self, why: str) -> None:
        self._end(ConnectionLostError(why, untouched=False))

    def _retire(self, why: str) -> None:
        self._end(ConnectionLostError(why, untouched=True, retired=True))

    def _end(self, why: EmitterError) -> None:
        """Nothing is written or read any more; the first reason stays."""
        if self.ended is not None:
            return
        self.ended = why
        # Once its transport was aborted, the stream has forgotten what it had not written.
        half_written = self._stream.unwritten_bytes > 0 or isinstance(why, BudgetExceededError)
        self._stream.detach()
        farewell = b"" if self._tls is None else self._tls.closing()
        with contextlib.suppress(OSError):  # it was broken before, or nothing is there
            # Closing a socket with unread input makes a reset, which throws away what the kernel still holds
            # (net/ipv4/tcp.c, `tcp_close`). So what is there is read first, as much as a harvest would.
            for _ in range(_LIMIT_HARVEST_BYTES // _READ_BYTES):
                if len(self._socket.recv(_READ_BYTES)) < _READ_BYTES:
                    break
        with contextlib.suppress(OSError):  # it was broken before
            if farewell and not half_written:  # in the middle of a record it would be taken for a part of that
                self._socket.send(farewell)
        with contextlib.suppress(OSError):  # it was broken before
            # At once, though the stream's duplicate is only closed when its loop next runs.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
