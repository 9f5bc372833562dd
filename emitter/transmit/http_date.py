"""Owns the dates of HTTP: `Retry-After`, and the `Expires` of cookies. Never sees a clock, so no date is late or early.

`email`, `datetime` and `time.strptime` read dates too, but importing them takes milliseconds out of the invocation
that first needs one. The algorithm for cookies (RFC 6265, 5.1.1) reads each of HTTP's three forms (RFC 9110, 5.6.7)
as well, so it is the only one here:

    Sun, 06 Nov 1994 08:49:37 GMT     what everybody writes today
    Sunday, 06-Nov-94 08:49:37 GMT    RFC 850
    Sun Nov  6 08:49:37 1994          C's asctime
"""

from __future__ import annotations

import re

__all__ = ["LIMIT_DATE_BYTES", "parse_http_date"]

LIMIT_DATE_BYTES = 128
"""Beyond this it is no date: what browsers and servers write ends at about 60, a time zone's long name included."""

_TOKEN = re.compile(rb"[^\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(rb"(\d{1,2}):(\d{1,2}):(\d{1,2})(?!\d)")
_DAY = re.compile(rb"(\d{1,2})(?!\d)")
_YEAR = re.compile(rb"(\d{2,4})(?!\d)")

_MONTHS = {name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_MONTH_DAYS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_FIRST_YEAR = 1601  # RFC 6265, 5.1.1, step 5: where the calendar's cycle of 400 years begins
_DAYS_TO_1970 = 719_469  # so that 1 January 1970 is day 0 of `_day_number`


def parse_http_date(text: bytes) -> float | None:
    """Seconds since 1970 (UTC); `None` if it is no date.

    The time zone is not looked at: HTTP knows only GMT. A year of two digits is one from 1970 to 2069, as for cookies;
    RFC 9110 would have it within 50 years of today, but that form has not been written for decades.

    Args:
        text: The value of a header field or of a cookie's attribute: any bytes at all.
    """
    if len(text) > LIMIT_DATE_BYTES:
        return None
    clock: tuple[int, int, int] | None = None
    day = month = year = None
    # Each token is the first thing that it can be and that was not found yet.
    for token in _TOKEN.findall(text):
        if clock is None and (found := _TIME.match(token)):
            clock = int(found[1]), int(found[2]), int(found[3])
        elif day is None and (found := _DAY.match(token)):
            day = int(found[1])
        elif month is None and (named := _MONTHS.get(token[:3].lower())):
            month = named
        elif year is None and (found := _YEAR.match(token)):
            year = _full_year(int(found[1]))
    if clock is None or day is None or month is None or year is None:
        return None
    hour, minute, second = clock
    # A minute may end in second 60, a leap second (RFC 9110, 5.6.7), which counts as the next minute's first.
    if hour > 23 or minute > 59 or second > 60 or year < _FIRST_YEAR or not 1 <= day <= _days_in(month, year):
        return None
    return float(((_day_number(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)


def _full_year(year: int) -> int:
    if year < 70:
        return year + 2000
    return year + 1900 if year < 100 else year


def _days_in(month: int, year: int) -> int:
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return _MONTH_DAYS[month] + leap


def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1 January 1970, in the Gregorian calendar."""
    if month < 3:  # years are counted from March, so that the leap day is the last of its year
        year, month = year - 1, month + 12
    before_this_month = (153 * month - 457) // 5  # 31, 61, 92, ...: months of 31 and 30 days in turns of five
    return 365 * year + year // 4 - year // 100 + year // 400 + before_this_month + day - _DAYS_TO_1970
