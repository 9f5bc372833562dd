from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitter.aggregator.fold import MAX_GAPS, Receipts, total_of
from emitter.aggregator.report import Distribution, Kind, Metric


def receipts_of(numbers: list[int]) -> Receipts:
    """What is known after reports with these numbers, in this order."""
    receipts = Receipts()
    for number in numbers:
        receipts = receipts.arrived([number])
    return receipts


@given(st.lists(st.integers(1, 2 * MAX_GAPS), max_size=300))
def test_whatever_arrives_in_whatever_order_is_received_once_and_the_rest_is_lost(numbers: list[int]) -> None:
    """Received = different numbers; attempts = the highest; lost = the difference. Order never matters."""
    receipts = receipts_of(numbers)

    assert receipts.received == len(set(numbers))
    assert receipts.attempts == max(numbers, default=0)
    assert receipts.lost == receipts.attempts - receipts.received
    assert receipts == receipts_of(sorted(numbers))


@given(st.lists(st.integers(1, 2**63 - 1) | st.integers(1, 1000), max_size=400))
def test_hostile_numbers_keep_the_sum_and_the_memory(numbers: list[int]) -> None:
    """Received + lost = attempts for any numbers at all, with at most MAX_GAPS gaps in memory."""
    receipts = receipts_of(numbers)

    assert receipts.received + receipts.lost == receipts.attempts == max(numbers, default=0)
    assert receipts.lost >= 0
    assert min(len(numbers), 1) <= receipts.received <= len(set(numbers))
    assert len(receipts.gaps) <= MAX_GAPS


def test_the_oldest_gap_is_forgotten_first_and_stays_lost() -> None:
    """Beyond MAX_GAPS the oldest gap is forgotten: a report that arrives for it then is not counted twice."""
    numbers = [2 * count for count in range(1, MAX_GAPS + 2)]

    receipts = receipts_of(numbers)

    assert receipts.lost == MAX_GAPS + 1
    assert receipts.arrived([1]) == receipts
    assert receipts.arrived([3]).lost == MAX_GAPS


def test_a_gap_that_is_split_beyond_the_limit_drives_the_oldest_out() -> None:
    """A late report in the middle of a gap makes two of one, and the limit still holds."""
    receipts = receipts_of([4 * count for count in range(1, MAX_GAPS + 1)])

    split = receipts.arrived([4 * MAX_GAPS - 2])

    assert len(receipts.gaps) == len(split.gaps) == MAX_GAPS
    assert receipts.gaps[0] == (1, 3)
    assert split.gaps[0] == (5, 7)
    assert split.lost == receipts.lost - 1


def test_a_late_report_splits_its_gap() -> None:
    """What is missing on either side of a late report stays missing."""
    receipts = receipts_of([10, 5])

    assert receipts.gaps == ((1, 4), (6, 9))
    assert receipts.lost == 8


def test_reports_without_a_number_are_received_and_never_lost() -> None:
    """Other clients do not number their reports: each arrival counts."""
    receipts = Receipts().arrived([]).arrived([])

    assert (receipts.attempts, receipts.received, receipts.lost) == (2, 2, 0)


def test_a_report_put_together_on_the_way_counts_for_each_of_its_numbers() -> None:
    """A collector may merge several reports of a sandbox into one request."""
    receipts = Receipts().arrived([3, 1])

    assert (receipts.received, receipts.lost) == (2, 1)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_are_added_exactly(values: list[int]) -> None:
    """A sum beyond 64 bits is still the exact integer."""
    total = total_of(Metric("m", Kind.UP_DOWN_COUNTER), {}, [(0, value) for value in values])

    assert total.value == sum(values)
    assert isinstance(total.value, int)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300), min_size=1).flatmap(
        lambda values: st.tuples(st.just(values), st.permutations(values))
    )
)
def test_the_order_of_sandboxes_does_not_show_in_a_sum_of_floats(
    both: tuple[list[float], list[float]],
) -> None:
    """Floats are rounded once, at the end, so every order gives the same bits."""
    metric = Metric("m", Kind.UP_DOWN_COUNTER)

    first, second = (total_of(metric, {}, [(0, value) for value in values]).value for values in both)

    assert repr(first) == repr(second)


def test_a_tenth_ten_times_is_one() -> None:
    """A running sum would give 0.9999999999999999."""
    total = total_of(Metric("m", Kind.COUNTER), {}, [(0, 0.1)] * 10)

    assert total.value == 1.0


@pytest.mark.parametrize("pairs", [[(1, 5), (2, 3)], [(2, 3), (1, 5)], [(2, 3), (2, 1), (1, 9)]])
def test_of_gauges_the_newest_wins(pairs: list[tuple[int, int]]) -> None:
    """A gauge is no sum; at equal times the larger value is shown, so that order cannot matter."""
    total = total_of(Metric("m", Kind.GAUGE), {}, pairs)

    assert (total.time_unix_nano, total.value) == (2, 3)


def test_a_histogram_without_a_sum_leaves_the_total_without_one() -> None:
    """A sum that misses one of its parts would look right and be wrong."""
    metric = Metric("m", Kind.HISTOGRAM, boundaries=(1.0,))
    values = [(1, Distribution(3, 1.5, (1, 2))), (2, Distribution(4, None, (4, 0)))]

    total = total_of(metric, {}, values)

    assert total.value == Distribution(7, None, (5, 2))
