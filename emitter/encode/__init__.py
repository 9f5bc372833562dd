"""A snapshot as bytes. Knows nothing of sockets, and of what is counted only its snapshot."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from emitter.encode.encoder import Encoder, as_encoder
from emitter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENCODERS", "Encoder", "as_encoder", "encoder_named"]

ENCODERS: Mapping[str, tuple[str, str]] = {
    "influx": ("emitter.encode.influx", "InfluxEncoder"),
    "json": ("emitter.encode.json", "JsonEncoder"),
    "otlp": ("emitter.encode.otlp", "OtlpEncoder"),
    "otlp-json": ("emitter.encode.otlp_json", "OtlpJsonEncoder"),
    "remote-write": ("emitter.encode.remote_write", "RemoteWriteEncoder"),
}
"""The encoders that can be asked for by name: module and class. Loaded by `encoder_named`, since a cold start is to
pay for one format and not for five."""


def encoder_named(name: str, origin: str = "encoder") -> Encoder:
    """A new encoder of this name, with what it does by default.

    Args:
        name: One of `ENCODERS`.
        origin: Where the name came from, for the error.

    Raises:
        ConfigurationError: There is none; which there are. Or what it needs is not installed.
    """
    if name not in ENCODERS:
        raise ConfigurationError(f"{origin} is {name!r}; expected one of {', '.join(sorted(ENCODERS))}")
    module, kind = ENCODERS[name]
    encoder: Encoder = getattr(import_module(module), kind)()
    return encoder
