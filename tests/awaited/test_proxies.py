from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from emitter import ConfigurationError, ConnectError
from emitter.awaited import AwaitedEmitter, RefusedError
from emitter.awaited.proxies import proxy_to
from emitter.endpoint import parse_url
from emitter.outcomes import Outcome
from tests.awaited.proxy import proxying
from tests.awaited.receiver import receiving
from tests.peers.nginx import nginx

if TYPE_CHECKING:
    from pathlib import Path

HTTP = parse_url("endpoint", "http://metrics.example.com/v1/metrics")
HTTPS = parse_url("endpoint", "https://metrics.example.com:4318/v1/metrics")


async def test_a_plain_report_is_forwarded(made) -> None:
    """In absolute form, user and password shown to the proxy alone; the connection to it is kept."""
    async with receiving() as receiver, proxying(credentials="user:pass word") as proxy:
        metrics = made(receiver.endpoint, proxy=f"http://user:pass%20word@127.0.0.1:{proxy.port}")
        for _ in range(2):
            metrics.counter("orders").add()
            flush = await metrics.flush()

            assert flush.error is None

        assert receiver.orders == [1, 2]
        assert proxy.asked == [f"POST {receiver.endpoint}"]
        # This proxy looks at the first request only, and passes on whatever follows.
        assert not any(b"authorization" in name for name in receiver.requests[0].headers)


async def test_a_report_over_tls_goes_through_a_tunnel(made, authority) -> None:
    """The proxy learns the host and nothing else; TLS is verified as ever."""
    async with receiving(context=authority.server()) as receiver, proxying(credentials="user:pass") as proxy:
        proxy_url = f"http://user:pass@127.0.0.1:{proxy.port}"
        metrics = made(receiver.endpoint, proxy=proxy_url, ssl_context=authority.client())
        flush = await metrics.flush()
        distrustful = made(receiver.endpoint, proxy=proxy_url)
        refused = await distrustful.flush()
        await metrics.close()

        assert flush.error is None
        assert refused.error.reason == "tls"
        assert len(receiver.requests) == 1
        assert proxy.asked == [f"CONNECT 127.0.0.1:{receiver.port}"] * 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio is not permitted TLS within TLS before Python 3.11")
async def test_a_proxy_that_speaks_tls_itself(made, authority) -> None:
    """TLS to the proxy, and TLS through it."""
    context = authority.server()
    async with receiving(context=context) as receiver, proxying(context=context) as proxy:
        metrics = made(receiver.endpoint, proxy=f"https://127.0.0.1:{proxy.port}", ssl_context=authority.client())
        flush = await metrics.flush()

        assert flush.error is None
        assert proxy.asked == [f"CONNECT 127.0.0.1:{receiver.port}"]


async def test_a_proxy_that_wants_to_know_who_asks(made, authority, pauses) -> None:
    """407 is no word of the receiver; without TLS it looks like one. It would be the same a second later."""
    async with receiving(context=authority.server()) as receiver, proxying(credentials="user:pass") as proxy:
        proxy_url = f"http://127.0.0.1:{proxy.port}"
        tunnel = await made(receiver.endpoint, proxy=proxy_url, ssl_context=authority.client()).flush()
        forwarded = await made(f"http://127.0.0.1:{receiver.port}/", proxy=proxy_url).flush()

        assert receiver.requests == []

    assert isinstance(tunnel.error, RefusedError)
    assert (tunnel.error.status, tunnel.error.proxy) == (407, True)
    assert "put user and password into its URL" in str(tunnel.error)
    assert tunnel.delivery is None
    assert [(each.status, each.outcome) for each in forwarded.verdicts] == [(407, Outcome.REJECTED)]
    assert pauses.seconds == []


@pytest.mark.parametrize(("refusal", "tries"), [(403, 1), (503, 4)])
async def test_a_proxy_that_makes_no_way(made, authority, refusal: int, tries: int) -> None:
    """What may go better is repeated, of deltas too: nothing was written."""
    async with receiving(context=authority.server()) as receiver, proxying(refusal=refusal) as proxy:
        metrics = made(
            receiver.endpoint,
            proxy=f"http://127.0.0.1:{proxy.port}",
            ssl_context=authority.client(),
            temporality="delta",
        )
        flush = await metrics.flush(timeout=4.0)

        assert len(proxy.asked) == tries

    assert (flush.error.status, flush.error.proxy) == (refusal, True)
    assert metrics.stats.failed == {"refused": tries}


