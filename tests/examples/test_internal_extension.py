from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.internal_extension import register_extension
from examples.local_aggregator import LocalAggregator
from examples.local_lambda import LocalLambda

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 20.0
"""Seconds that a test waits at most for what should take milliseconds."""

LISTENS = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"}
"""By it the runtime client knows that it may wait in a thread, so that the main thread hears signals; from 3.12 on."""
DEAF = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"}
"""Here it waits in C code in the main thread."""

FUNCTION = """
import os
import signal

from internal_extension import register_extension

def on_sigterm(number, frame):
    print("SIGTERM was heard", flush=True)
    os._exit(0)  # to raise SystemExit would be to wait for the thread that the runtime asks in, on 3.13 for ever

signal.signal(signal.SIGTERM, on_sigterm)

{registers}

def handler(event, context):
    return "done"
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is Linux only")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """From SIGTERM to SIGKILL there is more time than in Lambda, so that little hangs on how quick a machine is."""
    monkeypatch.setattr("examples.local_lambda.sandbox._SHUTDOWN_SECONDS", 3.0)


class ExtensionsApi(ThreadingHTTPServer):
    """Lambda's Extensions API as an internal extension sees it, with the refusals of AWS's own emulator.

    Source: aws-lambda-runtime-interface-emulator, `rapi/handler/agentregister.go` and `agentnext.go`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Extension)
        self.extensions: dict[str, str] = {}  # identifiers by name
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.waits = threading.Event()  # an extension asks for an event
        self.over = threading.Event()

    @property
    def address(self) -> str:
        """As it stands in AWS_LAMBDA_RUNTIME_API."""
        return f"127.0.0.1:{self.server_port}"


class Extension(BaseHTTPRequestHandler):
    """One connection of an extension."""

    server: ExtensionsApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Registration."""
        body = self._read()
        name = self.headers.get("Lambda-Extension-Name", "")
        if self.path != "/2020-01-01/extension/register":
            self._answer(404, {})
        elif not name:
            self._answer(403, {"errorType": "Extension.InvalidExtensionName"})
        elif set(json.loads(body)["events"]) - {"INVOKE"}:
            self._answer(403, {"errorType": "Extension.InvalidEventType"})
        elif name in self.server.extensions:
            self._answer(403, {"errorType": "Extension.InvalidExtensionState"})
        else:
            self.server.extensions[name] = f"the-id-of-{name}"
            self._answer(200, {"functionName": "local"}, {"Lambda-Extension-Identifier": f"the-id-of-{name}"})

    def do_GET(self) -> None:
        """The wait for an event, of which there is none."""
        self._read()
        known = self.headers.get("Lambda-Extension-Identifier") in self.server.extensions.values()
        if self.path != "/2020-01-01/extension/event/next" or not known:
            self._answer(403, {"errorType": "Extension.UnknownExtensionIdentifier"})
        else:
            self.server.waits.set()
            self.server.over.wait(PATIENCE)
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what matters."""

    def _read(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        return body

    def _answer(self, status: int, document: dict[str, str], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExtensionsApi]:
    """A running one, which the example finds."""
    with ExtensionsApi() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", server.address)
        yield server
        server.over.set()
        for thread in threading.enumerate():
            if thread.name in server.extensions:
                thread.join(PATIENCE)  # its connection has been closed
        server.shutdown()
        serving.join(PATIENCE)


def folder_with(folder: Path, registers: str) -> Path:
    """A function's folder, with the extension beside the handler as its docstring says."""
    folder.joinpath("function.py").write_text(FUNCTION.format(registers=registers))
    folder.joinpath("internal_extension.py").write_text(EXAMPLES.joinpath("internal_extension.py").read_text())
    return folder


def test_it_registers_for_no_events_and_then_asks_for_one(api: ExtensionsApi) -> None:
    """SHUTDOWN is not for internal extensions, INVOKE would delay invocations, and without `next` INIT never ends."""
    registered = register_extension()
    asked = api.waits.wait(PATIENCE)
    (method, path, headers, body), (next_method, next_path, next_headers, _) = api.requests

    assert registered
    assert asked
    assert (method, path, json.loads(body)) == ("POST", "/2020-01-01/extension/register", {"events": []})
    assert headers["Lambda-Extension-Name"] == "sigterm"
    assert (next_method, next_path) == ("GET", "/2020-01-01/extension/event/next")
    assert next_headers["Lambda-Extension-Identifier"] == "the-id-of-sigterm"


def test_its_thread_keeps_no_process_alive_and_ends_with_its_connection(api: ExtensionsApi) -> None:
    """It is a daemon, and says nothing when the other side goes away."""
    register_extension("short")
    assert api.waits.wait(PATIENCE)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "short"]
    alive = thread.is_alive()
    api.over.set()
    thread.join(PATIENCE)

    assert thread.daemon
    assert alive
    assert not thread.is_alive()


def test_a_name_that_is_taken_is_a_warning_and_no_error(api: ExtensionsApi, caplog: pytest.LogCaptureFixture) -> None:
    """The function works without the signal; so does the second worker of a managed instance, after the first."""
    with caplog.at_level(logging.WARNING):
        results = [register_extension(), register_extension()]

    assert results == [True, False]
    assert [record.message for record in caplog.records] == [
        'no SIGTERM will come: 403 {"errorType": "Extension.InvalidExtensionState"}'
    ]


def test_outside_lambda_it_does_nothing() -> None:
    """A module that calls it can be imported by unit tests."""
    before = threading.active_count()

    assert not register_extension()
    assert threading.active_count() == before


@on_linux
@pytest.mark.parametrize(
    ("registers", "environment", "heard", "exit_code"),
    [
        ("register_extension()", LISTENS, True, 0),
        ("register_extension()", DEAF, False, -signal.SIGKILL),
        ("", LISTENS, False, -signal.SIGKILL),
    ],
    ids=["with it", "with it, and a main thread that sits in C", "without it"],
)
async def test_with_it_lambda_says_when_a_sandbox_ends(
    tmp_path: Path, registers: str, environment: dict[str, str], heard: bool, exit_code: int
) -> None:
    """SIGTERM comes only where an extension is registered, and is heard only where the main thread can hear it."""
    folder = folder_with(tmp_path, registers)
    async with LocalLambda("function.handler", cwd=folder, env=environment) as sandbox:
        results = [(await sandbox.invoke({})).payload for _ in range(2)]
        await sandbox.shut_down()
        output = sandbox.output

    assert results == ["done"] * 2
    assert ("SIGTERM was heard" in output) is heard
    assert sandbox.exit_code == exit_code


@on_linux
@pytest.mark.parametrize("environment", [LISTENS, DEAF], ids=["the main thread listens", "the main thread sits in C"])
async def test_the_last_report_of_a_sandbox_holds_what_the_interval_withheld(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Five orders within five seconds: one report at the first of them, and one at SIGTERM, with whatever runtime."""
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator:
        env = {"EMITTER_ENDPOINT": aggregator.endpoint, **environment}
        async with LocalLambda("lambda_sigterm.handler", cwd=EXAMPLES, env=env) as sandbox:
            answers = [(await sandbox.invoke({})).payload for _ in range(5)]
            before = (await aggregator.settled({"checkout": 1}))["checkout"]
            await sandbox.shut_down()
            checkout = (await aggregator.settled({"checkout": 2}))["checkout"]

    assert answers == [{"statusCode": 200}] * 5
    assert (before["reports_received"], before["sums"]["orders"]) == (1, 1)
    assert (checkout["reports_received"], checkout["sums"]["orders"]) == (2, 5)
    assert checkout["reports_lost"] == 0
