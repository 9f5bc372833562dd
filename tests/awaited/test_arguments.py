from __future__ import annotations

import re
import subprocess
import sys

import pytest

from emitter import ConfigurationError
from emitter.awaited import AwaitedEmitter
from emitter.awaited.client import DEFAULT_AWAITED_TIMEOUT
from emitter.settings import DEFAULT_TIMEOUT

URL = "http://metrics.example.com/v1/metrics?key=secret"


def test_it_waits_longer_than_an_emitter_that_does_not_wait() -> None:
    """Unless it is told otherwise, by the argument first."""
    assert AwaitedEmitter(URL)._settings.timeout == DEFAULT_AWAITED_TIMEOUT > DEFAULT_TIMEOUT
    assert AwaitedEmitter(URL, timeout=3)._settings.timeout == 3.0


def test_the_environment_decides_what_no_argument_does(monkeypatch) -> None:
    """The same variables as for any emitter."""
    monkeypatch.setenv("EMITTER_TIMEOUT", "2.5")
    monkeypatch.setenv("EMITTER_ENDPOINT", URL)
    monkeypatch.setenv("EMITTER_ENCODER", "json")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "checkout")
    settings = AwaitedEmitter()._settings

    assert settings.timeout == 2.5
    assert settings.endpoint.host == "metrics.example.com"
    assert settings.encoder.content_type == "application/json"
    assert dict(settings.resource)["service.name"] == "checkout"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"endpoint": None}, "no endpoint was given"),
        ({"endpoint": "metrics.example.com"}, "the endpoint has no scheme"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": True}, "timeout is True"),
        ({"encoder": "xml"}, "encoder is 'xml'"),
        ({"temporality": "monthly"}, "temporality is 'monthly'"),
        ({"headers": {"A b": "c"}}, "the name of the header that begins with 'A'"),
        ({"headers": {"A": "c\r\nd"}}, "the value of the header 'A'"),
        ({"headers": {"Content-Length": "1"}}, "the header 'Content-Length' is set by the emitter itself"),
        ({"series_limit": 0}, "series_limit is 0"),
        ({"report_limit_bytes": 1}, "report_limit_bytes is 1"),
        ({"compress": "yes"}, "compress is 'yes'"),
        ({"strict": 1}, "strict is 1"),
        ({"trust_env": "yes"}, "trust_env is 'yes'"),
        ({"signer": object()}, "signer is a object"),
        ({"ssl_context": object()}, "ssl_context is a object"),
        ({"sticky_cookies": "A"}, "sticky_cookies is a str"),
    ],
)
def test_what_makes_no_sense_is_refused_at_construction(arguments: dict[str, object], said: str) -> None:
    """As by any emitter, with the same words."""
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        AwaitedEmitter(**{"endpoint": URL, **arguments})


def test_a_wrong_variable_is_named(monkeypatch) -> None:
    """The timeout's own default does not hide it."""
    monkeypatch.setenv("EMITTER_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="EMITTER_TIMEOUT is 'soon'"):
        AwaitedEmitter(URL)


def test_nothing_secret_is_shown() -> None:
    """Neither the query, nor a proxy's password."""
    metrics = AwaitedEmitter(URL, headers={"X-Key": "secret"}, proxy="http://user:secret@proxy.example.com:3128")

    assert repr(metrics) == "<AwaitedEmitter to http://metrics.example.com/v1/metrics>"
    assert "secret" not in repr(metrics._settings)


def test_without_aiohttp_the_import_says_what_to_install() -> None:
    """And an emitter that does not wait needs none of it."""
    code = """
import sys
sys.modules["aiohttp"] = None
from emitter import Emitter
try:
    import emitter.awaited
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "emitter.awaited needs aiohttp; install it with: pip install 'lambda-emitter[aiohttp]'\n"
