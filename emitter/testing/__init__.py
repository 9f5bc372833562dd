"""Owns what users need to test their own metrics. Knows nothing of pytest until pytest loads it, and of no network.

With pytest it is one line in `pyproject.toml`, and a fixture, `recorded`:

    [tool.pytest.ini_options]
    addopts = "-p emitter.testing"

That line is asked for, and there is no entry point, because it switches all emitters of the test run off: they need no
endpoint and report nowhere, whatever a module says at its top. Nobody is to get that by installing a package.

Without pytest: `EMITTER_DISABLED=true` in the environment, and `recording`.

(pytest reads this text too: PYTEST_DONT_REWRITE. What fails here says itself what was recorded.)
"""

from emitter.testing.lambda_context import LambdaContext
from emitter.testing.recorded import Recorded
from emitter.testing.recording import InMemoryEmitter, recording

__all__ = ["InMemoryEmitter", "LambdaContext", "Recorded", "pytest_plugins", "recording"]

pytest_plugins = ("emitter.testing.plugin",)
"""Where pytest goes on: the one module that imports it."""
