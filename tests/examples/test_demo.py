from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo_parts.witness import ETHERNET_MSS, ROUND_TRIP_SECONDS
from examples.local_network import why_not

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the demo needs awslambdaric, which is Linux only")

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
INVOCATIONS = 3
TITLES = ("wait for the answer", "do not await", "drain(), 200 KB", "emitter, small", "emitter, 200 KB")
LAST_WORD_SECONDS = 180
"""How long the demo may take before a test gives up on it."""


def command(out: Path, *more: str) -> list[str]:
    """The demo's command line; any warning is an error."""
    return [sys.executable, "-W", "error", str(DEMO), "--out", str(out), *more]


MACHINES = pytest.param("machines", marks=pytest.mark.skipif(why_not() is not None, reason=why_not() or ""))
MODES = [MACHINES, "processes"]
"""What the demo freezes: whole machines, where that is permitted; processes, where it is told to."""


@pytest.fixture(scope="module", params=MODES)
def frozen(request: pytest.FixtureRequest) -> str:
    """What the demo freezes."""
    return request.param


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, frozen: str) -> tuple[Path, str]:
    """One short demo: where its files are, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    more = ["--no-namespaces"] if frozen == "processes" else []
    run = subprocess.run(
        command(out, "--invocations", str(INVOCATIONS), *more),
        capture_output=True,
        text=True,
        timeout=LAST_WORD_SECONDS,
        check=False,
        env={**os.environ, "COLUMNS": "80"},  # as a terminal has at first, and a pipe
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return out, run.stdout


def test_the_demo_shows_that_emitter_delivers_and_does_not_wait(demo: tuple[Path, str]) -> None:
    """What it promises of `emitter`: every report arrived before the thaw, totals exact, no wait for the answer."""
    document = json.loads((demo[0] / "results.json").read_text())
    ways = {way["way"]: way for way in document["ways"]}

    assert list(ways) == ["awaited", "not-awaited", "drained", "emitter", "emitter-large"]
    for name in ("emitter", "emitter-large"):
        assert ways[name]["arrived_before_thaw"] == [True] * INVOCATIONS, ways[name]
        assert ways[name]["exact"], ways[name]
        assert ways[name]["reports_missing"] == 0
        assert ways[name]["connections"] == 1
        assert max(ways[name]["handler_ms"]) < 1000 * document["answer_seconds"] / 2
    assert min(ways["awaited"]["handler_ms"]) >= 1000 * document["answer_seconds"]
    assert ways["awaited"]["exact"]
    assert 180_000 < ways["drained"]["report_bytes"] < 220_000


@pytest.mark.parametrize("frozen", [MACHINES], indirect=True)
def test_the_demo_shows_what_a_drained_report_leaves_behind(demo: tuple[Path, str]) -> None:
    """All but the first ten segments, in each invocation but the first, for which the kernel's buffer is too small.

    On a busy machine it is open for longer than a round trip, or two: then twice as many segments follow, and so on.
    """
    document = json.loads((demo[0] / "results.json").read_text())
    drained = next(way for way in document["ways"] if way["way"] == "drained")
    invocations = list(zip(drained["missing_bytes_before_thaw"], drained["billed_ms"], strict=True))[1:]

    assert False in drained["arrived_before_thaw"][1:]
    for missing_bytes, billed_ms in invocations:
        flights = 2 + billed_ms // (1000 * ROUND_TRIP_SECONDS)  # the bill ends a little before the machine is frozen
        most_arrived_bytes = 10 * (2**flights - 1) * ETHERNET_MSS
        assert drained["report_bytes"] - most_arrived_bytes <= missing_bytes < drained["report_bytes"]


def test_the_demo_prints_its_table_and_names_its_files(demo: tuple[Path, str], frozen: str) -> None:
    """The conditions before, one row a way, the files after; the picture is there in both forms."""
    out, printed = demo

    rows = {title: printed.partition(f"\n {title}  ")[2].partition("\n")[0].split() for title in TITLES}

    words = " ".join(printed.split())
    assert ("the link is cut and the process stopped" in words) == (frozen == "machines")
    assert ("SIGSTOP stops only" in words) == (frozen == "processes")
    assert ("not to be had: --no-namespaces" in words) == (frozen == "processes")
    assert "…" not in printed  # nothing is cut off in 80 columns
    for title, cells in rows.items():
        assert len(cells) == 7, (title, cells)
        assert all(re.fullmatch(r"\d+\.\d", cell) for cell in cells[:4])  # first, median, worst, billed
        assert re.fullmatch(r"\d+\.\d\d", cells[4])  # dollars
        assert re.fullmatch(rf"\d/{INVOCATIONS}", cells[5])  # arrived before the thaw
        assert cells[6] in {"exact", "wrong"}
    for title in ("emitter, small", "emitter, 200 KB"):
        assert rows[title][5:] == [f"{INVOCATIONS}/{INVOCATIONS}", "exact"]
    for name in ("results.json", "demo.svg", "demo.png"):
        assert f"{out / name}\n" in printed
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "emitter, small" in (out / "demo.svg").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle: aggregator, sandboxes, frozen ones too, and links end with it."""
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if line.startswith("processes: "))
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=LAST_WORD_SECONDS)
    pids = [int(word.strip(",;")) for word in line.split() if word.strip(",;").isdigit()]

    assert len(pids) == (11 if why_not() is None else 6)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert demo.returncode == 1
    assert errors == "interrupted; everything that was started has been ended\n"


def test_the_demo_refuses_to_compute_a_median_of_nothing(tmp_path: Path) -> None:
    """One invocation is only the cold one."""
    run = subprocess.run(command(tmp_path, "--invocations", "1"), capture_output=True, text=True, check=False)

    assert run.returncode == 2
    assert "--invocations is less than 2" in run.stderr
