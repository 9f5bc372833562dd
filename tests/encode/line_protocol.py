"""The Influx line protocol as another implementation reads it: the PyPI package line-protocol-parser."""

from __future__ import annotations

from typing import NamedTuple

from line_protocol_parser import parse_line


class Line(NamedTuple):
    """One line as the parser reads it."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float]
    time: int


def read(body: bytes) -> list[Line]:
    """All lines of a report. The parser raises for what it cannot read, and for a tag that is there twice."""
    *lines, nothing = body.decode().split("\n")
    parsed = [parse_line(line) for line in lines]

    assert nothing == ""
    assert None not in parsed, "an empty line, or a comment"
    return [Line(one["measurement"], one["tags"], one["fields"], one["time"]) for one in parsed]
