from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.errors import AnswerError
from emitter.transmit.http1 import (
    LIMIT_BODY_BYTES,
    LIMIT_HEAD_BYTES,
    LIMIT_HEADERS,
    LIMIT_INTERIM,
    Answer,
    AnswerParser,
)
from tests.transmit.answers import Written, last, pieces, written

examples = settings(max_examples=150, deadline=None)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read(parser: AnswerParser, data: list[bytes]) -> list[Answer]:
    """The answers in these pieces."""
    for piece in data:
        parser.feed(piece)
    return parser.take()


@examples
@given(st.lists(written(), max_size=4), st.data())
def test_answers_are_read_whatever_pieces_they_arrive_in(answers: list[Written], data: st.DataObject) -> None:
    """With a length, in chunks with trailers, without a body, interim ones before them: each once, in order."""
    raw = b"".join(each.raw for each in answers)
    parser = AnswerParser()

    assert read(parser, data.draw(pieces(raw))) == [each.answer for each in answers]
    assert parser.take() == []
    assert not parser.unfinished


@examples
@given(st.lists(written(), max_size=2), last(), st.data())
def test_the_last_answer_of_a_connection_is_read_too(
    before: list[Written], final: Written, data: st.DataObject
) -> None:
    """It ends by its length or with the stream (RFC 9112, 6.3), and the connection is not to be used again."""
    raw = b"".join(each.raw for each in [*before, final])
    parser = AnswerParser()
    answers = read(parser, data.draw(pieces(raw)))
    parser.end()
    answers += parser.take()

    assert answers == [each.answer for each in [*before, final]]
    assert not parser.unfinished


@examples
@given(written(), st.data())
def test_an_answer_that_breaks_off_is_none(answer: Written, data: st.DataObject) -> None:
    """Nothing is made up from what came, whether or not the stream then ends; that it began can be seen."""
    cut = data.draw(st.integers(1, len(answer.raw) - 1))
    parser = AnswerParser()
    answers = read(parser, [answer.raw[:cut]])
    unfinished = parser.unfinished
    parser.end()

    assert answers + parser.take() == []
    assert unfinished


@examples
@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                OK,
                b"HTTP/1.1 ",
                b"200",
                b"\r\n",
                b"\n",
                b"\r",
                b" ",
                b":",
                b"Content-Length: ",
                b"5",
                b"-1",
                b"0",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip",
                b"Connection: close",
                b"Upgrade: x",
                b"HTTP/2.0 200 ",
                b"HTTP/1.1 101 \r\n",
                b"HTTP/1.1 100 \r\n\r\n",
                b"ffffffffffffffffff",
                b"\0",
                b"\x80",
            ]
        ),
        max_size=30,
    ).map(b"".join),
    st.data(),
)
def test_nothing_but_an_answer_error_ever_comes_of_bytes(raw: bytes, data: st.DataObject) -> None:
    """Arbitrary bytes, in arbitrary pieces, fed on after an error too. What was complete before can be taken."""
    parser = AnswerParser()
    parser.feed(OK)
    for piece in data.draw(pieces(raw)):
        with contextlib.suppress(AnswerError):
            parser.feed(piece)
    parser.end()

    assert parser.take()[0] == Answer(200, ((b"content-length", b"2"),), keep_alive=True)
    assert isinstance(parser.unfinished, bool)


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/3 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>",
        b"POST / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 204 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer_of_http_1_is_refused(raw: bytes) -> None:
    """Other protocols, other versions, two lengths, no length, garbage: also byte by byte, after a good answer."""
    for data in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
        parser = AnswerParser()
        parser.feed(OK)
        with pytest.raises(AnswerError, match=r"HTTP/"):
            read(parser, data)

        assert parser.take()[0].status == 200


def test_what_is_no_answer_is_called_so_whatever_is_being_handled() -> None:
    """A handler has raised, say, and the flush at its end reads what came: that exception is none of the parser's."""
    try:
        raise KeyError("mine")
    except KeyError:
        with pytest.raises(AnswerError, match=r"not an HTTP/1\.1 answer"):
            AnswerParser().feed(b"garbage\r\n\r\n")


