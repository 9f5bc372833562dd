"""Many sandboxes that each live for one report: forked from one process, as a platform makes them from an image."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from tests.peers.ways import Way

__all__ = ["SANDBOXES", "run_fleet"]

SANDBOXES = 200

_AT_ONCE = 8
"""How many live at the same time: enough to meet at the receiver, few enough for a small machine."""

_SCRIPT = """
import os, signal, sys, traceback
from emitter import Delivery, Emitter
import emitter.encode, emitter.flusher, emitter.loop, emitter.record.registry, emitter.settings

endpoint, encoder, service, first, last, at_once, patience = sys.argv[1:]
signal.alarm(100)  # whatever happens, it ends
emitter.encode.encoder_named(encoder)  # imported once, and not in each

def live(number):
    metrics = Emitter(endpoint, encoder=encoder, service=service, timeout=float(patience), strict=True)
    metrics.counter("orders").add(number)
    metrics.histogram("sizes", boundaries=[100.0]).record(number)
    metrics.flush_sync(delivery=Delivery.ANSWERED)
    assert metrics.stats.verdicts.keys() <= {200, 204}, metrics.stats
    metrics.close_sync()

failed = running = 0
for number in range(int(first), int(last) + 1):
    if running == int(at_once):
        failed += os.wait()[1] != 0
        running -= 1
    running += 1
    if os.fork() == 0:
        code = 1
        try:
            live(number)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
for _ in range(running):
    failed += os.wait()[1] != 0
sys.exit(failed > 0)
"""


def run_fleet(way: Way) -> range:
    """Run all sandboxes to their end.

    Returns:
        How many orders each has counted, which is also the size that it has recorded.
    """
    amounts = range(1, SANDBOXES + 1)
    # Not measured: the coverage of forked processes would take longer than the test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    given = [way.endpoint(), way.encoder, way.service, amounts[0], amounts[-1], _AT_ONCE, PATIENCE]
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, given)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=12 * PATIENCE,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return amounts
