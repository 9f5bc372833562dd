"""Owns the moment after a fork: whoever lives on in the child is told there, before anything else runs in it.

A forked child is a sandbox of its own (Lambda's managed instances fork their workers). What it inherited was made for
another one: an identity, totals that are reported already, a connection on which two processes would talk at once.

Nothing is held before a fork and nothing is told in the parent. So nothing there can go wrong: no lock to wait for,
which the very thread that forks may hold, having been interrupted by a signal; no second thread that forks meanwhile.
In return whoever is told finds things as some other thread has left them, in the middle of a change perhaps.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol

__all__ = ["Forks", "watch"]


class Forks(Protocol):
    """What wants to be told."""

    def after_fork(self) -> None:
        """Go on in the child, as somebody else. The calling thread is the only one.

        Locks may be held by threads that do not exist here, so they are replaced and never taken.
        """
        ...  # pragma: no cover  a protocol's body is never run


_watched: weakref.WeakSet[Forks] = weakref.WeakSet()


def watch(forks: Forks) -> None:
    """Tell of every fork from now on, for as long as it lives."""
    _watched.add(forks)


def _in_child() -> None:
    with contextlib.ExitStack() as told:  # calls each, also when one of them raises
        for forks in list(_watched):
            told.callback(forks.after_fork)


os.register_at_fork(after_in_child=_in_child)
