from __future__ import annotations

import ssl

import pytest

from emitter import ConfigurationError, Emitter, InstrumentConflictError, RecordingError
from emitter.encode import as_encoder
from tests.flushing import orders


async def test_synchronous_calls_inside_a_loop_say_what_to_await(metrics):
    """They would block the loop."""
    for call, instead in (
        (metrics.flush_sync, r"flush\(\)"),
        (metrics.connect_sync, r"connect\(\)"),
        (metrics.close_sync, r"close\(\)"),
    ):
        with pytest.raises(RuntimeError, match=f"await {instead}"):
            call()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"endpoint": "ftp://x"}, "has the scheme 'ftp'; expected a full URL"),
        ({"endpoint": "not a url"}, "has a space"),
        ({}, "no endpoint was given; expected the URL"),
        ({"endpoint": "https://x/", "ssl_context": "ca.pem"}, "expected an ssl.SSLContext"),
        ({"endpoint": "https://x/", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "one for clients"),
        ({"endpoint": "http://x/", "ssl_context": ssl.create_default_context()}, "is no https URL; expected https://"),
        ({"endpoint": "http://x/", "idle_limit": -1}, "idle_limit is -1; expected seconds"),
        ({"endpoint": "http://x/", "age_limit": "long"}, "age_limit is 'long'; expected seconds"),
        ({"endpoint": "http://x/", "sticky_cookies": "SERVERID"}, "expected"),
        ({"endpoint": "http://x/", "sticky_cookies": ["A B"]}, "expected"),
        ({"endpoint": "http://x/", "headers": {"Cookie": "a=b"}}, "set by the emitter itself"),
        ({"endpoint": "http://x/", "headers": {"X-Key": "a\r\nb"}}, "the value of the header 'X-Key' .* line break"),
        ({"endpoint": "http://x/", "encoder": "smoke"}, "encoder is 'smoke'; expected one of influx, json, otlp"),
        ({"endpoint": "http://x/", "series_limit": 0}, "series_limit is 0; expected an integer, 1 or more"),
    ],
)
def test_a_mistake_in_the_settings_is_told_at_construction(arguments, text):
    """What was wrong, and what was expected."""
    with pytest.raises(ConfigurationError, match=text):
        Emitter(**arguments)


def test_mistakes_in_recording_leave_what_was_recorded(peer, metrics):
    """Each raises where it is made, and the report has what was right."""
    counter = metrics.counter("orders")
    counter.add(3)
    for wrong in (-1, float("nan"), True, "1"):
        with pytest.raises(RecordingError, match="'orders' was asked to add"):
            counter.add(wrong)
    with pytest.raises(RecordingError, match="attribute 'tags' is a list"):
        counter.add(1, tags=["a"])
    with pytest.raises(InstrumentConflictError, match="'orders' was made as a counter"):
        metrics.gauge("orders")
    metrics.flush_sync()

    assert orders(peer.accept().read_request().body) == 3


@pytest.mark.parametrize(
    "arguments", [{"timeout": "fast"}, {"timeout": float("nan")}, {"timeout": -1}, {"delivery": "acknowledged"}]
)
def test_a_mistake_in_a_call_is_told_before_anything_is_done(peer, metrics, arguments):
    """The decorator tells it where it stands, not at the end of each invocation."""
    for call in (metrics.flush_sync, metrics.lambda_handler):
        with pytest.raises(ConfigurationError, match=r"expected seconds|expected a Delivery"):
            call(**arguments)

    assert metrics.stats.flushes == 0
    assert not peer.has_another_connection()


def test_an_encoder_whose_content_type_would_break_the_message_is_refused():
    """It goes into a header like any other."""

    @as_encoder("text/plain\r\nX-Injected: yes")
    def broken(snapshot):
        return b""

    with pytest.raises(ConfigurationError, match=r"'Content-Type' .* line break"):
        Emitter("http://x/", encoder=broken)
