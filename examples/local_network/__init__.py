"""Owns a small network on this machine: a sandbox's host and a receiver's host, and the link between them.

Each host is a network namespace with a TAP device and a TCP of its own; a forwarder of ours, a process, carries frames
between the two devices. It can delay, drop and reorder them, and cut the sandbox's side of the link. Knows nothing of
what the hosts talk about.

    async with LocalNetwork(round_trip=0.02) as network:
        listener = network.receiver.run(lambda: socket.create_server((network.receiver.address, 0)))
        async with LocalLambda("my_module.handler", machine=network.sandbox) as sandbox:
            await sandbox.invoke()      # and its whole machine is frozen again
            await network.deliver()     # what was on its way has arrived; what was not stays behind

**Freezing a machine** is cutting its link *and* stopping its process, in this order. The cut is the moment of the
freeze: what the kernel has transmitted by then goes on its way, what it puts into its device's queue later stays there,
as in a paused machine's, and what comes for it waits before it. What the process still does in the millisecond until it
stops cannot be seen from outside: as if it did it after the thaw. In the other order the kernel of a stopped process
would go on receiving acknowledgements and transmitting by them, which a paused machine does not. Thawing is the
reverse, but link first as well: a thawed kernel serves its devices before its processes.

What it does not show: the kernel's timers and clocks go on during a freeze. A retransmission that falls due then leaves
at the thaw, where a paused machine's timer would fire. Linux only, and it needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

__all__ = ["Host", "LocalNetwork", "LocalNetworkError", "SandboxHost", "why_not"]

_T = TypeVar("_T")

_SANDBOX_ADDRESS, _RECEIVER_ADDRESS = "192.0.2.1", "192.0.2.2"
"""For examples and tests (RFC 5737). Every network has the same two: nothing can come out of its namespaces."""

_DEVICE = "link"

_SETTINGS = (
    # Cubic is Linux's own default, and Lambda's; where the machine does not allow it inside a namespace there is Reno,
    # which is allowed everywhere and starts in the same way. Some machines have BBR instead, which paces even the
    # first flight and lets the pipe run empty for 0.2 s every ten seconds (PROBE_RTT): not what is looked at here.
    ("ipv4/tcp_congestion_control", "reno"),
    ("ipv4/tcp_congestion_control", "cubic"),
    # Each connection begins like the first: nothing remembered of the ones before.
    ("ipv4/tcp_no_metrics_save", "1"),
    # Quiet devices: no router solicitations, no duplicate address detection.
    ("ipv6/conf/default/disable_ipv6", "1"),
)

_PATIENCE_SECONDS = 10.0
"""The forwarder answers within a millisecond; one that has not after this long never will."""

_ANSWER_BYTES = 4096

_NEEDED = "needed are root and, in a container, --cap-add NET_ADMIN --cap-add SYS_ADMIN --device /dev/net/tun"


class LocalNetworkError(Exception):
    """The forwarder has ended, or does not answer."""


class Host:
    """One end of a network.

    Attributes:
        address: Its IP address.
    """

    def __init__(self, namespace: Namespace, address: str) -> None:
        self._namespace = namespace
        self.address = address

    def run(self, function: Callable[[], _T]) -> _T:
        """Call a function on this host: the sockets it makes and the processes it starts belong to the host."""
        return self._namespace.run(function)


class SandboxHost(Host):
    """The end that can be frozen; what `LocalLambda` takes for its machine."""

    def __init__(self, namespace: Namespace, address: str, network: LocalNetwork) -> None:
        super().__init__(namespace, address)
        self._network = network

    async def freeze(self) -> None:
        """Cut its side of the link. To be called before its process is stopped."""
        await self._network.cut()

    async def thaw(self) -> None:
        """Mend its side of the link. To be called before its process is continued."""
        await self._network.mend()


class LocalNetwork:
    """Two hosts and a link, to be used as an asynchronous context manager.

    Args:
        round_trip: Seconds there and back, half of it on each way.

    Attributes:
        sandbox: The host of the sandbox.
        receiver: The host of the receiver.

    Raises:
        OSError: On entering, where namespaces or TAP devices are not permitted.
    """

    def __init__(self, *, round_trip: float = 0.0) -> None:
        self._round_trip = round_trip
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            namespaces = []
            for _ in range(2):
                namespaces.append(Namespace(_SETTINGS))
                stack.callback(namespaces[-1].close)
            self.sandbox = SandboxHost(namespaces[0], _SANDBOX_ADDRESS, self)
            self.receiver = Host(namespaces[1], _RECEIVER_ADDRESS)
            self._namespaces = namespaces
            self._start(stack)
            await self.shape(
                out={"delay": self._round_trip / 2},
                back={"delay": self._round_trip / 2},
            )
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    @property
    def pid(self) -> int:
        """The id of the forwarder's process."""
        return self._process.pid

    @property
    def inodes(self) -> tuple[int, ...]:
        """What the kernel calls the two namespaces."""
        return tuple(namespace.inode for namespace in self._namespaces)

    @property
    def congestion_control(self) -> str:
        """The algorithm with which the sandbox's kernel decides how much may be under way."""
        return self._namespaces[0].setting("ipv4/tcp_congestion_control")

    async def shape(self, *, out: Mapping[str, float] | None = None, back: Mapping[str, float] | None = None) -> None:
        """Change how frames travel, from the next one on.

        Args:
            out: From the sandbox to the receiver: `delay`, `drop_every`, `late_every`, `late_by`, as
                `forwarder.Path` explains them. What is not named stays as it is.
            back: From the receiver to the sandbox.
        """
        await self._ask("shape", out=dict(out or {}), back=dict(back or {}))

    async def cut(self) -> None:
        """Cut the sandbox's side: what it has transmitted goes on its way; from now on nothing leaves or reaches it.

        Done when it returns. What the sandbox's kernel transmits and what comes for it meanwhile waits for `mend`.
        """
        await self._ask("cut")

    async def mend(self) -> None:
        """Take back the cut."""
        await self._ask("mend")

    async def deliver(self) -> None:
        """Wait until nothing is on its way to the receiver: what had left the sandbox is in the receiver's kernel."""
        await self._ask("deliver")

    async def counts(self) -> dict[str, dict[str, int]]:
        """What has passed so far, `out` and `back`: frames `taken`, `dropped`, `late`, `delivered`; `largest_bytes`."""
        answer = await self._ask("count")
        return {"out": answer["out"], "back": answer["back"]}

    def _start(self, stack: contextlib.AsyncExitStack) -> None:
        """Join the hosts: a device in each, and the forwarder between them, which alone holds on to the devices."""
        control, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = stack.enter_context(control)
        self._control.setblocking(False)
        self._log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        with contextlib.ExitStack() as handed_over:
            handed_over.enter_context(other_end)
            hardware_addresses, descriptors = [], []
            for namespace, host in zip(self._namespaces, (self.sandbox, self.receiver), strict=True):
                tap, hardware_address = namespace.add_tap(_DEVICE, host.address)
                handed_over.callback(os.close, tap)
                descriptors.append(tap)
                hardware_addresses.append(hardware_address)
            self._namespaces[0].add_neighbour(_DEVICE, self.receiver.address, hardware_addresses[1])
            self._namespaces[1].add_neighbour(_DEVICE, self.sandbox.address, hardware_addresses[0])
            descriptors.append(other_end.fileno())
            forwarder = Path(__file__).with_name("forwarder.py")
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own file
                # Isolated and without `site`: it needs nothing but the standard library, and starts in half the time.
                [sys.executable, "-I", "-S", str(forwarder), *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the one who made the network, who then ends it
            )
        stack.callback(self._end)

    def _end(self) -> None:
        self._process.kill()  # it has nothing to tidy up: the devices end with it
        self._process.wait(_PATIENCE_SECONDS)

    async def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Ask the forwarder for something, and return when it is done."""
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        async with self._lock:
            try:
                await loop.sock_sendall(self._control, json.dumps({"number": number, "do": what, **more}).encode())
                while True:
                    packet = await asyncio.wait_for(loop.sock_recv(self._control, _ANSWER_BYTES), _PATIENCE_SECONDS)
                    answer = json.loads(packet) if packet else None
                    if answer is None:
                        raise LocalNetworkError(f"the forwarder has ended\n{self._error_output()}")
                    if answer["number"] == number:
                        return answer
                    # Otherwise it answers a request whose maker was cancelled.
            except (ConnectionError, asyncio.TimeoutError) as error:
                raise LocalNetworkError(f"the forwarder does not answer\n{self._error_output()}") from error

    def _error_output(self) -> str:
        return os.pread(self._log.fileno(), _ANSWER_BYTES, 0).decode(errors="replace")


@functools.cache
def why_not() -> str | None:
    """Find out whether a network can be made here, by making the parts that need permission.

    Returns:
        `None` if it can; otherwise what stands in the way.
    """
    if sys.platform != "linux":
        return "network namespaces are Linux only"
    what = "network namespaces are not permitted"
    try:
        with contextlib.closing(Namespace()) as namespace:
            what = "TAP devices are not permitted or not available"
            tap, _ = namespace.add_tap(_DEVICE, _SANDBOX_ADDRESS)
            os.close(tap)
    except OSError as error:
        return f"{what} ({error.strerror}); {_NEEDED}"
    return None
