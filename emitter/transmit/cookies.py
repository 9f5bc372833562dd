"""Owns the load-balancer cookies of one endpoint: learned from answers, written back. Never sees a socket or a clock.

A receiver folds the totals of a sandbox, so a sandbox should keep reaching the same replica, over reconnects too. Load
balancers offer that by a cookie. Only cookies that are known for it, or that the user lists, are learned: this is no
browser, and whatever else a server sets is none of our business.

Source: RFC 6265, sections 5.2 to 5.4 for reading and choosing, 4.2 for what is written. Differently from a browser,

    Domain    is not looked at. It widens a cookie to further hosts; here it only ever goes back to the very host, name
              and port, that set it, and that host may set its own cookies for itself in any case.
    Secure    makes no sense on an answer over plain HTTP, where such a cookie is left alone, as newer browsers do
              (RFC 6265bis, 5.7).
    values    have to be cookie-octets (4.1.1), which servers are told to keep to and browsers do not check. Nothing
              else is ever written.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

from emitter.errors import ConfigurationError
from emitter.transmit.http_date import parse_http_date

__all__ = ["DEFAULT_NAMES", "LIMIT_COOKIES", "LIMIT_COOKIE_BYTES", "LIMIT_FIELD_BYTES", "CookieStore"]

DEFAULT_NAMES = ("AWSALB", "AWSALBCORS", "AWSALBTG", "AWSALBTGCORS", "AWSALBAPP-*")
"""What AWS's Application Load Balancer calls its cookies: of a target, of a weighted target group; and the last one
goes together with an application's own."""

LIMIT_COOKIE_BYTES = 4096
"""Of one cookie with its name and attributes: what clients are to provide for at least (RFC 6265, 6.1)."""

LIMIT_COOKIES = 16
"""Different cookies at a time; a load balancer has one to four."""

LIMIT_FIELD_BYTES = 8000
"""Of the whole field, its name and line end included. The tightest known is nginx's default for one line: 8,192 bytes
pass it and 8,193 do not (measured, 1.22). HAProxy takes 15 KiB of head, Application Load Balancers 16 K a line."""

_FIELD = b"Cookie: "
_NEVER = float("inf")
_FORGOTTEN = float("-inf")

_NAME = re.compile(r"([!#$%&'+.^_`|~0-9A-Za-z-]+)(\*?)")  # RFC 9110, 5.6.2: a token, whose star means something here
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb'("?)[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*\1')  # RFC 6265, 4.1.1: no blank , ; " or \
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WHITE = b" \t"

# AWS's load balancers set two cookies with one date in every answer: a quarter of the time that these take.
_date = functools.lru_cache(maxsize=1)(parse_http_date)

_SECONDS = re.compile(rb"-?\d+")
_SECONDS_DIGITS = 12  # as many are read of a Max-Age: thirty centuries, and no number is too long to convert


class _Attributes(NamedTuple):
    """What follows a cookie's value: when it ends, where it belongs, whether it wants TLS."""

    expires: float
    path: bytes
    secure: bool


