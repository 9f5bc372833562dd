from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.errors import AnswerError
from emitter.transmit.cookies import CookieStore
from emitter.transmit.http1 import AnswerParser
from emitter.transmit.tls import Tls
from tests.fuzz import targets
from tests.fuzz.corpus import CORPUS
from tests.fuzz.targets import TARGETS

INPUTS = [(name, number) for name, inputs in CORPUS.items() for number in range(len(inputs))]

_LIMIT_BYTES = 8 << 20
"""What an input may make a target hold at a time, the input itself (0.5 MB, in pieces once more) included."""


def test_every_target_has_a_corpus():
    """And nothing else has."""
    assert CORPUS.keys() == TARGETS.keys()


@pytest.mark.parametrize(("name", "number"), INPUTS)
def test_awkward_inputs_break_no_promise(name, number):
    """Those that are kept."""
    TARGETS[name].call(CORPUS[name][number])


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_promise(name):
    """Any bytes, and any beside an awkward input: as far as can be tried in a moment; atheris tries more."""
    mixed = st.builds(
        lambda known, at, new, cut: known[: at % (len(known) + 1)] + new + known[at % (len(known) + 1) + cut :],
        st.sampled_from(CORPUS[name]),
        st.integers(0, 5_000),
        st.binary(max_size=30),
        st.integers(0, 30),
    )

    @given(st.binary(max_size=300) | mixed)
    @settings(max_examples=100, deadline=None)
    def run(data: bytes) -> None:
        TARGETS[name].call(data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_no_awkward_input_takes_much_memory(name):
    """Half a megabyte in pieces is as much as all limits allow, several times over."""
    TARGETS[name].call(b"")  # what is made once
    tracemalloc.start()
    try:
        all_of(name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < _LIMIT_BYTES


def all_of(name: str) -> None:
    for data in CORPUS[name]:
        TARGETS[name].call(data)


def surprise(*_):
    raise LookupError("nobody documented this")


@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("http1", AnswerParser, "on_header"),
        ("http1", AnswerParser, "take"),
        ("cookies", CookieStore, "_read_attributes"),
        ("http_date", targets, "parse_http_date"),
        ("tls_handshake", Tls, "handshake"),
        ("tls_content", Tls, "_read"),
    ],
)
def test_a_broken_promise_is_seen(name, owner, method, monkeypatch):
    """An error that is not documented comes out of the target: else fuzzing would show nothing."""
    monkeypatch.setattr(owner, method, surprise)

    with pytest.raises((LookupError, AnswerError)):
        all_of(name)


def test_content_that_nobody_wrote_is_seen(monkeypatch):
    """TLS that lets anything through would not pass."""
    read = Tls._read
    monkeypatch.setattr(Tls, "_read", lambda self: [*read(self), b"forged"])

    with pytest.raises(AssertionError):
        TARGETS["tls_content"].call(b"\x00\x05hello\x00\xff")


def test_pieces_that_matter_are_seen(monkeypatch):
    """A parser that forgets what it read before would not pass."""
    feed = AnswerParser.feed
    monkeypatch.setattr(AnswerParser, "feed", lambda self, data: feed(self, data) if len(data) > 1 else None)

    with pytest.raises(AssertionError, match="in other pieces"):
        TARGETS["http1"].call(b"\x01\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
