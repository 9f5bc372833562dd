"""Owns how a body becomes the request that carries it to the endpoint: fixed fields, cookies, a signature.

Knows nothing of what a body says, nor of the connection that it goes to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emitter.transmit.http1 import Request, signature_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.settings import Settings
    from emitter.transmit.cookies import CookieStore

__all__ = ["Posting"]


class Posting:
    """Makes requests of bodies.

    Args:
        settings: The endpoint, the format, the header fields and the signer.
        cookies: What load balancers have asked to be told.
        wall: Seconds since 1970.

    Raises:
        ConfigurationError: A header field would break the message.
    """

    def __init__(self, settings: Settings, cookies: CookieStore, wall: Callable[[], float]) -> None:
        endpoint, encoder = settings.endpoint, settings.encoder
        self._request = Request(
            endpoint.target, endpoint.authority, encoder.content_type, settings.request_headers, encoder.headers
        )
        self._cookies = cookies
        self._wall = wall
        self._signer = settings.signer
        self._url = endpoint.url

    def request(self, body: bytes | bytearray, gzip: bool) -> bytes:
        """The whole request.

        Args:
            body: As it goes out.
            gzip: Whether it is in gzip format.

        Raises:
            CredentialsError: There is nothing to sign it with.
        """
        signature = b""
        if self._signer is not None:
            fields = dict(self._request.fields)
            if gzip:
                fields["Content-Encoding"] = "gzip"
            # Cookies are left out: a load balancer may take its own away before anybody verifies.
            signature = signature_fields(self._signer.sign("POST", self._url, fields, body))
        return self._request.encode(body, self._cookies.header(self._wall()), gzip=gzip, signature=signature)
