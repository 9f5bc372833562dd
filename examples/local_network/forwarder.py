"""Owns the link between two hosts: a process that carries Ethernet frames from one TAP device to another.

    python forwarder.py SANDBOX RECEIVER CONTROL     # three descriptors that it inherits

It delays, drops and reorders as it is told, and cuts the sandbox's side. Requests come as JSON, one to a packet, over
the socket CONTROL, and each is answered when it is done; at the end of that socket the process ends, and the devices
with it. Knows nothing of TCP, and nothing but the standard library, so that it is there at once.

    {"number": 1, "do": "shape", "out": {...}, "back": {...}}    the fields of `Path` that are to change
    {"number": 2, "do": "cut"}, {"number": 3, "do": "mend"}      the sandbox's side
    {"number": 4, "do": "deliver"}                               answered when nothing is on its way to the receiver
    {"number": 5, "do": "count"}                                 answered with what each direction has seen
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Link", "Path"]

_FRAME_BYTES = 2048
"""More than an Ethernet frame with an MTU of 1,500 can have."""

_QUEUE_FRAMES = 1_000
"""What waits for one side at most; the length of Linux's own queue before such a device."""

_REQUEST_BYTES = 4096


@dataclass(slots=True)
class Path:
    """One direction of the link.

    Attributes:
        source: Descriptor of the device that frames are taken from.
        target: Descriptor of the device that they are delivered to.
        delay: Seconds that each frame is on its way.
        drop_every: Every so many-th frame is dropped: 1 is all, 0 is none.
        late_every: Every so many-th frame is late, and those behind it overtake it: 1 is all, 0 is none.
        late_by: Seconds that a late frame is on its way beyond `delay`.
    """

    source: int
    target: int
    delay: float = 0.0
    drop_every: int = 0
    late_every: int = 0
    late_by: float = 0.0
    taken: int = 0
    dropped: int = 0
    late: int = 0
    delivered: int = 0
    largest_bytes: int = 0
    _under_way: list[tuple[float, int, bytes]] = field(default_factory=list)

    def take(self) -> None:
        """Take all frames that the source has transmitted."""
        while True:
            try:
                frame = os.read(self.source, _FRAME_BYTES)
            except BlockingIOError:
                return
            self.taken += 1
            self.largest_bytes = max(self.largest_bytes, len(frame))
            if _is_due(self.taken, self.drop_every) or len(self._under_way) >= _QUEUE_FRAMES:
                self.dropped += 1
                continue
            due = time.monotonic() + self.delay
            if _is_due(self.taken, self.late_every):
                self.late += 1
                due += self.late_by
            heapq.heappush(self._under_way, (due, self.taken, frame))

    def deliver(self) -> None:
        """Deliver the frames that have been on their way for long enough."""
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            os.write(self.target, heapq.heappop(self._under_way)[2])
            self.delivered += 1

    @property
    def next_due(self) -> float | None:
        """When the next frame is to be delivered; `None` if none is on its way."""
        return self._under_way[0][0] if self._under_way else None

    def counts(self) -> dict[str, int]:
        """What has passed so far."""
        return {name: getattr(self, name) for name in ("taken", "dropped", "late", "delivered", "largest_bytes")}


class Link:
    """Both directions, and the socket over which they are controlled.

    Args:
        sandbox: Descriptor of the sandbox's device.
        receiver: Descriptor of the receiver's device.
        control: Where requests come from; packets stay packets.
    """

    def __init__(self, sandbox: int, receiver: int, control: socket.socket) -> None:
        self._out = Path(sandbox, receiver)
        self._back = Path(receiver, sandbox)
        self._control = control
        self._is_cut = False
        self._waiting: list[int] = []  # requests to be answered when nothing is on its way to the receiver

    def run(self) -> None:
        """Carry frames until the other end of the control socket is closed."""
        while self._step():
            pass

    def _step(self) -> bool:
        # A cut side transmits nothing: what its kernel puts into the device's queue in the meantime (timers of TCP,
        # which in a paused machine would fire after it) stays in that queue. And it receives nothing.
        moving = [self._out] if self._is_cut else [self._out, self._back]
        sources = [self._back.source] if self._is_cut else [self._out.source, self._back.source]
        due = [path.next_due for path in moving if path.next_due is not None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        # `select` and not `epoll`, which counts in whole milliseconds.
        ready, _, _ = select.select([self._control, *sources], [], [], timeout)
        for path in (self._out, self._back):
            if path.source in ready:
                path.take()
        self._out.deliver()
        if not self._is_cut:
            self._back.deliver()
        if self._control in ready and not self._obey():
            return False
        if self._waiting and self._out.next_due is None:
            for number in self._waiting:
                self._answer(number, {})
            self._waiting.clear()
        return True

    def _obey(self) -> bool:
        packet = self._control.recv(_REQUEST_BYTES)
        if not packet:
            return False
        request = json.loads(packet)
        number, what = request["number"], request["do"]
        if what == "deliver":
            if not self._is_cut:
                self._out.take()
            self._waiting.append(number)
            return True
        if what == "cut" and not self._is_cut:
            self._out.take()  # this had left the sandbox before
        if what in {"cut", "mend"}:
            self._is_cut = what == "cut"
        for path, changes in ((self._out, request.get("out", {})), (self._back, request.get("back", {}))):
            for name, value in changes.items():
                setattr(path, name, value)
        self._answer(number, {"out": self._out.counts(), "back": self._back.counts()} if what == "count" else {})
        return True

    def _answer(self, number: int, answer: dict[str, Any]) -> None:
        self._control.send(json.dumps({"number": number, **answer}).encode())


def _is_due(count: int, every: int) -> bool:
    return every > 0 and count % every == 0


if __name__ == "__main__":
    _sandbox, _receiver, _control = map(int, sys.argv[1:])
    Link(_sandbox, _receiver, socket.socket(fileno=_control)).run()
