"""Prints what an emitter costs beside what people would use instead; ratios from one run, medians.

Absolute times say more about the machine than about the code, so nothing here passes or fails: read the ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from at_home import bench_decorator, bench_hidden_reconnect
from cold_start import bench_import, bench_init
from over_the_wire import bench_flush, bench_invocation, bench_levels, bench_reconnect, bench_slow_answers
from record_and_encode import bench_encode, bench_memory, bench_record
from sizes import bench_size

PEER = Path(__file__).with_name("peer.py")


def main() -> None:
    """Run all of it against a peer in a process of its own."""
    with subprocess.Popen([sys.executable, str(PEER)], stdout=subprocess.PIPE, text=True) as peer:
        try:
            told = json.loads(peer.stdout.readline())
            for bench in (
                bench_flush,
                bench_levels,
                bench_reconnect,
                bench_slow_answers,
                bench_invocation,
                bench_decorator,
                bench_init,
            ):
                bench(told)
        finally:
            peer.terminate()
    for bench in (bench_hidden_reconnect, bench_record, bench_encode, bench_memory, bench_import, bench_size):
        bench()


if __name__ == "__main__":
    main()
