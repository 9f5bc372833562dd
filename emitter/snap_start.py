"""Owns the hooks around a snapshot of the sandbox. Knows nothing of what is done in them.

Lambda's SnapStart runs INIT once, takes a snapshot, and makes every sandbox of that one. Whatever is meant to be
unique, an instance id or a connection, would be the same in all of them.

Source: AWS Lambda developer guide, "Handling uniqueness with Lambda SnapStart" and "runtime hooks".
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from emitter.callbacks import nothing_raised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["watch"]


def watch(before: Callable[[], object] | None, after: Callable[[], object], environment: Mapping[str, str]) -> None:
    """Call these before the snapshot and after each restore, if this is the INIT phase of such a function.

    Args:
        before: A method, whose object is kept alive by others, if at all; `None`: nothing.
        after: The same.
        environment: What it is set to.
    """
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
    # The hooks are kept for ever, an emitter need not be.
    if before is not None:
        hooks.register_before_snapshot(_told, weakref.WeakMethod(before))
    hooks.register_after_restore(_told, weakref.WeakMethod(after))


def _told(method: weakref.WeakMethod[Callable[[], Any]]) -> None:
    call = method()
    if call is not None:
        with nothing_raised("the hook of SnapStart"):  # one that raises ends the sandbox
            call()
