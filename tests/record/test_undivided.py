"""The statements that change a total without a lock: nothing gets its turn in the middle of one."""

from __future__ import annotations

import dis
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from emitter.record.series import UNDIVIDED, BoundGauge, BoundHistogram, BoundSum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Instructions = list[dis.Instruction]

GOES_ON = {
    *("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"),
    *("STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_GLOBAL"),
    *("DUP_TOP", "COPY", "ROT_TWO", "ROT_THREE", "SWAP", "POP_TOP", "NOP", "NOT_TAKEN", "EXTENDED_ARG"),
    *("LOAD_ATTR", "STORE_ATTR", "BINARY_SUBSCR", "STORE_SUBSCR", "LIST_EXTEND"),
    *("BINARY_ADD", "INPLACE_ADD", "BINARY_OP", "COMPARE_OP", "IS_OP", "TO_BOOL"),
}
"""Instructions that go on to the next without a look at who else wants a turn, and make nothing that the garbage
collector looks after, as long as they work on numbers, lists and attributes in slots. What is not listed may let
something else get its turn."""

LETS_GO = "let go"


def done_by(instruction: dis.Instruction) -> str:
    """What an instruction does to a total; empty if nothing."""
    steps = {
        "LOAD_ATTR": f"load {instruction.argval}",
        "STORE_ATTR": f"store {instruction.argval}",
        "STORE_SUBSCR": "store an item",
        "LIST_EXTEND": "copy a list",
    }
    return steps.get(instruction.opname, "" if instruction.opname in GOES_ON else LETS_GO)


def lines_of(function: Callable[..., object]) -> list[Instructions]:
    """The instructions of each line of a function."""
    starts = dict(dis.findlinestarts(function.__code__))
    line, lines = 0, {}
    for each in dis.get_instructions(function):
        line = starts.get(each.offset) or line
        lines.setdefault(line, []).append(each)
    return list(lines.values())


def ways_through(line: Instructions, at: int = 0) -> Iterator[list[str]]:
    """What is done on each of the ways through a line."""
    if at >= len(line):
        yield []
        return
    each = line[at]
    if "JUMP" not in each.opname:
        ends = each.opname.startswith("RETURN")
        yield from ([done_by(each), *rest] for rest in ways_through(line, len(line) if ends else at + 1))
        return
    assert each.argval > each.offset, "a jump backward"
    conditional = "IF" in each.opname
    target = next((place for place, other in enumerate(line) if other.offset == each.argval), len(line))
    # Up to 3.10 a conditional jump that is taken looks who else wants a turn.
    taken = LETS_GO if conditional and sys.version_info < (3, 11) else ""
    yield from ([taken, *rest] for rest in ways_through(line, target))
    if conditional:
        yield from ways_through(line, at + 1)


def undivided(function: Callable[..., object], last: str) -> list[list[str]]:
    """What is done, on each way through the lines that do this last, from where nothing else gets its turn any more.

    What is done twice is told once.
    """
    found = []
    for line in lines_of(function):
        if last in map(done_by, line):
            for way in (way for way in ways_through(line) if last in way):
                until = way[: len(way) - way[::-1].index(last)]
                since = until[len(until) - until[::-1].index(LETS_GO) :] if LETS_GO in until else until
                found.append(list(dict.fromkeys(filter(None, since))))
    return found


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (BoundSum.add, ["load point", "store point"]),
        (BoundSum._add, ["load point", "store point"]),
        (BoundGauge.set, ["store point"]),
        (BoundGauge._set, ["store point"]),
        (BoundHistogram.record, ["load sum", "load bucket_counts", "store sum", "store an item"]),
        (BoundHistogram._record, ["load sum", "load bucket_counts", "store sum", "store an item"]),
        (BoundHistogram.point.fget, ["load bucket_counts", "copy a list", "load sum"]),
    ],
)
def test_nothing_comes_between_reading_totals_and_storing_them(
    function: Callable[..., object], expected: list[str]
) -> None:
    """On no way through the statement, in the bytecode of this interpreter."""
    ways = undivided(function, expected[-1])

    assert ways
    assert [way for way in ways if way != expected] == []


class Divided:
    """What must not be done to totals."""

    point = 0
    sum = 0
    bucket_counts = ()

    def by_a_call(self) -> None:
        self.point = self.point + len("x")

    def by_making_a_list(self) -> None:
        self.point = self.point + [1][self.sum]

    def by_the_end_of_a_line(self) -> None:
        total = self.point
        self.point = total + 1

    def by_a_condition(self, empty: bool) -> None:
        self.point = self.point + (0 if empty else 1)

    def by_a_loop(self) -> None:
        while True: self.point = self.point + 1  # fmt: skip  # noqa: E701

    def by_calling_what_copies(self) -> object:
        return [*self.bucket_counts, len(self.bucket_counts)], self.sum

    def by_making_the_list_late(self) -> object:
        return self.sum, [*self.bucket_counts]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Divided.by_a_call, ["store point"]),
        (Divided.by_making_a_list, ["load sum", "store point"]),
        (Divided.by_the_end_of_a_line, ["store point"]),
        (Divided.by_calling_what_copies, ["load sum"]),
        (Divided.by_making_the_list_late, ["load bucket_counts", "copy a list"]),
    ],
)
def test_what_is_divided_is_seen(function: Callable[..., object], expected: list[str]) -> None:
    """Or the test above could not fail."""
    assert undivided(function, expected[-1]) == [expected]


def test_what_is_divided_by_a_jump_is_seen() -> None:
    """As above; from 3.11 on only jumps backward let go, and those are refused."""
    ways = undivided(Divided.by_a_condition, "store point")

    assert (["store point"] in ways) == (sys.version_info < (3, 11))
    with pytest.raises(AssertionError, match="a jump backward"):
        undivided(Divided.by_a_loop, "store point")


def test_on_this_interpreter_statements_are_undivided() -> None:
    """What this file checks is what is used, wherever the tests run on a CPython with its lock."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()

    assert (sys.implementation.name == "cpython" and has_lock) == UNDIVIDED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("", True),
        ("sys.implementation.name = 'pypy'", False),
        ("sys.version = '3.13.0 experimental free-threading build (main)'", False),
        ("sys.version = '3.14.0 free-threading build (main)'", False),
        ("sys.version_info = (3, 15, 0)", False),
    ],
)
def test_elsewhere_each_change_takes_the_lock(change: str, expected: bool) -> None:
    """Other implementations, builds without the lock, versions that nobody has looked into."""
    code = f"import sys, enum, dataclasses, bisect, math; import emitter.errors; {change or 'pass'}\n"
    code += "from emitter.record import series; print(series.UNDIVIDED)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == str(expected)
