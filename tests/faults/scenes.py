"""Owns where a row plays: the endpoint, the peer behind it, and how the fault ends."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.faults import namespaces, server
from tests.faults.rows import Row, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.receiver import Known
    from tests.faults.server import Peers

__all__ = ["Scene", "set_up"]

_NAME = "receiver.test"  # RFC 6761, 6.2: never resolves anywhere
_SECOND_ADDRESS = "127.0.0.2"

_PORT = 4318
"""In a namespace of its own any port is free; this is OTLP's."""


class Scene:
    """A fault that lasts.

    Args:
        peers: The process with the peer.
        number: The peer that is a sound receiver in the end.
        endpoint: What to give to the emitter.
        end: What ends the fault.

    Attributes:
        endpoint: As given.
        ssl_context: For an emitter that trusts the authority of the peers.
    """

    def __init__(self, peers: Peers, number: int, endpoint: str, end: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self.ssl_context = _trusting(peers.authority_pem) if endpoint.startswith("https") else None
        self.wait_for_misbehaviour = peers.wait_for_misbehaviour
        self.end = end
        self._peers = peers
        self._number = number

    def known(self, name: str, value: int, seconds: float) -> Known:
        """What the receiver knows as soon as a metric has got to a value, or the time is over."""
        return self._peers.known(self._number, name, value, seconds)


@contextmanager
def set_up(row: Row, peers: Peers) -> Iterator[Scene]:
    """The scene of a row, gone afterwards."""
    try:
        if row.way is Way.ADDRESS:
            number, port = peers.open(row.fault, tls=row.tls, small_buffers=row.big)
            yield Scene(peers, number, _url(row, "127.0.0.1", port), lambda: peers.end(number))
        elif row.way is Way.CABLE:
            with namespaces.laid() as cable:
                number, _ = peers.open("sound", address=cable.address, port=_PORT, namespace=cable.far)
                cable.swallow(everything=True)
                with namespaces.enter(cable.near):
                    yield Scene(peers, number, _url(row, cable.address, _PORT), lambda: cable.swallow(everything=False))
        else:
            with _named(row, peers) as scene:
                yield scene
    finally:
        peers.dismiss()


@contextmanager
def _named(row: Row, peers: Peers) -> Iterator[Scene]:
    """Only the resolver is ours; the addresses, and who is behind them, are real."""
    number, port = peers.open("sound")
    live = _found("127.0.0.1", port)
    ended = threading.Event()

    def end() -> None:
        ended.set()
        if row.way in {Way.FIRST_REFUSES, Way.FIRST_SWALLOWS}:
            peers.end(dead)

    def resolve(*_: Any) -> list[tuple[Any, ...]]:
        if row.way is Way.NO_SUCH_NAME and not ended.is_set():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if row.way is Way.HANGING_NAME:
            ended.wait()
        return [live]

    if row.way in {Way.FIRST_REFUSES, Way.FIRST_SWALLOWS}:
        fault = server.REFUSED if row.way is Way.FIRST_REFUSES else server.FULL
        dead, _ = peers.open(fault, address=_SECOND_ADDRESS, port=port)

        def resolve(*_: Any) -> list[tuple[Any, ...]]:
            # Once it is alive again, its totals are not the other's: it is the first that is left out then.
            return [live] if ended.is_set() else [_found(_SECOND_ADDRESS, port), live]

    systems = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        numeric = named.get("flags", 0) & socket.AI_NUMERICHOST
        return resolve() if host == _NAME.encode() and not numeric else systems(host, *arguments, **named)

    with mock.patch("socket.getaddrinfo", getaddrinfo):
        try:
            yield Scene(peers, number, _url(row, _NAME, port), end)
        finally:
            ended.set()


def _found(address: str, port: int) -> tuple[Any, ...]:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


def _url(row: Row, host: str, port: int) -> str:
    return f"{'https' if row.tls else 'http'}://{host}:{port}/v1/metrics"


def _trusting(authority_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority_pem)
    context.set_alpn_protocols(["http/1.1"])
    return context
