"""A certificate authority of the tests' own, in the forms that proxies and clients take it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Certificates:
    """One authority, and a certificate of it for this machine.

    Args:
        folder: Where the proxies' file is put: key and certificates together.
    """

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.pem = folder / "proxy.pem"
        self._authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.pem)

    def client_context(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """One that trusts the authority, and nobody else, and speaks up to this version of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        context.maximum_version = version
        return context
