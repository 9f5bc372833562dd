"""Prints what an emitter costs beside what people would use instead; ratios from one run, medians.

Absolute times say more about the machine than about the code, so nothing here passes or fails: read the ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import seconds_of
from over_the_wire import bench_flush, bench_invocation, bench_levels, bench_reconnect, bench_slow_answers
from record_and_encode import bench_encode, bench_memory, bench_record

IMPORT_ROUNDS = 15
PEER = Path(__file__).with_name("peer.py")


def bench_import() -> None:
    """Whole processes, above the bare interpreter."""
    rows = {
        "import emitter": "import emitter",
        "import emitter; Emitter(...)": "import emitter; emitter.Emitter('http://127.0.0.1:9/')",
        "import asyncio": "import asyncio",
        "import prometheus_client": "import prometheus_client",
        "import aiohttp": "import aiohttp",
    }
    bare = []
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(IMPORT_ROUNDS):
        bare.append(seconds_of(lambda: subprocess.run([sys.executable, "-c", ""], check=True)))
        for name, code in rows.items():
            run = [sys.executable, "-c", code]
            seconds[name].append(seconds_of(lambda run=run: subprocess.run(run, check=True)) - bare[-1])
    print(f"\nwhole processes, above the bare interpreter ({statistics.median(bare) * 1e3:.1f} ms)")
    for name in rows:
        print(f"  {name:<40} {statistics.median(seconds[name]) * 1e3:7.1f} ms")


def main() -> None:
    """Run all of it against a peer in a process of its own."""
    with subprocess.Popen([sys.executable, str(PEER)], stdout=subprocess.PIPE, text=True) as peer:
        try:
            told = json.loads(peer.stdout.readline())
            for bench in (bench_flush, bench_levels, bench_reconnect, bench_slow_answers, bench_invocation):
                bench(told)
        finally:
            peer.terminate()
    for bench in (bench_record, bench_encode, bench_memory, bench_import):
        bench()


if __name__ == "__main__":
    main()
