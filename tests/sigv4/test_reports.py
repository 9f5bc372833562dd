"""Whole reports of real emitters, each verified by a server before it takes them."""

from __future__ import annotations

import gzip
import logging
from typing import TYPE_CHECKING

import pytest
from botocore.credentials import Credentials

from emitter import Delivery, Emitter
from emitter.awaited import AwaitedEmitter
from emitter.errors import ConfigurationError, CredentialsError
from emitter.sigv4 import SigV4
from tests.peers.prometheus import prometheus
from tests.peers.victoria_metrics import victoria_metrics
from tests.scripted_peer import PATIENCE
from tests.sigv4.servers import CredentialsServer, VerifyingServer, verifying

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.promql import Promql

ACCOUNT = CredentialsServer.account(1)
RECEIVERS = {"prometheus": prometheus, "victoria_metrics": victoria_metrics}


@pytest.fixture
def server() -> Iterator[VerifyingServer]:
    """An API behind a gateway that takes signed requests only."""
    with verifying("execute-api", "eu-central-1", [ACCOUNT]) as server:
        yield server


@pytest.fixture(scope="module", params=RECEIVERS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promql]:
    """What stands behind Amazon Managed Prometheus here."""
    with RECEIVERS[request.param](tmp_path_factory.mktemp(request.param)) as store:
        yield store


def signer(service: str = "execute-api", account=ACCOUNT) -> SigV4:
    return SigV4(service, "eu-central-1", credentials=lambda: Credentials(*account), wait=PATIENCE)


def emitter_to(server: VerifyingServer, path: str = "/prod/metrics", **more) -> Emitter:
    given = {"signer": signer(), "service": "checkout", "timeout": PATIENCE, "delivery": Delivery.ANSWERED, **more}
    return Emitter(f"{server.url}{path}", **given)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("encoder", ["otlp", "otlp-json", "json", "influx", "remote-write"])
def test_reports_of_every_format_are_signed_as_they_are_written(encoder, compress, server):
    """A body that was compressed after it was signed would be refused; so would one signed without its coding."""
    metrics = emitter_to(server, encoder=encoder, compress=compress, strict=True)
    orders = metrics.counter("orders")
    for number in range(300):  # above 12 KB, from where on bodies are compressed
        orders.add(1, shop=f"shop number {number} in a long street")
    flush = metrics.flush_sync()
    metrics.close_sync()
    (arrival,) = server.arrivals

    assert (arrival.refusal, arrival.status) == (None, 204)
    assert flush.verdicts[0].status == 204
    compressed = compress and encoder != "remote-write"  # which is in snappy already
    assert (arrival.fields.get("content-encoding") == "gzip") == compressed
    assert ("content-encoding" in arrival.signed) == ("content-encoding" in arrival.fields)
    assert len(gzip.decompress(arrival.body) if compressed else arrival.body) > 12_000 * (encoder != "remote-write")


def test_each_request_of_a_divided_report_has_a_signature_of_its_own(server):
    """A signature is of one body."""
    metrics = emitter_to(server, report_limit_bytes=2_000, compress=False, strict=True)
    orders = metrics.counter("orders")
    for number in range(100):
        orders.add(1, shop=f"shop number {number}")
    metrics.flush_sync()
    metrics.close_sync()

    assert len(server.arrivals) > 3
    assert {arrival.refusal for arrival in server.arrivals} == {None}
    assert len({arrival.fields["authorization"] for arrival in server.arrivals}) == len(server.arrivals)


async def test_a_header_that_is_given_twice_is_signed_with_both_values(server, monkeypatch):
    """As whoever verifies reads it, in its order, however its name is spelled."""
    monkeypatch.setenv("EMITTER_HEADERS", "x-shop=1,x-other=4,x-shop=2,X-Shop=3")
    metrics = emitter_to(server, strict=True)
    metrics.counter("orders").add()
    await metrics.flush()
    await metrics.close()
    async with AwaitedEmitter(f"{server.url}/prod/metrics", signer=signer(), strict=True) as awaited:
        awaited.counter("orders").add()

    assert [arrival.refusal for arrival in server.arrivals] == [None, None]
    assert all("x-shop" in arrival.signed for arrival in server.arrivals)
    assert {arrival.fields["x-shop"] for arrival in server.arrivals} == {"1,2,3"}