async def test_a_proxy_that_is_not_there(made, peer) -> None:
    """The error names it, without what it may be shown."""
    port = peer.port
    peer.close()
    metrics = made("http://metrics.example.com/", proxy=f"http://user:secret@127.0.0.1:{port}")
    flush = await metrics.flush(timeout=0.2)

    assert isinstance(flush.error, ConnectError)
    assert str(flush.error) == f"no connection to 127.0.0.1 port {port}: the proxy: Connection refused"


async def test_nginx_forwards_it(made, tmp_path: Path) -> None:
    """A proxy of somebody else's."""
    async with receiving() as receiver:
        with ExitStack() as end:
            port = end.enter_context(nginx(tmp_path, {"one": receiver.port}))
            metrics = made(receiver.endpoint, proxy=f"http://127.0.0.1:{port}")
            metrics.counter("orders").add(4)
            flush = await metrics.flush()

            assert flush.error is None
            assert receiver.orders == [4]


async def test_the_environment_is_asked_once_and_only_if_allowed(made, monkeypatch) -> None:
    """At construction, as everywhere."""
    async with receiving() as receiver, proxying() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        without, within = made(receiver.endpoint), made(receiver.endpoint, trust_env=True)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        flushes = await asyncio.gather(without.flush(), within.flush())

        assert [flush.error for flush in flushes] == [None, None]
        assert proxy.asked == [f"POST {receiver.endpoint}"]


async def test_nobody_asks_a_netrc_for_credentials(made, monkeypatch, tmp_path: Path) -> None:
    """As aiohttp would with its own `trust_env`: they were meant for somebody else."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with receiving() as receiver:
        await made(receiver.endpoint, trust_env=True).flush()
        await made(receiver.endpoint, trust_env=True, headers={"Authorization": "Bearer x"}).flush()

        assert [request.headers.get(b"authorization") for request in receiver.requests] == [None, b"Bearer x"]


@pytest.fixture
def variables(monkeypatch):
    """The environment, without any proxy at first."""
    for scheme in ("http", "https", "no", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize(
    ("name", "value", "endpoint", "found"),
    [
        ("http_proxy", "http://p:1", HTTP, "http://p:1"),
        ("HTTP_PROXY", "http://p:1", HTTP, "http://p:1"),
        ("HTTP_PROXY", "p:1", HTTP, "http://p:1"),
        ("HTTP_PROXY", "", HTTP, None),
        ("HTTP_PROXY", "http://p:1", HTTPS, None),
        ("HTTPS_PROXY", "http://p:1", HTTPS, "http://p:1"),
        ("HTTPS_PROXY", "http://p:1", HTTP, None),
    ],
)
def test_the_variable_of_the_endpoints_scheme_counts(variables, name, value, endpoint, found) -> None:
    """As everywhere; one without a scheme means http, as for curl."""
    variables(name, value)

    assert proxy_to(endpoint, None, trust_env=True) == found
    assert proxy_to(endpoint, None, trust_env=False) is None
    assert proxy_to(endpoint, "http://mine", trust_env=True) == "http://mine"


@pytest.mark.parametrize(
    ("value", "bypassed"),
    [("*", True), (".example.com", True), ("other.com,metrics.example.com:4318", True), ("other.com", False)],
)
def test_no_proxy_is_heeded(variables, value: str, bypassed: bool) -> None:
    """By name, by domain, with a port or without."""
    variables("HTTPS_PROXY", "http://p:1")
    variables("NO_PROXY", value)

    assert (proxy_to(HTTPS, None, trust_env=True) is None) is bypassed


@pytest.mark.parametrize("proxy", ["socks5://p:1", "p:1", "http://", "http://p:x", "http://user:secret@p:99999", 1])
def test_what_is_no_proxy_is_refused(proxy) -> None:
    """With what was expected, and without what may be secret."""
    with pytest.raises(ConfigurationError) as caught:
        AwaitedEmitter("http://metrics.example.com/", proxy=proxy)

    assert str(caught.value).startswith("proxy ")
    assert str(caught.value).endswith(
        "; expected the http or https URL of a proxy, such as http://proxy.example.com:3128"
    )
    assert "secret" not in str(caught.value)


def test_a_variable_that_is_no_proxy_is_named(variables) -> None:
    """An error at construction."""
    variables("HTTP_PROXY", "socks5://p:1")
    with pytest.raises(ConfigurationError, match=r"^HTTP_PROXY has the scheme 'socks5'"):
        AwaitedEmitter("http://metrics.example.com/", trust_env=True)
