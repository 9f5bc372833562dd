"""The house as a whole: which room may know which, how light the front door is, what is written over the doors."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import emitter

ROOT = Path(emitter.__file__).parent.parent
FILES = sorted((ROOT / "emitter").rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported_by(module: str) -> set[str]:
    """The modules of the house that a module imports: anywhere in it, in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: a relative import"
            # `from emitter.encode import protobuf` imports the module, not what is said in the package.
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= deeper or ({node.module} & MODULES.keys())
    return found


ARROWS = {module: imported_by(module) for module in MODULES}

# What each module, or everything in a room (`emitter.record.*`), may import. One that is missing here may import
# nothing: whoever adds a module writes down where it stands. Within a room everything may know everything,
# unless a line of its own says otherwise; cycles are forbidden there too.
ALLOWED: dict[str, set[str]] = {
    "emitter": {"emitter.client", "emitter.errors", "emitter.transmit.delivery"},
    "emitter.errors": set(),
    "emitter.callbacks": set(),
    "emitter.loop": set(),
    "emitter.forking": set(),
    "emitter.clocks": set(),
    "emitter.back_off": {"emitter.clocks"},
    # The three rooms never know one another, what crosses between two of them excepted.
    "emitter.record.*": {"emitter.callbacks", "emitter.errors"},
    "emitter.record.snapshot": set(),
    "emitter.encode.*": {"emitter.errors", "emitter.record.snapshot"},
    "emitter.encode.prometheus": set(),
    "emitter.encode.protobuf": set(),
    "emitter.transmit.*": {"emitter.clocks", "emitter.errors", "emitter.loop"},
    "emitter.transmit.ahead": set(),
    "emitter.transmit.delivery": set(),
    "emitter.transmit.http_date": set(),
    "emitter.transmit.http1": {"emitter.errors", "emitter.transmit.http_date"},
    "emitter.transmit.cookies": {"emitter.errors", "emitter.transmit.http_date"},
    "emitter.transmit.tls": {"emitter.errors"},
    # What joins them, from the ground up.
    "emitter.endpoint": {"emitter.errors"},
    "emitter.environment": {"emitter.errors"},
    "emitter.resource": {
        "emitter.environment",
        "emitter.errors",
        "emitter.record.attributes",
        "emitter.record.snapshot",
    },
    "emitter.receiver": {"emitter.endpoint", "emitter.environment", "emitter.errors"},
    "emitter.settings": {
        "emitter.endpoint",
        "emitter.encode",
        "emitter.encode.encoder",
        "emitter.environment",
        "emitter.errors",
        "emitter.receiver",
        "emitter.record.snapshot",
        "emitter.resource",
        "emitter.transmit.delivery",
    },
    "emitter.link": {"emitter.clocks", "emitter.endpoint", "emitter.errors", "emitter.transmit.*"},
    "emitter.sharing": {"emitter.loop"},
    "emitter.sigv4": {
        "emitter.back_off",
        "emitter.clocks",
        "emitter.errors",
        "emitter.forking",
        "emitter.settings",
        "emitter.snap_start",
    },
    "emitter.outcomes": {"emitter.errors", "emitter.transmit.delivery"},
    "emitter.reports": {
        "emitter.encode.compress",
        "emitter.encode.parts",
        "emitter.outcomes",
        "emitter.record.deltas",
        "emitter.record.registry",
        "emitter.record.snapshot",
        "emitter.settings",
    },
    "emitter.posting": {"emitter.settings", "emitter.transmit.cookies", "emitter.transmit.http1"},
    "emitter.flusher": {
        "emitter.back_off",
        "emitter.clocks",
        "emitter.errors",
        "emitter.forking",
        "emitter.link",
        "emitter.outcomes",
        "emitter.posting",
        "emitter.record.registry",
        "emitter.record.self_metrics",
        "emitter.reports",
        "emitter.settings",
        "emitter.sharing",
        "emitter.transmit.*",
    },
    "emitter.living": {"emitter.meter"},
    "emitter.meter": {"emitter.record.instruments", "emitter.record.registry"},
    # The life of a sandbox.
    "emitter.guard": {"emitter.forking"},
    "emitter.snap_start": {"emitter.callbacks"},
    "emitter.termination": {"emitter.errors", "emitter.forking"},
    "emitter.aws_lambda": {
        "emitter.callbacks",
        "emitter.errors",
        "emitter.flusher",
        "emitter.guard",
        "emitter.loop",
        "emitter.meter",
        "emitter.termination",
        "emitter.transmit.delivery",
    },
    "emitter.periodic": {"emitter.errors"},
    "emitter.client": {
        "emitter.aws_lambda",
        "emitter.callbacks",
        "emitter.encode",
        "emitter.flusher",
        "emitter.living",
        "emitter.loop",
        "emitter.meter",
        "emitter.outcomes",
        "emitter.periodic",
        "emitter.record.registry",
        "emitter.settings",
        "emitter.snap_start",
        "emitter.transmit.delivery",
    },
    # For the unit tests of users: it exchanges what emitters flush through.
    "emitter.testing.*": {
        "emitter.client",
        "emitter.errors",
        "emitter.flusher",
        "emitter.living",
        "emitter.meter",
        "emitter.outcomes",
        "emitter.record.attributes",
        "emitter.record.registry",
        "emitter.record.series",
        "emitter.record.snapshot",
        "emitter.settings",
        "emitter.transmit.delivery",
        "emitter.transmit.http1",
    },
    "emitter.powertools.*": {
        "emitter.aws_lambda",
        "emitter.client",
        "emitter.errors",
        "emitter.forking",
        "emitter.loop",
        "emitter.meter",
        "emitter.settings",
    },
    # The same reports, waited for.
    "emitter.awaited.*": {
        "emitter.back_off",
        "emitter.callbacks",
        "emitter.clocks",
        "emitter.encode",
        "emitter.errors",
        "emitter.forking",
        "emitter.living",
        "emitter.meter",
        "emitter.outcomes",
        "emitter.periodic",
        "emitter.record.registry",
        "emitter.record.self_metrics",
        "emitter.reports",
        "emitter.settings",
        "emitter.sharing",
        "emitter.transmit.cookies",
        "emitter.transmit.delivery",
        "emitter.transmit.http1",
    },
    "emitter.awaited.proxies": {"emitter.endpoint", "emitter.errors"},
    # The receiving end is a program of its own.
    "emitter.aggregator.*": {"emitter.errors"},
    # Names of metrics look alike, whichever way they reach a Prometheus.
    "emitter.aggregator.exposition": {"emitter.aggregator.*", "emitter.encode.prometheus"},
    "emitter.__main__": {"emitter.aggregator", "emitter.errors"},
}


