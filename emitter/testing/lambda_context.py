"""Owns a stand-in for the context that Lambda gives to a handler. Knows no emitter."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

__all__ = ["LambdaContext"]


@dataclass
class LambdaContext:
    """What the stock runtime hands to a handler beside the event, with nothing behind it.

    Attributes:
        remaining_ms: Milliseconds that the invocation has left when this is made.
        function_name: And so on, by the names that the runtime uses; AWS documents them under "AWS Lambda context
            object in Python".
    """

    remaining_ms: float = 30_000
    function_name: str = "function"
    function_version: str = "$LATEST"
    invoked_function_arn: str = ""
    memory_limit_in_mb: str = "128"  # the runtime hands on an environment variable, so it is no number there either
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    log_group_name: str = ""
    log_stream_name: str = "2025/01/01/[$LATEST]0123456789abcdef0123456789abcdef"
    identity: Any = field(
        default_factory=lambda: SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None)
    )
    client_context: Any = None
    tenant_id: str | None = None

    def __post_init__(self) -> None:
        name = self.function_name
        self.invoked_function_arn = (
            self.invoked_function_arn or f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
        )
        self.log_group_name = self.log_group_name or f"/aws/lambda/{name}"
        self._ends = time.monotonic() + self.remaining_ms / 1e3

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda would end the invocation: they pass, and end at 0."""
        return max(0, int((self._ends - time.monotonic()) * 1e3))
