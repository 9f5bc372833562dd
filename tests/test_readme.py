from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from emitter import Emitter
from emitter.encode import ENCODERS
from emitter.errors import ConfigurationError
from emitter.settings import Settings
from emitter.testing import LambdaContext
from examples.local_aggregator import LocalAggregator

ENDPOINT = "https://metrics.example.com/v1/metrics"
README = Path(__file__).parent.parent.joinpath("README.md").read_text()


def snippets(section: str) -> list[str]:
    """The Python that a section shows, in order."""
    return re.findall(r"```python\n(.*?)```", README.partition(f"\n## {section}")[2].partition("\n## ")[0], re.DOTALL)


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PYTHON = snippets("What it looks like")
(OWN_FORMAT,) = snippets("Backends")
(POWERTOOLS,) = snippets("Powertools")
(SIGNED,) = snippets("Signed requests")
SERVICES = snippets("Services that run on") + snippets("When to wait for the answer")
ELSEWHERE = snippets("In Lambda") + snippets("Testing your metrics")
"""Run by tests/examples/test_readme_lambda.py and tests/testing/test_readme.py."""

BACKENDS = re.findall(r"^\| (.+?) \| `(\w+=.+?)`<br>`(\w+=.+?)`<br>`(\w+=.+?)` \|", README, re.MULTILINE)


def test_the_readme_shows_the_two_commands_first():
    """Somebody who has never seen the project copies the first block."""
    first = re.search(r"```\w*\n(.*?)```", README, re.DOTALL)[1]

    assert re.findall(r"^\w+ \w+", first, re.MULTILINE) == ["make demo", "make test"]


def test_what_the_readme_shows_runs(peer):
    """Every snippet, in order, as one module, against a real socket."""
    namespace: dict[str, object] = {}
    results = []
    for snippet in PYTHON:
        assert ENDPOINT in snippet or namespace
        exec(snippet.replace(ENDPOINT, peer.endpoint), namespace)  # noqa: S102
        results.append(namespace["handler"]({}, None))
    other_end = peer.accept()
    requests = [other_end.read_request() for _ in PYTHON]
    namespace["metrics"].close_sync(timeout=0.0)

    assert results == [{"statusCode": 200}] * 2
    assert all(request.target == b"/v1/metrics" for request in requests)


def test_what_the_readme_shows_runs_also_when_nobody_listens(peer):
    """A newcomer's first try may well be without a receiver."""
    endpoint = peer.endpoint
    peer.close()
    namespace: dict[str, object] = {}
    for snippet in PYTHON:
        exec(snippet.replace(ENDPOINT, endpoint), namespace)  # noqa: S102

        assert namespace["handler"]({}, None) == {"statusCode": 200}


def test_a_format_of_ones_own_runs(peer):
    """As it stands in the README, behind the first snippet."""
    namespace = {"Emitter": Emitter}
    exec(OWN_FORMAT.replace(ENDPOINT, peer.endpoint), namespace)  # noqa: S102
    table = namespace["table"]
    table.counter("orders").add(3)
    table.flush_sync()
    request = peer.accept().read_request()
    table.close_sync(timeout=0.0)

    assert request.headers[b"content-type"] == b"text/csv"
    assert request.body.endswith(b"orders,3\r\n")


def test_powertools_metrics_are_reported(peer, monkeypatch):
    """As the README shows them."""
    monkeypatch.setenv("EMITTER_ENDPOINT", peer.endpoint)
    namespace: dict[str, object] = {}
    exec(POWERTOOLS, namespace)  # noqa: S102
    result = namespace["handler"]({}, LambdaContext())
    body = peer.accept().read_request().body
    namespace["metrics"].provider.emitter.close_sync(timeout=0.0)

    assert result == {"statusCode": 200}
    assert b"ServerlessAirline.Orders" in body
    assert b"ServerlessAirline.Payment" in body


@pytest.mark.parametrize("service", SERVICES, ids=["at intervals", "with answers"])
async def test_a_service_counts_an_order(service, tmp_path):
    """At its end at the latest, with the real receiver."""
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator:
        code = service.replace(ENDPOINT, aggregator.endpoint)
        await asyncio.to_thread(exec, code, {"__name__": "__main__"})
        counted = (await aggregator.settled({"checkout": 1}))["checkout"]["sums"]["orders"]

    assert ENDPOINT in service
    assert counted == 1


def test_a_signed_emitter_can_be_made(monkeypatch):
    """In Lambda's environment; nothing is connected to for that."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "x")
    namespace: dict[str, object] = {}
    exec(SIGNED, namespace)  # noqa: S102

    assert "aps-workspaces" in repr(namespace["metrics"])


def test_every_snippet_of_the_readme_is_run():
    """By one of the tests above, or where it is said."""
    assert sorted([*PYTHON, OWN_FORMAT, POWERTOOLS, SIGNED, *SERVICES, *ELSEWHERE]) == sorted(SNIPPETS)


@pytest.mark.parametrize(("backend", "lines"), [(row[0], row[1:]) for row in BACKENDS])
def test_the_three_lines_of_each_backend_make_an_emitter(backend, lines):
    """With the encoder that they name."""
    environment = dict(line.split("=", 1) for line in lines)
    settings = Settings.resolve(environment, endpoint=None, service=None, headers=None, delivery=None, timeout=None)
    named = (
        environment.get("EMITTER_ENCODER")
        or {"http/protobuf": "otlp", "http/json": "otlp-json"}[environment["OTEL_EXPORTER_OTLP_PROTOCOL"]]
    )

    assert type(settings.encoder).__name__ == ENCODERS[named][1]
    assert settings.endpoint.host in lines[0]


def test_every_encoder_has_a_backend_in_the_readme():
    """And there are as many rows as there were when this was written, at least."""
    assert len(BACKENDS) >= 10
    assert {"influx", "json", "otlp", "remote-write"} <= {line.partition("=")[2] for row in BACKENDS for line in row}


class Watched(dict):
    """An environment that knows what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:EMITTER|OTEL)_[A-Z_]+)`", README))))
def test_every_variable_in_the_readme_is_read(name):
    """What the table of the configuration promises."""
    environment = Watched()
    Settings.resolve(environment, endpoint="http://x/", service=None, headers=None, delivery=None, timeout=None)
    with pytest.raises(ConfigurationError, match="no endpoint"):
        Settings.resolve(environment, endpoint=None, service=None, headers=None, delivery=None, timeout=None)

    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://x/"
    Settings.resolve(environment, endpoint=None, service=None, headers=None, delivery=None, timeout=None)

    assert name in environment.asked
