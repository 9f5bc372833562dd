"""What the tests with real proxies and real receivers share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.peers.haproxy import haproxy
from tests.peers.nginx import nginx
from tests.peers.receivers import Receivers, receiving
from tests.peers.sandbox import Sandbox
from tests.peers.servers import Servers
from tests.peers.ways import PROMQL_WAYS, WAYS
from tests.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.peers.ways import Way

PROXIES = {"haproxy": haproxy, "nginx": nginx}


@pytest.fixture(scope="package")  # no longer: they are seen by whoever counts descriptors
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """None is running at first."""
    servers = Servers(tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture
def ways(servers: Servers) -> Iterator[Callable[[str], Way]]:
    """Makes a way by its name, closed after the test."""
    with ExitStack() as end:

        def make(name: str) -> Way:
            server, maker = WAYS[name]
            made = maker(servers[server])
            end.callback(made.close)
            return made

        yield make


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, ways: Callable[[str], Way]) -> Way:
    """Every way."""
    return ways(request.param)


@pytest.fixture(params=PROMQL_WAYS)
def promql_way(request: pytest.FixtureRequest, ways: Callable[[str], Way]) -> Way:
    """Every way into a server that is asked in PromQL."""
    return ways(request.param)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Whom the sandboxes trust, and who has certified the proxies."""
    return Authority()


class House:
    """Sandboxes, a proxy and three receivers, put up by a test as it needs them.

    Args:
        folder: For the proxy's files.
        authority: For TLS.
        secure: Whether the sandboxes speak TLS to the proxy.
    """

    def __init__(self, folder: Path, authority: Authority, *, secure: bool) -> None:
        self._folder = folder
        self._authority = authority
        self._secure = secure
        self._end = ExitStack()
        self.port = 0

    def receivers(self, cookie: str = "") -> Receivers:
        """Three of them."""
        return self._end.enter_context(receiving(cookie))

    def proxy(self, name: str, receivers: Receivers, **options) -> None:
        """The proxy in front of them."""
        certificate = self._folder / "proxy.pem" if self._secure else None
        if certificate is not None:
            self._authority.write_identity(certificate, "127.0.0.1")
        running = PROXIES[name](self._folder, receivers.ports, certificate=certificate, **options)
        self.port = self._end.enter_context(running)

    def sandbox(self, **options) -> Sandbox:
        """One that reports through the proxy."""
        if self._secure:
            options.setdefault("ssl_context", self._authority.client())
        sandbox = Sandbox(self.port, **options)
        self._end.callback(sandbox.end)
        return sandbox

    def close(self) -> None:
        """The end, in the order from the front to the back."""
        self._end.close()


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Both, one after the other; a test that needs one of them alone says so by parametrizing it."""
    scheme: str = request.param
    return scheme


@pytest.fixture
def house(tmp_path: Path, authority: Authority, scheme: str) -> Iterator[House]:
    """An empty one."""
    house = House(tmp_path, authority, secure=scheme == "https")
    yield house
    house.close()
