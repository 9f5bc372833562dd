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
_PLACES = ("CALL", "PRECALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
"""What the names of the instructions begin with after which the interpreter looks for signals."""


class InterruptError(BaseException):
    """What a signal's handler raises; like `KeyboardInterrupt`, it is no `Exception`."""


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
    left, looked = place, False

    def at_each_instruction(frame: FrameType, event: str, _: object) -> object:
        nonlocal left, looked
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes = True
        if looked:
            looked = False
            left -= 1
            if left < 0:
                sys.settrace(before)
                raise InterruptError
        looked = event == "opcode" and frame.f_lasti in _places(frame.f_code)
        return at_each_instruction

    before = sys.gettrace()  # of a coverage measurement, say
    sys.settrace(at_each_instruction)
    try:
        call()
    except InterruptError:
        return True
    finally:
        sys.settrace(before)
    return False


@cache
def _places(code: CodeType) -> frozenset[int]:
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opname.startswith(_PLACES))
