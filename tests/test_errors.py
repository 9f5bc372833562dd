from __future__ import annotations

import re

import pytest

import emitter
from emitter import errors

CLASSES = {name: member for name, member in vars(errors).items() if isinstance(member, type)}


def drawn_tree() -> dict[str, str]:
    """Parent by class, as drawn in the docstring of `emitter.errors`."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        drawn = re.match(r"    ([|` -]*)(\w*Error)\b", line)
        if drawn is None:
            continue
        depth, name = len(drawn[1]), drawn[2]
        while path and path[-1][0] >= depth:
            path.pop()
        parents[name] = path[-1][1] if path else "Exception"
        path.append((depth, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Every class is drawn, under the class that it is derived from first."""
    assert drawn_tree() == {name: error.__bases__[0].__name__ for name, error in CLASSES.items()}
    assert len(CLASSES) == 15


def test_every_error_can_be_had_at_the_front_door() -> None:
    """Whoever catches one needs no second import."""
    assert set(errors.__all__) == set(CLASSES)
    assert set(CLASSES) <= set(emitter.__all__)
    for name, error in CLASSES.items():
        assert getattr(emitter, name) is error


@pytest.mark.parametrize("name", ["ConfigurationError", "InstrumentConflictError", "RecordingError"])
def test_a_mistake_in_an_argument_is_a_value_error_too(name: str) -> None:
    """As Python itself would say it. What the peer or the network did is none."""
    assert issubclass(CLASSES[name], ValueError)
    assert not issubclass(errors.PeerError, ValueError)
    assert not issubclass(errors.NetworkError, (ValueError, OSError))


def test_what_is_counted_as_failed_has_a_reason_of_its_own() -> None:
    """`Stats.failed` tells apart what can travel in it; usage errors are raised, never counted."""
    reasons = {name: error.reason for name, error in CLASSES.items()}

    assert reasons == {
        "EmitterError": "error",
        "UsageError": "error",
        "ConfigurationError": "error",
        "InstrumentConflictError": "error",
        "RecordingError": "error",
        "PeerError": "peer",
        "AnswerError": "answer",
        "RefusedError": "refused",
        "NetworkError": "network",
        "ConnectError": "connect",
        "CredentialsError": "credentials",
        "TlsError": "tls",
        "ConnectionLostError": "lost",
        "BudgetExceededError": "budget",
        "UnansweredError": "unanswered",
    }


def test_a_failed_connect_says_where_to_and_why() -> None:
    """Facts as attributes, and all of them in the text."""
    error = errors.ConnectError("metrics.example.com", 4318, "Connection refused")

    assert (error.host, error.port, error.cause) == ("metrics.example.com", 4318, "Connection refused")
    assert str(error) == "no connection to metrics.example.com port 4318: Connection refused"


def test_a_lost_connection_says_what_was_seen_and_whether_to_write_anew() -> None:
    """`untouched` decides whether the report may safely go out again."""
    error = errors.ConnectionLostError("the peer closed it", untouched=True)

    assert (error.cause, error.untouched) == ("the peer closed it", True)
    assert str(error) == "the connection was lost: the peer closed it"


def test_an_exceeded_budget_says_where_the_bytes_were() -> None:
    """In this process, in the kernel, on their way."""
    error = errors.BudgetExceededError(1, 20, 300)

    assert (error.unwritten_bytes, error.untransmitted_bytes, error.unacknowledged_bytes) == (1, 20, 300)
    assert str(error) == (
        "the budget ended with 1 bytes still in this process, 20 not transmitted by the kernel and 300 not acknowledged"
    )
