"""A TLS session is resumed over reconnects; the proxies say so themselves."""

from __future__ import annotations

import ssl

import pytest

from emitter import Delivery

# What `$ssl_session_reused` and `%[ssl_fc_is_resumed]` say of a full handshake and of a resumed one.
SAID = {"nginx": (".", "r"), "haproxy": ("0", "1")}


@pytest.mark.parametrize("scheme", ["https"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("proxy", SAID)
def test_every_reconnect_resumes_the_session(house, authority, proxy: str, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 by the tickets that came after the handshake, with TLS 1.2 by those within it."""
    receivers = house.receivers()
    house.proxy(proxy, receivers)
    sandbox = house.sandbox(ssl_context=authority.client(version))
    for _ in range(4):
        sandbox.invoke(Delivery.ANSWERED)
        sandbox.disconnect()
    full, resumed = SAID[proxy]

    assert [report.resumed for report in receivers.reports] == [full, resumed, resumed, resumed]
    assert sandbox.stats.connections_opened == 4


@pytest.mark.parametrize("scheme", ["https"])
@pytest.mark.parametrize("proxy", SAID)
def test_another_sandbox_makes_its_own_session(house, proxy: str) -> None:
    """It shares nothing with the first, its trust neither."""
    receivers = house.receivers()
    house.proxy(proxy, receivers)
    for _ in range(2):
        house.sandbox().invoke(Delivery.ANSWERED)

    assert [report.resumed for report in receivers.reports] == [SAID[proxy][0]] * 2
