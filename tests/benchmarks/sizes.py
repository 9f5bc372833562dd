"""What a function package grows by: each client with all that it needs, unpacked and as Lambda takes it, in a zip.

Read from what is installed here, so it needs no package index; only building our own wheel does, for what builds it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 60.0
RIVALS = (
    ("Powertools", "aws-lambda-powertools"),
    ("statsd", "statsd"),
    ("datadog", "datadog"),
    ("prometheus_client", "prometheus-client"),
    ("OpenTelemetry: SDK, OTLP over HTTP", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
    ("aiohttp", "aiohttp"),
)


class Size(NamedTuple):
    """Bytes of some packages: their files, and a zip of them."""

    packages: int
    unpacked: int
    zipped: int


def bench_size() -> None:
    """Ours beside the others', bytecode left out."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(Path(folder))
        if wheel is None:
            print("\nthe wheel: not measured, what builds it cannot be had here")
        else:
            with zipfile.ZipFile(wheel) as packed:
                ours = {name: packed.read(name) for name in packed.namelist()}
            wheel_bytes, unpacked_bytes = wheel.stat().st_size, sum(map(len, ours.values()))
            print(f"\nthe wheel: {wheel_bytes / 1e3:.0f} KB, unpacked {unpacked_bytes / 1e3:.0f} KB")
            sizes["emitter"] = size_of(ours, needed("lambda-emitter") - {"lambda-emitter"})
    sizes |= {name: size_of({}, set().union(*map(needed, distributions))) for name, *distributions in RIVALS}
    beside = sizes.get("emitter", next(iter(sizes.values())))
    print("\nwhat a function package grows by, with all dependencies and without bytecode")
    for name, size in sizes.items():
        print(
            f"  {name:<40} {size.packages:3} packages   unpacked {size.unpacked / 1e6:6.2f} MB   "
            f"zipped {size.zipped / 1e6:6.2f} MB   ratio {size.unpacked / beside.unpacked:5.2f}"
        )


def built_wheel(folder: Path) -> Path | None:
    """Ours, as it would be published; `None` if what builds it cannot be had."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
    except (subprocess.SubprocessError, OSError):
        return None
    return next(folder.glob("*.whl"))


def needed(name: str) -> set[str]:
    """A distribution and all that it needs here, extras included where they are asked for; names in one spelling."""
    found: set[tuple[str, str]] = set()
    to_do = [Requirement(name)]
    while to_do:
        requirement = to_do.pop()
        spelled = requirement.name.lower().replace("_", "-").replace(".", "-")
        for extra in {"", *requirement.extras}:
            if (spelled, extra) in found:
                continue
            found.add((spelled, extra))
            environment = {**default_environment(), "extra": extra}
            for text in distribution(spelled).requires or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate(environment):
                    to_do.append(further)
    return {spelled for spelled, _ in found}


def size_of(files: dict[str, bytes], distributions: set[str]) -> Size:
    """Of some files, and of all that these distributions have installed."""
    everything = dict(files)
    for name in sorted(distributions):
        for file in distribution(name).files or ():
            # What lies beside the packages (commands, manuals) goes into no function.
            if file.suffix != ".pyc" and ".." not in file.parts:
                everything[str(file)] = file.read_binary()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in everything.items():
            archive.writestr(name, content)
    return Size(len(distributions) + bool(files), sum(map(len, everything.values())), packed.tell())
