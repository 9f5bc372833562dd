"""Owns what the kernel knows of a TCP connection: its queues, its round trip, its error. Never writes or waits.

Linux keeps two numbers for each connection (`net/ipv4/tcp.c`, `tcp_ioctl`; tcp(7)):

    SIOCOUTQ     written and not yet acknowledged by the peer
    SIOCOUTQNSD  written and not yet transmitted at all: held back by the congestion or the receive window

macOS has only the first (`SO_NWRITE`), so there TRANSMITTED is told only together with ACKNOWLEDGED. Elsewhere
nothing beyond BUFFERED can be told.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from fcntl import ioctl
from typing import NamedTuple

from emitter.transmit.delivery import Delivery

__all__ = ["BEST_KNOWN", "Queues", "announce_when_transmitted", "error_of", "queues", "reached", "round_trip"]

_SIOCOUTQ = 0x5411
_SIOCOUTQNSD = 0x894B
_SO_NWRITE = 0x1024  # macOS, sys/socket.h
_INT = struct.Struct("i")
_ZERO = bytes(_INT.size)

_TCP_INFO_RTT_OFFSET = 68  # struct tcp_info, linux/tcp.h: tcpi_rtt, a u32 in microseconds
_TCP_INFO_BYTES = 72

BEST_KNOWN = Delivery.ACKNOWLEDGED if sys.platform in {"linux", "darwin"} else Delivery.BUFFERED
"""The highest level that this kernel can tell; ANSWERED is not the kernel's business."""


class Queues(NamedTuple):
    """What the kernel still holds of what was written, in bytes; 0 where it cannot tell."""

    untransmitted: int
    unacknowledged: int


def queues(sock: socket.socket) -> Queues:
    """Both queues of a connected socket.

    Raises:
        OSError: The socket is closed, or not a connected TCP socket.
    """
    if sys.platform == "linux":
        return Queues(_ask(sock, _SIOCOUTQNSD), _ask(sock, _SIOCOUTQ))
    if sys.platform == "darwin":  # pragma: no cover  tested on macOS only
        unacknowledged = sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
        return Queues(unacknowledged, unacknowledged)
    return Queues(0, 0)  # pragma: no cover  no such platform is tested


def reached(sock: socket.socket, wanted: Delivery) -> Delivery:
    """How far everything written to the socket got, asking no more than `wanted` needs.

    Raises:
        OSError: The socket is closed, or not a connected TCP socket.
    """
    if wanted is Delivery.TRANSMITTED and sys.platform == "linux":
        # The question of nearly every flush: one system call answers it.
        return Delivery.TRANSMITTED if ioctl(sock, _SIOCOUTQNSD, _ZERO) == _ZERO else Delivery.BUFFERED
    if wanted is Delivery.BUFFERED or BEST_KNOWN is Delivery.BUFFERED:
        return Delivery.BUFFERED
    untransmitted, unacknowledged = queues(sock)
    if untransmitted:
        return Delivery.BUFFERED
    return Delivery.TRANSMITTED if unacknowledged else Delivery.ACKNOWLEDGED


def _ask(sock: socket.socket, request: int) -> int:
    answer: int = _INT.unpack(ioctl(sock, request, _ZERO))[0]
    return answer


def announce_when_transmitted(sock: socket.socket, *, on: bool) -> None:
    """Let the socket count as writable only once (nearly) nothing untransmitted is left, which makes it an event.

    Up to one segment may still be there when it does: ask `queues` again. Only on while waiting, since the kernel
    takes less at a time from a writer under a low mark. 0 goes back to the system's default.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, int(on))


def round_trip(sock: socket.socket) -> float:
    """The smoothed round-trip time that TCP has measured, in seconds; 0 where it is unknown."""
    if sys.platform != "linux":  # pragma: no cover  other kernels lay this structure out differently
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:  # pragma: no cover  a kernel before 2.6
        return 0.0
    microseconds: int = struct.unpack_from("I", info, _TCP_INFO_RTT_OFFSET)[0]
    return microseconds / 1e6


def error_of(sock: socket.socket) -> str:
    """What broke the connection, in the operating system's words; empty if nothing did."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return os.strerror(number) if number else ""
