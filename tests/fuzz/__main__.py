"""Lets atheris look for inputs that break a promise: `python -m tests.fuzz --inputs 100000`.

Guided by the branches that `emitter.transmit` takes, and bounded: so many inputs, from a fixed seed. Each target runs
in a process of its own, since a fuzzer ends its process, and since what one input leaves behind is no other target's
business. Atheris is the extra `fuzz`; `test_targets.py` does without it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["emitter.transmit"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.corpus import CORPUS

LIMIT_SECONDS = 5
"""For a single input: thousands of times what one takes, so what is beyond it never ends."""

LIMIT_MEGABYTES = 512
"""For a whole process, the fuzzer and its corpus included."""

MOST_BYTES = 2_048
"""Of an input; the targets repeat parts of it to get beyond every limit."""


def fuzz(name: str, inputs: int, seed: int) -> None:
    """Fuzz one target in this process, and end it."""

    def call(data: bytes) -> None:
        try:
            TARGETS[name].call(data)
        except BaseException:
            print(f"\n{name} breaks its promise with {data!r}: keep that in tests/fuzz/corpus.py\n", file=sys.stderr)
            raise

    with tempfile.TemporaryDirectory() as found:
        known = Path(found, "corpus")
        known.mkdir()
        for number, data in enumerate(CORPUS[name]):
            (known / str(number)).write_bytes(data)
        limits = [f"-timeout={LIMIT_SECONDS}", f"-rss_limit_mb={LIMIT_MEGABYTES}", f"-max_len={MOST_BYTES}"]
        options = [f"-runs={inputs}", f"-seed={seed}", f"-artifact_prefix={found}/", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *limits, *options, str(known)], call)
        atheris.Fuzz()


def main() -> int:
    """Fuzz every target that was named, or all; the number of those that broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="which; none: all of them")
    parser.add_argument("--inputs", type=int, default=350_000, help="of the cheapest target; others get their share")
    parser.add_argument("--seed", type=int, default=1, help="another one tries other inputs")
    parser.add_argument("--here", action="store_true", help="fuzz in this process, which ends with it")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if given.here:
        fuzz(names[0], given.inputs, given.seed)
    broken = 0
    for name in names:
        inputs = given.inputs // TARGETS[name].cost
        print(f"{name}: {inputs} inputs from seed {given.seed}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, f"--inputs={inputs}", f"--seed={given.seed}", "--here"]
        run = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        if run.returncode != 0:
            broken += 1
            print(run.stdout, run.stderr, sep="\n", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(main())
