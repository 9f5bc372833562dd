from __future__ import annotations

import math
from typing import Any

import pytest

from emitter.settings import DEFAULT_TIMEOUT
from emitter.transmit.delivery import Delivery
from tests.settled import URL, refusal, resolved


def test_without_anything_set_the_defaults_hold() -> None:
    """Only the endpoint has none."""
    settings = resolved()

    assert settings.timeout == DEFAULT_TIMEOUT == 0.25
    assert settings.delivery is Delivery.TRANSMITTED
    assert settings.headers == ()
    assert settings.request_headers == (("User-Agent", "lambda-emitter"),)
    assert settings.resource == (("service.name", "unknown_service"),)
    assert not settings.disabled


# The first that is set and not empty wins: each row without its first variables gives what the next one says.
PRECEDENCE = [
    (
        "endpoint",
        lambda settings: settings.endpoint.shown,
        [
            ("EMITTER_ENDPOINT", "http://a/x", "http://a/x"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b/y", "http://b/y"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/z/", "http://c/z/v1/metrics"),
        ],
        ("http://argument/", "http://argument/"),
    ),
    (
        "headers",
        lambda settings: settings.headers,
        [
            ("EMITTER_HEADERS", "k=a", (("k", "a"),)),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "k=b", (("k", "b"),)),
            ("OTEL_EXPORTER_OTLP_HEADERS", "k=c,l=d,K=e", (("k", "c,e"), ("l", "d"))),
        ],
        ({"K": "argument", "k": "another"}, (("K", "argument,another"),)),
    ),
    ("timeout", lambda settings: settings.timeout, [("EMITTER_TIMEOUT", "1.5", 1.5)], (0, 0.0)),
    (
        "delivery",
        lambda settings: settings.delivery,
        [("EMITTER_DELIVERY", "Acknowledged", Delivery.ACKNOWLEDGED)],
        (Delivery.BUFFERED, Delivery.BUFFERED),
    ),
    (
        "disabled",
        lambda settings: settings.disabled,
        [("EMITTER_DISABLED", "false", False), ("OTEL_SDK_DISABLED", "true", True)],
        None,
    ),
    (
        "service",
        lambda settings: dict(settings.resource)["service.name"],
        [
            ("OTEL_SERVICE_NAME", "a", "a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b", "b"),
            ("POWERTOOLS_SERVICE_NAME", "c", "c"),
            ("AWS_LAMBDA_FUNCTION_NAME", "d", "d"),
        ],
        ("argument", "argument"),
    ),
]


