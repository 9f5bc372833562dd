"""Owns the moment of a fork: whoever lives on in two processes is told before it and after it, in both.

A forked child is a sandbox of its own (Lambda's managed instances fork their workers). What it inherited was made for
another one: an identity, totals that are reported already, a connection on which two processes would talk at once.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forks", "watch"]


class Forks(Protocol):
    """What wants to be told."""

    def before_fork(self) -> None:
        """Come to rest: no lock may be held by another thread, which the child will not have."""
        ...  # pragma: no cover  a protocol's body is never run

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; in the child as somebody else."""
        ...  # pragma: no cover  a protocol's body is never run


_watched: weakref.WeakSet[Forks] = weakref.WeakSet()
_at_rest: list[Forks] = []


def watch(forks: Forks) -> None:
    """Tell of every fork from now on, for as long as it lives."""
    _watched.add(forks)


def _before() -> None:
    for forks in list(_watched):
        forks.before_fork()
        _at_rest.append(forks)


def _after(*, in_child: bool) -> None:
    while _at_rest:
        _at_rest.pop().after_fork(in_child=in_child)


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(in_child=False),
    after_in_child=lambda: _after(in_child=True),
)
