"""Owns what a fuzzer calls: any bytes at all go in, and a broken promise comes out as an exception.

The promise, of everything that reads what a peer wrote: it raises the documented errors and nothing else, keeps no
more than its stated limits, and takes a time in proportion to the bytes. Each target checks besides what it can know:
that the pieces in which bytes arrive change nothing, that what TLS lets through is what the peer wrote.

Knows nothing of who makes the bytes: `tests.fuzz.__main__` lets atheris, `test_targets` lets hypothesis.
"""

from __future__ import annotations

import re
import ssl
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from emitter.errors import AnswerError, ConnectionLostError, TlsError
from emitter.transmit.cookies import LIMIT_COOKIES, LIMIT_FIELD_BYTES, CookieStore
from emitter.transmit.http1 import LIMIT_HEAD_BYTES, LIMIT_HEADERS, Answer, AnswerParser
from emitter.transmit.http_date import parse_http_date
from emitter.transmit.tls import LIMIT_OVERHEAD_BYTES, Tls, TlsClient
from tests.tls import Authority, ServerSide

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "Target"]

NOW = 1_700_000_000.0

MARK = b"<>"
"""Parts an input, where it has parts. Legible, and a fuzzer finds it soon."""

_LIMIT_INPUT_BYTES = 1 << 19  # after repeating: more than every limit, and still quick
_YEAR_10000 = 253_402_300_800.0  # begins with a leap second of 9999; no form of a date can write it
_HANDSHAKE_ROUNDS = 20  # more than any handshake has

_COOKIE_FIELD = re.compile(
    rb"(Cookie: AWSALB[!#-+\--:<-\[\]-~]*(; AWSALB[!#-+\--:<-\[\]-~]*)*\r\n)?".replace(rb"AWSALB[", rb'AWSALB["')
)


class Target(NamedTuple):
    """Something to be called with any bytes.

    Attributes:
        call: Raises if a promise is broken.
        cost: How much longer an input takes than one of the cheapest target, roughly.
    """

    call: Callable[[bytes], None]
    cost: int


def http1(data: bytes) -> None:
    """Answers in pieces. The first byte: of what size. The second: how often the second of three parts comes."""
    wire, size = _repeated(data), data[0] if data else 0
    read, failed = _answers(wire, size)
    if len(wire) < LIMIT_HEAD_BYTES:  # beyond, how much of a head is too much depends on the pieces
        assert (read, failed) == _answers(wire, 0), "other answers from the same bytes in other pieces"
    for answer in read:
        assert 200 <= answer.status <= 999
        assert len(answer.headers) <= LIMIT_HEADERS
        wait = answer.retry_after(NOW)
        assert wait is None or wait >= 0