def covers(pattern: str, module: str) -> bool:
    """Whether a name of the table means this module: itself, or its room."""
    return module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1]))


def allowed_to(module: str) -> set[str]:
    """What the table lets a module import."""
    if module in ALLOWED:
        return ALLOWED[module]
    rooms = [pattern for pattern in ALLOWED if covers(pattern, module)]
    return {pattern for room in rooms for pattern in (*ALLOWED[room], room)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_along_the_arrows(module: str) -> None:
    """Only where the table says so."""
    stray = {other for other in ARROWS[module] if not any(covers(pattern, other) for pattern in allowed_to(module))}

    assert stray == set(), f"{module} imports them; the arrows are in tests/test_house.py"


def test_record_encode_and_transmit_never_import_each_other() -> None:
    """The rule itself, beside the table: only the snapshot crosses, and only towards the encoders."""
    rooms = ("record", "encode", "transmit")
    crossing = {
        (module, other)
        for module in MODULES
        for other in ARROWS[module]
        for room in rooms
        if module.startswith(f"emitter.{room}") and not other.startswith(f"emitter.{room}")
    }

    assert {other for _, other in crossing if other.split(".")[1] in rooms} == {"emitter.record.snapshot"}
    assert {module.split(".")[1] for module, other in crossing if other == "emitter.record.snapshot"} == {"encode"}


def test_no_two_modules_import_each_other_over_any_detour() -> None:
    """No cycle at all, the imports in functions and for type checking included."""
    try:
        order = list(TopologicalSorter(ARROWS).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle: {' <- '.join(error.args[1])}")

    assert set(order) == set(MODULES)
    assert order.index("emitter.errors") < order.index("emitter.client") < order.index("emitter")


def test_the_table_of_arrows_names_nothing_that_is_gone() -> None:
    """Each line of it is about a module, and each arrow of it leads to one."""
    names = set(ALLOWED).union(*ALLOWED.values())

    assert [name for name in names if not any(covers(name, module) for module in MODULES)] == []


HEAVY = {
    "aiohttp",
    "asyncio",
    "aws_lambda_powertools",
    "dataclasses",
    "httptools",
    "inspect",
    "logging",
    "socket",
    "sqlite3",
    "ssl",
    "typing",
    "uuid",
}


def test_import_emitter_is_light() -> None:
    """It runs in every cold start: only errors, the client, the decorator and `Delivery`; no third party at all."""
    # Isolated and without `site`, whose .pth files may load anything; so nothing is found but the standard library.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import emitter; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("emitter")} == {
        "emitter",
        "emitter.aws_lambda",
        "emitter.callbacks",
        "emitter.client",
        "emitter.errors",
        "emitter.meter",
        "emitter.transmit",
        "emitter.transmit.delivery",
    }


def has_docstring(module: str, name: str) -> bool:
    """Whether a function or class begins with a string, or an assignment is followed by one."""
    body = TREES[module].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            return ast.get_docstring(node) is not None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned = {each.id for target in targets if target for each in ast.walk(target) if isinstance(each, ast.Name)}
        if name in assigned:
            return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return False


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_and_what_it_offers(module: str) -> None:
    """A docstring; `__all__`, of names that exist and are explained where they are defined."""
    assert ast.get_docstring(TREES[module])
    if len(TREES[module].body) == 1:
        return
    offered = importlib.import_module(module).__all__

    defined = {node.name for node in TREES[module].body if isinstance(node, (ast.ClassDef, ast.FunctionDef))} | {
        each.id
        for node in TREES[module].body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for each in ast.walk(target)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }

    assert len(offered) == len(set(offered))
    assert {name for name in defined if not name.startswith("_")} - {"TYPE_CHECKING"} <= set(offered)
    for name in offered:
        assert hasattr(importlib.import_module(module), name), name
        imported = any(
            isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}
            for node in TREES[module].body
        )
        assert imported or name == "__version__" or has_docstring(module, name), f"{name} has no docstring"


def test_the_front_door_is_what_the_readme_promises() -> None:
    """A name that goes away or comes along is a decision: it is written down here too."""
    assert set(emitter.__all__) == {
        "AnswerError",
        "BudgetExceededError",
        "ConfigurationError",
        "ConnectError",
        "ConnectionLostError",
        "CredentialsError",
        "Delivery",
        "Emitter",
        "EmitterError",
        "InstrumentConflictError",
        "NetworkError",
        "PeerError",
        "RecordingError",
        "RefusedError",
        "TlsError",
        "UnansweredError",
        "UsageError",
        "__version__",
    }


@pytest.mark.parametrize("path", [*FILES, ROOT / "README.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_ever_said_to_be_just_that(path: Path) -> None:
    """The word means too many things: a report is recorded, buffered, transmitted, acknowledged, answered."""
    banned = re.compile(r"\bsent\b", re.IGNORECASE)

    assert [line for line in path.read_text().splitlines() if banned.search(line)] == []


def test_the_version_is_in_the_changelog() -> None:
    """What is released is described."""
    changelog = ROOT / "CHANGELOG.md"

    assert re.search(rf"^## \[?{re.escape(emitter.__version__)}\b", changelog.read_text(), re.MULTILINE)
