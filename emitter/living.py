"""Owns the list of the emitters that live in this process, for tests that take them over. Knows nothing of them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.meter import Meter

__all__ = ["emitters", "note", "tell", "tell_no_more"]

_living: weakref.WeakSet[Meter] = weakref.WeakSet()
_told: list[Callable[[Meter], object]] = []


def note(emitter: Meter) -> None:
    """One more was made, whole and ready for use."""
    _living.add(emitter)
    for told in _told[:]:  # whoever is told may take somebody off the list
        told(emitter)


def emitters() -> list[Meter]:
    """Those that live, in no order."""
    return list(_living)


def tell(told: Callable[[Meter], object]) -> None:
    """Call this with every emitter that is made from now on."""
    _told.append(told)


def tell_no_more(told: Callable[[Meter], object]) -> None:
    """Call it no more."""
    _told.remove(told)
