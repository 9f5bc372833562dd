"""HAProxy in front of the receivers, as a user would set it up: cookies inserted, replicas in turn."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.peers import processes

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """\
global
    nbthread 1
    maxconn 200

defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s

frontend reports
    bind fd@{descriptor} {tls}
    {frontend}
    http-request set-header X-Session-Resumed %[ssl_fc_is_resumed]
    default_backend receivers

backend receivers
    balance roundrobin
    option redispatch
    cookie SERVERID insert indirect nocache
{servers}
"""


@contextmanager
def haproxy(
    folder: Path, ports: dict[str, int], *, certificate: Path | None = None, frontend: str = ""
) -> Iterator[int]:
    """Run HAProxy while the context lasts.

    Args:
        folder: For its files.
        ports: Where each receiver listens.
        certificate: Key and certificates; `None` for plain HTTP.
        frontend: A further line for the side of the clients.

    Yields:
        The port that it listens on.
    """
    program = processes.installed("haproxy", "haproxy")
    servers = "\n".join(f"    server {name} 127.0.0.1:{port} cookie {name}" for name, port in ports.items())

    def command(listener: socket.socket) -> tuple[list[str], dict[str, str]]:
        path = folder / "haproxy.cfg"
        path.write_text(
            CONFIGURATION.format(
                descriptor=listener.fileno(),
                tls=f"ssl crt {certificate} alpn http/1.1" if certificate else "",
                frontend=frontend,
                servers=servers,
            )
        )
        return [program, "-db", "-f", str(path)], {}

    with processes.running(command, folder) as port:
        yield port
