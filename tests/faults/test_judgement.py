from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from emitter.outcomes import Stats, Withheld
from tests.faults.judgement import complaints
from tests.faults.rows import Row
from tests.faults.trial import BUDGET, INVOCATIONS, Trial

ROW = Row("refused", "refused", frozenset(["connect"]))
LINE = "WARNING emitter: reports to 127.0.0.1:1/v1/metrics: no connection"


def stats(failed: dict[str, int] | None = None, withheld: dict[Withheld, int] | None = None) -> Stats:
    counts: dict[str, Any] = {"failed": MappingProxyType(failed or {}), "withheld": MappingProxyType(withheld or {})}
    return Stats(
        flushes=90,
        transmitted=0,
        verdicts=MappingProxyType({}),
        connections_opened=0,
        bytes=0,
        overflowed=0,
        last_error=None,
        **counts,
    )


GOOD = Trial(
    seconds=(0.001,) * INVOCATIONS,
    wrong_results=0,
    during=stats({"connect": 90}),
    after=stats({"connect": 90}),
    report_bytes=1_500,
    log_lines=(LINE,),
    log_lines_after=(),
    grown_bytes=100,
    grown_blocks=3,
    grown_files=1,
    recovery=1,
    truth={"orders": {"web": 17}},
    totals={"orders": {"web": 17}},
    reports_numbered=91,
    reports_attempted=91,
)


def test_a_trial_in_which_all_is_well_is_not_complained_of() -> None:
    """Each complaint of the tests below is due to the one thing that was changed."""
    assert complaints(ROW, GOOD) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"wrong_results": 1}, "1 callers did not get the handler's own result"),
        ({"totals": {"orders": {"web": 16}}}, "the receiver knows {'orders': {'web': 16}}; true is"),
        ({"reports_numbered": 90}, "the receiver knows report 90; the last was 91"),
        ({"seconds": (2 * BUDGET,) * INVOCATIONS}, "the median invocation took 100.0 ms"),
        ({"recovery": 4}, "it took 4 invocations until the totals were right"),
        ({"grown_blocks": 20}, "20 objects were left by"),
        ({"grown_bytes": 40_000}, "40000 bytes were left by"),
        ({"grown_files": 40}, "40 files were left open"),
        ({"log_lines": (LINE,) * 40}, "40 lines were logged"),
        ({"log_lines_after": (LINE,) * 7}, "7 lines were logged once it was over"),
        ({"log_lines": ()}, "nothing was logged"),
        ({"log_lines": ("ERROR emitter: the flush at the end of the invocation failed",)}, "logged: ERROR emitter"),
        ({"log_lines": ("WARNING asyncio: socket.send() raised exception.",)}, "logged: WARNING asyncio"),
        ({"during": stats({"tls": 90})}, "failed: {'tls': 90}, instead of ['connect']"),
        ({"during": stats({"connect": 90, "defect": 1})}, "failed: {'connect': 90, 'defect': 1}, instead of"),
        ({"during": stats()}, "nothing failed, instead of ['connect']"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_is_not_as_it_has_to_be_is_complained_of(changed: dict[str, Any], complaint: str) -> None:
    """A matrix that cannot complain shows nothing."""
    found = complaints(ROW, replace(GOOD, **changed))

    assert [each[: len(complaint)] for each in found if each.startswith(complaint)] == [complaint]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (replace(ROW, big=True), "a big report had only 1500 bytes"),
        (replace(ROW, stalls=True), "the median invocation took 1.0 ms: this fault stalled nobody"),
        (replace(ROW, delivers=True), "answered: {}, instead of 200"),
        (replace(ROW, withheld=Withheld.BACKING_OFF), "withheld: {}, instead of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_that_is_not_what_its_row_says_is_complained_of(row: Row, complaint: str) -> None:
    """A fault that does not happen would be survived by anybody."""
    found = complaints(row, GOOD)

    assert [each[: len(complaint)] for each in found] == [complaint]


def test_an_emitter_that_backs_off_and_still_costs_time_is_complained_of() -> None:
    """Withheld flushes are next to free, whatever the fault is."""
    row = replace(ROW, backs_off=True)

    assert complaints(row, replace(GOOD, seconds=(0.02,) * INVOCATIONS)) == [
        "the median invocation took 20.0 ms while backing off"
    ]
