"""The README's section on testing runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emitter.testing import Recorded

pytest_plugins = ["pytester"]

README = Path(__file__).parents[2].joinpath("README.md").read_text()
SECTION = README.partition("\n## Testing your metrics\n")[2].partition("\n## ")[0]
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL))
FUNCTION = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]


@pytest.fixture
def directory(pytester):
    """A user's: the configuration, the function and the tests of the README, and nothing else."""
    pytester.makepyprojecttoml(BLOCKS["toml"])
    pytester.makepyfile(checkout=FUNCTION, test_checkout=BLOCKS["python"])
    return pytester


def run(directory):
    """As the README says; but nothing but ours may warn."""
    return directory.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error")


def test_the_tests_of_the_readme_pass(directory):
    """With the first snippet of all as the function, whose endpoint nobody ever asks."""
    tests = re.findall(r"^def test_", BLOCKS["python"], re.MULTILINE)

    run(directory).assert_outcomes(passed=len(tests))


def test_a_failure_reads_as_the_readme_shows_it(directory):
    """Were the order counted for another channel; but for how long the payment took."""
    directory.makepyfile(checkout=FUNCTION.replace('channel="web"', 'channel="app"'))
    output = "\n".join(line.removeprefix("E").strip() for line in run(directory).outlines)
    shown = "\n".join(line.strip() for line in BLOCKS["text"].splitlines())
    shown = re.sub(r"sum \S+ s", "sum SECONDS s", shown)

    assert "SECONDS" in shown
    assert re.search(re.escape(shown).replace("SECONDS", r"\S+"), output), output


def test_every_assertion_is_in_the_readme():
    """And nothing there that does not exist."""
    offered = {name for name in dir(Recorded) if name.startswith("assert_")}

    assert set(re.findall(r"\bassert_\w+", SECTION)) == offered
    assert set(re.findall(r"\brecorded\.(\w+)", SECTION)) <= set(dir(Recorded))
