from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from emitter.__main__ import main

from .otlp import attempts, number_point, one, total

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAST_WORD_SECONDS = 30
"""How long a process may take to end before a test gives up on it."""


def command(*arguments: str) -> list[str]:
    """How a user starts us."""
    return [sys.executable, "-m", "emitter", *arguments]


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`serve` as a process of its own, once it listens, with its URL."""
    pipe = subprocess.PIPE
    # Buffered as a user's pipe is, so that a line that is not flushed would never come.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command("serve", *arguments), stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on (http://127\.0\.0\.1:[1-9]\d*)\n", line)
            assert match is not None, line
            yield match[1], process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=LAST_WORD_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def post(url: str, value: int, number: int = 1) -> int:
    """Report so many orders, and wait for the answer."""
    body = one(attempts(number), total("orders", number_point(value, time=number)))
    headers = {"Content-Type": "application/x-protobuf"}
    with urlopen(Request(f"{url}/v1/metrics", body, headers)) as answer:  # noqa: S310 - our own server
        return int(answer.status)


def totals(url: str) -> list[dict[str, Any]]:
    """What `/api/v1/totals` shows."""
    with urlopen(f"{url}/api/v1/totals") as answer:  # noqa: S310 - our own server
        services: list[dict[str, Any]] = json.load(answer)["services"]
        return services


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL right after an answer: the next process on the same file goes on with these totals."""
    database = str(tmp_path / "totals.sqlite3")
    for number in range(1, 6):
        with served("--port", "0", "--database", database) as (url, process):
            assert post(url, 10 * number, number) == 200
            process.kill()
            process.wait(LAST_WORD_SECONDS)

    with served("--port", "0", "--database", database) as (url, _):
        (service,) = totals(url)

    assert (service["sandboxes"], service["reports_received"], service["reports_lost"]) == (1, 5, 0)
    assert [t["value"] for t in service["totals"] if t["name"] == "orders"] == [50]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, no traceback, and SQLite's log is folded into the one file that remains."""
    database = tmp_path / "totals.sqlite3"
    with served("--port", "0", "--database", str(database)) as (url, process):
        post(url, 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=LAST_WORD_SECONDS)

    assert (process.returncode, out, err) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["totals.sqlite3"]


def test_the_answer_can_be_held_back() -> None:
    """`--answer-delay` is in seconds."""
    with served("--port", "0", "--database", ":memory:", "--answer-delay", "0.2") as (url, _):
        began = time.monotonic()
        post(url, 3)
        waited = time.monotonic() - began

    assert waited >= 0.2


def test_the_database_is_a_file_in_the_working_directory_unless_said_otherwise() -> None:
    """Totals are kept by default; where, is in the help."""
    text = subprocess.run(command("serve", "--help"), capture_output=True, text=True, check=True).stdout
    text = " ".join(text.split())

    assert "(default: emitter.sqlite3)" in text
    assert "(default: 4318)" in text
    assert "(default: 127.0.0.1)" in text


def failing(*arguments: str) -> str:
    """What `serve` says on standard error when it cannot start: exactly one line."""
    process = subprocess.run(
        command("serve", *arguments), capture_output=True, text=True, check=False, timeout=LAST_WORD_SECONDS
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    return process.stderr


def test_a_port_that_is_taken_is_one_line_and_exit_code_2() -> None:
    """No traceback for what a user can put right."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        line = failing("--port", str(port), "--database", ":memory:")

    assert line.startswith(f"cannot listen on 127.0.0.1 port {port}: ")


def test_a_database_that_cannot_be_opened_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """The line names the path and the reason."""
    line = failing("--port", "0", "--database", str(tmp_path))

    assert line == f"cannot use '{tmp_path}' as the database: unable to open database file\n"


def test_without_the_extra_it_says_how_to_install_it() -> None:
    """The core is installed without aiohttp; the command line is there all the same."""
    code = (
        "import runpy, sys; sys.modules['aiohttp'] = None; sys.argv = ['emitter', 'serve']; "
        "runpy.run_module('emitter', run_name='__main__')"
    )

    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert process.returncode == 2
    assert process.stderr == ("aiohttp is not installed; serve needs: pip install 'lambda-emitter[aggregator]'\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["serve", "--port", "65536"], "expected a port from 0 to 65535, got 65536"),
        (["serve", "--port", "x"], "expected a port from 0 to 65535, got x"),
        (["serve", "--database", ""], "argument --database: expected something, got nothing"),
        (["serve", "--host", ""], "argument --host: expected something, got nothing"),
        (["serve", "--answer-delay", "-1"], "expected seconds, 0 or more, got -1"),
        (["serve", "--answer-delay", "nan"], "expected seconds, 0 or more, got nan"),
        (["serve", "--answer-delay", "inf"], "expected seconds, 0 or more, got inf"),
        (["serve", "--answer-delay", "soon"], "expected seconds, 0 or more, got soon"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As argparse does it: usage, reason, exit code 2."""
    with pytest.raises(SystemExit) as refused:
        main(arguments)

    assert refused.value.code == 2
    assert reason in capsys.readouterr().err
