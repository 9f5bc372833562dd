"""Owns what a snapshot of the sandbox does to an emitter. Knows nothing of how reports get out.

Lambda's SnapStart runs INIT once, takes a snapshot, and makes every sandbox of that one. Whatever is meant to be
unique, an instance id or a connection, would be the same in all of them.

Source: AWS Lambda developer guide, "Handling uniqueness with Lambda SnapStart" and "runtime hooks".
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from emitter import loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emitter.flusher import Flusher

__all__ = ["PATIENCE", "watch"]

PATIENCE = 2.0
"""Seconds for each hook, at most: both are billed, and all hooks of a restore have 10 s together."""


def watch(flusher: Flusher, environment: Mapping[str, str]) -> None:
    """Tell it of the snapshot and of the restore, if this is the INIT phase before one."""
    if environment.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start":
        return
    try:
        import snapshot_restore_py as hooks  # type: ignore[import-untyped]  # noqa: PLC0415  only Lambda has it
    except ImportError:
        logging.getLogger("emitter").warning(
            "SnapStart is on, and its hooks cannot be had: all sandboxes would count under one name. Add the package "
            "snapshot-restore-py to the function"
        )
        return
    known = weakref.ref(flusher)  # the hooks are kept for ever, an emitter need not be
    hooks.register_before_snapshot(_told, known, _before_snapshot)
    hooks.register_after_restore(_told, known, _after_restore)


def _told(known: weakref.ref[Flusher], what: Callable[[Flusher], None]) -> None:
    flusher = known()
    if flusher is not None:
        try:
            what(flusher)
        except Exception:  # a hook that raises ends the sandbox; the network raises nothing, so it is worth a trace
            logging.getLogger("emitter").exception("the hook of SnapStart failed")


def _before_snapshot(flusher: Flusher) -> None:
    # What INIT has recorded goes out under the identity of INIT: no sandbox will have it.
    loop.run(flusher.close(PATIENCE, report=flusher.has_news))


def _after_restore(flusher: Flusher) -> None:
    flusher.after_fork()
    loop.run(flusher.connect(PATIENCE))
