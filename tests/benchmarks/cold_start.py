"""What a cold start pays: imports beside those of other clients, bytecode, and INIT with a ready connection."""

from __future__ import annotations

import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from processes import Process, above_bare, bytecode, print_processes

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDS = 15
LIMIT_IMPORT_MS = 6.0
PATIENCE = 60.0

_SECURE = "emitter: Emitter('https://...')"
_POWERTOOLS = "Powertools: Metrics()"
_IMPORTS = {
    "import emitter": "import emitter",
    "emitter: Emitter('http://...')": "import emitter; emitter.Emitter('http://127.0.0.1:9/')",
    _SECURE: "import emitter; emitter.Emitter('https://127.0.0.1:9/')",
    "import asyncio, ssl": "import asyncio, ssl",
    "statsd: StatsClient()": "import statsd; statsd.StatsClient('127.0.0.1', 9)",
    "prometheus_client: Counter()": "import prometheus_client; prometheus_client.Counter('orders', 'Orders.')",
    _POWERTOOLS: "from aws_lambda_powertools import Metrics; Metrics(namespace='bench', service='bench')",
    "import aiohttp": "import aiohttp",
    "datadog: DogStatsd()": "from datadog.dogstatsd import DogStatsd; DogStatsd('127.0.0.1', 9)",
    "OpenTelemetry: SDK, OTLP over HTTP": """
from math import inf
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
# Nothing is exported at intervals, nor at the end: nobody is there.
reader = PeriodicExportingMetricReader(OTLPMetricExporter('http://127.0.0.1:9/'), export_interval_millis=inf)
MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
""",
}

_STANDARD_LIBRARY = """
import sys
print(*(name for name in sys.modules if name.partition('.')[0] in sys.stdlib_module_names - {'__main__'}))
"""
_LOAD = """
import contextlib, importlib, sys
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):  # typing.io and the like are no modules of their own
        importlib.import_module(name)
"""


def bench_import() -> None:
    """What is imported and made before a function can count, beside what people would use instead."""
    with bytecode() as environment:
        bare, above = above_bare({name: Process(code, environment) for name, code in _IMPORTS.items()}, ROUNDS)
    print(
        f"\nprocesses until all is imported and made, above a bare interpreter ({bare.whole:.1f} ms); {ROUNDS} rounds"
    )
    print_processes(above, _SECURE, {"import emitter": LIMIT_IMPORT_MS})
    bench_source()


def bench_source() -> None:
    """The same without bytecode of what a function brings along, which is then compiled at each cold start."""
    processes = {}
    with bytecode() as with_it, bytecode(PYTHONDONTWRITEBYTECODE="1") as without:
        for name in (_SECURE, _POWERTOOLS):
            keep_standard_library(_IMPORTS[name], without)
            processes[f"{name}, with it"] = Process(_IMPORTS[name], with_it)
            processes[f"{name}, without"] = Process(_IMPORTS[name], without)
        _, above = above_bare(processes, ROUNDS)
    print("\nthe same by whether a function is packaged with the bytecode of its libraries")
    print_processes(above, f"{_SECURE}, with it")


def keep_standard_library(code: str, environment: Mapping[str, str]) -> None:
    """Keep the bytecode of what some code imports from the standard library: the image of a function has that."""
    run = [sys.executable, "-c"]
    told = subprocess.run(
        [*run, code + _STANDARD_LIBRARY], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    writing = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([*run, _LOAD, *told.stdout.split()], env=writing, check=True, timeout=PATIENCE)


def bench_init(peer: dict) -> None:
    """Processes from their start to an open connection; the trust store's share, and what the runtime has anyway."""
    libraries, runtime = "import asyncio, ssl", "import awslambdaric.bootstrap"
    connected = "import emitter; assert emitter.Emitter({!r}, service='bench').connect_sync(timeout=10.0)"
    plain = connected.format(f"http://127.0.0.1:{peer['plain']}/")
    secure = connected.format(f"https://127.0.0.1:{peer['tls']}/")
    store = ssl.get_default_verify_paths().cafile
    with tempfile.TemporaryDirectory() as folder, bytecode() as environment:
        one, all_of_them = Path(folder, "one.pem"), Path(folder, "all.pem")
        one.write_text(peer["authority"])
        all_of_them.write_bytes((Path(store).read_bytes() if store else b"") + one.read_bytes())
        known = len(ssl.create_default_context(cafile=all_of_them).get_ca_certs())
        trusting = {**environment, "SSL_CERT_FILE": str(all_of_them)}
        processes = {
            libraries: Process(libraries, environment),
            "http, connected": Process(plain, environment),
            "https, connected": Process(secure, trusting),
            "https, connected, 1 root certificate": Process(secure, {**trusting, "SSL_CERT_FILE": str(one)}),
            "the stock runtime client": Process(runtime, environment),
            "the same, https, connected": Process(f"{runtime}\n{secure}", trusting),
        }
        bare, above = above_bare(processes, ROUNDS)
    print(f"\nINIT until connect_sync() has returned, loopback, above a bare interpreter ({bare.whole:.1f} ms)")
    print_processes(above, libraries)
    share = above["https, connected"].ready - above["https, connected, 1 root certificate"].ready
    print(f"  the trust store of {known} root certificates{'' if store else ', the system has none'}: {share:.1f} ms")
    grown = above["the same, https, connected"].ready - above["the stock runtime client"].ready
    print(f"  so a function's INIT grows by: {grown:.1f} ms")
