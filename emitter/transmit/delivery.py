"""Owns the words for how far a report got. Asks nobody: the kernel's side of it is `emitter.transmit.kernel`."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Delivery"]


class Delivery(IntEnum):
    """How far a report got; each level includes the ones before it."""

    BUFFERED = 1
    """The kernel has accepted every byte; nothing is left in this process."""
    TRANSMITTED = 2
    """Every byte has left this machine at least once; nothing is left in the kernel that has not."""
    ACKNOWLEDGED = 3
    """The peer's TCP has every byte."""
    ANSWERED = 4
    """The HTTP answer has been read."""

    def __str__(self) -> str:
        return self.name
