"""Ctrl-C, and other people's time limits: what an interrupt leaves behind, wherever it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emitter.encode import ENCODERS, encoder_named
from emitter.record.registry import Registry
from tests.interrupts import interrupted

if TYPE_CHECKING:
    from collections.abc import Callable


def filled() -> Registry:
    registry = Registry((("service.name", "s"),))
    for number in range(3):
        registry.counter("orders").add(number, shop=number)
        registry.histogram("sizes", boundaries=[1, 2]).record(number, shop=number)
    return registry


def test_at_any_place_of_a_snapshot_the_next_one_is_whole() -> None:
    """Were the layout of the report left half made, no report could be encoded any more."""

    def prepare() -> Callable[[], object]:
        nonlocal registry
        registry = filled()
        registry.snapshot()
        registry.counter("more").add(1)
        registry.counter("orders").add(1, shop="new")
        return registry.snapshot

    registry = filled()
    expected = prepare()()
    for _ in interrupted(prepare, at_least=20):
        snapshot = registry.snapshot()

        assert (snapshot.metrics, snapshot.points) == (expected.metrics, expected.points)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_at_any_place_of_an_encoding_the_next_one_is_whole(name: str) -> None:
    """What an encoder remembers of the last layout only saves time."""
    before, snapshot, after = (registry := filled()).snapshot(), registry.snapshot(), registry.snapshot()

    def prepare() -> Callable[[], object]:
        nonlocal encoder
        encoder = encoder_named(name)
        encoder.encode(before)
        registry.counter("another").add(1)
        return lambda: encoder.encode(registry.snapshot())

    encoder = encoder_named(name)
    for _ in interrupted(prepare, at_least=20):
        assert bytes(encoder.encode(snapshot)) == bytes(encoder_named(name).encode(snapshot))
        assert bytes(encoder.encode(after)) == bytes(encoder_named(name).encode(after))
