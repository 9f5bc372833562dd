"""Owns the watch over the time that an invocation has left. Knows nothing of what is done when it runs out."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from emitter import forking

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Guard"]

_LIMIT_NAP = 3600.0
"""Seconds after which the thread looks again in any case: a system cannot wait for as long as somebody may say."""


class Guard:
    """A thread that acts shortly before an invocation times out, also when its handler blocks.

    The thread is started when it is first needed. Arming and disarming do not wake it, unless it would sleep for too
    long: it sleeps until the time of some earlier invocation, finds that one over, and goes on to that of the latest.

    Args:
        lead: Seconds before the end at which it acts; half of the time there was, if that is less.
        act: What it does; is given the seconds that are left.
    """

    def __init__(self, lead: float, act: Callable[[float], None]) -> None:
        self._lead = lead
        self._act = act
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Begin without a thread, which a fork does not take along."""
        self._armed: dict[object, tuple[float, float]] = {}  # when to act, and when it is over; monotonic
        self._looks_at = -math.inf  # when the thread looks again, unless it is woken; while there is none: never
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def arm(self, invocation: object, left: float) -> None:
        """Act unless the invocation is over in time.

        Args:
            invocation: What it is disarmed by.
            left: Seconds until Lambda ends it.

        Raises:
            RuntimeError: No thread can be started.
        """
        end = time.monotonic() + left
        at = end - min(self._lead, left / 2)
        self._armed[invocation] = at, end
        if self._thread is None:
            thread = threading.Thread(target=self._watch, name="emitter-guard", daemon=True)
            thread.start()
            self._thread = thread  # if it could not be started, the next invocation tries again
        elif at < self._looks_at:
            self._woken.set()

    def disarm(self, invocation: object) -> None:
        """It is over, whether it was armed or not."""
        self._armed.pop(invocation, None)

    def _watch(self) -> None:
        while True:
            self._woken.clear()
            self._looks_at = self._next()
            # Looked at again after it was said: whoever arms in between sees that, or is seen here.
            until = min(self._looks_at, self._next())
            self._woken.wait(min(_LIMIT_NAP, max(0.0, until - time.monotonic())))
            now = time.monotonic()
            for invocation, (at, end) in list(self._armed.items()):
                if at <= now and self._armed.pop(invocation, None) is not None:
                    self._act(end - now)

    def _next(self) -> float:
        return min((at for at, _ in list(self._armed.values())), default=math.inf)
