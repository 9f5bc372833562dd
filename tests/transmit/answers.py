"""HTTP answers as servers write them, with what a client should read of each."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from emitter.transmit.http1 import Answer

BODYLESS = [204, 304]


@dataclass(frozen=True)
class Written:
    """Some bytes, and the final answer in them.

    Attributes:
        raw: What the server writes, interim answers before it included.
        answer: What is read of it.
    """

    raw: bytes
    answer: Answer


tokens = st.text("abcXYZ-_0189", min_size=1, max_size=10).map(lambda name: f"x-{name}")
field_values = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f", exclude_categories=["Cc"]),
    max_size=20,
)
fields = st.lists(st.tuples(tokens, field_values), max_size=4)
interims = st.lists(
    st.sampled_from(
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 199 \r\n\r\n"]
    ),
    max_size=3,
).map(b"".join)


def chunked(body: bytes, size: int, trailers: list[tuple[str, str]], extension: bytes) -> bytes:
    """A body in chunks of this size (RFC 9112, 7.1)."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + lines(trailers) + b"\r\n"


def lines(headers: list[tuple[str, str]]) -> bytes:
    """Header fields as they are written."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


@st.composite
def written(draw: st.DrawFn) -> Written:
    """An answer that ends by itself and leaves the connection open."""
    body, headers = draw(st.binary(max_size=60)), draw(fields)
    trailers: list[tuple[str, str]] = []
    framing = draw(st.sampled_from(["length", "chunked", "none"]))
    status = draw(
        st.sampled_from(BODYLESS) if framing == "none" else st.integers(200, 599).filter(lambda s: s not in BODYLESS)
    )
    if framing == "length":
        headers.insert(
            draw(st.integers(0, len(headers))),
            (draw(st.sampled_from(["Content-Length", "content-length"])), str(len(body))),
        )
    elif framing == "chunked":
        headers.append(("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked"]))))
        trailers = draw(fields)
        body = chunked(body, draw(st.integers(1, 70)), trailers, draw(st.sampled_from([b"", b";a=b"])))
    else:
        body = b""
    reason = draw(st.sampled_from([b" OK", b"", b" ", b" Nicht gefunden"]))
    raw = draw(interims) + b"HTTP/1.1 %d%s\r\n" % (status, reason) + lines(headers) + b"\r\n" + body
    seen = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers + trailers)
    return Written(raw, Answer(status, seen, keep_alive=True))


@st.composite
def last(draw: st.DrawFn) -> Written:
    """An answer after which the connection ends, and perhaps only that ends it."""
    body = draw(st.binary(max_size=60))
    head, headers = draw(
        st.sampled_from(
            [
                (b"HTTP/1.1 200 OK", []),
                (b"HTTP/1.1 200 OK", [("Connection", "close")]),
                (b"HTTP/1.1 500 Oops", [("Connection", "Close"), ("Content-Length", str(len(body)))]),
                (b"HTTP/1.0 200 OK", [("Content-Length", str(len(body)))]),
                (b"HTTP/1.0 200 OK", []),
                (b"HTTP/1.1 200 OK", [("Transfer-Encoding", "gzip")]),
            ]
        )
    )
    seen = tuple((name.lower().encode(), value.encode()) for name, value in headers)
    status = int(head.split()[1])
    return Written(head + b"\r\n" + lines(headers) + b"\r\n" + body, Answer(status, seen, keep_alive=False))


@st.composite
def pieces(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    """The same bytes in any pieces, empty ones left out."""
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    return [raw[low:high] for low, high in zip([0, *cuts], [*cuts, len(raw)], strict=True) if low < high]
