"""Owns the SQLite database: what has been folded, durably. Knows no HTTP and no protobuf.

One row per series and sandbox holds the newest value, so folding is a maximum: repeated, late and reordered
reports change nothing, and the sum over sandboxes is taken when somebody asks. A store belongs to one thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from emitter.aggregator.fold import Receipts, ServiceTotals, Total, total_of
from emitter.aggregator.report import Distribution, Kind, Metric, Point, Report, Value
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["MAX_SERIES_PER_SANDBOX", "Store"]

MAX_SERIES_PER_SANDBOX = 20_000
"""Ten instruments that are each at the emitter's own cap of 2,000 series."""

_Row = tuple[int, int, str, int, int | float | str]

_APPLICATION_ID = 0x656D6974
"""Four letters in the file's header that tell our files from those of other programs: "emit"."""

_SCHEMA_VERSION = 1

_SCHEMA = (
    """
    CREATE TABLE sandbox (
        id INTEGER PRIMARY KEY,
        service TEXT NOT NULL,
        instance TEXT NOT NULL,
        start_time_unix_nano INTEGER NOT NULL,
        -- What fold.Receipts holds. A start that only single series have (some SDKs give every instrument its
        -- own) has received nothing and is not counted as a sandbox.
        highest INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0,
        gaps TEXT NOT NULL DEFAULT '[]',
        unnumbered INTEGER NOT NULL DEFAULT 0,
        UNIQUE (service, instance, start_time_unix_nano)
    )
    """,
    """
    CREATE TABLE metric (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        unit TEXT NOT NULL,
        boundaries TEXT NOT NULL,
        description TEXT NOT NULL,
        UNIQUE (name, kind, unit, boundaries)
    )
    """,
    """
    CREATE TABLE series (
        sandbox INTEGER NOT NULL REFERENCES sandbox (id),
        metric INTEGER NOT NULL REFERENCES metric (id),
        attributes TEXT NOT NULL,
        time_unix_nano INTEGER NOT NULL,
        value NOT NULL, -- without a type, so that SQLite keeps integers, floats and texts as what they are
        PRIMARY KEY (sandbox, metric, attributes)
    ) WITHOUT ROWID
    """,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)

_ADD_SANDBOX = "INSERT OR IGNORE INTO sandbox (service, instance, start_time_unix_nano) VALUES (?, ?, ?)"

_FIND_SANDBOX = "SELECT id FROM sandbox WHERE service = ? AND instance = ? AND start_time_unix_nano = ?"

_ADD_METRIC = "INSERT OR IGNORE INTO metric (name, kind, unit, boundaries, description) VALUES (?, ?, ?, ?, ?)"

_FIND_METRIC = "SELECT id FROM metric WHERE name = ? AND kind = ? AND unit = ? AND boundaries = ?"

# A later time wins; at the same time the larger value, so that not even a sandbox that contradicts itself
# makes the order of arrival matter.
_KEEP_NEWEST = """
INSERT INTO series VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET time_unix_nano = excluded.time_unix_nano, value = excluded.value
WHERE (excluded.time_unix_nano, excluded.value) > (series.time_unix_nano, series.value)
"""

_ALL_SERIES = """
SELECT sandbox.service, metric.id, series.attributes, series.time_unix_nano, series.value
FROM series JOIN sandbox ON sandbox.id = series.sandbox JOIN metric ON metric.id = series.metric
ORDER BY sandbox.service, metric.name, metric.kind, metric.unit, metric.boundaries, series.attributes
"""

_ALL_SANDBOXES = """
SELECT service, highest, lost, unnumbered FROM sandbox WHERE highest > 0 OR unnumbered > 0 ORDER BY service
"""


