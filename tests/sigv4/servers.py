"""Real servers for the tests of signatures: one that verifies what arrives, one that gives credentials away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from aiohttp import web

from tests.scripted_peer import PATIENCE
from tests.sigv4.verifier import Account, RefusedError, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Arrival", "CredentialsServer", "VerifyingServer", "giving_credentials", "verifying"]


class Arrival(NamedTuple):
    """One request, and what became of it."""

    fields: dict[str, str]
    body: bytes
    refusal: str | None  # why, if it was refused
    signed: tuple[str, ...]
    status: int


class VerifyingServer:
    """Verifies the signature of every request, as AWS would, and answers 403 if it is none.

    Attributes:
        accounts: Whose requests are taken.
        arrivals: What has arrived, in order.
        clock: Seconds since 1970, as the server sees them.
    """

    def __init__(self, service: str, region: str, accounts: list[Account], upstream: str | None) -> None:
        self.service, self.region, self.accounts = service, region, accounts
        self.arrivals: list[Arrival] = []
        self.clock: Callable[[], float] = time.time
        self.port = 0
        self._upstream = upstream

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        fields = [(name.decode(), value.decode("latin-1")) for name, value in request.raw_headers]
        signed: tuple[str, ...] = ()
        refusal = None
        status = 204
        try:
            signed = verify(
                request.method,
                request.raw_path,
                fields,
                body,
                accounts=self.accounts,
                service=self.service,
                region=self.region,
                now=self.clock(),
            )
        except RefusedError as error:
            refusal, status = str(error), 403
        else:
            if self._upstream is not None:
                status = await self._forward(request, body)
        self.arrivals.append(Arrival({name.lower(): value for name, value in fields}, body, refusal, signed, status))
        # A cookie such as a load balancer sets: it comes back with the next report, unsigned.
        return web.Response(status=status, headers={"Set-Cookie": "AWSALB=abc; Path=/"})

    async def _forward(self, request: web.Request, body: bytes) -> int:
        kept = {"content-type", "content-encoding", "x-prometheus-remote-write-version", "user-agent"}
        headers = {name: value for name, value in request.headers.items() if name.lower() in kept}
        assert self._upstream is not None
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._upstream, data=body, headers=headers) as answer,
        ):
            return answer.status

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Serve until told to stop."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        # Signatures are of bodies as they were written.
        runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        ready.set()
        await stop.wait()
        await runner.cleanup()


@contextmanager
def verifying(
    service: str, region: str, accounts: list[Account], *, upstream: str | None = None
) -> Iterator[VerifyingServer]:
    """Run such a server; what it takes it forwards to the URL `upstream`, if there is one."""
    server = VerifyingServer(service, region, accounts, upstream)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        loop.run_until_complete(server.serve(ready, stop))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PATIENCE), "the server did not start"
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()


class CredentialsServer(ThreadingHTTPServer):
    """Gives short-lived credentials away over HTTP, as Lambda does under SnapStart and ECS does for containers.

    Attributes:
        expires: Until when those are valid that it gives away; each time others.
        token: What has to be shown to get them.
        refusing: Whether it answers with 403 instead.
        asked: How often it was.
        answering: While this is not set, it lets everybody wait.
        arrived: Set whenever somebody asks.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Credentials)
        self.expires = 0.0
        self.token = "container-token"  # noqa: S105  shown by nobody but the tests
        self.refusing = False
        self.asked = 0
        self.answering = threading.Event()
        self.answering.set()
        self.arrived = threading.Event()

    @property
    def environment(self) -> dict[str, str]:
        """What Lambda sets under SnapStart."""
        return {
            "AWS_LAMBDA_FUNCTION_NAME": "checkout",
            "AWS_REGION": "eu-central-1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self.server_port}/2021-04-23/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.token,
        }

    @property
    def latest(self) -> Account:
        """The credentials that were given away last."""
        return self.account(self.asked)

    @staticmethod
    def account(number: int) -> Account:
        """Those that were given to the one who asked as the number-th."""
        return Account(f"ASIA{number}", f"secret-{number}", f"session-{number}")


class _Credentials(BaseHTTPRequestHandler):
    server: CredentialsServer

    def do_GET(self) -> None:
        server = self.server
        server.asked += 1
        account = server.latest
        server.arrived.set()
        if not server.answering.wait(PATIENCE) or self.headers["Authorization"] != server.token or server.refusing:
            self.send_error(403, "nothing for you, not even the secret-0 that was here")
            return
        expires = datetime.fromtimestamp(server.expires, timezone.utc)
        body = json.dumps(
            {
                "AccessKeyId": account.access_key,
                "SecretAccessKey": account.secret_key,
                "Token": account.token,
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def giving_credentials() -> Iterator[CredentialsServer]:
    """Run such a server."""
    with CredentialsServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
            thread.join(PATIENCE)
