"""Owns a place on the network whose packets can be swallowed: two namespaces joined by a virtual cable.

The address of the far end stays known all the time; what changes is the link-layer address that it is said to have.
A frame for nobody's is dropped without a word by whoever gets it: no reset, no ICMP, nothing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cable", "enter", "laid", "why_not"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NEAR, _FAR = "10.213.0.1", "10.213.0.2"
_NEAR_LINK, _FAR_LINK, _NOBODYS_LINK = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:99"


class Cable:
    """The two ends.

    Attributes:
        near: The namespace of whoever emits.
        far: The namespace of the receiver.
        address: Of the far end.
    """

    def __init__(self, name: str) -> None:
        self.near, self.far = f"{name}-near", f"{name}-far"
        self.address = _FAR

    def swallow(self, *, everything: bool) -> None:
        """Let what the near end writes vanish, or arrive again."""
        link = _NOBODYS_LINK if everything else _FAR_LINK
        _ip("-n", self.near, "neighbour", "replace", _FAR, "lladdr", link, "dev", "cable", "nud", "permanent")


def why_not() -> str:
    """Why no cable can be laid here; empty if it can."""
    if shutil.which("ip") is None:
        return "install iproute2 for network namespaces"
    name = f"emitter-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted: {error.stderr.strip()}"
    _ip("netns", "delete", name)
    return ""


@contextmanager
def laid() -> Iterator[Cable]:
    """Two namespaces and the cable, swallowing nothing yet; all gone afterwards."""
    cable = Cable(f"emitter-{os.getpid()}")
    with ExitStack() as stack:
        for namespace in (cable.near, cable.far):
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "delete", namespace)
        _ip("-n", cable.near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", cable.far)
        for namespace, address, link, other, other_link in (
            (cable.near, _NEAR, _NEAR_LINK, _FAR, _FAR_LINK),
            (cable.far, _FAR, _FAR_LINK, _NEAR, _NEAR_LINK),
        ):
            _ip("-n", namespace, "link", "set", "cable", "address", link)
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "cable")
            _ip("-n", namespace, "link", "set", "cable", "up")
            _ip("-n", namespace, "neighbour", "add", other, "lladdr", other_link, "dev", "cable", "nud", "permanent")
        yield cable


@contextmanager
def enter(namespace: str) -> Iterator[None]:
    """Let this thread, and no other, make its sockets in a namespace; sockets stay where they were made."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path("/run/netns", namespace).open("rb") as there:
        _set(there.fileno())
        try:
            yield
        finally:
            _set(home.fileno())


def _set(namespace_fd: int) -> None:
    # `os.setns` came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*arguments: str) -> None:
    program = shutil.which("ip") or "ip"
    subprocess.run([program, *arguments], check=True, capture_output=True, text=True, timeout=10)
