from __future__ import annotations

import gzip
import os

import pytest

from emitter.encode.compress import THRESHOLD_BYTES, gzipped


@pytest.mark.parametrize("size", [0, 1, THRESHOLD_BYTES])
def test_what_leaves_in_one_flight_anyway_is_left_alone(size: int) -> None:
    """Compressing it would only cost time."""
    assert gzipped(bytes(size)) is None


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_larger_body_comes_back_smaller_and_whole(kind: type) -> None:
    """In gzip format, as Python's own reads it; equal bodies give equal bytes, at whatever time."""
    body = kind(b"orders{channel=web}" * 1_000)
    packed = gzipped(body)

    assert packed is not None
    assert len(packed) < len(body) / 20
    assert gzip.decompress(packed) == body
    assert packed == gzipped(body)


def test_what_does_not_get_smaller_stays_as_it_is() -> None:
    """Noise, for one."""
    assert gzipped(os.urandom(THRESHOLD_BYTES + 1)) is None
