"""Owns what Powertools' variables of the environment say. Knows nothing of metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aws_lambda_powertools.shared.functions import strtobool

from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["chosen", "disabled", "function_name"]


def chosen(argument: str | None, name: str) -> str | None:
    """An argument, or what a variable says if there is none."""
    return os.environ.get(name) if argument is None else argument


def disabled() -> bool:
    """Whether metrics are: told to be, or, unless told not to be, because Powertools knows that it is in development.

    Asked for each time, as Powertools does: tests set these variables when everything is imported already.

    Raises:
        ConfigurationError: `POWERTOOLS_METRICS_DISABLED` or `POWERTOOLS_DEV` is neither true nor false.
    """
    told = _flag("POWERTOOLS_METRICS_DISABLED")
    return bool(_flag("POWERTOOLS_DEV")) if told is None else told


def function_name(argument: str | None, context: Any) -> str:
    """The function's name: as told, else as the context says it; empty if nobody knows."""
    told = chosen(argument, "POWERTOOLS_METRICS_FUNCTION_NAME")
    return str(told or getattr(context, "function_name", "") or os.environ.get("AWS_LAMBDA_FUNCTION_NAME", ""))


def _flag(name: str) -> bool | None:
    text = os.environ.get(name, "").strip()
    try:
        return strtobool(text) if text else None
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}; expected true or false") from None
