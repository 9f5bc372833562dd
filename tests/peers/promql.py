"""What Prometheus and VictoriaMetrics have in common: the HTTP API that answers PromQL."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Promql", "Samples", "ask"]

_LONG_AGO = "1h"
"""A window that everything of a test run falls into."""

_AHEAD = 1.0
"""Seconds: more than the reports of any test can be ahead of the clock."""


class Samples(NamedTuple):
    """One series, as it was answered.

    Attributes:
        labels: The metric's name, `__name__`, among them.
        values: Time in seconds since 1970 and value; a single pair, unless raw samples were asked for.
    """

    labels: dict[str, str]
    values: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """The newest."""
        return self.values[-1][1]

    @property
    def time(self) -> float:
        """Of the newest."""
        return self.values[-1][0]


class Promql:
    """Asks one server. Whatever it refuses is raised.

    Args:
        port: Where it listens.

    Attributes:
        precision: By how much of itself a fraction may differ from what was stored.
    """

    precision = 0.0

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str, at: float | None = None) -> list[Samples]:
        """What an expression gives at one moment.

        Args:
            expression: PromQL.
            at: The moment, in seconds since 1970. `None`: now, and a little later, since the times of reports that
                follow one another without a pause may be ahead of the clock.
        """
        return self._query(expression, time.time() + _AHEAD if at is None else at)

    def _query(self, expression: str, at: float) -> list[Samples]:
        # VictoriaMetrics answers as of another moment, at which it had computed the same before, unless told not to.
        fields = {"query": expression, "time": f"{at:.3f}", "nocache": 1}
        answer = json.loads(ask(self.url, "/api/v1/query", fields))
        return [
            Samples(each["metric"], _numbers(each.get("values") or [each["value"]]))
            for each in answer["data"]["result"]
        ]

    def value(self, expression: str, at: float | None = None) -> float:
        """The same, of an expression that gives one series."""
        (only,) = self.query(expression, at)
        return only.value

    def samples(self, selector: str) -> list[Samples]:
        """All that is stored of the series that a selector matches, in order."""
        return self.query(f"{selector}[{_LONG_AGO}]")

    def increases(self, selector: str) -> dict[frozenset[tuple[str, str]], float]:
        """By how much each series grew, looked at from its own last sample; by its labels, the metric's name left out.

        Prometheus extrapolates from the samples to both ends of the window. Beyond the first it stops where a counter
        would have been below zero, that is at once where it begins with a zero; beyond the last it stops at once where
        the window ends with it. So this is exact, in either server, if only there is a zero at the beginning.
        """
        last = {_nameless(series.labels): series.time for series in self.samples(selector)}
        return {
            labels: series.value
            for at in set(last.values())
            for series in self._query(f"increase({selector}[{_LONG_AGO}])", at)
            for labels in [_nameless(series.labels)]
            if last.get(labels) == at
        }

    def increase(self, selector: str) -> float:
        """The same of all series together."""
        return sum(self.increases(selector).values())


def ask(url: str, path: str, fields: Mapping[str, object] | None = None, body: bytes | None = None) -> bytes:
    """What a server answers to a request; a refusal is raised with what it says.

    Args:
        url: Where it listens.
        path: What is asked for.
        fields: The query.
        body: What is POSTed. `None`: the query is, as a form, if there is one.
    """
    query = urllib.parse.urlencode(fields or {})
    where = f"{url}{path}"
    if body is not None:
        where, query = f"{where}?{query}", ""
    try:
        with urllib.request.urlopen(where, data=body or query.encode() or None, timeout=PATIENCE) as answer:  # noqa: S310
            said: bytes = answer.read()
            return said
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path} {error.code}: {error.read().decode(errors='replace')}") from error


def _nameless(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in labels.items() if pair[0] != "__name__")


def _numbers(values: list[Any]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in values]
