from __future__ import annotations

from struct import pack

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.encode import protobuf
from tests.encode.snapshots import INT64_MAX, INT64_MIN, UINT64_MAX, int64s

FIELDS = [1, 2, 9, 15, 16, 2047, 2048, 2**29 - 1]
"""The smallest and largest number of each length of a tag, and those in daily use."""

examples = settings(max_examples=100, deadline=None)
any_double = st.floats()  # NaN and infinities too: what to refuse is decided elsewhere


def official(kind: str, number: int, *, repeated: bool = False) -> type:
    """A message class of the official runtime with one field: `value`, of this kind and number.

    Made in the syntax of proto2, where a field that was set to its default is written out all the same.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{kind}{number}{repeated}.proto", package="official")
    message = file.message_type.add(name="Message")
    field = message.field.add(name="value", number=number)
    field.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    field.options.packed = repeated
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("official.Message"))


CLASSES = {
    (kind, number): official(kind, number)
    for kind in ("int64", "uint64", "bool", "fixed64", "double", "string", "bytes")
    for number in FIELDS
}
PACKED = {number: official("double", number, repeated=True) for number in FIELDS}


def written(kind: str, number: int, value: object) -> bytes:
    """What the official runtime writes."""
    return CLASSES[kind, number](value=value).SerializeToString()


@examples
@given(st.sampled_from(FIELDS), int64s)
def test_a_signed_integer_is_written_like_the_official_one(field: int, number: int) -> None:
    """Negative ones as ten bytes."""
    assert protobuf.varint(field, number) == written("int64", field, number)


@examples
@given(
    st.sampled_from(FIELDS), st.integers(0, UINT64_MAX) | st.integers(0, 70).map(lambda bits: min(2**bits, UINT64_MAX))
)
def test_an_unsigned_integer_is_written_like_the_official_one(field: int, number: int) -> None:
    """Up to 64 bits."""
    assert protobuf.varint(field, number) == written("uint64", field, number)
    assert protobuf.fixed64(field, number) == written("fixed64", field, number)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, INT64_MAX, INT64_MIN, -1])
@pytest.mark.parametrize("field", FIELDS)
def test_the_lengths_of_integers_change_where_the_official_ones_do(field: int, number: int) -> None:
    """Every seven bits."""
    assert protobuf.varint(field, number) == written("int64", field, number)


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_written_like_the_official_one(value: bool) -> None:
    """One byte, false written out too."""
    assert protobuf.varint(2, value) == written("bool", 2, value)


@examples
@given(st.sampled_from(FIELDS), any_double)
def test_a_double_is_written_like_the_official_one(field: int, number: float) -> None:
    """To the bit, zero and negative zero included."""
    assert protobuf.double(field, number) == written("double", field, number)


@examples
@given(st.sampled_from(FIELDS), st.lists(any_double, max_size=40))
def test_doubles_are_packed_like_the_official_ones(field: int, numbers: list[float]) -> None:
    """One field for all of them, none if there are none."""
    assert protobuf.doubles(field, iter(numbers)) == PACKED[field](value=numbers).SerializeToString()


@examples
@given(st.sampled_from(FIELDS), st.text(max_size=200))
def test_a_text_is_written_like_the_official_one(field: int, text: str) -> None:
    """In UTF-8; an empty one not at all, as proto3 has it."""
    expected = written("string", field, text) if text else b""

    assert protobuf.text(field, text) == expected


@examples
@given(st.sampled_from(FIELDS), st.binary(max_size=300) | st.integers(0, 20_000).map(bytes))
def test_a_message_is_written_like_official_bytes(field: int, content: bytes) -> None:
    """Tag, length, content; an empty one is written out. Its head is what stands before the content."""
    message = protobuf.message(field, content)

    assert message == written("bytes", field, content)
    assert message == protobuf.message_head(field, len(content)) + content


@pytest.mark.parametrize("wire_type", [protobuf.VARINT, protobuf.I64, protobuf.LEN])
def test_a_tag_is_the_number_of_the_field_and_the_wire_type(wire_type: int) -> None:
    """As the official messages begin: 0 a varint, 1 eight bytes, 2 a length."""
    kind = {0: "uint64", 1: "fixed64", 2: "bytes"}[wire_type]

    for field in FIELDS:
        assert written(kind, field, b"" if kind == "bytes" else 0).startswith(protobuf.tag(field, wire_type))


def test_an_eight_byte_number_is_little_endian() -> None:
    """protobuf.dev, "Non-varint Numbers": said once without the runtime, which could share our mistake."""
    assert protobuf.fixed64(1, 1) == b"\x09\x01\0\0\0\0\0\0\0"
    assert protobuf.double(1, 1.5) == b"\x09" + pack("<d", 1.5)
