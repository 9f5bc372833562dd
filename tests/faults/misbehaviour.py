"""Owns what a peer can do wrong once it has accepted a connection. Each fault is a script for one connection.

A script runs in a thread of its own and ends when the client has left (`Gone`), when it has done its worst, or when
the fault ends. Only a script that answers 2xx lets the receiver fold the report: nothing else has taken it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.faults.receiver import ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.call import Call
    from tests.faults.receiver import Receiver

    Script = Callable[[Call, Receiver], None]

__all__ = ["SCRIPTS"]

_SETTINGS_FRAME = b"\0\0\0\x04\0\0\0\0\0"  # RFC 9113, 4.1 and 6.5: an empty SETTINGS frame on stream 0
_GOAWAY_FRAME = b"\0\0\x08\x07\0\0\0\0\0" + bytes(7) + b"\x01"  # 6.8: PROTOCOL_ERROR, which HTTP/1.1 is to it
_HTTP_2 = _SETTINGS_FRAME + _GOAWAY_FRAME

_TRICKLE_PAUSE = 0.002
"""Seconds between two bytes: an answer then takes 80 ms, several invocations long."""


def _sound(call: Call, receiver: Receiver) -> None:
    receiver.serve(call.socket)


def _reset_at_once(call: Call, receiver: Receiver) -> None:
    call.reset()


def _reset_in_the_middle(call: Call, receiver: Receiver) -> None:
    call.read(1024)
    call.reset()


def _reset_after_the_request(call: Call, receiver: Receiver) -> None:
    call.request()
    call.reset()


def _reset_in_the_answer(call: Call, receiver: Receiver) -> None:
    call.request()
    call.write(ANSWER[:20])
    call.reset()


def _close_at_once(call: Call, receiver: Receiver) -> None:
    call.close()


def _close_after_the_request(call: Call, receiver: Receiver) -> None:
    call.request()
    call.close()


def _close_in_the_answer(call: Call, receiver: Receiver) -> None:
    call.request()
    call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    call.close()


def _never_read(call: Call, receiver: Receiver) -> None:
    call.carries_on = True
    call.hang()
    receiver.serve(call.socket)


def _never_answer(call: Call, receiver: Receiver) -> None:
    call.carries_on = True  # as silent as before: only new connections are sound
    while True:
        call.request()
        call.misbehaved()


def _answer(data: bytes) -> Script:
    """Read requests properly, and answer each with these bytes."""

    def script(call: Call, receiver: Receiver) -> None:
        while True:
            call.request()
            call.say(data)

    return script


def _answer_and_go_on(start: bytes, rest: Callable[[int], bytes]) -> Script:
    """Answer the first request with something that never ends."""

    def script(call: Call, receiver: Receiver) -> None:
        call.request()
        call.say(start)
        for number in itertools.count():
            call.write(rest(number))

    return script


def _speak_first(data: bytes) -> Script:
    def script(call: Call, receiver: Receiver) -> None:
        call.say(data)
        while True:
            call.request()

    return script


def _interim_answers(call: Call, receiver: Receiver) -> None:
    while True:
        receiver.fold(call.request())
        call.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + ANSWER)


def _answer_twice(call: Call, receiver: Receiver) -> None:
    while True:
        receiver.fold(call.request())
        call.say(ANSWER * 2)


def _http_1_0(call: Call, receiver: Receiver) -> None:
    receiver.fold(call.request())
    call.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\ntaken")
    call.close()


def _ask_to_close(call: Call, receiver: Receiver) -> None:
    receiver.fold(call.request())
    call.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    call.close()


def _close_when_idle(call: Call, receiver: Receiver) -> None:
    receiver.fold(call.request())
    call.write(ANSWER)
    call.close()


def _trickle(call: Call, receiver: Receiver) -> None:
    while True:
        receiver.fold(call.request())
        for position in range(len(ANSWER)):
            call.say(ANSWER[position : position + 1])
            call.pause(_TRICKLE_PAUSE)


def _status(status: int, *fields: str) -> Script:
    head = "".join(f"{field}\r\n" for field in (f"HTTP/1.1 {status} X", *fields, "Content-Length: 5"))
    return _answer(f"{head}\r\nsorry".encode())


SCRIPTS: dict[str, Script] = {
    "sound": _sound,
    "reset at once": _reset_at_once,
    "reset in the middle of the request": _reset_in_the_middle,
    "reset after the request": _reset_after_the_request,
    "reset in the middle of the answer": _reset_in_the_answer,
    "close at once": _close_at_once,
    "close after the request": _close_after_the_request,
    "close in the middle of the answer": _close_in_the_answer,
    "never read": _never_read,
    "never answer": _never_answer,
    "garbage": _answer(bytes(range(256)) * 4),
    "no status": _answer(b"HTTP/1.1 \r\n\r\n"),
    "control characters in a header": _answer(b"HTTP/1.1 200 OK\r\nSet-Cookie: a\0b\r\nContent-Length: 0\r\n\r\n"),
    "endless headers": _answer_and_go_on(b"HTTP/1.1 200 OK\r\n", lambda number: b"X-%d: y\r\n" % number * 100),
    "one endless header": _answer_and_go_on(b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"y" * 4096),
    "endless body by length": _answer_and_go_on(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", lambda _: b"y" * 4096
    ),
    "endless body in chunks": _answer_and_go_on(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", lambda _: b"1000\r\n" + b"y" * 4096 + b"\r\n"
    ),
    "endless body in chunks of one byte": _answer_and_go_on(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", lambda _: b"1\r\ny\r\n" * 4096
    ),
    "endless body until close": _answer_and_go_on(b"HTTP/1.1 200 OK\r\n\r\n", lambda _: b"y" * 4096),
    "HTTP/2 before the request": _speak_first(_HTTP_2),
    "HTTP/2 for an answer": _answer(_HTTP_2),
    "HTTP/1.0": _http_1_0,
    "three interim answers each": _interim_answers,
    "a flood of interim answers": _answer_and_go_on(b"", lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "101 Switching Protocols": _answer(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + _HTTP_2),
    "both length and chunks": _answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two different lengths": _answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"),
    "an answer too many": _answer_twice,
    "trickle": _trickle,
    "ask to close": _ask_to_close,
    "close when idle": _close_when_idle,
    "status 301": _status(301, "Location: http://127.0.0.1:9/"),
    "status 401": _status(401),
    "status 500": _status(500),
    "status 502": _status(502),
    "status 503": _status(503, "Retry-After: 30"),
    "status 429": _status(429),
}
