"""The unit tests that a user would write, run as a user would run them: in a directory of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "test_your_metrics"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the example, far from this project's own configuration."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "function", ignore=shutil.ignore_patterns("*cache*")))


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One pytest run there. The environment knows of no endpoint."""
    return subprocess.run(
        # Without what other plugins warn of, a warning of ours would be an error.
        [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_tests_of_the_example_pass(directory):
    """All of them, in whatever order."""
    tests = re.findall(r"^def (test_\w+)", (directory / "test_checkout.py").read_text(), re.MULTILINE)
    backwards = [f"test_checkout.py::{name}" for name in reversed(tests)]
    done, again = run(directory), run(directory, *backwards)

    assert f"{len(tests)} passed" in done.stdout, done.stdout
    assert f"{len(tests)} passed" in again.stdout, again.stdout


def test_a_count_that_is_missing_turns_them_red(directory):
    """The failure names what was expected, and lists what there was."""
    function = directory / "checkout.py"
    function.write_text(
        function.read_text().replace("orders.add(1, channel=channel)", "orders.add(2, channel=channel)")
    )
    done = run(directory)

    assert done.returncode == 1
    assert "AssertionError: the counter orders{channel='app'} stands at 2; expected 1" in done.stdout
    assert "recorded under that name:" in done.stdout
    assert "  counter faas.invocations = 1" in done.stdout
