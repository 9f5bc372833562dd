"""Owns which proxy leads to an endpoint: an argument, or the environment. Reads the environment only when asked.

aiohttp can read it too (`trust_env`), but then takes credentials for the endpoint from `~/.netrc` as well, which nobody
has asked for, and refuses a request that has its own `Authorization`. So this is done here, once, at construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from emitter.endpoint import parse_url
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from emitter.endpoint import Endpoint

__all__ = ["proxy_to"]


def proxy_to(endpoint: Endpoint, given: str | None, *, trust_env: bool) -> str | None:
    """The URL of the proxy, user and password included; `None`: there is none.

    Args:
        endpoint: Where the way leads.
        given: What the user said; it wins.
        trust_env: Whether HTTP_PROXY or HTTPS_PROXY, whichever is the endpoint's, and NO_PROXY count, in lower case
            first, as Python itself reads them (which leaves HTTP_PROXY alone in a CGI script).

    Raises:
        ConfigurationError: It is no proxy's URL; the URL is not shown.
    """
    if given is not None:
        return _checked("proxy", given)
    if not trust_env:
        return None
    scheme = "https" if endpoint.secure else "http"
    proxies = getproxies_environment()
    if scheme not in proxies or proxy_bypass_environment(endpoint.authority, proxies):
        return None
    found = proxies[scheme]
    # Without a scheme it means http, to curl and to everybody after it.
    return _checked(f"{scheme.upper()}_PROXY", found if "://" in found else f"http://{found}")


def _checked(origin: str, url: str) -> str:
    try:
        parse_url(origin, url)
    except ConfigurationError as error:
        why = str(error).partition("; expected ")[0]
        raise ConfigurationError(
            f"{why}; expected the http or https URL of a proxy, such as http://proxy.example.com:3128"
        ) from None
    return url