@pytest.mark.parametrize(
    ("what", "read", "variables", "argument"), PRECEDENCE, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_the_first_variable_that_is_set_and_not_empty_wins(
    what: str, read: Any, variables: list, argument: Any, empty: str | None
) -> None:
    """In the order of the table; an empty one counts as unset. An argument wins over them all."""
    base = {} if what == "endpoint" else {"EMITTER_ENDPOINT": URL}
    for skipped in range(len(variables)):
        gone = {name: empty for name, _, _ in variables[:skipped]} if empty is not None else {}
        given = base | gone | {name: value for name, value, _ in variables[skipped:]}

        assert read(resolved(given)) == variables[skipped][2]
    if argument is not None:
        assert (
            read(resolved(base | {name: value for name, value, _ in variables}, **{what: argument[0]})) == argument[1]
        )


SECRETS = {"EMITTER_HEADERS": "Authorization=ours", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=theirs"}


@pytest.mark.parametrize(
    ("endpoint", "environment", "expected"),
    [
        # The endpoint stands beside them, or none does.
        (None, {"EMITTER_ENDPOINT": URL}, "ours"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "ours"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "EMITTER_HEADERS": ""}, "theirs"),
        (None, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL, "EMITTER_HEADERS": ""}, "theirs"),
        (None, {"EMITTER_ENDPOINT": URL, "EMITTER_HEADERS": ""}, "theirs"),
        (URL, {}, "ours"),
        (URL, {"EMITTER_HEADERS": ""}, "theirs"),
        # Another does, of the same receiver.
        ("https://a.example.com/x", {"EMITTER_ENDPOINT": "https://a.example.com:443/y"}, "ours"),
        # Of another one.
        ("https://a.example.com/", {"EMITTER_ENDPOINT": "https://b.example.com/"}, "theirs"),
        ("https://a.example.com/", {"EMITTER_ENDPOINT": "http://a.example.com:443/"}, "theirs"),
        ("https://a.example.com/", {"EMITTER_ENDPOINT": "https://a.example.com:4318/"}, "theirs"),
        (None, {"EMITTER_ENDPOINT": URL, "EMITTER_HEADERS": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"}, None),
        (URL, {"EMITTER_ENDPOINT": "http://b/", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/"}, None),
        (URL, {"EMITTER_ENDPOINT": "http://b/", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/"}, None),
        # Of somebody else, who speaks gRPC.
        (None, {"EMITTER_ENDPOINT": URL, "EMITTER_HEADERS": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317"}, None),
        (URL, {"EMITTER_ENDPOINT": "unix:///run/agent", "OTEL_EXPORTER_OTLP_ENDPOINT": "dns:///agent"}, None),
    ],
)
def test_secrets_of_one_receiver_are_not_told_to_another(
    endpoint: str | None, environment: dict[str, str], expected: str | None
) -> None:
    """Headers belong to the endpoint beside them, if there is one."""
    headers = resolved(SECRETS | environment, endpoint=endpoint).headers

    assert [value for _, value in headers] == ([] if expected is None else [expected])


def test_credentials_in_an_argument_win_over_those_of_the_environment() -> None:
    """Only over those: other headers stay. In one and the same place, the header wins."""
    environment = {"EMITTER_HEADERS": "AUTHORIZATION=ours,x-team=shop"}
    url = "http://user:password@localhost/"

    assert dict(resolved(environment, endpoint=url).request_headers) == {
        "User-Agent": "lambda-emitter",
        "Authorization": "Basic dXNlcjpwYXNzd29yZA==",
        "x-team": "shop",
    }
    assert resolved(environment | {"EMITTER_ENDPOINT": url}).headers[0] == ("AUTHORIZATION", "ours")
    assert resolved(endpoint=url, headers={"authorization": "mine"}).headers == (("authorization", "mine"),)


@pytest.mark.parametrize("headers", [{"X-A": b"s3cret", "x-a": "b"}, {"X-A": "a", "x-a": None}, {1: "a", "1": "b"}])
def test_headers_that_are_no_text_are_not_made_to_be_some(headers: Any) -> None:
    """Not by joining them with others of the same name; the request refuses them."""
    assert resolved(headers=headers).headers == tuple(headers.items())


def test_each_variable_stands_in_the_table_of_the_docstring() -> None:
    """What is tested here is what is promised there."""
    import emitter.settings  # noqa: PLC0415  for its docstring alone

    for what, _, variables, _ in PRECEDENCE:
        assert f"\n    {what}" in emitter.settings.__doc__
        for name, _, _ in variables:
            assert name in emitter.settings.__doc__


def test_a_user_agent_of_ones_own_replaces_ours() -> None:
    """Each name once."""
    assert resolved(headers={"USER-AGENT": "mine"}).request_headers == (("USER-AGENT", "mine"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", [("a", "1")]),
        (" a = 1 , b=2,", [("a", "1"), ("b", "2")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=", [("a", "")]),
        ("a=x%20y%2C%3D", [("a", "x y,=")]),
        (",,", []),
    ],
)
def test_headers_in_a_variable_are_pairs(text: str, expected: list) -> None:
    """Separated by commas, percent-encoded, white space around them ignored."""
    for name in ("EMITTER_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        assert list(resolved({"EMITTER_ENDPOINT": URL, name: text}).headers) == expected


@pytest.mark.parametrize(
    "name",
    ["EMITTER_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES"],
)
@pytest.mark.parametrize(("text", "position"), [("s3cret", 1), ("a=1,s3cret", 2), ("a=1,,=s3cret", 2), (" =s3cret", 1)])
def test_what_is_no_pair_is_refused_without_showing_it(name: str, text: str, position: int) -> None:
    """The variable and the position help as much, and a value may be secret."""
    assert (
        refusal({"EMITTER_ENDPOINT": URL, name: text})
        == f"item {position} of {name} is no pair; expected key=value,key=value"
    )


@pytest.mark.parametrize("headers", [[("a", "b")], "a=b", 5])
def test_headers_that_are_no_mapping_are_refused(headers: Any) -> None:
    """Their type is named, not their content."""
    assert refusal(headers=headers) == f"headers is a {type(headers).__name__}; expected a mapping of names to values"


@pytest.mark.parametrize("timeout", [0, 0.0, 1, 0.001, 900])
def test_a_timeout_is_zero_or_more_seconds(timeout: float) -> None:
    """As an argument and as a variable."""
    assert resolved(timeout=timeout).timeout == timeout
    assert resolved({"EMITTER_ENDPOINT": URL, "EMITTER_TIMEOUT": f" {timeout} "}).timeout == timeout


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, True, "1", None, [1]])
def test_a_timeout_that_is_no_time_is_refused(timeout: Any) -> None:
    """The text shows it. As an argument, `None` means not given."""
    if timeout is not None:
        assert refusal(timeout=timeout) == f"timeout is {timeout!r}; expected seconds, zero or more, such as 0.25"
    if timeout != "1":
        text = refusal({"EMITTER_ENDPOINT": URL, "EMITTER_TIMEOUT": str(timeout)})
        assert text.startswith("EMITTER_TIMEOUT is ")
        assert "; expected seconds" in text


@pytest.mark.parametrize("level", list(Delivery))
def test_a_delivery_has_its_name_in_the_variable(level: Delivery) -> None:
    """In any case."""
    for text in (level.name, level.name.lower(), f" {level.name.title()} "):
        assert resolved({"EMITTER_ENDPOINT": URL, "EMITTER_DELIVERY": text}).delivery is level


def test_a_delivery_that_is_none_is_refused() -> None:
    """With the names that there are."""
    assert refusal({"EMITTER_ENDPOINT": URL, "EMITTER_DELIVERY": "delivered"}) == (
        "EMITTER_DELIVERY is 'delivered'; expected one of buffered, transmitted, acknowledged, answered"
    )
    for delivery in ("transmitted", 1, True):
        assert refusal(delivery=delivery) == (
            f"delivery is {delivery!r}; expected a Delivery, such as Delivery.TRANSMITTED"
        )


@pytest.mark.parametrize("name", ["EMITTER_DISABLED", "OTEL_SDK_DISABLED"])
@pytest.mark.parametrize(
    ("text", "disabled"),
    [
        ("1", True),
        ("true", True),
        (" TRUE ", True),
        ("yes", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("", False),
    ],
)
def test_a_disabled_emitter_needs_no_endpoint(name: str, text: str, disabled: bool) -> None:
    """Switched off it reports nothing, so there is nothing to be missing."""
    assert resolved({"EMITTER_ENDPOINT": URL, name: text}).disabled is disabled
    if disabled:
        assert resolved({name: text}).disabled
    else:
        assert refusal({name: text}).startswith("no endpoint was given")


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    """It is named, whichever it is."""
    for name in ("EMITTER_DISABLED", "OTEL_SDK_DISABLED"):
        assert refusal({"EMITTER_ENDPOINT": URL, name: "maybe"}) == f"{name} is 'maybe'; expected true or false"


LAMBDA = {
    "EMITTER_ENDPOINT": URL,
    "AWS_LAMBDA_FUNCTION_NAME": "checkout-prod",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2024/01/01/[$LATEST]abc",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_REGION": "eu-west-1",
}


def test_in_lambda_the_resource_tells_of_the_function() -> None:
    """By OpenTelemetry's conventions: memory in bytes, the log stream as the instance."""
    assert resolved(LAMBDA).resource == (
        ("cloud.platform", "aws_lambda"),
        ("cloud.provider", "aws"),
        ("cloud.region", "eu-west-1"),
        ("faas.instance", "2024/01/01/[$LATEST]abc"),
        ("faas.max_memory", 512 * 1024 * 1024),
        ("faas.name", "checkout-prod"),
        ("faas.version", "$LATEST"),
        ("service.name", "checkout-prod"),
    )


def test_what_lambda_does_not_tell_is_left_out() -> None:
    """Rather than empty; outside Lambda nothing of it is there."""
    bare = {"EMITTER_ENDPOINT": URL, "AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "much"}

    assert [key for key, _ in resolved(bare).resource] == [
        "cloud.platform",
        "cloud.provider",
        "faas.name",
        "service.name",
    ]
    assert resolved({"EMITTER_ENDPOINT": URL, "AWS_REGION": "eu-west-1"}).resource == (
        ("service.name", "unknown_service"),
    )


def test_resource_attributes_of_ones_own_go_along() -> None:
    """From OTEL_RESOURCE_ATTRIBUTES, percent-decoded and cleaned."""
    given = {"EMITTER_ENDPOINT": URL, "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=pr%20od,team=a%0Ab"}

    assert resolved(given, service="checkout").resource == (
        ("deployment.environment", "pr od"),
        ("service.name", "checkout"),
        ("team", "a\N{REPLACEMENT CHARACTER}b"),
    )


@pytest.mark.parametrize("service", [5, b"checkout", ["checkout"], True])
def test_a_service_that_is_no_name_is_refused(service: Any) -> None:
    """Its type is named."""
    assert refusal(service=service) == f"service is a {type(service).__name__}; expected a name, such as 'checkout'"


def test_a_resource_that_cannot_be_reported_is_refused() -> None:
    """Rather than each report that carries it."""
    text = refusal(LAMBDA | {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "9" * 30})

    assert "attribute 'faas.max_memory' is 1048575999" in text
    assert "expected a string, a boolean, an integer of 64 bits or a finite float" in text
