"""The receiving end of the benchmarks, in a process of its own: answers each POST with 200.

    python peer.py [ADDRESS]

Prints one line of JSON: the ports where it answers at once (`plain`), `SLOW_SECONDS` later (`slow`), over TLS (`tls`),
and where it ends the connection with each answer (`closing`, `tls_closing`); and the certificate of the authority that
certified it (`authority`).
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys

import trustme

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SLOW_SECONDS = 2.0
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Peer(asyncio.Protocol):
    """Finds where each request ends, and nothing else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            head, _, rest = self._pending.partition(b"\r\n\r\n")
            body_bytes = int(_LENGTH.search(head)[1])
            if len(rest) < body_bytes:
                return
            self._pending = rest[body_bytes:]
            self.answer()

    def answer(self) -> None:
        """At once."""
        self._transport.write(ANSWER)


class SlowPeer(Peer):
    """Takes its time, for each answer on its own."""

    def answer(self) -> None:
        """Later."""
        asyncio.get_running_loop().call_later(SLOW_SECONDS, self._transport.write, ANSWER)


class ClosingPeer(Peer):
    """Has had enough after one, as a load balancer has after an hour."""

    def answer(self) -> None:
        """At once, and that was it."""
        self._transport.write(LAST_ANSWER)
        self._transport.close()


async def main(address: str = "127.0.0.1") -> None:
    """Print where, then serve until the end."""
    # As most web servers are certified: with RSA, by an authority that another one has certified.
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    between = authority.create_child_ca(key_type=trustme.KeyType.RSA)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    between.issue_cert(address, key_type=trustme.KeyType.RSA).configure_cert(context)
    loop = asyncio.get_running_loop()
    servers = {
        "plain": await loop.create_server(Peer, address, 0),
        "slow": await loop.create_server(SlowPeer, address, 0),
        "closing": await loop.create_server(ClosingPeer, address, 0),
        "tls": await loop.create_server(Peer, address, 0, ssl=context),
        "tls_closing": await loop.create_server(ClosingPeer, address, 0, ssl=context),
    }
    told = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    told["authority"] = authority.cert_pem.bytes().decode()
    print(json.dumps(told), flush=True)
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
