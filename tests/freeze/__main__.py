"""Prints the table of the freeze laboratory: `python -m tests.freeze [--invocations N] [--markdown]`; two minutes."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from examples.local_network import why_not
from tests.freeze.laboratory import ROUND_TRIPS, SIZES, WAYS, WORK_SECONDS, Experiment, every, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.freeze.laboratory import Outcome

_HEADINGS = ("report", "the handler awaits", *(f"{1000 * each:.0f} ms" for each in ROUND_TRIPS))


def _conditions(outcomes: Mapping[Experiment, Outcome], invocations: int) -> str:
    controls = ", ".join(sorted({each.congestion_control for each in outcomes.values()}))
    segment_bytes = max(each.largest_frame_bytes for each in outcomes.values()) - 54  # heads of Ethernet, IP and TCP
    return (
        f"Reports that were complete at the receiver before the thaw, and the handler's time for recording and "
        f"emitting (median). {invocations} invocations of each, after a first one that opens the connection; each "
        f"works for {WORK_SECONDS:g} s before it reports, so that the connection has been idle. Columns: round trip. "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, congestion control "
        f"{controls}, segments of {segment_bytes} bytes with their options."
    )


def _rows(outcomes: Mapping[Experiment, Outcome]) -> Iterator[tuple[str, ...]]:
    for size in SIZES:
        for way in WAYS:
            cells = [outcomes[Experiment(way, size, round_trip)] for round_trip in ROUND_TRIPS]
            body_bytes = max(cell.body_bytes for cell in cells)
            yield (
                f"{body_bytes / 1000:.{'1' if body_bytes < 1000 else '0'}f} KB" if body_bytes else size.title,
                way.title,
                *(f"{sum(each.arrived)}/{len(each.arrived)} {1000 * each.median_seconds:6.1f} ms" for each in cells),
            )


def _print_markdown(outcomes: Mapping[Experiment, Outcome]) -> None:
    print("| " + " | ".join(_HEADINGS) + " |\n|--:|---|--:|--:|--:|")  # noqa: T201 - what was asked for
    for row in _rows(outcomes):
        print("| " + " | ".join(" ".join(cell.split()) for cell in row) + " |")  # noqa: T201 - as above


def _print_table(console: Console, outcomes: Mapping[Experiment, Outcome]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == _HEADINGS[1] else "right", no_wrap=True)
    for number, row in enumerate(_rows(outcomes), 1):
        table.add_row(*row, end_section=number % len(WAYS) == 0)
    console.print(table)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":", maxsplit=1)[0])
    parser.add_argument("--invocations", type=int, default=5, metavar="N", help="of each, after the first")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    if arguments.invocations < 1:
        parser.error("--invocations is less than 1; the first opens the connection, and is not counted")
    reason = why_not()
    if reason is not None:
        sys.exit(reason)
    console = Console()
    experiments = every()
    with console.status("") as status:

        def show(done: int) -> None:
            status.update(f"{done} of {len(experiments)} experiments done")

        show(0)
        outcomes = await run(experiments, arguments.invocations, show)
    console.print(_conditions(outcomes, arguments.invocations), highlight=False, soft_wrap=arguments.markdown)
    console.print()
    if arguments.markdown:
        _print_markdown(outcomes)
    else:
        _print_table(console, outcomes)


if __name__ == "__main__":
    asyncio.run(_main())
