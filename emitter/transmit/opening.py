"""Owns the way to an open connection: name, TCP, TLS. Never sees a request, a metric or a retry.

The way is a generator, which stands still wherever something has to be waited for. So it can be left when a budget
ends, go on at the next flush where it stood, and belongs to no event loop. Between two flushes it can go on in a
thread, while a handler works (`go_ahead`); whoever comes back for it takes it out of that thread, wherever it stands.

    look up the name      in a thread, since the resolver blocks; an address needs none
    connect               to one address after the other, a little later each, and the first to answer wins
    shake hands           TLS, if the endpoint is https

Source: RFC 8305 (happy eyeballs), RFC 8446.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import select
import socket
import threading
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple, cast

from emitter import loop as loops
from emitter.errors import ConnectError, TlsError
from emitter.transmit import kernel, streams
from emitter.transmit.ahead import Ahead
from emitter.transmit.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any

    from emitter.clocks import Clocks
    from emitter.transmit.tls import Tls, TlsClient

__all__ = ["ATTEMPT_DELAY", "LIMIT_ADDRESSES", "LIMIT_AGE", "LIMIT_HANDSHAKE_AGE", "Opening"]

ATTEMPT_DELAY = 0.1
"""Seconds before the next address of a name is tried beside the ones before it: the least that RFC 8305, section 8,
recommends, because the whole budget of a flush is a quarter of a second by default."""

LIMIT_ADDRESSES = 8
"""Of one name, that are tried."""

LIMIT_AGE = 10.0
"""Seconds without any answer after which an opening is not waited for any more: a new one asks at once, where TCP has
slowed down its attempts to one in eight seconds, and more."""

LIMIT_HANDSHAKE_AGE = 50.0
"""Seconds after which one that was answered is not waited for any more: servers give one up after 10 to 60 s."""

_READ_BYTES = 64 * 1024

_LIMIT_NAP = 1.0
"""Seconds after which one that goes on by itself looks at the clocks again, whatever else happens."""

_Address = tuple[int, tuple["Any", ...]]
"""Family and address of a socket."""


class _Wait(NamedTuple):
    """What has to happen before the way goes on: one of these sockets, or the time `until`."""

    readable: tuple[socket.socket, ...] = ()
    writable: tuple[socket.socket, ...] = ()
    until: float | None = None


class Opening:
    """A connection that is being opened.

    Args:
        host: Name or address.
        port: TCP port.
        tls: The endpoint's TLS; `None`: none.
        clocks: Both clocks; deadlines are on the monotonic one.

    Attributes:
        stage: What it is at, for people.
        round_trip: Seconds, as TCP has measured them meanwhile; 0.0 while nothing came back.
    """

    def __init__(self, host: str, port: int, *, tls: TlsClient | None, clocks: Clocks) -> None:
        self.stage = "the name was looked up"
        self.round_trip = 0.0
        self._host = host
        self._port = port
        self._tls = tls
        self._clocks = clocks
        self._started = clocks.now()
        self._sockets: set[socket.socket] = set()  # all that are open, for `disown`
        self._way = self._go()
        self._opened: Connection | None = None
        self._failed: ConnectError | None = None  # in a thread, where there was nobody to be told
        self._ahead: Ahead | None = None

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad, and cannot be gone on with."""
        return inspect.getgeneratorstate(self._way) == inspect.GEN_CLOSED

    @property
    def age(self) -> float:
        """Seconds since it began, by whichever clock says more."""
        return self._clocks.since(self._started)

    @property
    def stale(self) -> bool:
        """Whether a new one is better than waiting for it. Never so while a name is looked up."""
        return bool(self._sockets) and self.age > (LIMIT_HANDSHAKE_AGE if self.round_trip else LIMIT_AGE)

    def go_ahead(self) -> None:
        """Go on in a thread, until the connection is open or somebody comes back for it: `come_back`, `finish`."""
        if self._ahead is None and not self.over:
            # Without a thread (a limit, the interpreter's exit) it goes on when somebody waits for it.
            with contextlib.suppress(RuntimeError, OSError):
                self._ahead = Ahead(self._go_on)

    def come_back(self) -> Connection | None:
        """Take it out of its thread, if it is in one; the connection, if that is open by now.

        Waits for a step that the thread is in the middle of: microseconds, some milliseconds in a TLS handshake.
        """
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None  # not before: the stop may be interrupted
        return self._opened

    def _go_on(self, ahead: Ahead) -> None:
        try:
            while not self.stale:
                wait = self._step()
                if wait is None:
                    return
                nap = _LIMIT_NAP if wait.until is None else min(_LIMIT_NAP, wait.until - self._clocks.monotonic())
                if ahead.stopped(wait.readable, wait.writable, max(0.0, nap)):
                    return
        except ConnectError as error:
            self._failed = error  # for whoever comes back for it

    async def finish(self, deadline: float) -> Connection:
        """Go on until the connection is open.

        Args:
            deadline: When to stop waiting, on the monotonic clock. In the past: wait for nothing.

        Raises:
            ConnectError: It could not be opened; or not in time, and then it is `unfinished`.

        After failure: nothing is left behind, unless it is `unfinished`. After that, and after cancellation: it goes
        on by itself as far as the kernel and the peer can, and `finish` may be called again, in any event loop.
        """
        self.come_back()
        while True:
            wait = self._step()
            if wait is None:
                return cast("Connection", self._opened)
            now = self._clocks.monotonic()
            if now >= deadline:
                cause = f"the budget ended before {self.stage}"
                raise ConnectError(self._host, self._port, cause, unfinished=True)
            await loops.loop_needed()
            until = deadline if wait.until is None else min(deadline, wait.until)
            try:
                await streams.any_ready(wait.readable, wait.writable, until - now)
            except OSError as error:
                raise self._refused(error) from error

    def _step(self) -> _Wait | None:
        """Go on as far as nothing has to be waited for: what has to be then, `None` once the connection is open."""
        try:
            return next(self._way)
        except StopIteration as opened:
            if opened.value is not None:
                self._opened = opened.value
            elif self._opened is None:
                raise self._failed or ConnectError(self._host, self._port, "it was given up before") from None
            return None
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> ConnectError:
        """Whatever the system refuses: a descriptor, most likely."""
        self._way.close()
        return ConnectError(self._host, self._port, streams.in_words(error))

    def abandon(self) -> None:
        """Give it up and leave nothing behind; but a connection that `come_back` has returned is its caller's."""
        self.come_back()
        self._way.close()

    def disown(self) -> None:
        """Forget it in a forked child, without a word on the wire: it is the parent's."""
        if self._ahead is not None:
            self._ahead.disown()  # its thread does not exist here
        for sock in list(self._sockets):
            sock.close()  # this process's copy; the parent's stays open

    def _go(self) -> Generator[_Wait, None, Connection]:
        try:
            addresses = yield from self._look_up()
            self.stage = "the peer answered"
            sock = yield from self._connect(addresses)
            tls = None
            if self._tls is not None:
                self.stage = "the TLS handshake was over"
                tls = yield from self._shake_hands(sock, self._tls.begin())
            # Its socket stays in the set: a fork may come before anybody else knows of it.
            return Connection(sock, clocks=self._clocks, tls=tls)
        except BaseException:  # failed, or abandoned: nothing stays behind
            for sock in self._sockets:
                sock.close()
            raise

    def _look_up(self) -> Generator[_Wait, None, list[_Address]]:
        try:
            return _resolve(self._host, self._port, socket.AI_NUMERICHOST)
        except OSError:
            pass  # no address, so a name
        found: list[list[_Address] | OSError] = []
        ours, theirs = socket.socketpair()

        def work() -> None:
            try:
                found.append(_resolve(self._host, self._port))
            except OSError as error:
                found.append(error)
            finally:
                # Makes `ours` readable, in whatever event loop that is waited for. A mere `close` would not while
                # there are copies: a child that is forked meanwhile has one, and nobody who closes it.
                with contextlib.suppress(OSError):  # nobody waits any more
                    theirs.shutdown(socket.SHUT_RDWR)
                theirs.close()

        with ours:
            try:
                # Not an event loop's executor: that is joined, however long the resolver blocks, when its loop ends.
                threading.Thread(target=work, name="emitter-lookup", daemon=True).start()
            except RuntimeError as error:  # no thread can be started, at the interpreter's exit or at a limit
                theirs.close()
                raise ConnectError(self._host, self._port, str(error)) from error
            while not _is_ready(ours, select.POLLIN):
                yield _Wait(readable=(ours,))
        result = found[0]
        if isinstance(result, OSError):
            raise ConnectError(self._host, self._port, streams.in_words(result)) from result
        return result

    def _connect(self, addresses: Iterable[_Address]) -> Generator[_Wait, None, socket.socket]:
        """The first of several attempts to succeed; the next begins when one fails, or after `ATTEMPT_DELAY`."""
        left = list(addresses)[::-1]
        attempts: list[socket.socket] = []
        cause = "the name has no address"
        next_at = self._clocks.monotonic()
        while True:
            for sock in list(attempts):
                if not _is_ready(sock, select.POLLOUT):
                    continue
                error = kernel.error_of(sock)
                if not error:
                    self._drop(attempts, sock)
                    self.round_trip = kernel.round_trip(sock)
                    return sock
                cause = error
                attempts.remove(sock)
                self._close(sock)
                next_at = self._clocks.monotonic()
            if left and self._clocks.monotonic() >= next_at:
                try:
                    attempts.append(self._attempt(*left.pop()))
                    next_at = self._clocks.monotonic() + ATTEMPT_DELAY
                except OSError as refused:  # at once: no route, no such family, no descriptor
                    cause = streams.in_words(refused)
            elif attempts:
                yield _Wait(writable=tuple(attempts), until=next_at if left else None)
            elif not left:
                raise ConnectError(self._host, self._port, cause)

    def _attempt(self, family: int, address: tuple[Any, ...]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.add(sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = sock.connect_ex(address)
            if number not in {0, errno.EINPROGRESS}:
                raise OSError(number, os.strerror(number))
        except BaseException:  # whatever it is: the socket is nobody's yet
            self._close(sock)
            raise
        return sock

    def _drop(self, attempts: list[socket.socket], winner: socket.socket) -> None:
        for sock in attempts:
            if sock is not winner:
                self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._sockets.discard(sock)
        sock.close()

    def _shake_hands(self, sock: socket.socket, tls: Tls) -> Generator[_Wait, None, Tls]:
        wire = b""
        try:
            while True:
                yield from _write(sock, tls.handshake(wire))
                if tls.established:
                    return tls
                wire = yield from _read(sock)
                if not wire:
                    raise TlsError(self._host, self._port, "the peer closed in the middle of the TLS handshake")
                self.round_trip = kernel.round_trip(sock)
        except TlsError:
            with contextlib.suppress(OSError):  # tells the peer why, if it can still be told
                sock.send(tls.owed())
            raise
        except OSError as error:
            cause = f"{streams.in_words(error)}, in the middle of the TLS handshake"
            raise TlsError(self._host, self._port, cause) from error


def _resolve(host: str, port: int, flags: int = 0) -> list[_Address]:
    """Addresses in the resolver's order, but with the families taking turns (RFC 8305, 4)."""
    # As bytes: a `str` would load Python's codec for international names, 4 ms for a name that is ASCII already.
    name = host.encode()
    found = [
        (family, address)
        for family, _, _, _, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    ]
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each][:LIMIT_ADDRESSES]


def _is_ready(sock: socket.socket, event: int) -> bool:
    """Whether a socket can be read or written (or is broken): for one that connects, whether that is decided."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(0))


def _write(sock: socket.socket, wire: bytes) -> Generator[_Wait, None, None]:
    while wire:
        if _is_ready(sock, select.POLLOUT):
            wire = wire[sock.send(wire) :]
        else:
            yield _Wait(writable=(sock,))


def _read(sock: socket.socket) -> Generator[_Wait, None, bytes]:
    while not _is_ready(sock, select.POLLIN):
        yield _Wait(readable=(sock,))
    return sock.recv(_READ_BYTES)