class CookieStore:
    """The load-balancer cookies of one endpoint. Never sees a socket, a clock or a metric.

    Args:
        names: Which cookies to learn besides `DEFAULT_NAMES`; with a `*` at the end, all that begin so. They are
            case-sensitive, as cookies are.
        target: Path and query of the requests.
        secure: Whether they go over TLS.

    Attributes:
        dropped: How many cookies of these names were refused: with a control character or one that does not belong into
            a value, too large, or too many.

    Raises:
        ConfigurationError: What of the names was wrong, and what was expected.
    """

    def __init__(self, names: Iterable[str] = (), *, target: str, secure: bool) -> None:
        self.dropped = 0
        matches = [_checked(name) for name in (*DEFAULT_NAMES, *_listed(names))]
        self._names = frozenset(name for name, begins in matches if not begins)
        self._beginnings = tuple(name for name, begins in matches if begins)
        self._path = target.partition("?")[0].encode("utf-8", "replace")
        self._default_path = self._path[: self._path.rfind(b"/")] or b"/"  # RFC 6265, 5.1.4
        self._secure = secure
        self._cookies: dict[tuple[bytes, bytes], tuple[bytes, float]] = {}  # (name, path): (value, expiry)
        self._field = b""
        self._field_expires = _NEVER  # until then `_field` is what the cookies say

    def learn(self, headers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Take over what one answer sets. Never raises, whatever is in it.

        Args:
            headers: Names in lower case, and values, in order.
            now: Wall-clock seconds since 1970.
        """
        for name, value in headers:
            if name == b"set-cookie":
                self._learn_one(value, now)

    def header(self, now: float) -> bytes:
        r"""The field that takes the cookies back, as in `Cookie: a=b; c=d\r\n`; empty if there are none.

        Made anew only after something was learned or has expired.

        Args:
            now: Wall-clock seconds since 1970.
        """
        if now >= self._field_expires:
            self._make_field(now)
        return self._field

    def clear(self) -> None:
        """Begin anew, in another sandbox: no cookies, and none dropped."""
        self.dropped = 0
        self._cookies.clear()
        self._field_expires = _FORGOTTEN

    def _learn_one(self, line: bytes, now: float) -> None:
        pair, _, rest = line.partition(b";")
        name, equals, value = pair.partition(b"=")
        name, value = name.strip(_WHITE), value.strip(_WHITE)
        if not equals or not (name in self._names or name.startswith(self._beginnings)):
            return
        if len(line) > LIMIT_COOKIE_BYTES or _CONTROL.search(line):
            self.dropped += 1
            return
        attributes = self._read_attributes(rest, now)
        if (attributes.secure and not self._secure) or not self._belongs_to(attributes.path):
            return
        key = name, attributes.path
        if attributes.expires <= now:
            self._cookies.pop(key, None)
        elif _TOKEN.fullmatch(name) and _VALUE.fullmatch(value) and self._has_room(key, value, now):
            self._cookies[key] = value, attributes.expires  # one that was there already keeps its place
        else:
            self.dropped += 1
            return
        self._field_expires = _FORGOTTEN

    def _read_attributes(self, text: bytes, now: float) -> _Attributes:
        """RFC 6265, 5.2: the last of each kind counts, and one that makes no sense does not."""
        expires = max_age = None
        path = self._default_path
        secure = False
        for attribute in text.split(b";"):
            name, _, value = attribute.partition(b"=")
            name, value = name.strip(_WHITE).lower(), value.strip(_WHITE)
            if name == b"expires":
                date = _date(value)
                expires = expires if date is None else date
            elif name == b"max-age":
                seconds = _seconds(value)
                max_age = max_age if seconds is None else seconds
            elif name == b"path":
                path = value if value.startswith(b"/") else self._default_path
            elif name == b"secure":
                secure = True
        if max_age is not None:  # it wins, whatever the order (5.3, step 3)
            expires = now + max_age if max_age > 0 else _FORGOTTEN
        return _Attributes(_NEVER if expires is None else expires, path, secure)

    def _belongs_to(self, path: bytes) -> bool:
        """Whether requests to the target carry a cookie of this path: RFC 6265, 5.1.4."""
        rest = self._path[len(path) :]
        return self._path.startswith(path) and (not rest or path.endswith(b"/") or rest.startswith(b"/"))

    def _has_room(self, key: tuple[bytes, bytes], value: bytes, now: float) -> bool:
        """Whether a cookie fits beside the others; those that have expired make room."""
        before = self._cookies.get(key)
        if before is not None and len(value) <= len(
            before[0]
        ):  # refreshed, as nearly all are: spares a fifth of it all
            return True
        self._expire(now)
        others = [(name, old) for (name, path), (old, _) in self._cookies.items() if (name, path) != key]
        pairs = [*others, (key[0], value)]
        field_bytes = len(_FIELD) + sum(len(name) + len(value) + len(b"=; ") for name, value in pairs)
        # The last cookie has no "; " after it, but the field has its line end, of two bytes as well.
        return len(pairs) <= LIMIT_COOKIES and field_bytes <= LIMIT_FIELD_BYTES

    def _expire(self, now: float) -> None:
        for key in [key for key, (_, expires) in self._cookies.items() if expires <= now]:
            del self._cookies[key]

    def _make_field(self, now: float) -> None:
        self._expire(now)
        # RFC 6265, 5.4: longer paths first, then by age, which is the order of the dictionary.
        ordered = sorted(self._cookies.items(), key=lambda cookie: len(cookie[0][1]), reverse=True)
        pairs = b"; ".join(b"%b=%b" % (name, value) for (name, _), (value, _) in ordered)
        self._field = b"%b%b\r\n" % (_FIELD, pairs) if pairs else b""
        self._field_expires = min((expires for _, expires in self._cookies.values()), default=_NEVER)


def _seconds(text: bytes) -> int | None:
    """A `Max-Age`; `None` if it is no number. One that is absurdly long is cut, but stays far in the future."""
    if not _SECONDS.fullmatch(text):
        return None
    return int(text.lstrip(b"0")[:_SECONDS_DIGITS] or b"0")


def _listed(names: Iterable[str]) -> list[str]:
    """The names that the user lists, as a list."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):  # a string would be taken letter by letter
        raise ConfigurationError(
            f"sticky_cookies is a {type(names).__name__}; expected a list of cookie names, as in ['SERVERID']"
        )
    return list(names)


def _checked(name: str) -> tuple[bytes, bool]:
    """What a cookie's name is, or begins with."""
    if not isinstance(name, str):
        raise ConfigurationError(f"a name in sticky_cookies is a {type(name).__name__}; expected a string")
    found = _NAME.fullmatch(name)
    if not found:
        raise ConfigurationError(
            f"the name {name!r} in sticky_cookies is not one of a cookie; expected letters, digits and the like, as in "
            "'SERVERID', with a * at the end for every cookie that begins so, as in 'SERVERID-*'"
        )
    return found[1].encode("ascii"), bool(found[2])
