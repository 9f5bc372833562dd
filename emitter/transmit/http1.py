"""Owns HTTP/1.1 bytes: the request we write, the answers we read. Never sees a socket, a clock or a metric.

Source: RFC 9110 and 9112. Answers are parsed by llhttp, through httptools; what is added here is what a client
must decide for itself: which answers are final, when the connection ends, and how much is too much.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpResponseParser

from emitter.errors import AnswerError, ConfigurationError
from emitter.transmit.http_date import parse_http_date

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "LIMIT_BODY_BYTES",
    "LIMIT_HEADERS",
    "LIMIT_HEAD_BYTES",
    "LIMIT_INTERIM",
    "Answer",
    "AnswerParser",
    "Request",
    "signature_fields",
]

LIMIT_HEAD_BYTES = 64 * 1024
"""Of one answer's status line and headers, interim answers included. AWS load balancers allow 64 KiB."""

LIMIT_BODY_BYTES = 1024 * 1024
"""Of one answer's body, which is thrown away: beyond this a new connection is cheaper than reading on."""

_LEAST_CHUNK_BYTES = 6
"""What the smallest chunk of a body takes on the wire (RFC 9112, 7.1): a body in tiny ones counts as what it costs."""

LIMIT_HEADERS = 256
"""Fields in one answer, trailers included."""

LIMIT_INTERIM = 16
"""Interim (1xx) answers before the final one; nothing honest has more than a few."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5: visible characters, space, tab, obs-text
_TARGET = re.compile(r"[\x21-\x7e]+")  # RFC 9112, 3.2: no white space, no control character

_SECONDS = re.compile(rb"[0-9]{1,10}")  # RFC 9110, 10.2.3: `delay-seconds`

_OURS = {"connection", "cookie", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"} | {
    "content-encoding",
    "content-length",
    "content-type",
}
"""What decides where a message ends or what it is: never the user's to set."""


class Request:
    """The POST that carries every report of one endpoint; only the body differs.

    Args:
        target: Path and query, as in `/v1/metrics`.
        host: The authority: name or address, and the port if it is not the default (RFC 9110, 7.2).
        content_type: Media type of the bodies.
        headers: Further fields.
        format_headers: Those that the bodies' format asks for.

    Attributes:
        fields: Names and values of all fields that each request has.

    Raises:
        ConfigurationError: Something in it would break the message; what, and what was expected. Values are never
            shown, since they may be secret.
    """

    def __init__(
        self,
        target: str,
        host: str,
        content_type: str,
        headers: Iterable[tuple[str, str]] = (),
        format_headers: Mapping[str, str] | None = None,
    ) -> None:
        if not _TARGET.fullmatch(target):
            raise ConfigurationError(
                f"the path {target!r} has a space or a control character; expected %20 and the like"
            )
        fields = [("Host", host), ("Content-Type", content_type), *(format_headers or {}).items()]
        for name, value in fields[:2]:
            _check_value(name, value)
        for name, value in fields[2:]:
            _check_name(name, _OURS - {"content-encoding"})
            _check_value(name, value)
        ours = _OURS.union(name.lower() for name in format_headers or ())
        for name, value in headers:
            _check_name(name, ours)
            _check_value(name, value)
            fields.append((name, value))
        head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._head = head.encode("latin-1")
        self.fields = tuple(fields)

    def encode(
        self, body: bytes | bytearray, cookies: bytes = b"", *, gzip: bool = False, signature: bytes = b""
    ) -> bytes:
        """The whole request as one run of bytes: the one copy that is made of the body.

        Args:
            body: The report.
            cookies: The whole field, its line break included; empty for none.
            gzip: Whether the body is in gzip format (RFC 9110, 8.4).
            signature: Whole fields, as `signature_fields` makes them.
        """
        coding = b"Content-Encoding: gzip\r\n" if gzip else b""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"".join((self._head, cookies, coding, signature, length, body))


def signature_fields(fields: Mapping[str, str]) -> bytes:
    """The fields that a signer adds to a request, each with its line break.

    Raises:
        ConfigurationError: One of them would break the message.
    """
    for name, value in fields.items():
        _check_name(name, _OURS)
        _check_value(name, value)
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")


def _check_name(name: str, ours: Collection[str]) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"a header's name is a {type(name).__name__}; expected a string")
    if not _TOKEN.fullmatch(name):
        # With a colon for the equals sign, `key=value` becomes a name that holds the secret: only its start is shown.
        start = _TOKEN.match(name)
        raise ConfigurationError(
            f"the name of the header that begins with {start[0] if start else ''!r} is not a token; expected letters, "
            "digits and dashes"
        )
    if name.lower() in ours:
        raise ConfigurationError(f"the header {name!r} is set by the emitter itself; expected it to be left out")


