"""What all tests of a sandbox's life need: a receiver, a gate, and functions under the stock runtime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from examples.local_lambda import LocalLambda
from tests.at_home import gate as gates
from tests.at_home.receiver import Receiver, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _on_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("the stock runtime client is Linux only")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that answers."""
    async with listening() as receiver:
        yield receiver


@pytest.fixture
async def gate() -> AsyncIterator[gates.Gate]:
    """A gate that is shut."""
    async with gates.gate() as gate:
        yield gate


@pytest.fixture
def function(tmp_path: Path) -> Callable[..., LocalLambda]:
    """Makes a sandbox of a function's code."""

    def make(code: str, endpoint: str, handler: str = "handle", *, env: dict[str, str] | None = None, **options):
        (tmp_path / "function.py").write_text(gates.WAITING + code)
        env = {"EMITTER_ENDPOINT": endpoint, **(env or {})}
        return LocalLambda(f"function.{handler}", cwd=tmp_path, env=env, **options)

    return make