def _repeated(data: bytes) -> bytes:
    head, *more = data[2:].split(MARK, 2)
    if more:
        times = 1 << data[1] % 17
        more[0] *= min(times, _LIMIT_INPUT_BYTES // (len(more[0]) or 1))
    return b"".join((head, *more))


def _answers(wire: bytes, size: int) -> tuple[list[Answer], bool]:
    """The answers, and whether an error ended them."""
    parser, answers = AnswerParser(), []
    size = size or len(wire) or 1  # 0: all at once
    for at in range(0, len(wire), size):
        piece = wire[at : at + size]
        try:
            parser.feed(piece)
        except AnswerError as error:
            if "callback" in str(error):  # llhttp takes any error in one of ours for a reason to refuse the answer
                raise
            return answers + parser.take(), True
        answers += parser.take()
        kept = sum(len(name) + len(value) for name, value in parser._headers)
        # The two pieces in which a head began and ended are not counted, and need not be the one that was fed now.
        assert kept <= LIMIT_HEAD_BYTES + 2 * size, "keeps more than it may"
    parser.end()
    return answers + parser.take(), False


def cookies(data: bytes) -> None:
    """`Set-Cookie` fields of several answers, one after the other; between them a day may pass."""
    store, now = CookieStore(target="/v1/metrics", secure=bool(data[:1] == b"s")), NOW
    for line in data[1:].split(MARK):
        store.learn([(b"date", b"?"), (b"set-cookie", line)], now)
        field = store.header(now)
        assert _COOKIE_FIELD.fullmatch(field), field
        assert len(field) <= LIMIT_FIELD_BYTES
        assert len(store._cookies) <= LIMIT_COOKIES
        now += 86_400.0 if line.endswith(b"day") else 0.0
    store.header(now)


def http_date(data: bytes) -> None:
    """A date. One that is understood is understood again as everybody writes it."""
    seconds = parse_http_date(data)
    if seconds is not None and 0 <= seconds < _YEAR_10000:
        assert parse_http_date(formatdate(seconds, usegmt=True).encode()) == seconds


def tls_handshake(data: bytes) -> None:
    """A peer's side of a handshake, which `_Interference` changes on its way."""
    _converse(_Interference(data))


def tls_content(data: bytes) -> None:
    """What a peer writes after a sound handshake, changed on its way."""
    _converse(_Interference(data), from_the_start=False)


class _Interference:
    """Somebody on the way from the peer to us, who does to its bytes what a program of single bytes says."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._at = 0

    @property
    def over(self) -> bool:
        """Whether the program has ended, so that bytes pass untouched."""
        return self._at >= len(self._program)

    def number(self) -> int:
        """The next byte of the program; 0 after its end."""
        byte = self._program[self._at : self._at + 1]
        self._at += 1
        return byte[0] if byte else 0

    def text(self, length: int) -> bytes:
        """The next bytes of the program."""
        text = self._program[self._at : self._at + length]
        self._at += length
        return text

    def change(self, wire: bytes) -> bytes:
        """What arrives of it."""
        done = b""
        while wire and not self.over:
            step = self.number()
            length = self.number()
            taken, wire = wire[:length], wire[length:]
            if step % 6 == 0:
                done += taken
            elif step % 6 == 1 and taken:  # another bit
                position = self.number() % len(taken)
                done += taken[:position] + bytes([taken[position] ^ 1 << step % 8]) + taken[position + 1 :]
            elif step % 6 == 2:  # more than was written
                done += taken + self.text(self.number())
            elif step % 6 == 3:  # twice
                done += taken * 2
            elif step % 6 == 4:  # many times
                done += taken * (1 << self.number() % 13)
            # 5: not at all
        return done + wire


def _converse(interference: _Interference, *, from_the_start: bool = True) -> None:
    client, server_context = _both_sides()
    tls, server = client.begin(), ServerSide(server_context)
    conversation = _Conversation(tls, server)
    try:
        conversation.shake_hands(interference.change if from_the_start else lambda wire: wire)
        while conversation.alive and not interference.over:
            conversation.step(interference)
    except (TlsError, ConnectionLostError):
        pass  # as documented
    assert len(tls.closing()) <= 2 * LIMIT_OVERHEAD_BYTES
    # What TLS lets through is what the peer wrote, in its order, and nothing else.
    assert conversation.written.startswith(conversation.read)


class _Conversation:
    """A report now and then, and what the peer has to say."""

    def __init__(self, tls: Tls, server: ServerSide) -> None:
        self.tls, self.server = tls, server
        self.written = self.read = b""
        self.alive = True

    def shake_hands(self, change: Callable[[bytes], bytes]) -> None:
        """As `Opening` does; then read, as `Connection` does, what came along."""
        wire = self.tls.handshake()
        for _ in range(_HANDSHAKE_ROUNDS):
            back = change(self._told(wire))
            if self.tls.established:
                self.take(back)
                return
            wire = self.tls.handshake(back)
        self.alive = False

    def step(self, interference: _Interference) -> None:
        """Something that either side may do."""
        what = interference.number()
        wire = b""
        try:
            if what % 4 == 0:
                text = interference.text(interference.number())
                wire = self.server.write(text)
                self.written += text
            elif what % 4 == 1:
                wire = b"".join(self.server.update_keys(demanding=bool(what & 4)) for _ in range(1 + (what >> 3)))
            elif what % 4 == 2:
                wire = self._told(self.tls.outbound(b"report"))
            else:
                wire = self.server.close()
        except ssl.SSLError:
            pass  # the peer has had enough
        self.take(interference.change(wire))

    def take(self, wire: bytes) -> None:
        """Read what arrived."""
        self.read += self.tls.inbound(wire)
        self.alive = not self.tls.ended
        owed_bytes = self.tls._outgoing.pending
        assert owed_bytes <= LIMIT_OVERHEAD_BYTES + 4096, owed_bytes

    def _told(self, wire: bytes) -> bytes:
        try:
            return self.server.feed(wire)
        except ssl.SSLError:  # of an alert for one; then it has one for us
            return self.server.owed()


@cache
def _both_sides() -> tuple[TlsClient, ssl.SSLContext]:
    authority = Authority()
    return TlsClient("localhost", 443, authority.client()), authority.server()


TARGETS = {
    "http1": Target(http1, 5),
    "cookies": Target(cookies, 5),
    "http_date": Target(http_date, 1),
    "tls_handshake": Target(tls_handshake, 25),
    "tls_content": Target(tls_content, 25),
}
