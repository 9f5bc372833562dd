"""The real receivers, of which each is started once, by the first test that needs it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.peers.aggregator import aggregator
from tests.peers.influxdb import influxdb
from tests.peers.prometheus import prometheus
from tests.peers.victoria_metrics import victoria_metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVERS = {
    "aggregator": aggregator,
    "influxdb": influxdb,
    "prometheus": prometheus,
    "victoria_metrics": victoria_metrics,
}


class Servers:
    """Those of the packages, each started when a test asks for it first, and ended with the last test.

    Args:
        folder: Makes a new folder with a name like the given one.
    """

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._running: dict[str, object] = {}
        self._end = ExitStack()

    def __getitem__(self, name: str) -> object:
        if name not in self._running:
            self._running[name] = self._end.enter_context(SERVERS[name](self._folder(name)))
        return self._running[name]

    def close(self) -> None:
        """The end."""
        self._end.close()
