"""Records of TLS 1.3 that no OpenSSL would write, under the keys of a real handshake (RFC 8446, 5.2 and 7.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.tls import ServerSide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emitter.transmit.tls import Tls
    from tests.tls import Authority

__all__ = ["ALERT", "CONTENT", "HANDSHAKE", "Forger", "forger"]

ALERT, HANDSHAKE, CONTENT = 21, 22, 23
"""Types of records (RFC 8446, 5.1)."""


class Forger:
    """Takes the server's place after the handshake.

    Args:
        secret: Its traffic secret, of TLS_AES_256_GCM_SHA384, under which it has not written anything yet.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._cipher = AESGCM(self._derived(b"key", 32))
        self._nonce = int.from_bytes(self._derived(b"iv", 12), "big")

    def _derived(self, label: bytes, length: int) -> bytes:
        label = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)

    def record(self, kind: int, text: bytes, padding: int = 0) -> bytes:
        """One record of this type."""
        inner = text + bytes([kind]) + bytes(padding)
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._nonce ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def ticket(self, size: int) -> bytes:
        """A session ticket that is good for nothing (4.6.1)."""
        body = bytes([0, 0, 14, 16, 1, 2, 3, 4, 1, 0]) + size.to_bytes(2, "big") + bytes(size) + b"\0\0"
        return self.record(HANDSHAKE, b"\x04" + len(body).to_bytes(3, "big") + body)

    def new_keys(self) -> bytes:
        """A KeyUpdate that demands another (4.6.3); what follows is under the new keys."""
        record = self.record(HANDSHAKE, b"\x18\0\0\x01\x01")
        self._secret = self._derived(b"traffic upd", 48)
        self._begin()
        return record


def forger(tls: Tls, authority: Authority, path: Path, *, along: Callable[[Forger], bytes] | None = None) -> Forger:
    """Shake hands with a client, and take the server's place.

    Args:
        tls: The client's side, from its very beginning.
        authority: Whom the client trusts.
        path: Where OpenSSL may write the secrets.
        along: Makes what is to arrive together with the end of the handshake.
    """
    context = authority.server()
    context.num_tickets = 0  # so that nothing has been written under these keys
    context.keylog_filename = str(path)
    server = ServerSide(context)
    flight = server.feed(tls.handshake())
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("SERVER_TRAFFIC_SECRET_0 "))
    peer = Forger(bytes.fromhex(line.split()[2]))
    server.feed(tls.handshake(flight + (along(peer) if along else b"")))
    assert tls.established
    assert server.ssl.cipher()[0] == "TLS_AES_256_GCM_SHA384"
    return peer
