from __future__ import annotations

import pytest

from examples.local_lambda import InitError

FUNCTION = """
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")

async def work(event):
    await asyncio.sleep(0)
    orders.add()
    return event

def forgets_to_wait(event, context):
    return work(event)

handle = metrics.lambda_handler(forgets_to_wait)
"""


async def test_a_handler_that_returns_a_coroutine_by_mistake_is_waited_for(function, receiver):
    """It does what its author meant; without the decorator the runtime has nothing to hand over."""
    async with function(FUNCTION, receiver.endpoint, "forgets_to_wait") as sandbox:
        bare = await sandbox.invoke("event")
    async with function(FUNCTION, receiver.endpoint) as sandbox:
        result = await sandbox.invoke("event")
        await receiver.arrived(1)

    assert bare.error is not None
    assert bare.error.type == "Runtime.MarshalError"
    assert result.payload == "event"
    assert receiver.reports[0].value("orders") == 1


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("handle = metrics.lambda_handler(17)", "lambda_handler was given a int; expected a function"),
        ("handle = metrics.lambda_handler()(None)", "lambda_handler was given a NoneType; expected a function"),
        ("handle = metrics.lambda_handler(work('event'))", "lambda_handler was given a coroutine; expected a function"),
        ("handle = metrics.lambda_handler(timeout=-1)(work)", "timeout"),
        ("handle = metrics.lambda_handler(delivery='sent')(work)", "delivery"),
        ("handle = metrics.lambda_handler(every='often')(work)", "every"),
        ("handle = metrics.lambda_handler(connect='no')(work)", "connect"),
        ("handle = metrics.lambda_handler(timeout_guard='yes')(work)", "timeout_guard"),
        ("handle = metrics.lambda_handler(flush_at_sigterm=1)(work)", "flush_at_sigterm"),
    ],
)
async def test_a_decorator_that_is_used_wrongly_is_an_init_error_in_our_words(function, receiver, mistake, words):
    """At the first deployment, and not at the first invocation."""
    with pytest.raises(InitError) as raised:
        async with function(f"{FUNCTION}\n{mistake}\n", receiver.endpoint):
            pass

    assert raised.value.error.type == "ConfigurationError"
    assert words in raised.value.error.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMITTER_TIMEOUT", "abc"),
        ("EMITTER_TIMEOUT", "-1"),
        ("EMITTER_ENDPOINT", "ftp://metrics.example.com/"),
        ("EMITTER_ENDPOINT", "metrics.example.com"),
        ("EMITTER_DELIVERY", "sent"),
        ("EMITTER_ENCODER", "xml"),
        ("EMITTER_DISABLED", "perhaps"),
        ("EMITTER_HEADERS", "no equals sign"),
    ],
)
async def test_a_wrong_environment_variable_is_an_init_error_that_names_it(function, receiver, variable, value):
    """With the variable's name in its text, for whoever reads the log."""
    with pytest.raises(InitError) as raised:
        async with function(FUNCTION, receiver.endpoint, env={variable: value}):
            pass

    assert raised.value.error.type == "ConfigurationError"
    assert variable in raised.value.error.message


async def test_a_missing_endpoint_is_an_init_error_that_names_the_variable(function):
    """The most frequent mistake of all."""
    with pytest.raises(InitError, match="EMITTER_ENDPOINT"):
        async with function(FUNCTION, "", env={}):
            pass
