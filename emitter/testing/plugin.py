"""Owns what pytest is told: no emitter reports during a test run, and a fixture. Knows no assertion.

Loaded by `-p emitter.testing`, or by `pytest_plugins = ["emitter.testing"]` in a conftest.py. The former comes earlier,
before any conftest.py, which may itself import the modules that make emitters. (PYTEST_DONT_REWRITE)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emitter.testing.recording import recording

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from emitter.testing.recorded import Recorded

__all__ = ["pytest_configure", "pytest_load_initial_conftests", "recorded"]

_SWITCH = "EMITTER_DISABLED"


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """What all emitters record during this test, with assertions: totals begin at zero, nothing goes out."""
    with recording() as everything:
        yield everything


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Switch emitters off before the first conftest.py is imported."""
    _switch_off(early_config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Switch emitters off before the first test module is imported, if a conftest.py has named this plugin."""
    _switch_off(config)


def _switch_off(config: pytest.Config) -> None:
    """For the whole run and the processes that it starts, unless somebody has decided otherwise: `=false`, say."""
    if not os.environ.get(_SWITCH, "").strip():
        patch = pytest.MonkeyPatch()
        patch.setenv(_SWITCH, "true")
        config.add_cleanup(patch.undo)
