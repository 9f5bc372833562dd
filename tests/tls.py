"""Certificates, and the TLS side of a scripted peer."""

from __future__ import annotations

import datetime
import ssl

import trustme

__all__ = ["Authority"]


class Authority:
    """A certificate authority of our own, and contexts of those who trust it or were certified by it."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server(self, *names: str, expired: bool = False, highest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """The context of a server with a certificate for these names (127.0.0.1 and localhost if none)."""
        end = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc) if expired else None
        begin = datetime.datetime(2019, 1, 1, tzinfo=datetime.timezone.utc) if expired else None
        certificate = self._ca.issue_cert(*(names or ("127.0.0.1", "localhost")), not_before=begin, not_after=end)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if highest is not None:
            context.maximum_version = highest
        certificate.configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """The context of a client that trusts this authority."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context

    def client_with_certificate(self, name: str) -> ssl.SSLContext:
        """A client that has something to show."""
        context = self.client()
        self._ca.issue_cert(name).configure_cert(context)
        return context

    def demand_certificate(self, context: ssl.SSLContext) -> None:
        """Make a server let only those in whom this authority has certified."""
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
