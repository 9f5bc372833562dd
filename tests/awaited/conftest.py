"""What the tests of the awaited emitter share."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from emitter.awaited import AwaitedEmitter
from tests.tls import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Pauses:
    """Takes the place of `asyncio.sleep`: no pause takes any time, but the clock says that it did.

    Attributes:
        seconds: All pauses, in their order.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._skipped = 0.0

    async def __call__(self, seconds: float) -> None:
        """Pause."""
        self.seconds.append(seconds)
        self._skipped += seconds

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() + self._skipped


@pytest.fixture
def pauses() -> Pauses:
    """Of the emitters of a test."""
    return Pauses()


@pytest.fixture
async def made(pauses: Pauses) -> AsyncIterator[Callable[..., AwaitedEmitter]]:
    """Makes emitters whose pauses take no time, and whose back-off knows no chance; each is closed at the end."""
    async with AsyncExitStack() as end:

        def make(endpoint: str, **more: object) -> AwaitedEmitter:
            metrics = AwaitedEmitter(endpoint, **{"service": "checkout", **more})
            metrics._flusher._sleep = pauses
            metrics._flusher._clock = pauses.now
            metrics._flusher._jitter = metrics._flusher._back_off._jitter = lambda: 1.0
            end.push_async_callback(metrics._flusher._exchange.close)
            return metrics

        yield make


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Whom the emitters of the tests trust."""
    return Authority()
