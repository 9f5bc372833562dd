from __future__ import annotations

import copy

import pytest

from emitter.encode import ENCODERS, Encoder, as_encoder, encoder_named
from emitter.errors import ConfigurationError, UsageError
from emitter.record.registry import Registry
from emitter.record.snapshot import Metric


@pytest.mark.parametrize("name", ENCODERS)
def test_each_name_makes_an_encoder_of_its_own(name: str) -> None:
    """With a content type, and with something to say of a registry that has only just begun."""
    encoder = encoder_named(name)
    registry = Registry((("service.name", "s"),))
    registry.counter("orders").add(1)

    assert isinstance(encoder, Encoder)
    assert encoder is not encoder_named(name)
    assert "/" in encoder.content_type
    assert len(encoder.encode(registry.snapshot())) > 0


@pytest.mark.parametrize("name", ENCODERS)
def test_a_copy_of_an_encoder_leaves_the_first_one_alone(name: str) -> None:
    """The parts of a large report are encoded by copies, each with series of its own."""
    encoder = encoder_named(name)
    one, other = Registry((("service.name", "s"),)), Registry((("service.name", "s"),))
    for number in range(20):
        one.counter("orders").add(number, number=str(number))
        other.histogram("sizes").record(number, number=str(number))
    mine, theirs = one.snapshot(), other.snapshot()
    expected = bytes(encoder.encode(mine))
    copied = copy.copy(encoder)
    foreign = bytes(copied.encode(theirs))

    assert bytes(encoder.encode(mine)) == expected
    assert bytes(copied.encode(theirs)) == foreign == bytes(encoder_named(name).encode(theirs))


def test_a_name_that_nobody_knows_lists_those_that_are_known() -> None:
    """And says where it came from."""
    with pytest.raises(
        ConfigurationError,
        match=r"^EMITTER_ENCODER is 'otpl'; expected one of influx, json, otlp, otlp-json, remote-write$",
    ):
        encoder_named("otpl", "EMITTER_ENCODER")


def test_a_function_becomes_an_encoder() -> None:
    """The names of metrics stay as they are; large bodies are compressed; deltas are its own business."""

    @as_encoder("text/csv", headers={"X-Table": "totals"})
    def csv(snapshot):
        return b"%d\r\n" % len(snapshot.points)

    registry = Registry()
    registry.counter("orders")

    assert (csv.content_type, csv.headers) == ("text/csv", {"X-Table": "totals"})
    assert csv.encode(registry.snapshot()) == b"1\r\n"
    assert csv.names(Metric("a b", "", "", "counter", (), ())) == ("a b",)
    assert (csv.deltas, csv.tick_nano) == (True, 1)
    assert repr(csv) == "<encoder 'csv' of text/csv>"


def test_what_is_no_function_makes_no_encoder() -> None:
    """Said where it is decorated."""
    with pytest.raises(ConfigurationError, match="as_encoder was put on a str; expected a function"):
        as_encoder("text/csv")("csv")
    with pytest.raises(
        ConfigurationError, match=r"given a function; expected a content type, as in @as_encoder\('text"
    ):
        as_encoder(lambda snapshot: b"")


def test_a_function_that_returns_no_bytes_is_told_so() -> None:
    """Otherwise the request would fail somewhere, with words about something else."""

    @as_encoder("text/csv")
    def csv(snapshot):
        return "text"

    with pytest.raises(UsageError, match="<encoder 'csv' of text/csv> returned a str; expected bytes"):
        csv.encode(Registry().snapshot())
