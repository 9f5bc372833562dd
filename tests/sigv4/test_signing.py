"""What goes into a signature: the host's service and region, the query, the path, the fields; and what never shows."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import botocore
import pytest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from emitter.clocks import Clocks
from emitter.errors import ConfigurationError
from emitter.sigv4 import SigV4
from tests.sigv4.verifier import Account, RefusedError, verify

ACCOUNT = Account("AKIDEXAMPLE", "secret-of-the-tests", "session-of-the-tests")
PARTITIONS = json.loads((Path(botocore.__file__).parent / "data" / "partitions.json").read_text())["partitions"]
AMP = "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write"


def signer(service=None, region=None, **more) -> SigV4:
    return SigV4(service, region, credentials=lambda: Credentials(*ACCOUNT), **more)


def verified(url, added, headers, body=b"body", service="aps", region="eu-central-1", now=None) -> tuple[str, ...]:
    """What the other side says to a request, with its target as it is in the URL."""
    parts = urlsplit(url)
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    fields = [*headers.items(), *added.items()]
    return verify(
        "POST",
        target,
        fields,
        body,
        accounts=[ACCOUNT],
        service=service,
        region=region,
        now=time.time() if now is None else now,
    )


def headers_to(url: str, **more: str) -> dict[str, str]:
    return {"Host": urlsplit(url).netloc, "Content-Type": "application/x-protobuf", **more}


HOSTS = {
    "aps-workspaces.eu-central-1.amazonaws.com": ("aps", "eu-central-1"),
    "aps-workspaces-fips.us-gov-west-1.amazonaws.com": ("aps", "us-gov-west-1"),
    "vpce-0a1-b2.aps-workspaces.us-east-1.vpce.amazonaws.com": ("aps", "us-east-1"),
    "APS-Workspaces.EU-Central-1.amazonaws.com:443": ("aps", "eu-central-1"),
    "a1b2c3.execute-api.ap-southeast-2.amazonaws.com": ("execute-api", "ap-southeast-2"),
    "a1b2c3.execute-api.cn-north-1.amazonaws.com.cn": ("execute-api", "cn-north-1"),
    "a1b2c3-vpce-0a1.execute-api.us-east-2.amazonaws.com": ("execute-api", "us-east-2"),
    "vpce-0a1-b2.execute-api.us-east-1.vpce.amazonaws.com": ("execute-api", "us-east-1"),
    "abc123.lambda-url.eu-west-3.on.aws": ("lambda", "eu-west-3"),
}


@pytest.mark.parametrize("host", HOSTS)
def test_service_and_region_are_told_from_the_host(host):
    """Nobody has to say what the host of an AWS endpoint says already."""
    service, region = HOSTS[host]
    url = f"https://{host}/prod/metrics"
    headers = headers_to(url)

    added = signer().sign("POST", url, headers, b"body")

    assert verified(url, added, headers, service=service, region=region)


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition["id"])
def test_hosts_of_every_partition_are_known(partition):
    """The list is botocore's; when it learns of another one, this says so."""
    outputs = partition["outputs"]
    region = outputs["implicitGlobalRegion"]
    for suffix in (outputs["dnsSuffix"], outputs["dualStackDnsSuffix"]):
        url = f"https://a1b2c3.execute-api.{region}.{suffix}/prod"

        assert f"/{region}/execute-api/" in signer().sign("POST", url, {}, b"")["Authorization"]


@pytest.mark.parametrize(
    "host",
    [
        "metrics.example.com",
        "aps-workspaces.eu-central-1.amazonaws.com.example.com",
        "xaps-workspaces.eu-central-1.amazonaws.com",
        "aps-workspaces.eu-central-1.example.aws",
        "aps.eu-central-1.amazonaws.com",
        "127.0.0.1:8080",
        "[::1]:8080",
    ],
)
def test_a_host_that_does_not_tell_is_an_error_that_says_what_to_give(host):
    """A guess would be answered with 403 at best, and sign for somebody else at worst."""
    with pytest.raises(ConfigurationError) as raised:
        signer().check(f"https://{host}/v1/metrics?key=secret")

    assert str(raised.value) == (
        f"the host {urlsplit('//' + host).hostname} does not tell which service and region to sign for; "
        'expected SigV4(service="execute-api", region="eu-central-1")'
    )


def test_of_region_and_service_only_what_is_missing_is_asked_for(monkeypatch):
    """The region of the function itself is a good guess, and the one that all AWS libraries make."""
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    with pytest.raises(ConfigurationError, match=r'which service to .* expected SigV4\(service="execute-api"\)'):
        signer().check("https://metrics.example.com/")
    url = "https://metrics.example.com/"
    headers = headers_to(url)

    added = signer("execute-api").sign("POST", url, headers, b"body")
    assert verified(url, added, headers, service="execute-api", region="eu-north-1")
    added = signer("execute-api", "us-west-2").sign("POST", url, headers, b"body")
    assert verified(url, added, headers, service="execute-api", region="us-west-2")
    added = signer().sign("POST", AMP, headers_to(AMP), b"body")  # what the host says is more certain
    assert verified(AMP, added, headers_to(AMP), region="eu-central-1")


