"""Owns the calls into code that others have hung on: a mistake in it is logged, and goes no further.

Part of what `import emitter` loads.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CALLED_LAST", "call_each", "nothing_raised"]

CALLED_LAST = "what is called last"
"""How `Emitter.last_calls` are named in the log."""


class nothing_raised:  # noqa: N801  reads as what it is: a statement
    """Logs what goes wrong around a handler, which has its own result or its own exception: that the caller gets.

    The network raises nothing, so it is a mistake in the code around it, and worth a trace.

    Args:
        what: Is said to have failed.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception):
            return False  # an interrupt is nobody's mistake
        import logging  # `import emitter` stays light, and nearly nobody gets here

        logging.getLogger("emitter").error("%s failed", self._what, exc_info=error)
        return True


def call_each(calls: Iterable[Callable[[], object]], what: str) -> None:
    """Call them all, whatever one of them raises; see `nothing_raised`."""
    for call in calls:
        with nothing_raised(what):
            call()
