from __future__ import annotations

import asyncio

import pytest

from examples.local_network import why_not
from tests.freeze.laboratory import ROUND_TRIPS, SIZES, WAYS, Experiment, Outcome, every, run

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

INVOCATIONS = 2
OURS = [way for way in WAYS if way.ours]
DRAINED = [way for way in WAYS if way.key.startswith("drain")]
LARGE = [size for size in SIZES if size.segments > 10]
LEVELS = ["BUFFERED", "TRANSMITTED", "ACKNOWLEDGED", "ANSWERED"]


@pytest.fixture(scope="module")
def outcomes() -> dict[Experiment, Outcome]:
    """All experiments that a test looks at, side by side: a minute."""
    return asyncio.run(run([*every(OURS), *every(DRAINED, LARGE)], INVOCATIONS))


def found(outcomes: dict[Experiment, Outcome], way, size) -> dict[float, Outcome]:
    """The outcomes of one row of the table, by round trip."""
    return {round_trip: outcomes[Experiment(way, size, round_trip)] for round_trip in ROUND_TRIPS}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.title)
@pytest.mark.parametrize("way", OURS, ids=lambda way: way.title)
def test_what_the_emitter_says_is_transmitted_arrives_though_the_machine_is_frozen(outcomes, way, size):
    """Whatever the size and the round trip; every report, and so the totals."""
    for round_trip, outcome in found(outcomes, way, size).items():
        assert set(outcome.said) == {way.key.upper()}, round_trip
        assert outcome.complete, (round_trip, outcome)
        assert outcome.orders_received == outcome.orders == INVOCATIONS + 1
        assert outcome.connections == 1


@pytest.mark.parametrize("size", LARGE, ids=lambda size: size.title)
@pytest.mark.parametrize("way", DRAINED, ids=lambda way: way.title)
def test_a_report_that_was_only_drained_stays_behind_in_the_frozen_machine(outcomes, way, size):
    """Above ten segments, the rest of it waits in the kernel for an acknowledgement.

    A report that has arrived all the same had its round trip before the freeze: over 1 ms the runtime may not be
    faster in asking for its next event, nor is a busy machine over 20 ms, and one that is very busy over 80 ms.
    """
    for round_trip, outcome in found(outcomes, way, size).items():
        for arrived, open_seconds in zip(outcome.arrived, outcome.open_seconds, strict=True):
            assert not arrived or open_seconds >= round_trip, (round_trip, outcome)
        assert (outcome.orders_received < outcome.orders) == (not outcome.arrived[-1]), (round_trip, outcome)


def test_the_laboratory_can_lose_a_report(outcomes):
    """If it could not show this loss, its tables without loss would mean nothing."""
    over_an_ocean = [found(outcomes, way, size)[max(ROUND_TRIPS)].arrived for way in DRAINED for size in LARGE]

    assert not all(map(all, over_an_ocean))


@pytest.mark.parametrize("way", [way for way in OURS if way.key == "transmitted"], ids=lambda way: way.title)
def test_a_report_that_leaves_in_one_flight_costs_no_round_trip_and_a_larger_one_does(outcomes, way):
    """10 KB are seven segments, 30 KB are twenty-one, and ten leave at once."""
    round_trip = max(ROUND_TRIPS)
    small, large = (found(outcomes, way, SIZES[place])[round_trip].handler_seconds for place in (1, 2))

    assert min(small) < round_trip <= min(large)


def test_an_acknowledgement_costs_a_round_trip_whatever_the_size(outcomes):
    """The price of the level above."""
    way = next(way for way in OURS if way.key == "acknowledged")

    for round_trip, outcome in found(outcomes, way, SIZES[0]).items():
        assert min(outcome.handler_seconds) >= round_trip


def test_segments_are_those_of_an_ethernet(outcomes):
    """The devices take what a network takes: frames of 1,514 bytes at most, not the 64 KB of loopback."""
    assert {outcome.largest_frame_bytes for each, outcome in outcomes.items() if each.size in LARGE} == {1514}
