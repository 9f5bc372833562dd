"""Owns how a report that is too large for one request is divided. Knows no format and no header."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emitter.encode.encoder import Encoder
    from emitter.record.snapshot import Metric, Snapshot

__all__ = ["Parts"]


class Parts:
    """Encodes snapshots into bodies that stay within a limit, each with other series and complete in itself.

    Where it was cut is remembered for as long as no series is added, so that each part is patched in place.

    Args:
        encoder: What encodes; for each part a copy of it.
        limit_bytes: Of one body. A single series that is larger goes out all the same: the receiver is to judge.
    """

    def __init__(self, encoder: Encoder, limit_bytes: int) -> None:
        self._encoder = encoder
        self._limit_bytes = limit_bytes
        self._metrics: tuple[Metric, ...] | None = None
        self._parts: list[_Part] = []

    def divided(self, snapshot: Snapshot) -> list[Snapshot]:
        """What went into each body of the last report: that snapshot, or one with the same metrics."""
        return [part.of(snapshot) for part in self._parts]

    def __len__(self) -> int:
        """How many bodies the last report took."""
        return len(self._parts)

    def encode(self, snapshot: Snapshot) -> Iterator[bytes | bytearray]:
        """The bodies of one report, each good until the next one is asked for."""
        if self._metrics is not snapshot.metrics:
            self._parts = [_Part(self._encoder, snapshot.metrics, 0, len(snapshot.points))]
            self._metrics = snapshot.metrics  # last: an interrupt in between would leave the parts of another report
        done = 0
        while done < len(self._parts):
            part = self._parts[done]
            body = part.encoder.encode(part.of(snapshot))
            unpacked_bytes = part.encoder.unpacked_bytes(body)
            if unpacked_bytes > self._limit_bytes and part.end - part.begin > 1:
                pieces = unpacked_bytes // self._limit_bytes + 1
                self._parts[done : done + 1] = part.cut(pieces, self._encoder)
            else:
                done += 1
                yield body


class _Part(NamedTuple):
    """A run of series: the points from `begin` to `end` of a snapshot, and the metrics that describe them."""

    encoder: Encoder
    metrics: tuple[Metric, ...]
    begin: int
    end: int

    def of(self, snapshot: Snapshot) -> Snapshot:
        if self.metrics is snapshot.metrics:
            return snapshot
        fresh = tuple(position - self.begin for position in snapshot.fresh if self.begin <= position < self.end)
        return replace(snapshot, metrics=self.metrics, points=snapshot.points[self.begin : self.end], fresh=fresh)

    def cut(self, pieces: int, encoder: Encoder) -> Iterator[_Part]:
        """As many parts of about equal numbers of series."""
        series = self.end - self.begin
        pieces = min(pieces, series)
        cuts = [series * piece // pieces for piece in range(pieces + 1)]
        for begin, end in pairwise(cuts):
            yield _Part(
                copy.copy(encoder), tuple(_described(self.metrics, begin, end)), self.begin + begin, self.begin + end
            )


def _described(metrics: tuple[Metric, ...], begin: int, end: int) -> Iterator[Metric]:
    """The metrics of the series from `begin` to `end`, without those that have none there."""
    first = 0
    for metric in metrics:
        series = metric.series[max(0, begin - first) : max(0, end - first)]
        if series:
            yield replace(metric, series=series)
        first += len(metric.series)
