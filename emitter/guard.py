"""Owns the watch over the time that an invocation has left. Knows nothing of what is done when it runs out."""

from __future__ import annotations

import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from emitter import forking

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Guard"]


class Guard:
    """A thread that acts shortly before an invocation times out, also when its handler blocks.

    It is made when it is first needed. Arming and disarming it do not wake it, unless it would sleep for too long: it
    sleeps until the time of some earlier invocation, finds that one over, and goes on to the time of the latest.

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

    def arm(self, left: float) -> Callable[[], object]:
        """Act unless the invocation is over in time.

        Args:
            left: Seconds until Lambda ends it.

        Returns:
            What to call when the invocation is over.

        Raises:
            RuntimeError: No thread can be started.
        """
        token = object()
        end = time.monotonic() + left
        at = end - min(self._lead, left / 2)
        self._armed[token] = at, end
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="emitter-guard", daemon=True)
            self._thread.start()
        elif at < self._looks_at:
            self._woken.set()
        return partial(self._armed.pop, token, None)

    def _watch(self) -> None:
        while True:
            self._woken.clear()
            self._looks_at = self._next()
            # Looked at again after it was said: whoever arms in between sees that, or is seen here.
            until = min(self._looks_at, self._next())
            self._woken.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
            now = time.monotonic()
            for token, (at, end) in list(self._armed.items()):
                if at <= now and self._armed.pop(token, None) is not None:
                    self._act(end - now)

    def _next(self) -> float:
        return min((at for at, _ in list(self._armed.values())), default=math.inf)
