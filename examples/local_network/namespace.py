"""Owns one network namespace: made without a name, entered by a thread, configured through the kernel's own calls.

A namespace that has no name ends with the last process or descriptor in it, so nothing can stay behind, however this
process ends. Linux only; needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN). Knows nothing of links, sandboxes or receivers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Namespace"]

_T = TypeVar("_T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h

# linux/if_tun.h, linux/if.h, linux/sockios.h, linux/if_arp.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFF_UP = 0x0001
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8916, 0x891C, 0x8913, 0x8914
_SIOCGIFHWADDR, _SIOCSARP = 0x8927, 0x8955
_ATF_COMPLETE, _ATF_PERMANENT = 0x02, 0x04
_ETHERNET = 1
_NETMASK = "255.255.255.0"

_SYSCTL = Path("/proc/sys/net")
"""Shows every thread the settings of its own namespace."""


class Namespace:
    """One network namespace with nothing in it but a loopback device that is up.

    Args:
        settings: What to write below `/proc/sys/net`, in order and as far as this machine lets us: names and values,
            such as `("ipv4/tcp_sack", "0")`.

    Raises:
        OSError: This process may not make one, or may not configure it.
    """

    def __init__(self, settings: Sequence[tuple[str, str]] = ()) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)  # `os.setns` exists from Python 3.12 on
        self._descriptor = _in_a_thread(self._make)
        try:
            self.run(lambda: self._configure(settings))
        except BaseException:
            self.close()
            raise

    @property
    def inode(self) -> int:
        """What the kernel calls it, as in `net:[4026532000]`."""
        return os.fstat(self._descriptor).st_ino

    def run(self, function: Callable[[], _T]) -> _T:
        """Call a function inside, and return what it returns or raise what it raises.

        The sockets that it makes and the processes that it starts stay inside; the caller does not go in.
        """

        def inside() -> _T:
            if self._libc.setns(self._descriptor, _CLONE_NEWNET):
                raise _last_error()
            return function()

        return _in_a_thread(inside)

    def setting(self, name: str) -> str:
        """What is below `/proc/sys/net` under that name."""
        return self.run((_SYSCTL / name).read_text).strip()

    def add_tap(self, name: str, address: str) -> tuple[int, bytes]:
        """Add a TAP device that is up and has an address in a network of 254.

        Returns:
            The device's other end, a non-blocking descriptor for whole Ethernet frames of at most 1,514 bytes (the
            device does no segmentation of its own, so the kernel does it before); the device lives as long as it.
            And the device's hardware address.
        """
        return self.run(lambda: _make_tap(name, address))

    def add_neighbour(self, device: str, address: str, hardware_address: bytes) -> None:
        """Make known for good who has an address, so that nobody has to ask in the middle of an experiment."""
        # struct arpreq: two addresses, flags, a third address, the name of the device.
        neighbour = struct.pack(
            "@16s H14s i 16x 16s",
            _in_sockaddr(address),
            _ETHERNET,
            hardware_address,
            _ATF_COMPLETE | _ATF_PERMANENT,
            device.encode(),
        )
        self.run(lambda: _ioctl(_SIOCSARP, neighbour))

    def close(self) -> None:
        """Let go of it; it ends once nobody is inside any more."""
        os.close(self._descriptor)

    def _make(self) -> int:
        if self._libc.unshare(_CLONE_NEWNET):
            raise _last_error()
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _configure(self, settings: Sequence[tuple[str, str]]) -> None:
        for name, value in settings:
            # In some containers /proc/sys cannot be written to, and some values are for the whole machine's
            # administrator only; whoever needs to know reads the setting back.
            with contextlib.suppress(OSError):
                (_SYSCTL / name).write_text(value)
        _raise_up("lo")


def _in_a_thread(function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own: a thread can change its namespace, and this one is not used again."""
    outcome: list[tuple[_T | None, BaseException | None]] = []

    def call() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            outcome.append((None, error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # there was no error, so it is what the function returned


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _make_tap(name: str, address: str) -> tuple[int, bytes]:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, _NETMASK)):
            _ioctl(request, struct.pack("16s16s8x", name.encode(), _in_sockaddr(value)))
        _raise_up(name)
        return tap, _ioctl(_SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))[18:24]
    except BaseException:
        os.close(tap)
        raise


def _raise_up(device: str) -> None:
    (flags,) = struct.unpack_from("H", _ioctl(_SIOCGIFFLAGS, struct.pack("16s24x", device.encode())), 16)
    _ioctl(_SIOCSIFFLAGS, struct.pack("16sH22x", device.encode(), flags | _IFF_UP))


def _ioctl(request: int, argument: bytes) -> bytes:
    """Ask the namespace that the thread is in; any socket will do for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, request, argument)


def _in_sockaddr(address: str) -> bytes:
    return struct.pack("@H2x4s8x", socket.AF_INET, socket.inet_aton(address))
