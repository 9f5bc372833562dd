from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emitter.encode.json_text import HOLE, changed, opened, pieces, text

any_text = st.text(max_size=50)


@given(st.lists(any_text, max_size=5))
def test_a_hole_is_never_taken_for_text_nor_text_for_a_hole(values: list[str]) -> None:
    """Whatever stands in strings, the holes are where they were made; filled in, everything reads as it was."""
    laid_out = ",".join(f"{text(value)},{HOLE}" for value in values)
    found = pieces(f"[{laid_out}]")
    found[1::2] = map(str, range(len(values)))

    read = json.loads("".join(found))
    assert read == [each for position, value in enumerate(values) for each in (value, position)]


@given(any_text)
def test_text_is_one_line_of_ascii(value: str) -> None:
    """For a reader that takes U+2028 or U+0085 for the end of a line, too."""
    assert text(value).isascii()
    assert len(text(value).splitlines()) == 1
    assert json.loads(text(value)) == value


def test_an_open_object_can_be_gone_on_with() -> None:
    """Members, and no closing brace."""
    assert json.loads(opened({"a": 1}) + ',"b":2}') == {"a": 1, "b": 2}


def test_what_is_another_object_has_changed() -> None:
    """What compares equal may have another text: 0.0 and -0.0, 1 and 1.0."""
    kept, large = 1e10, 10**10

    assert list(changed((kept, 0.0, 1, large), (kept, -0.0, 1.0, large))) == [1, 2]
    assert list(changed((kept,), (None,))) == [0]
    assert list(changed((), ())) == []


def test_points_of_other_series_are_refused() -> None:
    """Fewer, or more."""
    for points in ((), (1, 2)):
        with pytest.raises(ValueError, match=f"{len(points)} points for 1 series"):
            changed(points, (1,))
