"""Prometheus with its remote-write receiver on; and something that it scrapes, as it is meant to be used."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server

from tests.peers import processes
from tests.peers.promql import Promql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """\
global:
  scrape_interval: 250ms
scrape_configs:
  - job_name: scraped
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus(Promql):
    """Asks it.

    Attributes:
        scraped: What is in here Prometheus finds by itself, under the job `scraped`.
    """

    def __init__(self, port: int, scraped: CollectorRegistry) -> None:
        super().__init__(port)
        self.scraped = scraped


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus while the context lasts; `folder` is for its files."""
    program = processes.installed("prometheus", "prometheus")
    scraped = CollectorRegistry()
    exposing, thread = start_http_server(0, "127.0.0.1", scraped)
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(port=exposing.server_port))

    def command(port: int) -> tuple[list[str], dict[str, str]]:
        return [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
        ], {}

    try:
        with processes.standing(command, folder, "/-/ready") as port:
            yield Prometheus(port, scraped)
    finally:
        exposing.shutdown()
        exposing.server_close()
        thread.join()
