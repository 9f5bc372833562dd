from __future__ import annotations

import sys
import time

import pytest

from emitter.testing import LambdaContext


def public(context: object) -> set[str]:
    """The names that a handler may use."""
    return {name for name in dir(context) if not name.startswith("_")}


@pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is Linux only")
def test_it_has_what_the_stock_runtime_hands_to_a_handler(monkeypatch):
    """Every name, and of the same type where the runtime has a value; what is new in it is a reason to add it here."""
    runtime = pytest.importorskip("awslambdaric.lambda_context", reason="pip install awslambdaric")
    for name in ("GROUP_NAME", "STREAM_NAME"):
        monkeypatch.setenv(f"AWS_LAMBDA_LOG_{name}", "log")
    for name, value in (("NAME", "function"), ("MEMORY_SIZE", "128"), ("VERSION", "$LATEST")):
        monkeypatch.setenv(f"AWS_LAMBDA_FUNCTION_{name}", value)
    real = runtime.LambdaContext("id", None, None, int(time.time() * 1000) + 30_000, "arn:aws:lambda:::function:f")
    ours = LambdaContext()

    assert public(real) - public(ours) <= {"w3c", "log"}
    for name in public(real) & public(ours) - {"get_remaining_time_in_millis", "identity"}:
        assert type(getattr(ours, name)) is type(getattr(real, name)), name
    assert public(real.identity) <= public(ours.identity) | {"cognito_identity_id", "cognito_identity_pool_id"}
    assert 0 < ours.get_remaining_time_in_millis() <= 30_000
    assert isinstance(ours.get_remaining_time_in_millis(), type(real.get_remaining_time_in_millis()))


def test_its_time_passes_and_ends_at_nothing():
    """A handler that works until its time is nearly over comes to an end."""
    context = LambdaContext(remaining_ms=20)
    seen = [context.get_remaining_time_in_millis()]
    while seen[-1] > 0:
        seen.append(context.get_remaining_time_in_millis())

    assert seen == sorted(seen, reverse=True)
    assert seen[0] <= 20
    assert LambdaContext(remaining_ms=-5).get_remaining_time_in_millis() == 0


def test_its_names_belong_together():
    """Those of one function; and each invocation has an id of its own."""
    context = LambdaContext(function_name="checkout")

    assert context.invoked_function_arn.endswith(":function:checkout")
    assert context.log_group_name == "/aws/lambda/checkout"
    assert LambdaContext(invoked_function_arn="arn").invoked_function_arn == "arn"
    assert LambdaContext().aws_request_id != context.aws_request_id
