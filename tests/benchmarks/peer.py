"""The receiving end of the benchmarks: answers each POST with 200 at once, in a process of its own."""

from __future__ import annotations

import asyncio
import re

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
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
            self._transport.write(ANSWER)


async def main() -> None:
    """Print the port, then serve until the end."""
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
