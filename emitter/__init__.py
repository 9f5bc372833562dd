"""Counters out of a Python function over HTTP, without waiting for the answer. This is the front door: no logic."""

from emitter.client import Emitter
from emitter.errors import (
    AnswerError,
    BudgetExceededError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    CredentialsError,
    EmitterError,
    InstrumentConflictError,
    NetworkError,
    PeerError,
    RecordingError,
    RefusedError,
    TlsError,
    UnansweredError,
    UsageError,
)
from emitter.transmit.delivery import Delivery

__version__ = "0.1.0"

__all__ = [
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
]
