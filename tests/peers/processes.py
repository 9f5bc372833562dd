"""A server from the system's packages, run by a test in a folder of its own, and ended by the test that started it.

It is handed a socket that listens already. So there is no race for a free port, and nothing to wait for: a connection
that is made before the server is up waits in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[[socket.socket], tuple[list[str], dict[str, str]]]

# Where packages put servers; it is not on the PATH of everybody.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


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
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, said.open("wb") as output:
        port = listener.getsockname()[1]
        arguments, environment = command(listener)
        server = subprocess.Popen(
            arguments,
            env={"PATH": SEARCHED, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    # Our own copy of the listener is closed by now: if the server did not start, connections are refused.
    try:
        yield port
        assert server.poll() is None, f"{arguments[0]} ended by itself:\n{said.read_text()}"
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)  # with its workers
            server.wait()
            raise
