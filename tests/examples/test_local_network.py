from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.local_network import LocalNetwork, LocalNetworkError, why_not
from examples.local_network.forwarder import Link

if TYPE_CHECKING:
    from collections.abc import Iterable

    from examples.local_network import Host

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

PATIENCE = 20.0
"""Seconds that a test waits at most for what should take milliseconds."""

PORT = 4318


def datagrams(host: Host) -> socket.socket:
    """A UDP socket on a host; each datagram is one frame."""
    end = host.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    end.setblocking(False)
    end.bind((host.address, PORT))
    return end


async def received(end: socket.socket, count: int) -> list[int]:
    """The numbers in the next datagrams, in order of arrival."""
    loop = asyncio.get_running_loop()
    return [int(await asyncio.wait_for(loop.sock_recv(end, 100), PATIENCE)) for _ in range(count)]


def transmit(end: socket.socket, to: Host, numbers: Iterable[int]) -> None:
    """One datagram for each number."""
    for number in numbers:
        end.sendto(b"%d" % number, (to.address, PORT))


async def connection(network: LocalNetwork) -> tuple[socket.socket, socket.socket]:
    """A TCP connection: the sandbox's end and the receiver's."""
    loop = asyncio.get_running_loop()
    host = network.receiver
    listener = host.run(lambda: socket.create_server((host.address, 0)))
    ours = network.sandbox.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    with listener:
        listener.setblocking(False)
        ours.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(ours, listener.getsockname()), PATIENCE)
        theirs, _ = await asyncio.wait_for(loop.sock_accept(listener), PATIENCE)
    return ours, theirs


def unread(end: socket.socket) -> int:
    """How many bytes are in a socket's kernel to be read."""
    return struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, bytes(4)))[0]


async def round_trips(network: LocalNetwork, at_least: float) -> list[float]:
    """Some, in seconds, until one is hardly longer than that: the others were held up by something else."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    with datagrams(network.sandbox) as ours, datagrams(network.receiver) as theirs:
        while len(times) < 3 or (min(times) > 1.25 * at_least and len(times) < 50):
            number = len(times)
            begin = loop.time()
            transmit(ours, network.receiver, [number])
            assert await received(theirs, 1) == [number]
            transmit(theirs, network.sandbox, [number])
            assert await received(ours, 1) == [number]
            times.append(loop.time() - begin)
    return times


def holders(inodes: Iterable[int]) -> list[str]:
    """Processes and descriptors that keep one of these namespaces alive."""
    names = {f"net:[{inode}]" for inode in inodes}
    found = []
    for path in [*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")]:
        with contextlib.suppress(OSError):  # it has just ended
            if str(path.readlink()) in names:
                found.append(str(path))
    return found


def descriptors() -> list[str]:
    """What the descriptors of this process are for, without the one that looks."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that one
            found.append(str(path.readlink()))
    return sorted(name for name in found if not name.endswith("/fd"))


async def test_a_frame_takes_half_of_the_round_trip_on_each_way():
    """None is shorter than was asked for, and on a machine that has a moment's rest none is much longer."""
    for asked in (0.1, 0.4):
        async with LocalNetwork(round_trip=asked) as network:
            seconds = await round_trips(network, asked)

        assert asked <= min(seconds) < 1.5 * asked


async def test_what_was_transmitted_before_the_cut_arrives_and_nothing_after_it():
    """Of 300 KB the first flight, ten segments, is on its way at the cut; the rest needs acknowledgements."""
    async with LocalNetwork(round_trip=0.4) as network:  # far longer than it takes to ask for the cut
        ours, theirs = await connection(network)
        with ours, theirs:
            ours.send(bytes(300_000))
            await network.cut()
            await network.deliver()
            arrived_bytes = unread(theirs)
            await network.deliver()
            acknowledged = (await network.counts())["back"]
            arrived_later_bytes = unread(theirs)

    assert 10_000 < arrived_bytes <= 10 * 1460
    assert arrived_later_bytes == arrived_bytes
    assert acknowledged["taken"] > acknowledged["delivered"]


def test_what_is_in_the_devices_queue_at_the_cut_had_left():
    """Even if the forwarder has not come to take it yet, and only then has it to be taken."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        (sandbox, device), (receiver, other_device), (control, other_end) = (
            (stack.enter_context(one), stack.enter_context(other)) for one, other in pairs
        )
        for each in (device, other_device, receiver):
            each.setblocking(False)
        link = Link(device.fileno(), other_device.fileno(), other_end)
        sandbox.send(b"before")
        control.send(b'{"number": 1, "do": "cut"}')
        link._obey()
        sandbox.send(b"after")
        control.send(b'{"number": 2, "do": "deliver"}')
        link._step()
        arrived, left = receiver.recv(100), unread(device)

    assert arrived == b"before"
    assert left > 0


async def test_what_is_transmitted_and_what_comes_during_a_cut_waits_until_it_is_mended():
    """As in the queues of a paused machine's device; in both directions, complete and in order."""
    async with LocalNetwork() as network:
        with datagrams(network.sandbox) as ours, datagrams(network.receiver) as theirs:
            transmit(ours, network.receiver, [1])
            assert await received(theirs, 1) == [1]
            await network.cut()
            transmit(ours, network.receiver, [2, 3])
            transmit(theirs, network.sandbox, [4, 5])
            await network.deliver()
            during = (await network.counts(), unread(ours), unread(theirs))
            await network.mend()
            after = (await received(theirs, 2), await received(ours, 2))

    assert (during[0]["out"]["delivered"], during[0]["back"]["delivered"]) == (1, 0)
    assert during[1:] == (0, 0)
    assert after == ([2, 3], [4, 5])


