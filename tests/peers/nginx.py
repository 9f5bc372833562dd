"""nginx in front of the receivers. Debian's has no `sticky`, so the receivers name themselves in a cookie."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.peers import processes

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """\
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream everyone {{
{servers}
    }}
    map $http_cookie $receiver {{
        default everyone;
{choices}
    }}
    server {{
        listen 127.0.0.1:{port} {tls};
        {server}
        location / {{
            proxy_pass http://$receiver;
            proxy_set_header X-Session-Resumed $ssl_session_reused;
        }}
    }}
}}
"""


@contextmanager
def nginx(
    folder: Path,
    ports: dict[str, int],
    *,
    cookie: str = "AWSALB",
    certificate: Path | None = None,
    server: str = "",
) -> Iterator[int]:
    """Run nginx while the context lasts.

    Args:
        folder: For its files.
        ports: Where each receiver listens.
        cookie: Whoever brings this one goes to the receiver that it names; everybody else is taken in turn.
        certificate: Key and certificates; `None` for plain HTTP.
        server: Further directives for the side of the clients.

    Yields:
        The port that it listens on.
    """
    program = processes.installed("nginx", "nginx-light")
    tls = f"ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}" if certificate else ""

    def command(listener: socket.socket) -> tuple[list[str], dict[str, str]]:
        path = folder / "nginx.conf"
        path.write_text(
            CONFIGURATION.format(
                folder=folder,
                user=pwd.getpwuid(os.geteuid()).pw_name,  # else root's workers could not read the test's folder
                port=listener.getsockname()[1],
                servers="\n".join(f"        server 127.0.0.1:{port};" for port in ports.values()),
                # Not by `$cookie_NAME`, which cannot name a cookie with a dash.
                choices="\n".join(
                    f'        "~(?:^|; ){cookie}={name}\\." 127.0.0.1:{port};' for name, port in ports.items()
                ),
                tls=tls,
                server=server,
            )
        )
        # The sockets that it takes over at an upgrade from itself to itself, in `NGINX`, it finds by their addresses.
        return [program, "-p", str(folder), "-c", str(path), "-e", "stderr"], {"NGINX": f"{listener.fileno()};"}

    with processes.running(command, folder) as port:
        yield port
