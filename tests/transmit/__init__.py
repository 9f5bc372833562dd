"""Tests of the room that owns bytes on the wire."""
