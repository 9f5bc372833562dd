"""Owns what the arguments of a provider and of its decorator may be. Knows neither metrics nor handlers.

An emitter checks its own. But where Powertools' metrics are disabled, as in most unit tests, none is made, and a
mistake would show in production first.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from emitter.client import Emitter
from emitter.errors import ConfigurationError
from emitter.settings import Settings, checked_delivery, checked_switch, checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["OPTIONS", "check_options", "check_settings", "checked_dimensions", "checked_emitter", "checked_text"]

_SETTINGS = tuple(name for name in inspect.signature(Emitter.__init__).parameters if name != "self")
"""What `Emitter` takes."""

_RESOLVED = inspect.signature(Settings.resolve).parameters
_NOT_GIVEN: dict[str, Any] = {name: None for name, each in _RESOLVED.items() if each.default is each.empty}
"""What `Settings.resolve` wants to be told, though it be that nothing was given."""

_OWN_ARGUMENTS = ("emitter", "namespace", "default_dimensions", "function_name")
_OWN_OPTIONS = ("capture_cold_start_metric", "raise_on_empty_metrics", "default_dimensions")

OPTIONS: dict[str, Callable[[Any, str], object]] = {
    "timeout": lambda raw, name: None if raw is None else checked_timeout(raw, name),
    "delivery": lambda raw, _: None if raw is None else checked_delivery(raw),
    "connect": checked_switch,
    "every": checked_timeout,
    "timeout_guard": checked_switch,
    "flush_at_sigterm": checked_switch,
}
"""What `Emitter.lambda_handler` takes, each with its check."""


def check_settings(settings: Mapping[str, Any], *, disabled: bool) -> None:
    """Raise a `ConfigurationError` unless an `Emitter` can be made of these settings and of the environment.

    Unless `disabled`, one is about to be made and checks the values itself.
    """
    _check_names(settings, _SETTINGS, "EmitterProvider", (*_OWN_ARGUMENTS, *_SETTINGS))
    if disabled:
        given = {name: value for name, value in settings.items() if name in _RESOLVED}
        Settings.resolve(**{**_NOT_GIVEN, **given, "environment": {**os.environ, "EMITTER_DISABLED": "true"}})


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a `ConfigurationError` unless `Emitter.lambda_handler` takes these options."""
    _check_names(options, OPTIONS, "log_metrics", (*_OWN_OPTIONS, *OPTIONS))
    for name, value in options.items():
        OPTIONS[name](value, name)


def checked_emitter(emitter: object) -> Emitter:
    """An emitter that can stand behind a provider."""
    if not isinstance(emitter, Emitter):
        raise ConfigurationError(
            f"EmitterProvider was given {_kind(emitter)} for its emitter; expected an emitter.Emitter, or "
            "none. What stands before the metrics' names is given as namespace="
        )
    return emitter


def _kind(thing: object) -> str:
    name = type(thing).__name__
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"


def checked_text(raw: str | None, origin: str) -> str | None:
    """A text, or nothing."""
    if raw is not None and not isinstance(raw, str):
        raise ConfigurationError(f"{origin} is {raw!r}; expected a text")
    return raw


def checked_dimensions(raw: Mapping[str, object] | None) -> Mapping[str, object]:
    """Names and values of dimensions, or none."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
        raise ConfigurationError(
            f"default_dimensions are {raw!r}; expected a mapping of names to values, such as {{'stage': 'prod'}}"
        )
    return raw


def _check_names(given: Iterable[str], taken: Iterable[str], by: str, expected: Iterable[str]) -> None:
    unknown = sorted(set(given).difference(taken))
    if unknown:
        raise ConfigurationError(f"{by} was given {', '.join(unknown)}; expected any of {', '.join(expected)}")
