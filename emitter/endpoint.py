"""Owns where reports are POSTed to: a URL, checked and taken apart. Never resolves a name."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["Endpoint", "parse_url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """Where reports are POSTed to.

    Attributes:
        host: Name or address, to connect to.
        port: TCP port.
        authority: What goes into `Host` (RFC 9110, 7.2): no user, IPv6 in brackets, the port if not the default.
        target: Path and query.
        credentials: The value of `Authorization` that user and password in the URL ask for; empty if none.
        secure: Whether it is https.
    """

    host: str
    port: int
    authority: str
    target: str
    credentials: str = ""
    secure: bool = False

    def __repr__(self) -> str:
        return f"<Endpoint {self.shown}>"

    @property
    def shown(self) -> str:
        """How it is logged: no query and no credentials, which may be secret."""
        return f"http{'s' if self.secure else ''}://{self.authority}{self.target.partition('?')[0]}"

    @property
    def url(self) -> str:
        """The whole of it, the query included and the credentials left out."""
        return f"http{'s' if self.secure else ''}://{self.authority}{self.target}"


def parse_url(origin: str, url: str) -> Endpoint:
    """Take a URL apart.

    Args:
        origin: Where it came from, for the error.
        url: A full http or https URL.

    Raises:
        ConfigurationError: What was wrong, and what was expected; the URL itself is not shown.
    """

    def refused(why: str) -> ConfigurationError:
        # The URL itself is not shown: user, password or a key in the query may be secret.
        return ConfigurationError(f"{origin} {why}; expected a full URL such as http://metrics.example.com/v1/metrics")

    if not isinstance(url, str):
        raise refused(f"is a {type(url).__name__}")
    # Before parsing: `urlsplit` silently removes line breaks.
    if any(not "!" <= character <= "~" for character in url):
        raise refused("has a space, a control character or one beyond ASCII in it (write %20 or xn--... for those)")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise refused("is malformed, in its brackets most likely") from None
    if parts.scheme not in _DEFAULT_PORTS:
        # Without the slashes it may be a user, or a token, before the colon of a password.
        raise refused(f"has the scheme {parts.scheme!r}" if f"{parts.scheme}://" in url.lower() else "has no scheme")
    if not parts.hostname:
        raise refused("has no host")
    port = _port(parts)
    if port == 0:
        # A password with a slash in it ends up here too: %2F is what it takes.
        raise refused("has a port that is no number from 1 to 65535")
    authority = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = _DEFAULT_PORTS[parts.scheme]
    if port is not None and port != default_port:
        authority = f"{authority}:{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    credentials = _basic(parts.username, parts.password)
    return Endpoint(
        parts.hostname, port or default_port, authority, target, credentials, secure=parts.scheme == "https"
    )


def _port(parts: SplitResult) -> int | None:
    """The port in the URL, `None` if there is none in it; 0, which is no port either, if it makes no sense."""
    try:
        return parts.port
    except ValueError:
        return 0


def _basic(user: str | None, password: str | None) -> str:
    """The value of `Authorization` for what stood in the URL (RFC 7617)."""
    if user is None:
        return ""
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