@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
def test_a_switch_of_protocols_is_refused(upgrade: bytes) -> None:
    """Nobody asked for it, so what follows is not to be understood."""
    parser = AnswerParser()
    with pytest.raises(AnswerError, match=r"101|Upgrade"):
        parser.feed(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")

    assert parser.take() == []


def test_an_offer_to_switch_protocols_is_no_switch() -> None:
    """A server may name what else it speaks (RFC 9110, 7.8)."""
    raw = b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"

    assert [(answer.status, answer.keep_alive) for answer in read(AnswerParser(), [raw])] == [(200, True)]


def test_equal_lengths_given_twice_are_refused_or_read_as_one() -> None:
    """RFC 9110, 8.6 allows either; what never happens is that bytes of one answer are taken for the next."""
    parser = AnswerParser()
    try:
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok" + OK)
    except AnswerError:
        assert parser.take() == []
    else:
        assert [answer.status for answer in parser.take()] == [200, 200]


def fed_until_refused(parser: AnswerParser, piece: bytes, most_bytes: int) -> int:
    """How many bytes go in, in such pieces, before the parser has had enough."""
    fed = 0
    while fed < most_bytes:
        try:
            parser.feed(piece)
        except AnswerError:
            return fed
        fed += len(piece)
    raise AssertionError(f"{fed} bytes were taken")


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"]
)
@pytest.mark.parametrize("size", [1_000, 20_000])
def test_a_head_without_an_end_is_refused(head: bytes, size: int) -> None:
    """A status line, a field or a chunk extension that goes on for ever costs 64 KiB and the connection."""
    parser = AnswerParser()
    parser.feed(head)
    fed = fed_until_refused(parser, b"x" * size, 2 * LIMIT_HEAD_BYTES)

    assert LIMIT_HEAD_BYTES - size <= fed <= LIMIT_HEAD_BYTES + 2 * size


@pytest.mark.parametrize("raw", [OK, b"HTTP/1.1 204 No Content\r\n\r\n"])
def test_many_small_answers_are_no_long_head(raw: bytes) -> None:
    """What counts is one head, not all that ever came; with a body between them or without."""
    parser, times = AnswerParser(), 3 * LIMIT_HEAD_BYTES // len(raw)
    for _ in range(times):
        parser.feed(raw)

    assert len(parser.take()) == times


def test_too_many_fields_are_refused_and_trailers_count() -> None:
    """256 pass, one more does not."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"

    assert len(read(AnswerParser(), [b"HTTP/1.1 204 \r\n" + b"x: y\r\n" * LIMIT_HEADERS + b"\r\n"])[0].headers) == 256
    assert len(read(AnswerParser(), [chunked + b"x: y\r\n" * (LIMIT_HEADERS - 1) + b"\r\n"])[0].headers) == 256
    for raw in (
        b"HTTP/1.1 204 \r\n" + b"x: y\r\n" * (LIMIT_HEADERS + 1) + b"\r\n",
        chunked + b"x: y\r\n" * LIMIT_HEADERS + b"\r\n",
    ):
        with pytest.raises(AnswerError, match="more than 256 header fields"):
            AnswerParser().feed(raw)


@pytest.mark.parametrize("framing", [b"Content-Length: 1048577\r\n", b"", b"Transfer-Encoding: chunked\r\n"])
def test_too_long_a_body_is_refused(framing: bytes) -> None:
    """1 MiB is read past, however it ends; beyond that a new connection is cheaper."""
    parser = AnswerParser()
    parser.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    body = b"x" * 1024
    if b"chunked" in framing:
        body = b"400\r\n" + body + b"\r\n"
    for _ in range(1024):
        parser.feed(body)
    with pytest.raises(AnswerError, match=f"more than {LIMIT_BODY_BYTES} bytes of body"):
        parser.feed(body)


def test_a_body_in_tiny_chunks_counts_as_what_it_takes_on_the_wire():
    """Each is a call for a byte: the peer pays for it in full."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = AnswerParser()
    parser.feed(head + b"1\r\nx\r\n" * (LIMIT_BODY_BYTES // 6))

    with pytest.raises(AnswerError, match="bytes of body"):
        parser.feed(b"1\r\nx\r\n")


def test_the_limit_of_a_body_is_each_answers_own() -> None:
    """Exactly 1 MiB, three times on one connection."""
    parser = AnswerParser()
    for _ in range(3):
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LIMIT_BODY_BYTES)
        parser.feed(bytes(LIMIT_BODY_BYTES))

    assert len(parser.take()) == 3


def test_a_flood_of_interim_answers_is_refused() -> None:
    """16 before one final answer, counted anew for each."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    parser = AnswerParser()
    parser.feed((interim * LIMIT_INTERIM + OK) * 3)

    assert len(parser.take()) == 3
    with pytest.raises(AnswerError, match="more than 16 interim answers before a final one"):
        parser.feed(interim * (LIMIT_INTERIM + 1))


def test_the_end_of_the_stream_ends_nothing_that_has_a_length() -> None:
    """An answer cut short is none; and an end with nothing begun is no answer either."""
    for raw in (
        b"",
        OK[:-1],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 100 \r\n\r\n",
    ):
        parser = AnswerParser()
        parser.feed(raw)
        parser.end()
        parser.end()

        assert parser.take() == []
        assert parser.unfinished == bool(raw)


def test_an_answer_until_the_end_of_the_stream_is_taken_once() -> None:
    """However often the end is noted."""
    parser = AnswerParser()
    parser.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\nplease wait")
    parser.end()
    parser.end()

    assert parser.take() == [Answer(503, ((b"retry-after", b"5"),), keep_alive=False)]
