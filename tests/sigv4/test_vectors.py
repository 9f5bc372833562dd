"""AWS's own examples of signatures, which both the signer and the verifier of the other tests have to agree with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.credentials import Credentials

from emitter.clocks import Clocks
from emitter.sigv4 import SigV4
from tests.sigv4.verifier import Account, RefusedError, canonical_request, verify

VECTORS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "vectors.json").read_text())

MOMENT = 1_440_938_160.0  # 2015-08-30 12:36:00 UTC
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105  published with the vectors

TOKEN_ADDED_LATER = "post-sts-token/post-sts-header-after"  # noqa: S105  the name of a vector
"""Is of services that want the session token added once the request is signed. None of ours does, so `sign` never does
it; the vector's signature is the one that it gives without a token, and that is what is compared."""


class Vector:
    """One of them, taken apart."""

    def __init__(self, name: str) -> None:
        self.files = VECTORS[name]
        head, _, body = self.files["req"].partition("\n\n")
        first, *lines = head.splitlines()
        self.method, rest = first.split(" ", 1)
        self.target = rest.rpartition(" ")[0]  # one of them has a space in its path
        self.body = body.encode()
        self.fields: list[tuple[str, str]] = []
        for line in lines:
            if line.startswith(" "):  # a value that goes on in the next line, which HTTP no longer allows
                field, value = self.fields.pop()
                self.fields.append((field, f"{value}\n{line}"))
            else:
                field, _, value = line.partition(":")
                self.fields.append((field, value))
        canonical = self.files["creq"].split("\n")
        self.signed = canonical[-2].split(";")
        # That of one vector stands in the canonical request alone.
        tokens = [line.partition(":")[2] for line in canonical if line.startswith("x-amz-security-token:")]
        self.token = tokens[0] if tokens else None

    @property
    def headers(self) -> dict[str, str]:
        """As a mapping: what there are several of stands in one field (RFC 9110, 5.3)."""
        headers: dict[str, str] = {}
        for name, value in self.fields:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        return headers


@pytest.mark.parametrize("name", VECTORS)
def test_signatures_are_those_of_the_published_vectors(name):
    """Every vector can be expressed as a call of `sign`, and gives its very field."""
    vector = Vector(name)
    keys = Credentials(ACCESS_KEY, SECRET_KEY, vector.token)
    signer = SigV4("service", "us-east-1", credentials=lambda: keys, clocks=Clocks(wall=lambda: MOMENT))

    added = signer.sign(vector.method, f"https://example.amazonaws.com{vector.target}", vector.headers, vector.body)

    assert added.pop("X-Amz-Date") == "20150830T123600Z"
    assert added.pop("X-Amz-Security-Token", None) == vector.token
    assert added == {"Authorization": vector.files["authz"]}


@pytest.mark.parametrize("name", VECTORS)
def test_the_verifier_sees_the_published_canonical_requests(name):
    """What verifies the reports in the other tests is itself held against AWS's examples."""
    vector = Vector(name)
    fields = vector.fields
    if vector.token is not None and "X-Amz-Security-Token" not in vector.headers:
        fields = [*fields, ("X-Amz-Security-Token", vector.token)]

    assert canonical_request(vector.method, vector.target, fields, vector.signed, vector.body) == vector.files["creq"]


def test_the_vectors_are_all_there_and_one_of_them_is_about_a_token_that_is_added_later():
    """Nobody takes some of them out unseen; nor the one that has to be explained."""
    assert len(VECTORS) == 34
    assert sum(Vector(name).method == "POST" for name in VECTORS) == 10
    assert Vector(TOKEN_ADDED_LATER).token is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"body": b"Param1=value2"}, "does not match"),
        ({"target": "/?x=1"}, "does not match"),
        ({"method": "PUT"}, "does not match"),
        ({"service": "aps"}, "signed for service in us-east-1"),
        ({"region": "eu-west-1"}, "signed for service in us-east-1"),
        ({"now": MOMENT + 301}, "signed at"),
        ({"accounts": [Account("AKIDOTHER", SECRET_KEY)]}, "not known"),
        ({"accounts": [Account(ACCESS_KEY, SECRET_KEY + "x")]}, "does not match"),
        ({"accounts": [Account(ACCESS_KEY, SECRET_KEY, "token")]}, "0 fields x-amz-security-token"),
    ],
)
def test_the_verifier_refuses_what_was_changed(changed, why):
    """A verifier that takes everything would prove nothing."""
    vector = Vector("post-x-www-form-urlencoded")
    fields = [*vector.fields, ("Authorization", vector.files["authz"])]
    request = {
        "method": vector.method,
        "target": vector.target,
        "fields": fields,
        "body": vector.body,
        "accounts": [Account(ACCESS_KEY, SECRET_KEY)],
        "service": "service",
        "region": "us-east-1",
        "now": MOMENT,
    }

    assert verify(**request) == ("content-type", "host", "x-amz-date")
    with pytest.raises(RefusedError, match=why):
        verify(**{**request, **changed})
