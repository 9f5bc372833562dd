"""Owns what comes out of a sandbox: results and errors. Knows neither processes nor HTTP."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FunctionError", "InitError", "Result", "SandboxError"]


@dataclass(frozen=True, slots=True)
class FunctionError:
    """What the runtime tells Lambda when a handler raises or cannot be loaded.

    Attributes:
        type: The name of the exception's class.
        message: The exception's text.
        document: The runtime's whole error JSON (`errorType`, `errorMessage`, `requestId`, `stackTrace`).
    """

    type: str
    message: str
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, body: bytes) -> FunctionError:
        """Read the runtime's error JSON."""
        document = json.loads(body)
        return cls(document.get("errorType", ""), document.get("errorMessage", ""), document)


@dataclass(frozen=True, slots=True)
class Result:
    """One finished invocation.

    Attributes:
        request_id: What the handler saw as `context.aws_request_id`.
        payload: What the handler returned, decoded from JSON; `None` if it raised.
        error: What the handler raised, `None` if it returned.
        response_seconds: From handing out the event until the response (or the error) was here.
        billed_seconds: From handing out the event until the runtime (and each extension that was told of the event)
            asked for the next: what Lambda bills. In managed instances, where nothing is billed by the invocation,
            the same as `response_seconds`.
    """

    request_id: str
    payload: Any
    error: FunctionError | None
    response_seconds: float
    billed_seconds: float

    @property
    def billed_ms(self) -> int:
        """The billed duration in whole milliseconds, rounded up as Lambda does."""
        return math.ceil(self.billed_seconds * 1000)


class SandboxError(Exception):
    """The sandbox ended, or did not do in time what it had to do.

    Attributes:
        output: What the function had written to stdout and stderr.
    """

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"{what}\n--- output of the function ---\n{output or '(none)'}")
        self.output = output


class InitError(SandboxError):
    """The runtime could not load the handler, or a hook before the snapshot or after the restore failed.

    Attributes:
        error: The error as the runtime reported it.
    """

    def __init__(self, error: FunctionError, output: str) -> None:
        super().__init__(f"{error.type}: {error.message}", output)
        self.error = error
