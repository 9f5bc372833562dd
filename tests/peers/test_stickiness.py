"""One sandbox stays with one receiver, over reconnects too; without stickiness it does not."""

from __future__ import annotations

import pytest

from emitter.transmit.cookies import LIMIT_FIELD_BYTES, CookieStore
from tests.peers.receivers import NAMES

INVOCATIONS = 7
"""Of each sandbox: enough to see all three receivers twice, if they are taken in turn."""

# How a connection is brought to its end after each report: by the sandbox, or by HAProxy's `Connection: close`.
ENDS = pytest.mark.parametrize("ended_by", ["sandbox", "proxy"])


def through_haproxy(house, ended_by: str, count: int = 1, **options):
    """Sandboxes behind HAProxy, each with a connection for each of its reports; and the receivers."""
    receivers = house.receivers()
    house.proxy("haproxy", receivers, frontend="option httpclose" if ended_by == "proxy" else "")
    sandboxes = [house.sandbox(**options) for _ in range(count)]
    for _ in range(INVOCATIONS):
        for sandbox in sandboxes:
            sandbox.invoke()
            if ended_by == "sandbox":
                sandbox.disconnect()
    return receivers, sandboxes


@ENDS
def test_with_inserted_cookies_a_sandbox_stays_with_one_receiver(house, ended_by: str) -> None:
    """HAProxy's `cookie SERVERID insert`, and its name listed; on a new connection for each report."""
    receivers, (sandbox,) = through_haproxy(house, ended_by, sticky_cookies=["SERVERID"])

    assert sandbox.stats.connections_opened == INVOCATIONS
    assert list(receivers.visited().values()) == [["one"]]


@ENDS
def test_with_a_cookie_that_is_not_listed_it_goes_from_one_to_the_next(house, ended_by: str) -> None:
    """The same without the name: this is what the cookie is there for, and how the tests here can fail."""
    receivers, (sandbox,) = through_haproxy(house, ended_by)

    assert sandbox.stats.connections_opened == INVOCATIONS
    assert list(receivers.visited().values()) == [["one", "two", "three", "one", "two", "three", "one"]]


def test_two_sandboxes_stay_with_a_receiver_each(house) -> None:
    """Each has its own cookies."""
    receivers, sandboxes = through_haproxy(house, "sandbox", count=2, sticky_cookies=["SERVERID"])

    assert sorted(receivers.visited().values()) == [["one"], ["two"]]
    assert receivers.orders() == len(sandboxes) * INVOCATIONS


def test_when_its_receiver_goes_away_a_sandbox_moves_once(house) -> None:
    """The new one's cookie takes the place of the old, and the totals are all there at the new one at once."""
    receivers = house.receivers()
    house.proxy("haproxy", receivers)
    sandbox = house.sandbox(sticky_cookies=["SERVERID"])
    sandbox.invoke()
    receivers.stop("one")
    for _ in range(INVOCATIONS):
        sandbox.invoke()
        sandbox.disconnect()

    ((first, second),) = receivers.visited().values()
    assert (first, second in {"two", "three"}) == ("one", True)
    assert [report.orders for report in receivers.reports] == list(range(1, INVOCATIONS + 2))


@pytest.mark.parametrize(
    ("cookie", "listed", "stays"),
    [("AWSALB", [], True), ("AWSALBAPP-0", [], True), ("ROUTE", ["ROUTE"], True), ("ROUTE", [], False)],
)
def test_cookies_of_aws_and_those_listed_keep_a_sandbox_where_it_is(
    house, cookie: str, listed: list[str], *, stays: bool
) -> None:
    """Through nginx, which goes by what the receivers set, anew with each answer; reconnected after each report."""
    receivers = house.receivers(cookie)
    house.proxy("nginx", receivers, cookie=cookie)
    sandboxes = [house.sandbox(sticky_cookies=listed) for _ in range(2)]
    for _ in range(INVOCATIONS):
        for sandbox in sandboxes:
            sandbox.invoke()
            sandbox.disconnect()
    receivers_of_each = [set(visits) for visits in receivers.visited().values()]

    assert receivers.orders() == 2 * INVOCATIONS
    assert receivers_of_each == ([{"one"}, {"two"}] if stays else [set(NAMES)] * 2)
    assert receivers.reports[-1].cookies == (f"{cookie}=two.{2 * INVOCATIONS - 2}" if stays else "")


@pytest.mark.parametrize("scheme", ["http"])
@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_the_largest_field_of_cookies_passes_a_proxy(house, proxy: str) -> None:
    """With what the proxies take by default: a request that they refuse reports nothing at all."""
    receivers = house.receivers()
    house.proxy(proxy, receivers)
    sandbox = house.sandbox(sticky_cookies=["fill-*"])
    store: CookieStore = sandbox.metrics._flusher._cookies
    rest = LIMIT_FIELD_BYTES - 6000 - len(b"Cookie: fill-0=; fill-1=; fill-2=\r\n")
    lines = [b"fill-%d=%b" % (number, size * b"x") for number, size in enumerate([3000, 3000, rest])]
    store.learn([(b"set-cookie", line) for line in lines], 0.0)
    flush = sandbox.invoke()

    assert len(store.header(0.0)) == LIMIT_FIELD_BYTES
    assert [verdict.status for verdict in flush.verdicts] == [200]
    assert len(receivers.reports[0].cookies) == LIMIT_FIELD_BYTES - len("Cookie: \r\n")
