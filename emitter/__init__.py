"""Counters out of a Python function over HTTP, without waiting for the answer. This is the front door: no logic."""

__version__ = "0.1.0"

__all__ = ["__version__"]
