"""Prints the fault matrix: `python -m tests.faults [--markdown] [--logs] [words in the names of the rows]`."""

from __future__ import annotations

import sys
from contextlib import closing

from tests.faults import namespaces, table
from tests.faults.judgement import complaints
from tests.faults.rows import ROWS, Way
from tests.faults.scenes import set_up
from tests.faults.server import Peers
from tests.faults.trial import run


def main(arguments: list[str]) -> bool:
    """Run the rows that are asked for, or all; print what is wrong as it is found, then the table.

    Returns:
        Whether all is as it has to be.
    """
    words = [argument for argument in arguments if not argument.startswith("--")]
    why_no_cable = namespaces.why_not()
    lines, sound = [], True
    with closing(Peers()) as peers:
        for row in ROWS:
            if words and not any(word in str(row) for word in words):
                continue
            if row.way is Way.CABLE and why_no_cable:
                _say(f"{row}: left out, {why_no_cable}")
                continue
            with set_up(row, peers) as scene:
                trial = run(row, scene)
            lines.append(table.cells(row, trial))
            for complaint in complaints(row, trial):
                sound = False
                _say(f"{row}: {complaint}")
            if "--logs" in arguments:
                for line in (f"{row}:", *trial.log_lines, "(over)", *trial.log_lines_after):
                    _say(f"    {line}")
    sys.stdout.write((table.markdown if "--markdown" in arguments else table.text)(lines) + "\n")
    return sound


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
