from __future__ import annotations

import enum
import math
import unicodedata
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.errors import RecordingError
from emitter.record.attributes import INT64_MAX, INT64_MIN, LIMIT_CHARACTERS, canonical, clean_text, is_clean

any_text = st.text(st.characters(exclude_categories=()))  # surrogates and control characters included
any_value = (
    any_text | st.booleans() | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False)
)
examples = settings(max_examples=200, deadline=None)


class Color(str, enum.Enum):
    """A string and more, such as every `StrEnum` member."""

    RED = "red"


class Level(enum.IntEnum):
    """An integer and more."""

    HIGH = 3


def typed(attributes: tuple[tuple[str, object], ...]) -> list[tuple[str, type, str]]:
    """Attributes with what `==` does not see: 1, 1.0 and True, 0.0 and -0.0."""
    return [(key, type(value), repr(value)) for key, value in attributes]


@examples
@given(any_text)
def test_a_cleaned_text_is_short_and_can_be_encoded_and_seen(text: str) -> None:
    """At most 255 characters, no control character, no half of a surrogate pair; the rest is untouched."""
    cleaned = clean_text(text)

    assert is_clean(cleaned)
    assert len(cleaned) == min(len(text), LIMIT_CHARACTERS)
    assert cleaned.encode().decode() == cleaned
    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cs"}
    assert all(now in {was, "\N{REPLACEMENT CHARACTER}"} for was, now in zip(text, cleaned, strict=False))


@pytest.mark.parametrize("code", [0x00, 0x09, 0x0A, 0x1F, 0x7F, 0x80, 0x9F, 0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_a_control_character_or_surrogate_is_replaced(code: int) -> None:
    """C0, DEL, C1 and surrogates become U+FFFD, first and last of each range included."""
    assert not is_clean(chr(code))
    assert clean_text(f"a{chr(code)}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("code", [0x20, 0x7E, 0xA0, 0xAD, 0x200B, 0xD7FF, 0xE000, 0xFFFF, 0x10FFFF])
def test_every_other_character_is_kept(code: int) -> None:
    """The neighbors of those ranges stay, printable or not."""
    assert is_clean(chr(code))
    assert clean_text(f"a{chr(code)}b") == f"a{chr(code)}b"


@examples
@given(st.dictionaries(any_text.filter(bool), any_value, max_size=6), st.randoms(use_true_random=False))
def test_the_order_given_never_matters_and_the_result_is_sorted(raw: dict, random: object) -> None:
    """The same pairs in any order give the same attributes, to the bit: sorted by key, each key once."""
    pairs = list(raw.items())
    random.shuffle(pairs)
    attributes = canonical(raw)

    keys = [key for key, _ in attributes]
    assert keys == sorted(set(keys))
    assert typed(canonical(dict(pairs))) == typed(attributes)
    assert typed(canonical(dict(attributes))) == typed(attributes)


def test_keys_that_become_equal_are_settled_the_same_way_in_any_order() -> None:
    """Of two keys that become equal, the one that sorts last as given wins."""
    one_way, other_way = canonical({"k\0": 1, "k\n": 2}), canonical({"k\n": 2, "k\0": 1})

    assert one_way == other_way == (("k\N{REPLACEMENT CHARACTER}", 2),)


def test_long_keys_that_are_cut_to_the_same_become_one() -> None:
    """Cutting is part of cleaning."""
    attributes = canonical({"k" * 255 + "b": "last", "k" * 255 + "a": "first"})

    assert attributes == (("k" * 255, "last"),)


def test_subclasses_come_back_as_the_plain_type() -> None:
    """A string enumeration is its string, an integer enumeration its integer."""
    attributes = canonical({Color.RED: Color.RED, "level": Level.HIGH})

    assert typed(attributes) == typed((("level", 3), ("red", "red")))
    assert type(attributes[1][0]) is str


def test_any_mapping_will_do() -> None:
    """Not only `dict`."""
    assert canonical(MappingProxyType({"a": True})) == (("a", True),)


@pytest.mark.parametrize("key", ["", 1, None, b"bytes", ("a",)])
def test_a_key_that_is_no_name_is_refused(key: object) -> None:
    """Keys are non-empty strings; the text shows the key."""
    with pytest.raises(RecordingError) as caught:
        canonical({"fine": 1, key: "value"})

    assert str(caught.value) == f"attribute key {key!r} was refused; expected a non-empty string"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "a NoneType"),
        (b"secret", "a bytes"),
        (["secret"], "a list"),
        (1j, "a complex"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        pytest.param(10**5000, "an integer of 16610 bits", id="10**5000"),
    ],
)
def test_a_value_that_cannot_be_reported_is_refused(value: object, shown: str) -> None:
    """The text names the key and says what it was; what is no number is shown by its type only."""
    with pytest.raises(RecordingError) as caught:
        canonical({"key": value})

    assert str(caught.value) == (
        f"attribute 'key' is {shown}; expected a string, a boolean, an integer of 64 bits or a finite float"
    )


@pytest.mark.parametrize("value", [INT64_MIN, INT64_MAX, 5e-324, -0.0, 1.7976931348623157e308, "", False])
def test_extreme_values_are_kept_to_the_bit(value: object) -> None:
    """What the wire can carry comes through."""
    assert typed(canonical({"key": value})) == typed((("key", value),))