@pytest.mark.parametrize(("name", "value"), [("service", "a b"), ("service", ""), ("region", "eu/x"), ("region", 3)])
def test_a_service_or_a_region_that_cannot_be_one_is_refused(name, value):
    """It would go into every signature."""
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}; expected a name such as"):
        signer(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"credentials": Credentials("a", "secret-of-the-tests")},
            (
                "credentials is a Credentials; expected a function that gives botocore's credentials, such as "
                "boto3.Session().get_credentials"
            ),
        ),
        ({"wait": -1}, "wait is -1; expected seconds, zero or more, such as 0.25"),
        ({"wait": None}, "wait is None; expected seconds, zero or more, such as 0.25"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_where_they_are_given(arguments, message):
    """At the top of the user's module, and not in the first flush."""
    with pytest.raises(ConfigurationError) as raised:
        SigV4(**arguments)

    assert str(raised.value) == message


QUERIES = [
    "db=metrics&precision=ns",
    "org=a/b&bucket=c:d@e,f&precision=ns",  # the URL may have these as they are, a signature may not
    "bucket=a%2fb%20c&org=%C3%A9",  # in lower case, and encoded in full
    "b=2&a=1&a=0&B=3",
    "a&b=&=c&&d==e",
    "x=~-._!*'()$;[]",
    "x=%FF%00",  # no text at all
]


@pytest.mark.parametrize("query", QUERIES)
def test_any_query_is_signed_as_the_other_side_sees_it(query):
    """It is signed by botocore as it stands in the URL; services decode it and encode it in their own way."""
    url = f"https://abc.lambda-url.eu-west-3.on.aws/api/v2/write?{query}"
    headers = headers_to(url)

    added = signer().sign("POST", url, headers, b"body")

    assert verified(url, added, headers, service="lambda", region="eu-west-3")


def test_a_plus_in_the_query_is_refused():
    """It is a space to some and a plus to others, so every second signature would be wrong."""
    with pytest.raises(ConfigurationError, match="'\\+' in it; expected %20 for a space, %2B for a plus"):
        signer().check("https://abc.lambda-url.eu-west-3.on.aws/write?bucket=a+b")


ASCII = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#+")


@given(path=st.text(ASCII), query=st.text(ASCII), host=st.sampled_from(["a.example.com", "a.example.com:8443"]))
@example(path="a%2Fb//c/./d/../e/", query="", host="a.example.com")
@example(path="workspaces/ws:1/a@b/(c)=d+e", query="", host="a.example.com")
def test_any_url_that_an_endpoint_can_have_is_signed_right(path, query, host):
    """Paths are normalised and encoded once more, as all services but S3 do; no port is forgotten."""
    url = f"https://{host}/{path}" + (f"?{query}" if query else "")
    headers = headers_to(url)

    added = signer("execute-api", "us-east-1").sign("POST", url, headers, b"body")

    assert verified(url, added, headers, service="execute-api", region="us-east-1")


def test_fields_that_change_on_the_way_are_not_signed_and_all_others_are():
    """A proxy that adds to User-Agent must not turn reports away; whoever changes what counts must."""
    changing = {
        "User-Agent": "lambda-emitter",
        "Cookie": "AWSALB=abc",
        "Connection": "keep-alive",
        "Accept-Encoding": "gzip",
        "traceparent": "00-1-1-00",
        "Authorization": "Bearer other",
        "X-Amz-Date": "20000101T000000Z",
    }
    headers = {**headers_to(AMP), "Content-Encoding": "gzip", "X-Scope-OrgID": "  team   a ", **changing}

    added = signer().sign("POST", AMP, headers, b"body")

    kept = {name: value for name, value in headers.items() if name not in changing}
    assert verified(AMP, added, kept) == (
        "content-encoding",
        "content-type",
        "host",
        "x-amz-date",
        "x-amz-security-token",
        "x-scope-orgid",
    )
    with pytest.raises(RefusedError, match="does not match"):
        verified(AMP, added, {**kept, "X-Scope-OrgID": "team b"})


@pytest.mark.parametrize("body", [b"", b"body", bytearray(b"body"), bytes(5 * 1024 * 1024)], ids=len)
def test_bodies_of_every_kind_and_size_are_signed(body):
    """An encoder may hand over the buffer that it uses again and again."""
    headers = headers_to(AMP)

    added = signer().sign("POST", AMP, headers, body)

    assert verified(AMP, added, headers, bytes(body))


def test_the_moment_of_a_signature_is_wall_time_when_it_is_made():
    """A sandbox sleeps for hours between two reports; what was the time in INIT says nothing."""
    wall = [1_700_000_000.0]
    clocks = Clocks(wall=lambda: wall[0])
    long_lived = signer(clocks=clocks)
    headers = headers_to(AMP)

    for moment in (1_700_000_000.0, 1_700_090_000.0, 1_699_990_000.0):
        wall[0] = moment
        assert verified(AMP, long_lived.sign("POST", AMP, headers, b"body"), headers, now=moment)


def test_no_secret_is_in_a_repr_or_in_a_log(caplog):
    """Nor is the session token, which botocore itself logs at DEBUG while it signs."""
    caplog.set_level(logging.DEBUG)
    made = signer()
    added = made.sign("POST", AMP, headers_to(AMP), b"body")
    shown = f"{made!r} {made._keys!r} {vars(made)!r} {caplog.text}"

    assert added["X-Amz-Security-Token"] == ACCOUNT.token
    assert repr(made) == "<SigV4 service='' region=''>"
    for secret in (ACCOUNT.secret_key, ACCOUNT.token, added["Authorization"]):
        assert secret not in shown


def test_without_botocore_the_import_says_what_to_install():
    """It is an extra, and nobody reads the list of extras first."""
    code = "import sys; sys.modules['botocore'] = sys.modules['botocore.auth'] = None; import emitter.sigv4"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: emitter.sigv4 needs botocore; install it with: pip install 'lambda-emitter[sigv4]'"
    )
