from __future__ import annotations

import pytest

from emitter import ConfigurationError, CredentialsError, Emitter
from tests.flushing import next_totals


class Signer:
    """Signs with what the test says; keeps what it was asked to sign."""

    def __init__(self, fields) -> None:
        self.fields = fields
        self.asked = []

    def check(self, url) -> None:
        self.asked.append(url)

    def sign(self, method, url, headers, body):
        self.asked.append((method, url, dict(headers), bytes(body)))
        if isinstance(self.fields, Exception):
            raise self.fields
        return self.fields


def test_what_a_signer_says_is_in_the_request(peer):
    """It is given what goes out: address, fields, and the very body."""
    signer = Signer({"Authorization": "secret", "X-Amz-Date": "today"})
    metrics = Emitter(f"{peer.endpoint}?a=b", signer=signer, headers={"X-Team": "shop"}, compress=False)
    flush = metrics.flush_sync(timeout=5)
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0)

    assert flush.error is None
    assert (request.headers[b"authorization"], request.headers[b"x-amz-date"]) == (b"secret", b"today")
    assert signer.asked[0] == f"{peer.endpoint}?a=b"
    method, url, headers, body = signer.asked[1]
    assert (method, url, body) == ("POST", f"{peer.endpoint}?a=b", request.body)
    signed = {name.lower().encode(): value.encode() for name, value in headers.items()}
    assert signed.items() <= request.headers.items()
    assert {b"host", b"content-type", b"x-team"} <= signed.keys()


def test_a_signer_is_told_that_the_body_is_compressed(peer):
    """And signs it as it goes out."""
    signer = Signer({"Authorization": "secret"})
    metrics = Emitter(peer.endpoint, signer=signer)
    for number in range(300):
        metrics.counter("orders").add(channel=str(number))
    metrics.flush_sync(timeout=5)
    request = peer.accept().read_request()
    metrics.close_sync(timeout=0)

    assert signer.asked[1][2]["Content-Encoding"] == "gzip"
    assert signer.asked[1][3] == request.body


def test_without_credentials_the_totals_are_kept(peer):
    """It is trouble of the network: told by the flush, and over with the next that can be signed."""
    signer = Signer(CredentialsError("there are none"))
    metrics = Emitter(peer.endpoint, signer=signer)
    metrics.counter("orders").add()
    flush = metrics.flush_sync(timeout=5)
    signer.fields = {"Authorization": "secret"}
    failed = dict(metrics.stats.failed)
    metrics.close_sync(timeout=0.1)

    assert isinstance(flush.error, CredentialsError)
    assert failed == {"credentials": 1}
    assert next_totals(peer.accept())["orders"] == 1


def test_a_signature_cannot_break_the_request(peer):
    """A line break in it would be a header, or a request, of somebody else's."""
    metrics = Emitter(peer.endpoint, signer=Signer({"Authorization": "hush\r\nX: y"}))

    with pytest.raises(ConfigurationError, match="'Authorization'") as refused:
        metrics.flush_sync(timeout=5)
    assert "hush" not in str(refused.value)
    assert metrics.stats.failed == {"defect": 1}


@pytest.mark.parametrize(
    ("endpoint", "arguments", "expected"),
    [
        ("http://x/", {"signer": object()}, "lacks a method"),
        ("http://x/", {"signer": Signer({}), "headers": {"authorization": "Bearer x"}}, "both given; expected one"),
        ("http://user:secret@x/", {"signer": Signer({})}, "both given; expected one"),
    ],
)
def test_a_signer_that_cannot_work_is_refused(endpoint, arguments, expected):
    """Where the emitter is made."""
    with pytest.raises(ConfigurationError, match=expected):
        Emitter(endpoint, **arguments)
