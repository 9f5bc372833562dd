"""Real processes that record and fork, stepped by a test; and what the system knows of their sockets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.scripted_peer import PATIENCE, ScriptedPeer
from tests.tls import Authority, TlsPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scripted_peer import PeerConnection, Received

__all__ = ["Peers", "Sandbox", "has_ended", "identity", "is_quiet", "tcp_sockets"]

_PRELUDE = """
import asyncio, contextlib, json, os, signal, socket, subprocess, sys, threading, time
from emitter import Delivery, Emitter
from emitter import loop as loops

def say(**facts):
    os.write(1, json.dumps(facts).encode() + b"\\n")  # whole lines, also when several processes talk

def heard():
    if not os.read(0, 1):
        os._exit(9)  # the test is gone

def facts(metrics):
    registry, flusher, stats = metrics._registry, metrics._flusher, metrics.stats
    return {
        "pid": os.getpid(),
        "instance": registry.instance_id,
        "start": registry._start_time_unix_nano,
        "flushes": stats.flushes,
        "opened": stats.connections_opened,
        "bytes": stats.bytes,
        "failed": dict(stats.failed),
        "counted": {reason.value: count for reason, count in stats.withheld.items()},
        "verdicts": dict(stats.verdicts),
        "idle": flusher._link.connection is flusher._link.opening is None,
    }

def flushed(metrics, **more):
    flush = metrics.flush_sync(**more)
    return {
        "delivery": flush.delivery and flush.delivery.name,
        "withheld": flush.withheld and flush.withheld.value,
        "error": flush.error and str(flush.error),
    }

signal.alarm(60)  # whatever happens, it ends
"""


class Sandbox:
    """A process that runs a script, after a prelude which gives it words to talk with the test.

    Args:
        script: What it runs; `heard()` waits for `go`, and what it says is returned by `said`.
        peer: Whom its emitters report to.
        pem: Whom it trusts.
        options: For the interpreter.
    """

    def __init__(self, script: str, peer: ScriptedPeer, pem: bytes = b"", options: tuple[str, ...] = ()) -> None:
        self._files = tempfile.TemporaryDirectory()
        trusted = Path(self._files.name) / "trusted.pem"
        trusted.write_bytes(pem)
        # Not measured: coverage takes a lock of its own, which a thread may hold at the fork, and the child for ever.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        environment = {**inherited, "EMITTER_ENDPOINT": peer.endpoint, "EMITTER_TIMEOUT": "5"}
        if pem:
            environment["SSL_CERT_FILE"] = str(trusted)
        self._stderr = Path(self._files.name) / "stderr"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                # From 3.12 on Python warns of forks beside threads, which are what is looked at here.
                [sys.executable, *options, "-W", "ignore::DeprecationWarning", "-c", _PRELUDE + script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                bufsize=0,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        """The first process, the parent of all others."""
        return self._process.pid

    def said(self) -> dict[str, Any]:
        """The next thing that it, or a child, says."""
        while b"\n" not in self._unread:
            assert select.select([self._process.stdout], [], [], 2 * PATIENCE)[0], f"silent; {self.stderr}"
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            assert piece, f"it has ended; {self.stderr}"
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def go(self) -> None:
        """Let whoever waits go on."""
        self._process.stdin.write(b".")

    @property
    def stderr(self) -> str:
        """What it, or a child, complained about."""
        return self._stderr.read_text()

    def ended(self) -> int:
        """Wait for the end of the parent; its exit code."""
        return self._process.wait(2 * PATIENCE)

    def kill(self) -> None:
        """End the parent as the system does when memory is short."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and whoever of its children waits to hear."""
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._files.cleanup()


class Peers:
    """Peers of one kind, plain or TLS, and processes that trust them."""

    def __init__(self, kind: str, **more: Any) -> None:
        self._authority = Authority() if kind == "tls" else None
        self.peer = TlsPeer(self._authority.server(), **more) if self._authority is not None else ScriptedPeer(**more)

    def accept(self) -> PeerConnection:
        """The next connection; what is written on it is there as soon as it is written."""
        other_end = self.peer.accept()
        other_end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return other_end

    @contextlib.contextmanager
    def run(self, script: str, *options: str) -> Iterator[Sandbox]:
        """A process that reports to the peer."""
        sandbox = Sandbox(script, self.peer, self._authority.pem if self._authority is not None else b"", options)
        try:
            yield sandbox
        finally:
            sandbox.close()

    def close(self) -> None:
        """Close everything."""
        self.peer.close()


def identity(report: Received) -> tuple[str, int]:
    """Instance id and start time."""
    (resource,) = ExportMetricsServiceRequest.FromString(report.body).resource_metrics
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    started = {
        point.start_time_unix_nano for each in resource.scope_metrics[0].metrics for point in each.sum.data_points
    }
    (start,) = started
    return attributes["service.instance.id"], start


def is_quiet(other_end: PeerConnection) -> bool:
    """Whether there is nothing to read for a peer: no byte (an alert of TLS is one as well), no end, no reset."""
    return not select.select([other_end.socket], [], [], 0)[0]


def has_ended(other_end: PeerConnection) -> bool:
    """Wait for the next byte or the end; whether it is the end, with a word of TLS before it or without."""
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        return not other_end.socket.recv(1)
    return True


def tcp_sockets(pid: int) -> set[str]:
    """The TCP sockets that a process has open, as the system calls them."""
    connected = {f"socket:[{line.split()[9]}]" for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]}
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(each.readlink()))
    return found & connected
