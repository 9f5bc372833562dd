from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.cookiejar import http2time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import emitter
from emitter.transmit.http_date import LIMIT_DATE_BYTES, parse_http_date

ROOT = Path(emitter.__file__).parent.parent

EXAMPLE = 784111777.0  # RFC 9110's own

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
FIRST, LAST = -11644473600, 253402300799  # 1601 to 9999, in seconds


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Whole seconds between two."""
    return st.integers(first, last).map(lambda seconds: EPOCH + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "text", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_each_form_of_http_is_read(text: bytes) -> None:
    """RFC 9110, 5.6.7, with its own examples: the preferred form, and the two obsolete ones."""
    assert parse_http_date(text) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"sunday, 6-NOV-94 8:49:37",
        b"6 November 1994 8:49:37",
        b"1994/Nov/6 08:49:37.250",
        b"08:49:37 06 Nov 1994 (Coordinated Universal Time)",
        b"Sun Nov 06 1994 08:49:37 GMT+0000",
        b"\t Sun,,06 ;Nov 1994 08:49:37\t",
    ],
)
def test_what_cookies_call_a_date_is_read_too(text: bytes) -> None:
    """RFC 6265, 5.1.1: tokens in nearly any order, between nearly any delimiters."""
    assert parse_http_date(text) == EXAMPLE


@pytest.mark.parametrize(
    ("text", "year"), [(b"70", 1970), (b"99", 1999), (b"00", 2000), (b"69", 2069), (b"1969", 1969), (b"9999", 9999)]
)
def test_two_digits_are_a_year_near_the_present(text: bytes, year: int) -> None:
    """RFC 6265, 5.1.1, steps 3 and 4."""
    expected = (datetime(year, 3, 1, tzinfo=timezone.utc) - EPOCH) / timedelta(seconds=1)

    assert parse_http_date(b"Mon, 01 Mar %b 00:00:00 GMT" % text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"-1",
        b"3600",
        b"tomorrow",
        b"Sun, 06 Nov 1994",
        b"Sun, 06 1994 08:49:37 GMT",
        b"Sun, 06 Nov 08:49:37 GMT",
        b"Nov 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Wed, 29 Feb 1995 08:49:37 GMT",
        b"Wed, 29 Feb 1900 08:49:37 GMT",
        b"Sun, 06 Nov 1600 08:49:37 GMT",
        b"Sun, 06 Nov 199 08:49:37 GMT",
        b"Sun, 06 Nov 19940 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 1994 08:49 GMT",
        b"Sun, 06 Nov 1994 08:49:377 GMT",
        b"1994-11-06T08:49:37Z",
        "٠٦ Nov ١٩٩٤ 08:49:37".encode(),
    ],
)
def test_what_is_no_date_is_none(text: bytes) -> None:
    """A part that is missing, one that no calendar has, or another notation."""
    assert parse_http_date(text) is None


@pytest.mark.parametrize("year", [1972, 2000, 2024, 2400])
def test_a_leap_day_is_one(year: int) -> None:
    """Also of the years that 400 divides."""
    expected = (datetime(year, 2, 29, tzinfo=timezone.utc) - EPOCH) / timedelta(seconds=1)

    assert parse_http_date(b"Tue, 29 Feb %d 00:00:00 GMT" % year) == expected


def test_a_leap_second_is_the_first_of_the_next_minute() -> None:
    """RFC 9110, 5.6.7, allows 23:59:60; the seconds since 1970 do not count leap seconds."""
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date(b"Sun, 01 Jan 2017 00:00:00 GMT")


def test_a_date_that_goes_on_and_on_is_none() -> None:
    """The work is bounded, whatever arrives."""
    padded = b"Sun, 06 Nov 1994 08:49:37 GMT".ljust(LIMIT_DATE_BYTES)

    assert parse_http_date(padded) == EXAMPLE
    assert parse_http_date(padded + b" ") is None


@given(moments(FIRST, LAST))
def test_every_moment_is_read_back_from_each_form(moment: datetime) -> None:
    """As `email` and C write it, and as `datetime` counts it."""
    forms = [format_datetime(moment, usegmt=True), f"{moment:%d-%b-%Y %H:%M:%S} GMT", time.asctime(moment.timetuple())]

    assert [parse_http_date(form.encode()) for form in forms] == [(moment - EPOCH) / timedelta(seconds=1)] * 3


@given(moments(0, 3155759999))
def test_a_moment_of_a_short_year_is_read_back(moment: datetime) -> None:
    """The form of RFC 850, from 1970 to 2069."""
    assert parse_http_date(f"{moment:%A, %d-%b-%y %H:%M:%S} GMT".encode()) == (moment - EPOCH) / timedelta(seconds=1)


@given(moments(0, LAST))
def test_the_standard_library_reads_the_same(moment: datetime) -> None:
    """`http.cookiejar`, which shares nothing with us, on the form that everybody writes."""
    text = format_datetime(moment, usegmt=True)

    assert parse_http_date(text.encode()) == http2time(text)


@given(st.binary(max_size=2 * LIMIT_DATE_BYTES) | st.from_regex(rb"[\d:A-Za-z ,\-]{0,60}", fullmatch=True))
def test_any_bytes_are_a_moment_or_none(text: bytes) -> None:
    """Never raises, and what comes out is a year from 1601 to 9999."""
    seconds = parse_http_date(text)

    assert seconds is None or FIRST <= seconds <= LAST + 1


def test_reading_a_date_loads_neither_email_nor_datetime() -> None:
    """They cost milliseconds, and inside a billed invocation at that."""
    # Without `site`, whose .pth files may load anything; so the checkout is not found by itself.
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from emitter.transmit.http_date import parse_http_date\n"
        "assert parse_http_date(b'Sun, 06 Nov 1994 08:49:37 GMT')\n"
        "print(*{'datetime', '_strptime', 'calendar', 'email', 'locale'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
