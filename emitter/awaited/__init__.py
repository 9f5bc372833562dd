"""The same instruments and reports through aiohttp, waiting for the answer. Knows nothing of Lambda."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("aiohttp") is None:
    raise ModuleNotFoundError(
        "emitter.awaited needs aiohttp; install it with: pip install 'lambda-emitter[aiohttp]'", name="aiohttp"
    )

from emitter.awaited.client import AwaitedEmitter
from emitter.errors import RefusedError, UnansweredError

__all__ = ["AwaitedEmitter", "RefusedError", "UnansweredError"]
