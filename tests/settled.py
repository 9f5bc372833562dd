"""What the tests of the settings share: settings from variables and arguments, or the text of the refusal."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from emitter.errors import ConfigurationError
from emitter.settings import Settings

URL = "http://metrics.example.com/v1/metrics"


def resolved(environment: dict[str, str] | None = None, **arguments: Any) -> Settings:
    """Settings from these variables and arguments; the endpoint is given unless the variables are to give it."""
    given = {"endpoint": URL if environment is None else None, "service": None, "headers": None}
    return Settings.resolve(
        MappingProxyType(environment or {}), **{**given, "delivery": None, "timeout": None, **arguments}
    )


def refusal(environment: dict[str, str] | None = None, **arguments: Any) -> str:
    """The text with which these variables and arguments are refused."""
    with pytest.raises(ConfigurationError) as caught:
        resolved(environment, **arguments)
    assert caught.value.__cause__ is None
    return str(caught.value)
