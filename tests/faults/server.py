"""Owns the process of the peers: listens, runs a fault's script for each connection, and ends the fault when told.

In a process of its own, so that its work is not in the times and the memory of the handler, and told what to do over
a pipe: `Peers` is the handle on it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

from tests.faults import misbehaviour, namespaces, tls_misbehaviour
from tests.faults.call import Call, Ending
from tests.faults.receiver import Gone, Known, Receiver, Totals

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from multiprocessing.connection import Connection

__all__ = ["FULL", "REFUSED", "Peers"]

REFUSED = "refused"
"""Not a script: nobody listens."""

FULL = "full backlog"
"""Not a script: nobody accepts, and there is no room for another connection, so the kernel drops each SYN."""

_BACKLOG = 64
_SMALL_BUFFER_BYTES = 4096
_PATIENCE = 10.0
"""Seconds that the other process may take to do what it was told."""


class _Peer:
    """One port: first a fault, and once that has ended a sound receiver."""

    def __init__(self, fault: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None, events: Connection) -> None:
        self._fault = fault
        self._contexts = contexts  # while misbehaving, and afterwards
        self._events = events
        self._ending = Ending()
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._fillers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closed = Ending()
        self._listener: socket.socket
        self.receiver = Receiver()

    def listen(self, address: str, port: int, *, small_buffers: bool) -> int:
        """Begin; the port."""
        listener = self._listener = socket.socket()  # made here: it belongs to the namespace of the moment
        if small_buffers:  # before `listen`, so that the window is that small from the start
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        port = listener.getsockname()[1]
        if self._fault == FULL:
            listener.listen(0)
            # Linux lets one more in than the backlog says, and drops the SYN of any other.
            self._fillers.append(socket.create_connection((address, port), timeout=_PATIENCE))
        elif self._fault != REFUSED:
            self._accept()
        return int(port)

    def end(self) -> None:
        """From now on the port is a sound receiver's. Connections of the fault are cut, unless it carries them on."""
        with self._lock:
            self._ending.announce()
            calls = list(self._calls)
        for call in calls:
            if not call.carries_on:
                call.cut()
        for filler in self._fillers:
            filler.close()
        if self._fault in {REFUSED, FULL}:
            self._accept()

    def close(self) -> None:
        """Close everything."""
        self.end()
        self._closed.announce()
        for call in list(self._calls):
            call.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._closed.close()
        self._ending.close()

    def _accept(self) -> None:
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._start(self._accept_until_closed)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept_until_closed(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._closed, 0)
        while not self._closed.come:
            poll.poll()
            with contextlib.suppress(OSError):  # it was reset before it was accepted; or we are closing
                sock = self._listener.accept()[0]
                self._start(self._converse, sock)

    def _converse(self, sock: socket.socket) -> None:
        call = Call(sock, self._ending, self._note)
        with self._lock:
            sound = self._ending.come
            self._calls.add(call)
        try:
            with contextlib.suppress(Gone, OSError):
                self._play("sound" if sound else self._fault, call, sound=sound)
        finally:
            with contextlib.suppress(OSError):
                call.socket.close()
            with self._lock:
                self._calls.discard(call)

    def _play(self, script: str, call: Call, *, sound: bool) -> None:
        if self._contexts is None:
            misbehaviour.SCRIPTS[script](call, self.receiver)
        elif script in tls_misbehaviour.SCRIPTS:
            tls_misbehaviour.SCRIPTS[script](call, self.receiver, self._contexts[0])
        else:
            call.shake_hands(self._contexts[1 if sound else 0])
            misbehaviour.SCRIPTS[script](call, self.receiver)

    def _note(self) -> None:
        with contextlib.suppress(OSError), self._lock:  # whoever asked has gone
            self._events.send_bytes(b".")


def _run(orders: Connection, events: Connection) -> None:
    """What the process does: one order at a time, each with one answer."""
    authority = tls_misbehaviour.Authority()
    orders.send(authority.pem)
    peers: list[_Peer] = []
    while True:
        try:
            order, arguments = orders.recv()
        except EOFError:
            return
        if order == "open":
            fault, tls, address, port, namespace, small_buffers = arguments
            contexts = (authority.context(fault), authority.context("sound")) if tls else None
            peer = _Peer(fault, contexts, events)
            with namespaces.enter(namespace) if namespace else contextlib.nullcontext():
                port = peer.listen(address, port, small_buffers=small_buffers)
            peers.append(peer)
            orders.send((len(peers) - 1, port))
        elif order == "end":
            peers[arguments].end()
            orders.send(None)
        elif order == "known":
            number, name, value, seconds = arguments
            orders.send(peers[number].receiver.wait(_grown_to(name, value), seconds))
        elif order == "dismiss":
            while peers:
                peers.pop().close()
            orders.send(None)


def _grown_to(name: str, value: int) -> Callable[[Totals], bool]:
    return lambda totals: sum(totals.get(name, {}).values()) >= value


class Peers:
    """The handle on the process, for `contextlib.closing`."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._orders, theirs = spawn.Pipe()
        self._events, their_events = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_run, args=(theirs, their_events), daemon=True)
        self._process.start()
        theirs.close()
        their_events.close()
        self.authority_pem: str = self._answer()

    def close(self) -> None:
        """End the process."""
        self._orders.close()
        self._events.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_PATIENCE)
        self._process.close()

    def open(
        self,
        fault: str,
        *,
        tls: bool = False,
        address: str = "127.0.0.1",
        port: int = 0,
        namespace: str = "",
        small_buffers: bool = False,
    ) -> tuple[int, int]:
        """Let a peer misbehave: its number here, and its port."""
        number, port = self._order("open", (fault, tls, address, port, namespace, small_buffers))
        return number, port

    def end(self, number: int) -> None:
        """Let it be a sound receiver, on the same port."""
        self._order("end", number)

    def known(self, number: int, name: str, value: int, seconds: float) -> Known:
        """What it knows as soon as a metric has got to a value, or the time is over."""
        known: Known = self._order("known", (number, name, value, seconds))
        return known

    def dismiss(self) -> None:
        """Close all peers; the process stays for others."""
        self._order("dismiss", None)
        self.wait_for_misbehaviour(0)

    def wait_for_misbehaviour(self, seconds: float) -> bool:
        """Wait until a peer has done its worst once more, or the time is over; whether it has."""
        happened = False
        while self._events.poll(0 if happened else seconds):
            self._events.recv_bytes()
            happened = True
        return happened

    def _order(self, order: str, arguments: object) -> Any:
        self._orders.send((order, arguments))
        return self._answer()

    def _answer(self) -> Any:
        if not self._orders.poll(_PATIENCE):
            raise TimeoutError("the process of the peers does not answer")
        return self._orders.recv()
