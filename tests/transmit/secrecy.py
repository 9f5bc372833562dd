"""One authority for the tests of TLS on sockets, whom it has certified, and who trusts it."""

from __future__ import annotations

import ssl

from tests.tls import Authority

AUTHORITY = Authority()
CLIENT = AUTHORITY.client()
SERVERS = {"TLSv1.2": AUTHORITY.server(highest=ssl.TLSVersion.TLSv1_2), "TLSv1.3": AUTHORITY.server()}
