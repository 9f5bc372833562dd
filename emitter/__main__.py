"""Owns the command line, `python -m emitter`. Knows what the commands are called, not what they do."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
from typing import TYPE_CHECKING

from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CANNOT_START", "main"]

CANNOT_START = 2
"""The exit code for everything that keeps a command from starting; argparse uses the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What stands behind `python -m emitter`; `None` takes it from the process.

    Returns:
        The exit code: 0, or 2 if the command could not start (one line on standard error says why).
    """
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(options.command(options))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_START
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m emitter")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="receive reports, fold them into totals, show the totals",
        description="Receives OTLP reports on /v1/metrics, and shows totals on /metrics and /api/v1/totals.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    serve.add_argument("--host", type=_not_empty, default="127.0.0.1", help="name or address to listen on")
    serve.add_argument("--port", type=_port, default=4318, help="TCP port to listen on; 0 takes a free one")
    serve.add_argument(
        "--database",
        type=_not_empty,
        default="emitter.sqlite3",
        metavar="PATH",
        help="SQLite file that keeps the totals; :memory: keeps nothing",
    )
    serve.add_argument(
        "--answer-delay",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="hold back every answer, to show what waiting for it costs",
    )
    serve.set_defaults(command=_serve)
    return parser


async def _serve(options: argparse.Namespace) -> None:
    try:
        from emitter.aggregator import serving  # noqa: PLC0415 - an extra, which other commands do not need
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed; serve needs: pip install 'lambda-emitter[aggregator]'"
        raise ConfigurationError(message) from error
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    serve = serving(options.database, host=options.host, port=options.port, answer_delay=options.answer_delay)
    async with serve as url:
        sys.stdout.write(f"listening on {url}\n")
        sys.stdout.flush()
        await ended.wait()


def _port(text: str) -> int:
    # What TCP has room for; isdecimal() keeps out signs, spaces and underscores, which int() would take.
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text}")
    return int(text)


def _not_empty(text: str) -> str:
    # An unset variable of a shell: SQLite would keep nothing, and asyncio would listen on every interface.
    if not text:
        raise argparse.ArgumentTypeError("expected something, got nothing")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
