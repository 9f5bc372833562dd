from __future__ import annotations

import re
from pathlib import Path

import pytest

from emitter.errors import ConfigurationError
from emitter.settings import Settings

ENDPOINT = "https://metrics.example.com/v1/metrics"
README = Path(__file__).parent.parent.joinpath("README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


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


class Watched(dict):
    """An environment with nothing in it that knows what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return default


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:EMITTER|OTEL)_[A-Z_]+)`", README))))
def test_every_variable_in_the_readme_is_read(name):
    """What the table of the configuration promises."""
    environment = Watched()
    Settings.resolve(environment, endpoint="http://x/", service=None, headers=None, delivery=None, timeout=None)
    with pytest.raises(ConfigurationError, match="no endpoint"):
        Settings.resolve(environment, endpoint=None, service=None, headers=None, delivery=None, timeout=None)

    assert name in environment.asked
