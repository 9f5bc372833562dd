from __future__ import annotations

import inspect
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from emitter import Emitter
from examples.local_aggregator import LocalAggregator
from examples.local_lambda import LocalLambda
from tests.examples.test_sam import Loader, lint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is Linux only")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """From SIGTERM to SIGKILL there is more time than in Lambda, so that little hangs on how quick a machine is."""
    monkeypatch.setattr("examples.local_lambda.sandbox._SHUTDOWN_SECONDS", 3.0)


ROOT = Path(__file__).parents[2]
SECTION = ROOT.joinpath("README.md").read_text().partition("\n## In Lambda\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL)
PARTNER = "https://partner.example.com/v1/metrics"


def blocks(language: str) -> list[str]:
    """All of a language, in order."""
    return [text for kind, text in BLOCKS if kind == language]


def environment(endpoint: str) -> dict[str, str]:
    """What the template of the section gives to the function, deployed with this endpoint."""
    variables = template()["Resources"]["Checkout"]["Properties"]["Environment"]["Variables"]
    return {name: endpoint if value == {"!Ref": "Endpoint"} else value for name, value in variables.items()}


def template() -> dict[str, Any]:
    """The template of the section."""
    document: dict[str, Any] = yaml.load(blocks("yaml")[0], Loader)  # noqa: S506 - a safe loader
    return document


def function_in(folder: Path, module: str) -> Path:
    """The function's folder as the section describes it, with that module in it."""
    function = folder / template()["Resources"]["Checkout"]["Properties"]["CodeUri"]
    function.mkdir()
    function.joinpath("app.py").write_text(module)
    function.joinpath("internal_extension.py").write_text((ROOT / "examples/internal_extension.py").read_text())
    return function


@asynccontextmanager
async def invoked(folder: Path, module: str, aggregator: LocalAggregator) -> AsyncIterator[LocalLambda]:
    """A sandbox of a module of the section, under the stock runtime, after three invocations."""
    handler = template()["Resources"]["Checkout"]["Properties"]["Handler"]
    env = environment(aggregator.endpoint)
    async with LocalLambda(handler, cwd=function_in(folder, module), env=env) as sandbox:
        for _ in range(3):
            result = await sandbox.invoke({})
            assert (result.error, result.payload) == (None, {"statusCode": 200})
        yield sandbox


def test_the_section_is_there_and_every_block_has_its_test() -> None:
    """Four modules, a template and a piece of one, what pip reads, and two lists of commands."""
    languages = [language for language, _ in BLOCKS]

    assert languages == ["python", "text", "yaml", "sh", "sh", "python", "python", "yaml", "python"]
    assert "<<" not in SECTION


@on_linux
@pytest.mark.parametrize("number", [0, 2], ids=["three lines", "guarded"])
async def test_a_module_of_the_section_counts_each_invocation(number: int, tmp_path: Path) -> None:
    """With the environment of the section's template."""
    async with (
        LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator,
        invoked(tmp_path, blocks("python")[number], aggregator) as sandbox,
    ):
        checkout = (await aggregator.settled({"checkout": 3}))["checkout"]
        output = sandbox.output

    assert output == ""
    assert (checkout["sums"]["orders"], checkout["sums"]["faas.invocations"]) == (3, 3)
    assert checkout["sums"].get("faas.timeouts", 0) == 0
    assert (checkout["reports_received"], checkout["reports_lost"]) == (3, 0)


@on_linux
async def test_the_module_with_an_interval_reports_twice_and_loses_nothing(tmp_path: Path) -> None:
    """At the first of three invocations, and at SIGTERM."""
    async with (
        LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator,
        invoked(tmp_path, blocks("python")[1], aggregator) as sandbox,
    ):
        before = (await aggregator.settled({"checkout": 1}))["checkout"]
        await sandbox.shut_down()
        checkout = (await aggregator.settled({"checkout": 2}))["checkout"]

    assert (before["sums"]["orders"], checkout["sums"]["orders"]) == (1, 3)
    assert (checkout["reports_received"], checkout["reports_lost"]) == (2, 0)


@on_linux
async def test_the_module_with_two_emitters_reports_to_two_receivers(tmp_path: Path) -> None:
    """Each has its own instruments, and both count invocations."""
    module = blocks("python")[3]
    async with (
        LocalAggregator(tmp_path / "ours.sqlite3") as ours,
        LocalAggregator(tmp_path / "theirs.sqlite3") as theirs,
        invoked(tmp_path, module.replace(PARTNER, theirs.endpoint), ours),
    ):
        counted = [(await each.settled({"checkout": 3}))["checkout"]["sums"] for each in (ours, theirs)]

    assert PARTNER in module
    assert [each.get("orders") for each in counted] == [3, None]
    assert [each.get("deliveries") for each in counted] == [None, 3]
    assert [each["faas.invocations"] for each in counted] == [3, 3]


def test_cfn_lint_finds_nothing_in_the_template(tmp_path: Path) -> None:
    """As it stands, and with the piece for SnapStart in it."""
    whole, piece = blocks("yaml")
    there = "      Handler: app.handler\n"
    snap_start = whole.replace(there, there + "".join(f"      {line}\n" for line in piece.splitlines()))
    runs = []
    for text in (whole, snap_start):
        file = tmp_path / "template.yaml"
        file.write_text(text)
        runs.append(lint(file))
    properties = yaml.load(snap_start, Loader)["Resources"]["Checkout"]["Properties"]  # noqa: S506 - a safe loader

    assert [(run.returncode, run.stdout, run.stderr) for run in runs] == [(0, "", "")] * 2
    assert properties["SnapStart"] == {"ApplyOn": "PublishedVersions"}


def test_the_requirements_are_those_of_the_example() -> None:
    """Of which `pip download` has been tried."""
    example = (ROOT / "examples/sam/function/requirements.txt").read_text().splitlines()

    assert blocks("text")[0].splitlines() == [line for line in example if not line.startswith("#")]


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_are_a_shells_and_what_they_name_is_there(number: int) -> None:
    """Nobody deploys from a test: the shell reads them, and each path and resource in them exists."""
    commands = blocks("sh")[number]
    subprocess.run(["bash", "-n"], input=commands, text=True, check=True, timeout=60)  # noqa: S607 - whichever it is
    paths = re.findall(r"examples/[\w/]+", commands)
    invoked = re.findall(r"sam remote invoke (\w+)", commands)

    assert all((ROOT / path).exists() for path in paths)
    assert set(invoked) <= set(template()["Resources"])
    assert paths or "--wheel-dir function " in commands
    assert "sam build && sam deploy --guided" in commands


def test_what_the_section_quotes_is_what_users_see() -> None:
    """The messages in its last table stand in the code, whatever numbers are in them."""
    sources = [*ROOT.joinpath("emitter").rglob("*.py"), ROOT / "examples" / "internal_extension.py"]
    code = "".join(path.read_text() for path in sources)
    table = SECTION.rpartition("\n| you see |")[2]
    quoted = re.findall(r'^\| [^|]*?"([^"|]+)"', table, re.MULTILINE)

    assert len(quoted) == 4
    assert [text for text in quoted if re.sub(r"^\d+ ", "%d ", text) not in code] == []


def test_every_argument_that_the_section_names_is_one() -> None:
    """Of the decorator, or of an emitter."""
    known = {*inspect.signature(Emitter).parameters, *inspect.signature(Emitter.lambda_handler).parameters}
    named = set(re.findall(r"`(?:Emitter\(\.\.\., )?([a-z_]+)=", SECTION))

    assert named >= {"every", "timeout_guard", "connect", "idle_limit", "signer"}
    assert named <= known