class Store:
    """What every sandbox has reported, in one SQLite file.

    Args:
        database: A path, made if it does not exist; `:memory:` forgets everything when the store closes.

    Raises:
        ConfigurationError: There is no database of ours at this path, and none can be made.
    """

    __slots__ = ("_connection",)

    def __init__(self, database: str) -> None:
        try:
            self._connection = sqlite3.connect(database, isolation_level=None)
            try:
                self._prepare()
            except BaseException:  # interrupted, too: nobody else will close it
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise ConfigurationError(f"cannot use {database!r} as the database: {error}") from error

    def _prepare(self) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")  # two that start at once: the second one waits, and sees
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                for statement in _SCHEMA:
                    self._connection.execute(statement)
            elif application != _APPLICATION_ID:
                raise sqlite3.DatabaseError("it belongs to another program; expected an empty file or one of ours")
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its version is {version}, expected {_SCHEMA_VERSION}")
        # Only now, since this changes the file. FULL: with WAL the default leaves the last transactions to the mercy
        # of a power cut.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def fold(self, reports: Iterable[Report]) -> Mapping[str, int]:
        """Fold the reports of one request, in one transaction.

        Args:
            reports: Any reports, seen before or not.

        Returns:
            How many data points were left out, by reason. Everything else is durable now.

        Raises:
            sqlite3.Error: The database cannot be written. After failure nothing of this request is kept.
        """
        rejected: Counter[str] = Counter()
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for report in reports:
                self._count(report)
                for start in {point.start_time_unix_nano for point in report.points}:
                    points = [point for point in report.points if point.start_time_unix_nano == start]
                    left_out = self._keep(self._sandbox(report, start), points)
                    if left_out:
                        rejected[f"more than {MAX_SERIES_PER_SANDBOX} series of one sandbox"] += left_out
        return rejected

    def totals(self) -> tuple[ServiceTotals, ...]:
        """Add up everything.

        Returns:
            One entry per service, ordered by name.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        with self._connection:
            self._connection.execute("BEGIN")  # one view for all three questions, whoever else writes to the file
            totals = self._totals_by_service()
            services = []
            for service, rows in groupby(self._connection.execute(_ALL_SANDBOXES), key=itemgetter(0)):
                # Added up here: SQL's sum overflows where a hostile sandbox claims 2**62 attempts.
                receipts = [Receipts(highest, lost, (), unnumbered) for _, highest, lost, unnumbered in rows]
                services.append(
                    ServiceTotals(
                        service=service,
                        sandboxes=len(receipts),
                        reports_received=sum(one.received for one in receipts),
                        reports_lost=sum(one.lost for one in receipts),
                        totals=tuple(totals[service]),
                    )
                )
        return tuple(services)

    def close(self) -> None:
        """Close the database; the store cannot be used again."""
        self._connection.close()

    def _count(self, report: Report) -> None:
        sandbox = self._sandbox(report, report.start_time_unix_nano)
        select = "SELECT highest, lost, gaps, unnumbered FROM sandbox WHERE id = ?"
        highest, lost, gaps, unnumbered = self._connection.execute(select, (sandbox,)).fetchone()
        before = Receipts(highest, lost, tuple((first, last) for first, last in json.loads(gaps)), unnumbered)
        now = before.arrived(report.numbers)
        update = "UPDATE sandbox SET highest = ?, lost = ?, gaps = ?, unnumbered = ? WHERE id = ?"
        row = (now.highest, now.lost, json.dumps(now.gaps), now.unnumbered, sandbox)
        self._connection.execute(update, row)

    def _sandbox(self, report: Report, start_time_unix_nano: int) -> int:
        identity = (report.service, report.instance, start_time_unix_nano)
        self._connection.execute(_ADD_SANDBOX, identity)
        return int(self._connection.execute(_FIND_SANDBOX, identity).fetchone()[0])

    def _metric(self, metric: Metric) -> int:
        identity = (metric.name, metric.kind.value, metric.unit, json.dumps(metric.boundaries))
        self._connection.execute(_ADD_METRIC, (*identity, metric.description))
        return int(self._connection.execute(_FIND_METRIC, identity).fetchone()[0])

    def _keep(self, sandbox: int, points: list[Point]) -> int:
        metrics = {metric: self._metric(metric) for metric in {point.metric for point in points}}
        rows = [
            (sandbox, metrics[point.metric], point.attributes, point.time_unix_nano, _column(point.value))
            for point in points
        ]
        known = self._connection.execute("SELECT count(*) FROM series WHERE sandbox = ?", (sandbox,))
        if known.fetchone()[0] + len(rows) > MAX_SERIES_PER_SANDBOX:
            rows = list(self._within_limit(sandbox, rows))
        self._connection.executemany(_KEEP_NEWEST, rows)
        return len(points) - len(rows)

    def _within_limit(self, sandbox: int, rows: list[_Row]) -> Iterator[_Row]:
        select = "SELECT metric, attributes FROM series WHERE sandbox = ?"
        known = set(self._connection.execute(select, (sandbox,)))
        for row in rows:
            if len(known) < MAX_SERIES_PER_SANDBOX:
                known.add(row[1:3])
            if row[1:3] in known:
                yield row

    def _totals_by_service(self) -> dict[str, list[Total]]:
        rows = self._connection.execute("SELECT id, name, kind, unit, boundaries, description FROM metric")
        metrics = {
            metric: Metric(name, Kind(kind), unit, tuple(json.loads(boundaries)), description)
            for metric, name, kind, unit, boundaries, description in rows
        }
        totals: dict[str, list[Total]] = {}
        # Streamed, so that only the totals are in memory and not every sandbox's series.
        for (service, metric, attributes), group in groupby(
            self._connection.execute(_ALL_SERIES), key=itemgetter(0, 1, 2)
        ):
            kind = metrics[metric].kind
            values = ((time_unix_nano, _value(kind, column)) for *_, time_unix_nano, column in group)
            total = total_of(metrics[metric], json.loads(attributes), values)
            totals.setdefault(service, []).append(total)
        return totals


def _column(value: Value) -> int | float | str:
    if isinstance(value, Distribution):
        return json.dumps((value.count, value.sum, value.bucket_counts))
    return value


def _value(kind: Kind, column: Any) -> Value:
    if kind is Kind.HISTOGRAM:
        count, total, bucket_counts = json.loads(column)
        return Distribution(count, total, tuple(bucket_counts))
    number: int | float = column
    return number
