"""Mirrors `emitter/encode`."""
