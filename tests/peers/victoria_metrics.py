"""VictoriaMetrics, one process that takes everything: remote write, line protocol, exposition text."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.peers import processes
from tests.peers.promql import Promql, Samples, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class VictoriaMetrics(Promql):
    """Asks it for everything that it has taken so far."""

    precision = 1e-12  # it keeps decimal digits, and so many of what is no whole number (`lib/decimal`)

    def query(self, expression: str, at: float | None = None) -> list[Samples]:
        """As `Promql.query`; what was ingested last is searchable only after a while, unless that is asked for."""
        ask(self.url, "/internal/force_flush")
        return super().query(expression, at)

    def take(self, exposition: bytes) -> None:
        """Store what Prometheus would scrape, as of now."""
        ask(self.url, "/api/v1/import/prometheus", body=exposition)


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[VictoriaMetrics]:
    """Run VictoriaMetrics while the context lasts; `folder` is for its files."""
    program = processes.installed("victoria-metrics", "victoria-metrics")

    def command(port: int) -> tuple[list[str], dict[str, str]]:
        return [
            program,
            f"-storageDataPath={folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",  # else the newest 30 s are left out
            "-search.disableCache",  # an answer from before the last report is no answer
            "-memory.allowedBytes=256MB",
        ], {}

    with processes.standing(command, folder, "/health") as port:
        yield VictoriaMetrics(port)
