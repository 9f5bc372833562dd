from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.errors import ConfigurationError
from tests.settled import URL, refusal, resolved

OTEL_URL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "target"),
    [
        ("http://example.com", "example.com", 80, "example.com", "/"),
        ("http://example.com/", "example.com", 80, "example.com", "/"),
        ("http://example.com:80/v1", "example.com", 80, "example.com", "/v1"),
        ("http://example.com:/v1", "example.com", 80, "example.com", "/v1"),
        ("http://example.com:4318/v1/metrics", "example.com", 4318, "example.com:4318", "/v1/metrics"),
        ("HTTP://Example.COM/Path", "example.com", 80, "example.com", "/Path"),
        ("http://127.0.0.1:1/", "127.0.0.1", 1, "127.0.0.1:1", "/"),
        ("http://[::1]:4318/v1", "::1", 4318, "[::1]:4318", "/v1"),
        ("http://[2001:DB8::1]/", "2001:db8::1", 80, "[2001:db8::1]", "/"),
        ("http://example.com?key=1&b", "example.com", 80, "example.com", "/?key=1&b"),
        ("http://example.com/v1?key=1#part", "example.com", 80, "example.com", "/v1?key=1"),
        ("http://user:word@example.com:65535/%20", "example.com", 65535, "example.com:65535", "/%20"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, authority: str, target: str) -> None:
    """What to connect to, what goes into `Host` and what into the request line; a fragment is the client's own."""
    for endpoint in (resolved(endpoint=url).endpoint, resolved({"EMITTER_ENDPOINT": url}).endpoint):
        assert (endpoint.host, endpoint.port) == (host, port)
        assert (endpoint.authority, endpoint.target) == (authority, target)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://x", "has the scheme 'ftp'"),
        ("file:///etc/passwd", "has the scheme 'file'"),
        ("not a url", "has a space, a control character or one beyond ASCII in it"),
        ("not-a-url", "has no scheme"),
        ("", "has no scheme"),
        ("/v1/metrics", "has no scheme"),
        ("//example.com/v1", "has no scheme"),
        ("example.com:4318", "has no scheme"),
        ("t0ken:@example.com/v1/metrics", "has no scheme"),
        ("http:", "has no host"),
        ("http://", "has no host"),
        ("http:///v1/metrics", "has no host"),
        ("http://:80/", "has no host"),
        ("http://user@/", "has no host"),
        ("http://example.com:0/", "has a port that is no number from 1 to 65535"),
        ("http://example.com:99999/", "has a port that is no number from 1 to 65535"),
        ("http://example.com:-1/", "has a port that is no number from 1 to 65535"),
        ("http://example.com:http/", "has a port that is no number from 1 to 65535"),
        ("http://[::1/", "is malformed"),
        ("http://example.com/\r\nX: y", "has a space, a control character"),
        ("http://exam\nple.com/", "has a space, a control character"),
        ("http://example.com/\0", "has a space, a control character"),
        ("http://example.com/\x7f", "has a space, a control character"),
        ("http://exämple.com/", "has a space, a control character"),
        (b"http://example.com/", "is a bytes"),
        (5, "is a int"),
    ],
)
def test_what_is_no_url_to_post_to_is_refused(url: Any, why: str) -> None:
    """The text says what was wrong, where it came from and what was expected."""
    text = refusal(endpoint=url)

    assert text.startswith(f"the endpoint {why}")
    assert text.endswith("; expected a full URL such as http://metrics.example.com/v1/metrics")
    if isinstance(url, str) and url.strip():
        for name in ("EMITTER_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
            assert refusal({name: url}).startswith(f"{name} {why}")


def test_no_endpoint_at_all_is_refused() -> None:
    """With both ways to give one."""
    text = refusal({})

    assert text.startswith("no endpoint was given; expected the URL that reports are POSTed to")
    assert "Emitter('http://localhost:4318/v1/metrics')" in text
    assert "EMITTER_ENDPOINT" in text


def test_the_path_of_a_base_endpoint_comes_before_its_query() -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT is a base to which /v1/metrics is added."""
    for base, shown in [
        ("http://c", "/v1/metrics"),
        ("http://c/a/", "/a/v1/metrics"),
        ("http://c/a?k=1", "/a/v1/metrics?k=1"),
    ]:
        assert resolved({"OTEL_EXPORTER_OTLP_ENDPOINT": base}).endpoint.target == shown


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_an_endpoint_for_another_protocol_is_refused(name: str) -> None:
    """OpenTelemetry's endpoint goes with OpenTelemetry's protocol; our own variable stands for itself."""
    text = refusal(OTEL_URL | {name: "grpc"})

    assert text.startswith(f"{name} is 'grpc' and the endpoint comes from OTEL_EXPORTER_OTLP_ENDPOINT; expected")
    assert resolved(OTEL_URL | {name: "http/protobuf"}).endpoint.host == "collector"
    assert resolved(OTEL_URL | {name: "grpc", "EMITTER_ENDPOINT": URL}).endpoint.host == "metrics.example.com"
    assert resolved(OTEL_URL | {name: "grpc"}, endpoint=URL).endpoint.host == "metrics.example.com"


@pytest.mark.parametrize(
    ("user_info", "expected"),
    [
        ("user:word", "user:word"),
        ("us%40er:w%3A%2Fd", "us@er:w:/d"),
        ("user", "user:"),
        (":word", ":word"),
        ("%C3%A9:x", "é:x"),
    ],
)
def test_user_and_password_in_a_url_become_credentials(user_info: str, expected: str) -> None:
    """Basic (RFC 7617), in every request, unless an `Authorization` was given; never in `Host`."""
    settings = resolved(endpoint=f"http://{user_info}@example.com/")
    basic = "Basic " + base64.b64encode(expected.encode()).decode()

    assert ("Authorization", basic) in settings.request_headers
    assert settings.endpoint.authority == "example.com"
    own = resolved(endpoint=f"http://{user_info}@example.com/", headers={"authorization": "Bearer x"})
    assert [value for name, value in own.request_headers if name.lower() == "authorization"] == ["Bearer x"]


def test_an_endpoint_that_was_given_is_checked_even_if_disabled() -> None:
    """A mistake in the code should not wait for production to be seen."""
    assert refusal({"EMITTER_DISABLED": "true"}, endpoint="ftp://x").startswith("the endpoint has the scheme 'ftp'")


SECRETS = {
    "endpoint": "http://user-s3cret:s3cret@example.com/v1?key=s3cret",
    "headers": {"Authorization": "Bearer s3cret"},
}


def test_secrets_are_in_no_repr() -> None:
    """Neither credentials nor the query of the URL nor header values; they do go out."""
    found = resolved(**SECRETS)

    for shown in (repr(found), str(found), repr(found.endpoint), found.endpoint.shown, f"{found}"):
        assert "example.com/v1" in shown
        assert "s3cret" not in shown
        assert base64.b64encode(b"user-s3cret:s3cret").decode() not in shown
    assert "s3cret" in found.endpoint.target
    assert "s3cret" in dict(found.request_headers)["Authorization"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:s3cret@example.com/?key=s3cret",
        "http://user:s3cret/x@example.com/",  # what stands after the colon is then read as the port
        "http://user:s3cret#x@example.com/",
        "http://user:s3cret?x@example.com/",
        "http://user:s3cret]@example.com/",
        "http://user:s3cret@example.com:99999/",
        "http://user:s3cret@example.com:0/",
        "http://user:s3cret@/",
        "http://user:s3cret @example.com/",
        "https://user:s3cret@[example.com/",
    ],
)
def test_secrets_are_in_no_refusal(url: str) -> None:
    """A password with a character that ought to have been encoded is the most likely mistake of all."""
    for environment, arguments in (({}, {"endpoint": url}), ({"EMITTER_ENDPOINT": url}, {})):
        with pytest.raises(ConfigurationError) as caught:
            resolved(environment, **arguments)

        assert "s3cret" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"(?:https?|ftp)://[ -~]{0,30}", fullmatch=True))
def test_any_text_is_an_endpoint_or_refused(url: str) -> None:
    """Whatever is set, it is taken apart into what can be put into a request, or refused as a setting."""
    try:
        endpoint = resolved(endpoint=url).endpoint
    except ConfigurationError as error:
        text = str(error)
    else:
        text = ""

        assert endpoint.host
        assert 0 < endpoint.port < 65536
        assert endpoint.target[0] in "/?"
        assert all("!" <= character <= "~" for character in endpoint.target + endpoint.authority)
    assert text == "" or text.startswith("the endpoint ")
