"""Interrupts (Ctrl-C, somebody's alarm) at every place of some code where Python would let one in.

Python runs the handler of a signal between two of its instructions: after a call, at the end of a loop's round, at the
beginning of a function. What such a handler raises comes out there.
"""

from __future__ import annotations

import dis
import sys
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import emitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

__all__ = ["InterruptError", "interrupted"]

_OURS = str(Path(emitter.__file__).parent)
_PLACES = frozenset(
    [
        *("CALL", "CALL_KW", "CALL_FUNCTION", "CALL_FUNCTION_KW", "CALL_FUNCTION_EX", "CALL_METHOD"),
        *("RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE"),
    ]
)
"""After these instructions the interpreter looks for signals; not all of them in every version (`ceval.c`)."""

_NOT_BEFORE = frozenset(["SETUP_FINALLY", "SETUP_WITH", "BEFORE_ASYNC_WITH", "YIELD_FROM"])
"""Unless one of these comes next (Python 3.10)."""


class InterruptError(KeyboardInterrupt):
    """What a signal's handler raises. asyncio lets nothing else through its callbacks."""


def interrupted(prepare: Callable[[], Callable[[], object]], at_least: int) -> Iterator[int]:
    """Call what `prepare` returns, each time anew, with an interrupt at the first place, at the second, to the last.

    Args:
        prepare: Makes what is called.
        at_least: So many places there are, for certain.

    Yields:
        The number of the place, after the interrupt has come out.
    """
    for place in count():
        call = prepare()
        if not _is_interrupted(call, place):
            break
        yield place

    assert place >= at_least


def _is_interrupted(call: Callable[[], object], place: int) -> bool:
    """Whether there are so many places; then the interrupt came out."""
    left, looked, thrown = place, False, False

    def at_each_instruction(frame: FrameType, event: str, _: object) -> object:
        nonlocal left, looked, thrown
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes = True
        looked = looked and event == "opcode" and frame.f_lasti not in _at(frame.f_code, _NOT_BEFORE)
        if looked:
            left -= 1
            if left < 0:
                sys.settrace(before)
                thrown = True
                raise InterruptError
        looked = event == "opcode" and frame.f_lasti in _at(frame.f_code, _PLACES)
        return at_each_instruction

    before = sys.gettrace()  # of a coverage measurement, say
    sys.settrace(at_each_instruction)
    try:
        call()
    except InterruptError:
        return True
    finally:
        sys.settrace(before)
    assert not thrown, "the interrupt was swallowed"
    return False


@cache
def _at(code: CodeType, names: frozenset[str]) -> frozenset[int]:
    """Where in the code the instructions of these names stand."""
    instructions = (each for each in dis.get_instructions(code) if each.opname in names)
    # A coroutine that goes on after an `await` has such an instruction too, and no place there.
    return frozenset(each.offset for each in instructions if each.opname != "RESUME" or not each.arg)
