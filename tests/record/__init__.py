"""Mirrors `emitter/record`."""
