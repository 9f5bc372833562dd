"""A server from the system's packages, run by a test in a folder of its own, and ended by the test that started it.

One that can be is handed a socket that listens already (`running`). So there is no race for a free port, and nothing to
wait for: a connection that is made before the server is up waits in the kernel. One that cannot is told a port that was
free a moment ago (`standing`), told another if somebody else was faster, and asked until it says that it is ready.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[[socket.socket], tuple[list[str], dict[str, str]]]
    PortCommand = Callable[[int], tuple[list[str], dict[str, str]]]

# Where packages put servers; it is not on the PATH of everybody.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

_PORTS = 5
"""Tries to find a port that nobody takes between our look and the server's; the first one nearly always does."""

_START = 60.0
"""Seconds for a server to be ready. Each of them takes a fraction of one where nothing else runs."""

_PAUSE = 0.01
"""Seconds between two questions whether a server is ready: only it can tell, and there is no event for it."""


def installed(program: str, package: str) -> str:
    """The path of a program; a test that needs one which is not there is skipped."""
    found = shutil.which(program, path=SEARCHED)
    if found is None:
        pytest.skip(f"{program} is not installed: on Debian, as root, apt-get install {package}")
    return found


@contextlib.contextmanager
def running(command: Command, folder: Path) -> Iterator[int]:
    """Run a server while the context lasts.

    Args:
        command: Makes the command line, and what goes into the environment, for the socket to listen on.
        folder: What it says is kept there.

    Yields:
        The port that it listens on.
    """
    said = folder / "said.log"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        arguments, environment = command(listener)
        server = _started(arguments, environment, said, [listener.fileno()])
    # Our own copy of the listener is closed by now: if the server did not start, connections are refused.
    try:
        yield port
        assert server.poll() is None, f"{arguments[0]} ended by itself:\n{said.read_text()}"
    finally:
        _end(server)


@contextlib.contextmanager
def standing(command: PortCommand, folder: Path, ready: str) -> Iterator[int]:
    """Run a server that opens its own port while the context lasts.

    Args:
        command: Makes the command line, and what goes into the environment, for the port to listen on.
        folder: What it says is kept there.
        ready: The path that it answers with success as soon as it can be used.

    Yields:
        The port that it listens on.
    """
    said = folder / "said.log"
    for _ in range(_PORTS):
        port = _free_port()
        arguments, environment = command(port)
        server = _started(arguments, environment, said, [])
        try:
            if not _is_ready(server, f"http://127.0.0.1:{port}{ready}"):
                assert "address already in use" in said.read_text().lower(), f"it ended:\n{said.read_text()}"
                continue
            yield port
            assert server.poll() is None, f"{arguments[0]} ended by itself:\n{said.read_text()}"
            return
        finally:
            _end(server)
    raise AssertionError(f"{arguments[0]} found none of {_PORTS} ports free")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_ready(server: subprocess.Popen[bytes], url: str) -> bool:
    """Ask until the server is ready; whether it has not ended instead."""
    deadline = time.monotonic() + _START
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE):  # noqa: S310  always http
                return server.poll() is None  # else another one answers there
        except urllib.error.HTTPError as error:  # it is there, and not ready
            error.close()
        except OSError:
            pass  # it does not listen yet
        assert time.monotonic() < deadline, f"{url} was not ready in time"
        time.sleep(_PAUSE)
    return False


def _started(
    arguments: list[str], environment: dict[str, str], said: Path, handed: list[int]
) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        return subprocess.Popen(
            arguments,
            env={"PATH": SEARCHED, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=handed,
            start_new_session=True,
        )


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)  # with its workers
        server.wait()
        raise
