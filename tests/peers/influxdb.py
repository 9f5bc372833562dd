"""InfluxDB 1.x, with a database for each who asks for one."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.peers import processes
from tests.peers.promql import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Points(NamedTuple):
    """One series, as it was answered.

    Attributes:
        measurement: What it is called.
        tags: Those that it has.
        times: In nanoseconds since 1970.
        fields: Of each field its value at each of the times; `None` where it has none.
    """

    measurement: str
    tags: dict[str, str]
    times: list[int]
    fields: dict[str, list[float | str | None]]


class Database:
    """One database, empty at first.

    Args:
        url: Where the server listens.
        name: Of the database.

    Attributes:
        url: Where the server listens.
        path: Where what is POSTed goes into this database.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self._name = name
        self.path = f"/write?db={name}&precision=ns"
        self._ask(f'CREATE DATABASE "{name}"')

    def select(self, what: str) -> list[Points]:
        """All points of all series, for `*`; or what a function such as `last(*)` makes of each series."""
        answer = self._ask(f"SELECT {what} FROM /.*/ GROUP BY *")  # noqa: S608  the tests' own words
        return [
            Points(
                series["name"],
                {key: value for key, value in series.get("tags", {}).items() if value},
                [row[0] for row in series["values"]],
                {
                    name: [row[column] for row in series["values"]]
                    for column, name in enumerate(series["columns"])
                    if name != "time"
                },
            )
            for result in answer["results"]
            for series in result.get("series", [])
        ]

    def _ask(self, query: str) -> dict:
        # As a form: what changes something has to be POSTed.
        answer = json.loads(ask(self.url, "/query", {"q": query, "db": self._name, "epoch": "ns"}))
        refused = [result["error"] for result in answer["results"] if "error" in result]
        assert refused == []
        return answer


class InfluxDB:
    """Makes databases.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._numbers = itertools.count(1)

    def database(self) -> Database:
        """A new one."""
        return Database(self.url, f"reports_{next(self._numbers)}")


@contextmanager
def influxdb(folder: Path) -> Iterator[InfluxDB]:
    """Run InfluxDB while the context lasts; `folder` is for its files."""
    program = processes.installed("influxd", "influxdb")
    configuration = folder / "influxdb.conf"
    configuration.write_text("")  # its defaults, whatever the machine has

    def command(port: int) -> tuple[list[str], dict[str, str]]:
        return [program, "-config", str(configuration)], {
            "HOME": str(folder),
            "INFLUXDB_BIND_ADDRESS": "127.0.0.1:0",  # for backups
            "INFLUXDB_DATA_DIR": str(folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(folder / "wal"),
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_META_DIR": str(folder / "meta"),
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_REPORTING_DISABLED": "true",
        }

    with processes.standing(command, folder, "/ping") as port:
        yield InfluxDB(port)
