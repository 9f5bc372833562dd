"""Our own aggregator, started as a user starts it."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.peers import processes
from tests.peers.promql import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Aggregator:
    """Asks it.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def totals(self, service: str) -> list[dict[str, Any]]:
        """All totals of a service, as its JSON has them."""
        services = json.loads(ask(self.url, "/api/v1/totals"))["services"]
        return [total for each in services if each["service"] == service for total in each["totals"]]


@contextmanager
def aggregator(folder: Path) -> Iterator[Aggregator]:
    """Run the aggregator while the context lasts; `folder` is for its files."""

    def command(port: int) -> tuple[list[str], dict[str, str]]:
        database = folder / "totals.sqlite3"
        return [sys.executable, "-m", "emitter", "serve", "--port", str(port), "--database", str(database)], {}

    with processes.standing(command, folder, "/metrics") as port:
        yield Aggregator(port)
