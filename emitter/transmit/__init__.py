"""Bytes on the wire, and the proof of how far they got. Knows nothing of metrics."""