def _check_value(name: str, value: str) -> None:
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ConfigurationError(
            f"the value of the header {name!r} (not shown, it may be secret) has a line break, another control "
            "character or one beyond Latin-1; expected one line of text"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer, read to its end.

    Attributes:
        status: The three digits.
        headers: Names in lower case and values, both as received, in order.
        keep_alive: Whether the connection may be used again after it.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool

    def retry_after(self, now: float) -> float | None:
        """Seconds for which the peer asks to be left alone (RFC 9110, 10.2.3); `None` if it does not.

        Args:
            now: Seconds since 1970; the peer may give a date.
        """
        for name, value in self.headers:
            if name == b"retry-after":
                if _SECONDS.fullmatch(value):
                    return float(value)
                date = parse_http_date(value)
                return None if date is None else max(0.0, date - now)
        return None


class AnswerParser:
    """Turns bytes, in whatever pieces they arrive, into final answers.

    Interim answers are skipped. Bodies are read past and thrown away. Everything is bounded, so hostile bytes
    cost a connection and nothing else.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._answers: list[Answer] = []
        self._refusal: AnswerError | None = None  # what a callback has raised; httptools does not always hand it on
        self._headers: list[tuple[bytes, bytes]] = []
        self._interim = 0
        self._body_bytes = 0
        self._head_bytes = 0  # fed since the last byte that was known to belong to a body or to end an answer
        self._in_answer = False
        self._in_body_until_close = False

    @property
    def unfinished(self) -> bool:
        """Whether an answer has begun and not ended."""
        return self._in_answer

    def take(self) -> list[Answer]:
        """The final answers that are complete and were not taken yet, oldest first."""
        answers, self._answers = self._answers, []
        return answers

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            AnswerError: This is no HTTP/1.1 answer, or too much of one. The parser and its connection are done
                for; answers that were complete before that can still be taken.
        """
        self._head_bytes += len(data)
        handled = sys.exc_info()[1]  # Python makes it the context of whatever is raised here
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if self._refusal is not None:
                raise self._refusal from None
            # An interrupt (Ctrl-C, an alarm) in one of the callbacks below; not to be told where another is handled.
            if error.__context__ is not None and error.__context__ is not handled:
                raise error.__context__ from None
            raise AnswerError(f"not an HTTP/1.1 answer: {error}") from None
        if self._head_bytes > LIMIT_HEAD_BYTES:
            # Counted by whole feeds, since llhttp keeps an unfinished field to itself. What shares a feed with the end
            # of the answer before, or with its own, is not counted: so a head may have two feeds more than the limit.
            raise AnswerError(f"more than {LIMIT_HEAD_BYTES} bytes of headers")

    def end(self) -> None:
        """Note the end of the stream, which is also how a body without a length ends (RFC 9112, 6.3)."""
        if self._in_body_until_close:
            self._complete(keep_alive=False)

    # What httptools calls while it is fed.

    def on_message_begin(self) -> None:
        """Forget the answer before."""
        self._in_answer = True
        self._headers = []
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field."""
        if len(self._headers) >= LIMIT_HEADERS:
            raise self._refuse(f"more than {LIMIT_HEADERS} header fields")
        self._headers.append((name.lower(), value.strip(b" \t")))  # RFC 9112, 5.1: no white space around values

    def on_headers_complete(self) -> None:
        """Decide what kind of body follows."""
        status = self._parser.get_status_code()
        if status < 100:
            raise self._refuse(f"status {status:03d}")
        if status == 101:
            raise self._refuse("the peer switched protocols (101), which nobody asked for")
        if self._parser.get_http_version() not in {"1.0", "1.1"}:
            raise self._refuse(f"HTTP/{self._parser.get_http_version()} on an HTTP/1.1 connection")
        # RFC 9112, 6.3. What has no body for its status (1xx, 204, 304) llhttp completes at once.
        self._in_body_until_close = status >= 200
        for name, value in self._headers:
            if name == b"content-length" or (
                name == b"transfer-encoding" and value.lower().rpartition(b",")[2].strip() == b"chunked"
            ):
                self._in_body_until_close = False
                if status < 200:  # llhttp would read one, which may be the next answer (RFC 9110, 8.6 and 15.2)
                    raise self._refuse("an interim answer with a body")

    def on_body(self, body: bytes) -> None:
        """Throw it away, and count."""
        self._head_bytes = 0
        self._body_bytes += max(len(body), _LEAST_CHUNK_BYTES)
        if self._body_bytes > LIMIT_BODY_BYTES:
            raise self._refuse(f"more than {LIMIT_BODY_BYTES} bytes of body")

    def on_message_complete(self) -> None:
        """An answer has ended, final or interim."""
        if self._parser.get_status_code() < 200:
            self._interim += 1
            if self._interim > LIMIT_INTERIM:
                raise self._refuse(f"more than {LIMIT_INTERIM} interim answers before a final one")
            return
        self._complete(keep_alive=self._parser.should_keep_alive())

    def _refuse(self, why: str) -> AnswerError:
        self._refusal = AnswerError(why)
        return self._refusal

    def _complete(self, *, keep_alive: bool) -> None:
        self._in_body_until_close = self._in_answer = False
        self._interim = 0
        self._head_bytes = 0
        self._answers.append(Answer(self._parser.get_status_code(), tuple(self._headers), keep_alive))
