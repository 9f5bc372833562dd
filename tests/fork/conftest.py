"""The peers of processes that fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fork.sandboxes import Peers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["plain", "tls"])
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    """Peers of either kind."""
    peers = Peers(request.param)
    yield peers
    peers.close()


@pytest.fixture
def plain() -> Iterator[Peers]:
    """Peers without TLS."""
    peers = Peers("plain")
    yield peers
    peers.close()
