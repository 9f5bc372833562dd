"""The smallest internal extension: with it Lambda ends a sandbox by SIGTERM, and without any extension by SIGKILL.

Owns the registration and the thread that keeps it. Knows nothing of metrics: what a SIGTERM is good for is the business
of whoever handles it. Copy this file beside your handler and call `register_extension()` at the top of that module.

It costs one request to the machine's own Runtime API during INIT, one thread that sleeps, and one of the ten extensions
that a function may have. No invocation waits for it, because it asks for no events.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import threading

__all__ = ["register_extension"]

_API = "/2020-01-01/extension"
"""The only version of the Extensions API."""


def register_extension(name: str = "sigterm") -> bool:
    """Register with Lambda, in the INIT phase: once the runtime waits for its first event it is too late.

    Args:
        name: Any that no other extension of this function has.

    Returns:
        Whether it is registered; if not, the log says why. Outside Lambda: `False`, and nothing is done.
    """
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        return False
    connection = http.client.HTTPConnection(address)  # no timeout: the second answer never comes
    # No events: an internal extension may not ask for SHUTDOWN, and INVOKE would make each invocation wait for it.
    connection.request("POST", f"{_API}/register", json.dumps({"events": []}), {"Lambda-Extension-Name": name})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        connection.close()
        logging.getLogger(__name__).warning("no SIGTERM will come: %d %s", answer.status, body.decode(errors="replace"))
        return False
    identifier = answer.headers["Lambda-Extension-Identifier"]
    threading.Thread(target=_wait, args=(connection, identifier), name=name, daemon=True).start()
    return True


def _wait(connection: http.client.HTTPConnection, identifier: str) -> None:
    """Ask for the next event: until it has, INIT is not over, and whoever has asked for none waits for good."""
    # Whatever ends it, ends with the sandbox.
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", f"{_API}/event/next", headers={"Lambda-Extension-Identifier": identifier})
        connection.getresponse()