def test_cookies_of_a_load_balancer_come_back_unsigned(server):
    """It may take its own cookie away before anybody verifies."""
    metrics = emitter_to(server, strict=True)
    orders = metrics.counter("orders")
    for _ in range(2):
        orders.add()
        metrics.flush_sync()
    metrics.close_sync()
    first, second = server.arrivals

    assert "cookie" not in first.fields
    assert second.fields["cookie"] == "AWSALB=abc"
    assert second.refusal is None
    assert second.signed == ("content-type", "host", "x-amz-date", "x-amz-security-token")
    assert second.fields["host"] == f"127.0.0.1:{server.port}"  # the port is signed with it


def test_the_query_and_the_path_of_an_endpoint_are_signed(server):
    """As InfluxDB's endpoint has them, with characters that a signature has in another way."""
    path = "/prod/api%2Fv2//write/./x@y?org=a/b:c&bucket=b%2fc%20d&precision=ns"
    metrics = emitter_to(server, path, encoder="influx", strict=True)
    metrics.counter("orders").add()
    metrics.flush_sync()
    metrics.close_sync()

    assert [arrival.refusal for arrival in server.arrivals] == [None]


def test_a_report_that_is_refused_is_seen_and_its_totals_stay(server, caplog):
    """Another secret key, say: a 403, and the next report carries the same totals."""
    server.accounts = [ACCOUNT._replace(secret_key="another one")]  # noqa: S106
    metrics = emitter_to(server, encoder="otlp-json")
    metrics.counter("orders").add(3)
    flush = metrics.flush_sync()
    server.accounts = [ACCOUNT]
    metrics.close_sync()
    refused, taken = server.arrivals

    assert flush.verdicts[0].status == 403
    assert (refused.refusal, taken.refusal) == ("the signature does not match", None)
    assert b'"asInt":"3"' in taken.body.replace(b" ", b"")
    for secret in (ACCOUNT.secret_key, ACCOUNT.token):
        assert secret not in caplog.text + repr(metrics) + repr(metrics.stats) + repr(flush)


def test_a_flush_without_credentials_fails_at_once_and_loses_nothing(container, monkeypatch, fetched, caplog):
    """A server for credentials that hangs costs no report more than that it comes later."""
    caplog.set_level(logging.INFO)
    for name, value in container.environment.items():
        monkeypatch.setenv(name, value)
    container.expires = 4_000_000_000.0
    container.answering.clear()
    with verifying("execute-api", "eu-central-1", [ACCOUNT]) as server:
        metrics = emitter_to(server, encoder="otlp-json", signer=SigV4("execute-api", wait=0))
        metrics.counter("orders").add(3)
        flush = metrics.flush_sync()
        stats = metrics.stats
        container.answering.set()
        fetched()
        metrics.close_sync()

        assert isinstance(flush.error, CredentialsError)
        assert flush.delivery is None
        assert stats.failed == {"credentials": 1}
        assert "being fetched" in caplog.text
        (arrival,) = server.arrivals
        assert arrival.refusal is None
        assert b'"asInt":"3"' in arrival.body.replace(b" ", b"")


def test_remote_write_gets_through_to_what_stands_behind_managed_prometheus(store):
    """The endpoint of a workspace, its signature verified, and a real receiver that stores what was reported."""
    with verifying("aps", "eu-central-1", [ACCOUNT], upstream=f"{store.url}/api/v1/write") as amp:
        path = "/workspaces/ws-0a1b2c3d/api/v1/remote_write"
        metrics = emitter_to(amp, path, encoder="remote-write", signer=signer("aps"), strict=True, service="signed")
        orders = metrics.counter("orders")
        for _ in range(3):
            orders.add(2, channel="web")
            metrics.flush_sync()
        metrics.close_sync()

        assert [(arrival.refusal, arrival.status < 300) for arrival in amp.arrivals] == [(None, True)] * 3
        assert store.value('sum(orders_total{job="signed",channel="web"})') == 6.0


def test_an_endpoint_that_does_not_tell_what_to_sign_for_is_refused_when_the_emitter_is_made():
    """At the top of the user's module, and not in the first flush."""
    with pytest.raises(
        ConfigurationError, match=r"the host metrics\.example\.com does not tell which service and region"
    ):
        Emitter("https://metrics.example.com/prod", signer=SigV4(wait=0))