async def test_every_third_frame_is_dropped():
    """And no other, on the way that was named and on no other."""
    async with LocalNetwork() as network:
        await network.shape(out={"drop_every": 3})
        with datagrams(network.sandbox) as ours, datagrams(network.receiver) as theirs:
            transmit(ours, network.receiver, range(1, 10))
            transmit(theirs, network.sandbox, range(1, 10))
            out, back = await received(theirs, 6), await received(ours, 9)
            await network.deliver()
            counts = await network.counts()
            left = unread(theirs)

    assert out == [1, 2, 4, 5, 7, 8]
    assert back == list(range(1, 10))
    assert (counts["out"]["taken"], counts["out"]["dropped"], counts["back"]["dropped"]) == (9, 3, 0)
    assert left == 0


async def test_every_third_frame_is_overtaken_by_those_behind_it():
    """It arrives all the same, late."""
    async with LocalNetwork() as network:
        await network.shape(out={"late_every": 3, "late_by": 0.5})  # longer than the forwarder may be held up
        with datagrams(network.sandbox) as ours, datagrams(network.receiver) as theirs:
            transmit(ours, network.receiver, range(1, 9))
            arrived = await received(theirs, 8)
            counts = await network.counts()

    assert arrived == [1, 2, 4, 5, 7, 8, 3, 6]
    assert counts["out"]["late"] == 2


async def test_tcp_gets_through_a_link_that_drops_and_reorders():
    """The kernels at both ends are real ones: what arrives is what was written."""
    data = os.urandom(200_000)
    loop = asyncio.get_running_loop()
    async with LocalNetwork(round_trip=0.002) as network:
        ours, theirs = await connection(network)
        await network.shape(out={"drop_every": 13, "late_every": 5, "late_by": 0.002}, back={"drop_every": 17})
        with ours, theirs:
            writing = asyncio.create_task(loop.sock_sendall(ours, data))
            arrived = bytearray()
            while len(arrived) < len(data):
                arrived += await asyncio.wait_for(loop.sock_recv(theirs, 65536), PATIENCE)
            await writing
        counts = await network.counts()

    assert arrived == data
    assert counts["out"]["dropped"] > 0
    assert counts["out"]["late"] > 0


async def test_two_networks_at_the_same_time_know_nothing_of_each_other():
    """Same addresses, same ports, and each datagram comes out where it went in."""
    async with LocalNetwork() as one, LocalNetwork() as other:
        with contextlib.ExitStack() as stack:
            ours = [stack.enter_context(datagrams(network.sandbox)) for network in (one, other)]
            theirs = [stack.enter_context(datagrams(network.receiver)) for network in (one, other)]
            for number, (end, network) in enumerate(zip(ours, (one, other), strict=True)):
                transmit(end, network.receiver, [number])
            arrived = [await received(end, 1) for end in theirs]
            left = [unread(end) for end in theirs]

    assert arrived == [[0], [1]]
    assert left == [0, 0]


async def test_nothing_stays_behind_even_if_the_block_fails():
    """No process, no namespace, no device, no descriptor."""
    network = LocalNetwork()
    inodes: tuple[int, ...] = ()
    held: list[str] = []
    with contextlib.suppress(ZeroDivisionError):
        async with network:
            inodes = network.inodes
            held = holders(inodes)
            raise ZeroDivisionError

    assert held
    assert holders(inodes) == []
    assert "/dev/net/tun" not in descriptors()
    with pytest.raises(ProcessLookupError):
        os.kill(network.pid, 0)


async def test_nothing_stays_behind_if_the_network_cannot_be_made(monkeypatch: pytest.MonkeyPatch):
    """Here its forwarder has no interpreter; the namespaces and devices had been there already."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    network = LocalNetwork()
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        async with network:
            pass

    assert len(before) > 2
    assert descriptors() == before


def test_nothing_stays_behind_if_the_owner_is_killed():
    """The forwarder ends with the socket by which it is controlled, and everything else with the forwarder."""
    program = (
        "import asyncio\n"
        "from examples.local_network import LocalNetwork\n"
        "async def main():\n"
        "    async with LocalNetwork() as network:\n"
        "        print(network.pid, *network.inodes, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        forwarder, *inodes = map(int, owner.stdout.readline().split())
        pidfd = os.pidfd_open(forwarder)
        owner.kill()
    ended, _, _ = select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)

    assert ended
    assert holders(inodes) == []


async def test_a_forwarder_that_has_ended_is_an_error():
    """Nobody waits for an answer that cannot come."""
    async with LocalNetwork() as network:
        os.kill(network.pid, signal.SIGKILL)
        with pytest.raises(LocalNetworkError, match="forwarder"):
            await network.cut()
        with pytest.raises(LocalNetworkError, match="forwarder"):
            await network.cut()


async def test_a_wait_that_was_cancelled_confuses_no_later_one():
    """Its answer comes late, and is not taken for that of another."""
    async with LocalNetwork(round_trip=0.2) as network:
        with datagrams(network.sandbox) as ours, datagrams(network.receiver) as theirs:
            transmit(ours, network.receiver, [1])
            waiting = asyncio.create_task(network.deliver())
            for _ in range(3):
                await asyncio.sleep(0)  # turns of the loop: the request is out
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            assert await received(theirs, 1) == [1]
            counts = await network.counts()

    assert counts["out"]["delivered"] == 1


def test_without_permission_there_is_a_reason():
    """What a skipped test and the demo say then."""
    program = (
        "import os\n"
        "from examples.local_network import why_not\n"
        "os.setuid(65534)\n"  # nobody
        "print(why_not())\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)

    assert run.stdout.startswith("network namespaces are not permitted (Operation not permitted); needed are root")
