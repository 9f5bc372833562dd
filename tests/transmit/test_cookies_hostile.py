"""What arrives is not ours: nothing raises, nothing grows, and what goes back is one line of legal characters."""

from __future__ import annotations

import re
import urllib.request
from email.message import Message
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitter.transmit.cookies import LIMIT_COOKIE_BYTES, LIMIT_COOKIES, LIMIT_FIELD_BYTES, CookieStore

NOW = 784_111_777.0

# RFC 6265, 4.2.1 and 4.1.1, written down here a second time: cookie-string, of tokens and cookie-octets.
OCTETS = rb"[!#-+\--:<-\[\]-~]*"
PAIR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=(?:" + OCTETS + rb'|"' + OCTETS + rb'")'
LEGAL = re.compile(rb"(?:Cookie: " + PAIR + rb"(?:; " + PAIR + rb")*\r\n)?")

# Bytes that look like a cookie often enough to get somewhere.
LIKELY = rb"a|p-|AWSALB|=|;|; |Max-Age=|Expires=|Path=|/|/v1|Secure|0|99|Sun, 06 Nov 2094 08:49:37 GMT| |,|\|" + b'"'
PIECES = st.sampled_from([*LIKELY.split(b"|"), b"\r\n", b"\0", b"\x7f", b"\t", b"\xff", b"x" * 900])
LINES = st.binary() | st.lists(PIECES, max_size=12).map(b"".join) | st.binary().map(lambda rest: b"p-" + rest)


def store() -> CookieStore:
    """One that also learns `a` and what begins with `p-`."""
    return CookieStore(["a", "p-*"], target="/v1/metrics", secure=False)


def set_cookie(*lines: bytes) -> list[tuple[bytes, bytes]]:
    """The headers that set them."""
    return [(b"set-cookie", line) for line in lines]


@given(st.lists(st.tuples(st.lists(LINES, max_size=8), st.floats(0, 2)), max_size=8))
def test_whatever_is_set_what_goes_back_is_one_legal_line(answers: list[tuple[list[bytes], float]]) -> None:
    """Never raises, never outgrows its bound; h11 takes the request it is put into for exactly one field more."""
    cookies = store()
    now = NOW
    for lines, seconds in answers:
        cookies.learn(set_cookie(*lines), now)
        now += seconds
        field = cookies.header(now)

        assert LEGAL.fullmatch(field)
        assert len(field) <= LIMIT_FIELD_BYTES
        assert len(cookies._cookies) <= LIMIT_COOKIES
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n")
        read = [value for name, value in parser.next_event().headers if name == b"cookie"]
        assert read == ([field[len(b"Cookie: ") : -2]] if field else [])


@pytest.mark.parametrize(
    "line",
    [
        b"a=1\r\nX: y",
        b"a=1\n",
        b"a=1\r",
        b"a=\0",
        b"a=\x7f",
        b"a=1; Path=/\x01",
        b"a=1\t2",
        b"a=1 2",
        b"a=1,2",
        b'a=1"2',
        b'a="1',
        b'a="',
        b"a=1\\2",
        b"a=\xc3\xa9",
        b"p-\x0b=1",
        b"p-(=1",
        b"p- q=1",
        b"p-\xc3\xa9=1",
        b'p-"=1',
    ],
)
def test_what_would_break_the_field_is_dropped_with_a_count(line: bytes) -> None:
    """Control characters anywhere; in the value all but cookie-octets. What was there before stays."""
    cookies = store()
    cookies.learn(set_cookie(b"a=before", line), NOW)

    assert cookies.dropped == 1
    assert cookies.header(NOW) == b"Cookie: a=before\r\n"


def test_a_cookie_has_a_largest_size() -> None:
    """RFC 6265, 6.1: with its name and attributes."""
    largest = (b"a=1; Path=/; x=").ljust(LIMIT_COOKIE_BYTES, b"x")
    cookies = store()
    cookies.learn(set_cookie(largest), NOW)
    taken = cookies.header(NOW)
    cookies.learn(set_cookie(largest.replace(b"a=1", b"a=2") + b"x", b"other=" + largest), NOW)

    assert taken == b"Cookie: a=1\r\n"
    assert cookies.header(NOW) == taken
    assert cookies.dropped == 1


def test_there_are_only_so_many_cookies() -> None:
    """Those that came first stay, can be refreshed, and make room when they end."""
    cookies = store()
    names = [b"p-%d" % number for number in range(LIMIT_COOKIES)]
    cookies.learn(set_cookie(*(name + b"=1; Max-Age=%d" % (1 + number) for number, name in enumerate(names))), NOW)
    full = cookies.header(NOW)
    cookies.learn(set_cookie(b"a=1", b"p-3=2; Max-Age=9"), NOW)
    refused = cookies.header(NOW)
    cookies.learn(set_cookie(b"a=2"), NOW + 1)

    assert full.count(b"=1") == LIMIT_COOKIES
    assert refused == full.replace(b"p-3=1", b"p-3=2")
    assert cookies.dropped == 1
    assert cookies.header(NOW + 1) == refused.replace(b"p-0=1; ", b"").replace(b"\r\n", b"; a=2\r\n")


def test_the_field_has_a_largest_size() -> None:
    """To the byte: nginx takes no line above 8 KiB, and a request that it refuses reports nothing at all."""
    cookies = store()
    overhead = len(b"Cookie: p-1=; p-2=; a=\r\n")
    first, second = b"x" * 4000, b"y" * 3900
    left = LIMIT_FIELD_BYTES - overhead - len(first) - len(second)
    cookies.learn(set_cookie(b"p-1=" + first, b"p-2=" + second, b"a=" + b"z" * left), NOW)
    fits = cookies.header(NOW)
    cookies.learn(set_cookie(b"a=" + b"z" * (left + 1)), NOW)

    assert len(fits) == LIMIT_FIELD_BYTES
    assert cookies.header(NOW) == fits
    assert cookies.dropped == 1


class Answer(Message):
    """An answer, as far as `http.cookiejar` looks at one."""

    def info(self) -> Message:
        """Its headers."""
        return self


def written_by_the_standard_library(lines: list[str]) -> str:
    """The value of `Cookie` after one answer for each line."""
    jar = CookieJar()
    request = urllib.request.Request("https://metrics.example.com/v1/metrics", method="POST")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("time.time", lambda: NOW)
        for line in lines:  # of several cookies in one answer it would first do all deletions
            answer = Answer()
            answer["Set-Cookie"] = line
            jar.extract_cookies(answer, request)
        jar.add_cookie_header(request)
    return request.get_header("Cookie", "")


NAMES = st.sampled_from(["a", "p-1", "p-2"])
VALUES = st.from_regex(OCTETS.decode(), fullmatch=True)
PATHS = st.sampled_from(["", "; Path=/", "; path=/v1", "; Path=/v1/metrics", "; Path=/v1/met", "; Path=/v2"])
ENDS = [
    "",
    "; Max-Age=9",
    "; Max-Age=0; Secure",
    "; Expires=Sun, 06 Nov 1994 08:49:36 GMT",
    "; Expires=Sunday, 06-Nov-94 08:49:38 GMT; HttpOnly",
    "; Expires=Sun, 06 Nov 1994 08:49:36 GMT; Max-Age=5",
    "; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
]
COOKIES = st.builds("{}={}{}{}".format, NAMES, VALUES, PATHS, st.sampled_from(ENDS))


@given(st.lists(COOKIES, max_size=10))
def test_the_standard_library_would_write_the_same_cookies(lines: list[str]) -> None:
    """`http.cookiejar` as an oracle, on cookies such as honest servers set; `http.cookies` reads what we write."""
    cookies = CookieStore(["a", "p-*"], target="/v1/metrics", secure=True)
    for line in lines:
        cookies.learn(set_cookie(line.encode()), NOW)
    pairs = cookies.header(NOW)[len(b"Cookie: ") :].decode().rstrip().split("; ")

    assert cookies.dropped == 0
    assert sorted(pairs) == sorted(written_by_the_standard_library(lines).split("; "))
    assert SimpleCookie("; ".join(pairs)).keys() == {pair.partition("=")[0] for pair in pairs if pair}
