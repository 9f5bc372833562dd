from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.errors import ConfigurationError
from emitter.transmit.http1 import Request

examples = settings(max_examples=150, deadline=None)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


RESERVED = [
    "Connection",
    "content-encoding",
    "CONTENT-LENGTH",
    "Content-Type",
    "Expect",
    "Host",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


header_names = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True).filter(
    lambda name: name.lower() not in {reserved.lower() for reserved in RESERVED}
)


header_values = st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]) | st.just("\t"), max_size=30).map(
    lambda value: value.strip(" \t")
)


targets = st.from_regex(r"/[\x21-\x7e]{0,40}", fullmatch=True)


def read_by_h11(raw: bytes) -> tuple[h11.Request, bytes]:
    """The one request in these bytes, as a server of another author reads it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    request, body = server.next_event(), b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(request, h11.Request)
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return request, body


@examples
@given(targets, st.lists(st.tuples(header_names, header_values), max_size=5), st.binary(max_size=200))
def test_h11_reads_our_requests_as_they_were_meant(target: str, headers: list[tuple[str, str]], body: bytes) -> None:
    """Any target, any header fields, any body: a server reads back exactly those, and nothing after them."""
    request = Request(target, "metrics.example.com:4318", "application/x-protobuf", headers)
    seen, seen_body = read_by_h11(request.encode(body))

    assert (seen.method, seen.target, seen.http_version) == (b"POST", target.encode(), b"1.1")
    assert seen_body == body
    assert list(seen.headers) == [
        (b"host", b"metrics.example.com:4318"),
        (b"content-type", b"application/x-protobuf"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in headers),
        (b"content-length", str(len(body)).encode()),
    ]


def test_a_request_carries_one_body_after_another() -> None:
    """Bytes or a buffer that is used again; the head is made once, and what was encoded stays."""
    request = Request("/v1/metrics", "localhost", "text/plain")
    buffer = bytearray(b"one")
    first = request.encode(buffer)
    buffer[:] = b"four"
    second = request.encode(buffer)

    assert (
        first
        == b"POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\none"
    )
    assert second.endswith(b"Content-Length: 4\r\n\r\nfour")


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\nb", "é", "a\0", "(x)", None, 5, b"bytes"])
def test_a_header_name_that_is_no_token_is_refused(name: object) -> None:
    """RFC 9110, 5.6.2. The value is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        Request("/", "localhost", "text/plain", [(name, "s3cret")])

    assert "s3cret" not in str(caught.value)
    assert re.search("is not a token; expected letters, digits and dashes|; expected a string", str(caught.value))


def test_a_secret_in_the_place_of_a_name_is_not_shown() -> None:
    """A colon for the equals sign in `EMITTER_HEADERS` makes a name that ends in the secret."""
    with pytest.raises(
        ConfigurationError, match="the header that begins with 'Authorization' is not a token"
    ) as caught:
        Request("/", "localhost", "text/plain", [("Authorization: Bearer s3cret", "")])

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["s3cret\r\nX: y", "s3cret\n", "s3cret\r", "s3cret\0", "s3cret\x7f", "s3cret€", None, b"s3cret"]
)
def test_a_header_value_that_would_break_the_message_is_refused(value: object) -> None:
    """RFC 9110, 5.5. It may be secret, so it is not shown; its name is."""
    with pytest.raises(ConfigurationError) as caught:
        Request("/", "localhost", "text/plain", [("X-Key", value)])

    assert "'X-Key' (not shown, it may be secret) has a line break" in str(caught.value)
    assert "expected one line of text" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", RESERVED)
def test_what_frames_the_message_is_not_the_users_to_set(name: str) -> None:
    """Two lengths, or another one, and the peer reads the next report from the middle of this one."""
    with pytest.raises(ConfigurationError) as caught:
        Request("/", "localhost", "text/plain", [(name, "s3cret")])

    assert str(caught.value) == f"the header {name!r} is set by the emitter itself; expected it to be left out"


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\n", "/\n", "/\x7f", "/é", "/\0"])
def test_a_target_that_would_break_the_message_is_refused(target: str) -> None:
    """RFC 9112, 3.2."""
    with pytest.raises(ConfigurationError, match="has a space or a control character; expected %20 and the like"):
        Request(target, "localhost", "text/plain")
