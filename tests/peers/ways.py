"""How reports get into a real server, in one format each, and how they are read back through its own queries."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from prometheus_client.utils import floatToGoString

from emitter import Emitter
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.peers.aggregator import Aggregator
    from tests.peers.influxdb import Database
    from tests.peers.prometheus import Prometheus
    from tests.peers.promql import Samples
    from tests.peers.victoria_metrics import VictoriaMetrics

__all__ = ["PROMQL_WAYS", "WAYS", "Key", "PromqlWay", "Way", "key"]

Key = tuple[str, frozenset[tuple[str, object]]]
"""What a number is called: a name, and what it is told by, the sandbox left out."""

_numbers = itertools.count(1)


def key(name: str, /, **labels: object) -> Key:
    """What a number is called."""
    return name, frozenset(labels.items())


class Way(ABC):
    """One way, for one test: no other one reports for the same service.

    Args:
        url: Where the server listens.
        path: Where reports are POSTed to.
        encoder: The format.

    Attributes:
        service: What all sandboxes of the test belong to.
    """

    value: ClassVar[str] = ""
    """What the names of up-down counters and gauges end in."""

    def __init__(self, url: str, path: str, encoder: str) -> None:
        self._url = url
        self._path = path
        self.encoder = encoder
        self.service = f"service-{next(_numbers)}"
        self._end = ExitStack()

    @property
    def precision(self) -> float:
        """By how much of itself a fraction may differ from what was recorded."""
        return 0.0

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self._url.rpartition(":")[2])

    def endpoint(self, port: int | None = None) -> str:
        """What to give to an emitter; a `port` to go through something that stands before the server."""
        return (self._url if port is None else f"http://127.0.0.1:{port}") + self._path

    def emitter(self, *, port: int | None = None, **options: Any) -> Emitter:
        """A sandbox. Everything that goes wrong is raised, unless the test says otherwise; closed after the test."""
        given = {"service": self.service, "encoder": self.encoder, "timeout": PATIENCE, "strict": True, **options}
        made = Emitter(self.endpoint(port), **given)
        self._end.callback(made.close_sync, timeout=0.0)
        return made

    @abstractmethod
    def latest(self) -> dict[Key, float]:
        """The newest value of everything that the one sandbox of the service has reported, its self-metrics left out.

        A histogram is `_bucket`, of which each says how many values were at most `le`, `_sum` and `_count`.
        """

    def close(self) -> None:
        """Close the emitters."""
        self._end.close()


class PromqlWay(Way):
    """Into a server that is asked in PromQL."""

    identity: ClassVar[tuple[str, str]]
    """The labels of the service and of the sandbox."""

    def __init__(self, server: Prometheus | VictoriaMetrics, path: str, encoder: str) -> None:
        super().__init__(server.url, path, encoder)
        self.server = server

    @property
    def precision(self) -> float:
        """As `Way.precision`."""
        return self.server.precision

    def selector(self, name: str = "") -> str:
        """That of the series of this name; of all if there is none."""
        label = self.identity[0].replace(".", r"\.")
        return f"{name}{{{label}={json.dumps(self.service, ensure_ascii=False)}}}"

    def stored(self, name: str = "") -> list[Samples]:
        """All samples of the series of this name; of all if there is none."""
        return self.server.samples(self.selector(name))

    def latest(self) -> dict[Key, float]:
        """As `Way.latest`."""
        found = [(self._key(series), series.value) for series in self.stored()]
        newest = {each: value for each, value in found if not each[0].startswith(("emitter", "target_info"))}
        assert len({series.labels[self.identity[1]] for series in self.stored()}) == 1
        return newest

    def _key(self, series: Samples) -> Key:
        own = {name: text for name, text in series.labels.items() if name not in {"__name__", *self.identity}}
        return key(series.labels["__name__"], **own)


class RemoteWrite(PromqlWay):
    """Over Prometheus remote write."""

    identity = ("job", "instance")

    def __init__(self, server: Prometheus | VictoriaMetrics) -> None:
        super().__init__(server, "/api/v1/write", "remote-write")


class InfluxIntoVictoriaMetrics(PromqlWay):
    """Over the line protocol, of which VictoriaMetrics makes a series for each field."""

    identity = ("service.name", "service.instance.id")
    value = "_value"

    def __init__(self, server: VictoriaMetrics, path: str) -> None:
        super().__init__(server, path, "influx")


class IntoInfluxDB(Way):
    """Over the line protocol; names are put together as VictoriaMetrics does."""

    value = "_value"

    def __init__(self, database: Database) -> None:
        super().__init__(database.url, database.path, "influx")
        self.database = database

    def latest(self) -> dict[Key, float]:
        """As `Way.latest`."""
        found = {}
        identity = {"service.name", "service.instance.id"}
        for points in self.database.select("*"):
            own = {name: text for name, text in points.tags.items() if name not in identity}
            for field, values in points.fields.items():
                known = [value for value in values if value is not None]
                if known and not points.measurement.startswith("emitter."):
                    assert points.tags["service.name"] == self.service
                    found[key(f"{points.measurement}_{field}", **own)] = known[-1]
        return found


class IntoAggregator(Way):
    """Over OTLP; names are put together as Prometheus has them, attributes stay what they are."""

    def __init__(self, server: Aggregator, encoder: str) -> None:
        super().__init__(server.url, "/v1/metrics", encoder)
        self.server = server

    def latest(self) -> dict[Key, float]:
        """As `Way.latest`."""
        found = {}
        for total in self.server.totals(self.service):
            name, attributes = total["name"], total["attributes"]
            if name.startswith("emitter."):
                continue
            if total["kind"] != "histogram":
                found[key(f"{name}_total" if total["kind"] == "counter" else name, **attributes)] = total["value"]
                continue
            found[key(f"{name}_count", **attributes)] = total["count"]
            found[key(f"{name}_sum", **attributes)] = total["sum"]
            bounds = [*map(floatToGoString, total["boundaries"]), "+Inf"]
            for bound, count in zip(bounds, accumulate(total["bucket_counts"]), strict=True):
                found[key(f"{name}_bucket", le=bound, **attributes)] = count
        return found


WAYS: dict[str, tuple[str, Callable[..., Way]]] = {
    "remote-write-prometheus": ("prometheus", RemoteWrite),
    "remote-write-victoria-metrics": ("victoria_metrics", RemoteWrite),
    "influx-victoria-metrics": ("victoria_metrics", lambda server: InfluxIntoVictoriaMetrics(server, "/write")),
    "influx-2-victoria-metrics": (
        "victoria_metrics",
        lambda server: InfluxIntoVictoriaMetrics(server, "/api/v2/write"),
    ),
    "influx-influxdb": ("influxdb", lambda server: IntoInfluxDB(server.database())),
    "otlp-aggregator": ("aggregator", lambda server: IntoAggregator(server, "otlp")),
    "otlp-json-aggregator": ("aggregator", lambda server: IntoAggregator(server, "otlp-json")),
}
"""Every way into a real receiver: which server, and what to make of it."""

PROMQL_WAYS = [name for name, (server, _) in WAYS.items() if server in {"prometheus", "victoria_metrics"}]
