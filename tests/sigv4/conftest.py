"""What the tests of signatures share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.scripted_peer import PATIENCE
from tests.sigv4.servers import CredentialsServer, giving_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _no_other_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Nobody's own profiles, and no machine that is asked over the network."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def container() -> Iterator[CredentialsServer]:
    """Whoever gives short-lived credentials away."""
    with giving_credentials() as server:
        yield server


@pytest.fixture
def fetched() -> Callable[[], None]:
    """Waits until nobody fetches credentials any more."""

    def wait() -> None:
        for thread in threading.enumerate():
            if thread.name == "emitter-credentials":
                thread.join(PATIENCE)
                assert not thread.is_alive()

    return wait
