"""What the tests of a pytest within pytest share."""

from __future__ import annotations

from pathlib import Path

import pytest

import emitter

ROOT = Path(emitter.__file__).parents[1]


@pytest.fixture(autouse=True)
def _this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes that a test starts find the emitter, whatever is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
