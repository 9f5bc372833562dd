from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from email.utils import formatdate
from functools import partial
from types import SimpleNamespace

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses

from emitter import ConnectError, ConnectionLostError, TlsError
from emitter.awaited import RefusedError, UnansweredError
from emitter.outcomes import Withheld
from tests.aggregator.serving import running
from tests.awaited.receiver import Fate, answer, receiving
from tests.peers.relay import Fate as Way
from tests.peers.relay import relaying

URL = "http://metrics.example.com/v1/metrics"


class Answer(aiohttp.ClientResponse):
    """What is answered in place of the network. Newer aiohttp wants to know what has written the request."""

    def __init__(self, *arguments, **more) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
            more["stream_writer"] = SimpleNamespace(output_size=0)
        super().__init__(*arguments, **more)


@pytest.fixture
def mocked(monkeypatch):
    """Takes the place of the network; answers with what it is given, in order."""
    monkeypatch.setattr("aioresponses.core.ClientResponse", Answer)
    with aioresponses() as mocked:
        yield mocked


def posts(mocked: aioresponses) -> int:
    """How many requests were made."""
    return sum(map(len, mocked.requests.values()))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_go_better_is_repeated(made, mocked, pauses, caplog, status: int) -> None:
    """OTLP's "Retryable Response Codes"; the repetition is counted, and is no trouble worth a line."""
    mocked.post(URL, status=status)
    mocked.post(URL, status=status)
    mocked.post(URL, status=200)
    metrics = made(URL)
    with caplog.at_level(logging.INFO, "emitter"):
        flush = await metrics.flush()

    assert (flush.error, [verdict.status for verdict in flush.verdicts]) == (None, [200])
    assert pauses.seconds == [0.5, 1.0]
    assert metrics.stats.verdicts == {status: 2, 200: 1}
    assert [record for record in caplog.records if record.name == "emitter"] == []


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 408, 413, 415, 500, 501])
async def test_what_will_not_go_better_is_not_repeated(made, mocked, status: int) -> None:
    """Every other status; a redirect is not followed."""
    mocked.post(URL, status=status, headers={"Location": URL})
    flush = await made(URL).flush()

    assert flush.error.status == status
    assert posts(mocked) == 1


LOST = [
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientOSError(104, "Connection reset by peer"),
    aiohttp.ClientPayloadError("not all of it"),
    ConnectionResetError(104, "Connection reset by peer"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_connection_that_breaks_is_repeated_on_another(made, mocked, error: Exception) -> None:
    """Running totals may arrive twice."""
    mocked.post(URL, exception=error)
    mocked.post(URL, status=200)
    metrics = made(URL)
    flush = await metrics.flush()

    assert flush.error is None
    assert metrics.stats.failed == {"lost": 1}
    assert isinstance(metrics.stats.last_error, ConnectionLostError)


async def test_what_is_no_answer_is_not_repeated(made, mocked) -> None:
    """It would be none the next time."""
    request = aiohttp.RequestInfo(aiohttp.client.URL(URL), "POST", {}, aiohttp.client.URL(URL))
    mocked.post(URL, exception=aiohttp.ClientResponseError(request, (), status=400, message="bad status line"))
    flush = await made(URL).flush()

    assert str(flush.error) == "not an HTTP/1.1 answer: bad status line"
    assert posts(mocked) == 1


async def test_the_receiver_says_how_long_to_wait(made, mocked, pauses) -> None:
    """`Retry-After`, in seconds or as a date: no pause is shorter."""
    mocked.post(URL, status=503, headers={"Retry-After": "3"})
    mocked.post(URL, status=429, headers={"Retry-After": formatdate(time.time() + 7.0, usegmt=True)})
    mocked.post(URL, status=503, headers={"Retry-After": "soon"})
    mocked.post(URL, status=200)
    flush = await made(URL, timeout=60).flush()

    assert flush.error is None
    assert pauses.seconds == [3.0, pytest.approx(6.0, abs=1.5), 2.0]


@pytest.mark.parametrize("asked", ["0", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_whoever_asks_for_no_pause_is_not_flooded(made, mocked, pauses, asked: str) -> None:
    """Such a date is what a client reads whose clock is ahead of the receiver's."""
    for _ in range(3):
        mocked.post(URL, status=503, headers={"Retry-After": asked})
    mocked.post(URL, status=200)
    flush = await made(URL).flush()

    assert flush.error is None
    assert pauses.seconds == [0.5, 1.0, 2.0]


async def test_an_attempt_that_could_not_end_in_time_is_not_begun(made, mocked, pauses) -> None:
    """It would be cut off: what the receiver has said would be forgotten, and deltas could not go out again."""

    async def take(url, **more) -> CallbackResult:
        await pauses(3.0)  # so long does it take to say no
        return CallbackResult(status=503, headers={"Retry-After": "1"})

    mocked.post(URL, callback=take, repeat=True)
    metrics = made(URL, timeout=10)
    flush = await metrics.flush()

    assert flush.error.status == 503
    assert pauses.seconds == [3.0, 1.0, 3.0]  # and not at 8 s once more, which would take until 11
    assert metrics._flusher._back_off._seconds == 1.0


async def test_a_pause_beyond_the_time_is_not_begun(made, mocked, pauses) -> None:
    """What is asked for is waited for by the back-off instead; the totals stay."""
    mocked.post(URL, status=503, headers={"Retry-After": "60"})
    metrics = made(URL, timeout=10)
    flush = await metrics.flush()
    next_one = await metrics.flush()

    assert flush.error.status == 503
    assert pauses.seconds == []
    assert next_one.withheld is Withheld.BACKING_OFF
    assert metrics._flusher._back_off._seconds == 60.0


async def test_pauses_double_up_to_a_limit_and_chance_shortens_them(made, mocked, pauses) -> None:
    """Full jitter: a fleet that failed together does not come back together."""
    for _ in range(9):
        mocked.post(URL, status=503)
    metrics = made(URL, timeout=1_000)
    await metrics.flush()
    full = pauses.seconds
    pauses.seconds = []
    for _ in range(3):
        mocked.post(URL, status=503)
    metrics._flusher._jitter = lambda: 0.25
    metrics.counter("orders").add()
    await metrics.close()

    assert full[:9] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert pauses.seconds[:3] == [0.125, 0.25, 0.5]


async def test_a_flush_that_failed_holds_up_the_next_ones(made, mocked) -> None:
    """As long as the back-off says; success ends it."""
    mocked.post(URL, status=500)
    mocked.post(URL, status=200)
    metrics = made(URL)
    now = 1_000.0
    metrics._flusher._clocks.monotonic = metrics._flusher._clocks.wall = lambda: now
    await metrics.flush()
    early = await metrics.flush()
    now += 1.01  # the first one is a second, with no chance in it
    later = await metrics.flush()
    metrics.counter("orders").add()
    mocked.post(URL, status=500)
    again = await metrics.flush()
    now += 1.01  # and a second once more, since one was accepted in between
    mocked.post(URL, status=200)

    assert early.withheld is Withheld.BACKING_OFF
    assert (later.withheld, later.error) == (None, None)
    assert again.error.status == 500
    assert (await metrics.flush()).error is None
    assert metrics.stats.withheld == {Withheld.BACKING_OFF: 1}


async def test_a_cancelled_pause_ends_the_flush(made, mocked) -> None:
    """And leaves the totals for the next report; cancellation comes out."""
    mocked.post(URL, status=503)
    mocked.post(URL, status=200)
    metrics = made(URL)
    paused = asyncio.Event()

    async def pause(seconds: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    metrics._flusher._sleep = pause
    task = asyncio.ensure_future(metrics.flush())
    await paused.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert metrics.stats.failed == {"cancelled": 1}
    assert (await metrics.flush()).error is None


async def test_the_same_report_is_repeated(made, mocked) -> None:
    """Byte by byte, whatever is recorded in the pause."""
    bodies = []
    metrics = made(URL, encoder="json")
    orders = metrics.counter("orders")

    def take(url, *, data, status: int, **more) -> CallbackResult:
        bodies.append(data.content)
        orders.add()
        return CallbackResult(status=status)

    mocked.post(URL, callback=partial(take, status=503))
    mocked.post(URL, callback=partial(take, status=200))
    await metrics.flush()

    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


async def test_a_certificate_that_is_not_accepted_is_not_repeated(made, authority) -> None:
    """It will be the same a second later. The error says what to do."""
    async with receiving(context=authority.server()) as receiver:
        metrics = made(receiver.endpoint)  # it does not know this authority
        flush = await metrics.flush()

        assert receiver.requests == []

    assert isinstance(flush.error, TlsError)
    assert "certificate was not accepted" in str(flush.error)
    assert "ssl_context=" in str(flush.error)
    assert metrics.stats.failed == {"tls": 1}


async def test_a_refused_connection_is_repeated_until_somebody_listens(made, pauses) -> None:
    """A real one: nothing of the request was written, and nothing is said about it."""
    async with receiving() as receiver:
        endpoint = receiver.endpoint
    started = []

    async def start(seconds: float) -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", int(re.search(r":(\d+)", endpoint)[1]))
        server.close()
        await server.wait_closed()
        started.append(seconds)

    metrics = made(endpoint, timeout=1.2)
    metrics._flusher._sleep = start
    flush = await metrics.flush()

    assert isinstance(flush.error, ConnectError)
    assert started[:2] == [0.5, 1.0]
    assert metrics.stats.failed["connect"] == len(started) + 1


@pytest.mark.parametrize("fate", [Fate.CLOSED, Fate.RESET, answer(503), answer(502)])
async def test_totals_are_exact_whatever_is_repeated(made, fate: Fate | bytes) -> None:
    """The receiver may have seen the report or not."""
    async with receiving(fate, fate) as receiver:
        metrics = made(receiver.endpoint)
        metrics.counter("orders").add(3)
        flush = await metrics.flush()

        assert receiver.orders == [3, 3, 3]

    assert flush.error is None


async def test_behind_a_relay_that_loses_and_refuses_all_is_exact(made, tmp_path) -> None:
    """A real receiver: lost before it, refused on the way, and received without an answer."""
    fates = [Way.LOST, Way.REFUSED, Way.UNANSWERED, Way.FORWARDED, Way.UNANSWERED]
    async with running(str(tmp_path / "totals.sqlite3")) as aggregator:
        with relaying(int(aggregator.url.rpartition(":")[2]), *fates) as relay:
            metrics = made(f"http://127.0.0.1:{relay.port}/v1/metrics")
            orders = metrics.counter("orders")
            for _ in range(3):
                orders.add()
                flush = await metrics.flush()

                assert flush.error is None
            await metrics.close()

            assert relay.statuses == [200] * 5
        (service,) = await aggregator.totals()

    assert {each["name"]: each["value"] for each in service["totals"]}["orders"] == 3
    assert (service["reports_received"], service["reports_lost"]) == (3, 0)


class TestDeltas:
    """What a receiver may have counted never goes out again."""

    @pytest.mark.parametrize("fate", [Fate.CLOSED, Fate.RESET, answer(502), answer(504), answer(500)])
    async def test_what_may_have_been_counted_is_lost(self, made, fate: Fate | bytes) -> None:
        """Nobody can tell whether it was: it is not repeated, and the next report begins after it."""
        async with receiving(fate) as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            orders = metrics.counter("orders")
            orders.add(5)
            flush = await metrics.flush()
            orders.add(2)
            await metrics.close()

            assert receiver.orders == [5, 2]

        assert flush.error is not None

    async def test_what_was_not_answered_in_time_is_lost(self, made) -> None:
        """The same."""
        async with receiving(Fate.HELD) as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            orders = metrics.counter("orders")
            orders.add(5)
            flush = await metrics.flush(timeout=0.1)
            orders.add(2)
            await metrics.close()

            assert receiver.orders == [5, 2]

        assert isinstance(flush.error, UnansweredError)

    async def test_what_was_cancelled_on_its_way_is_lost(self, made) -> None:
        """And the same again."""
        async with receiving(Fate.HELD) as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            orders = metrics.counter("orders")
            orders.add(5)
            task = asyncio.ensure_future(metrics.flush())
            await receiver.until(requests=1)
            task.cancel()
            await asyncio.wait({task})
            orders.add(2)
            await metrics.close()

            assert receiver.orders == [5, 2]

        assert task.cancelled()

    @pytest.mark.parametrize("status", [429, 503])
    async def test_what_the_receiver_did_not_look_at_is_repeated(self, made, status: int) -> None:
        """It says so itself."""
        async with receiving(status, status) as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            metrics.counter("orders").add(5)
            flush = await metrics.flush()

            assert receiver.orders == [5, 5, 5]

        assert flush.error is None

    async def test_and_if_there_is_no_more_time_it_goes_out_with_the_next_report(self, made) -> None:
        """Nobody has counted it."""
        async with receiving(answer(503, "Retry-After: 60")) as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            orders = metrics.counter("orders")
            orders.add(5)
            flush = await metrics.flush()
            orders.add(2)
            last = await metrics.close()

            assert receiver.orders == [5, 7]

        assert isinstance(flush.error, RefusedError)
        assert last.error is None

    async def test_what_was_never_written_goes_out_with_the_next_report(self, made) -> None:
        """A connection that could not be opened has carried nothing."""
        async with receiving() as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            orders = metrics.counter("orders")
            orders.add(5)
            url, metrics._flusher._exchange._url = (
                metrics._flusher._exchange._url,
                aiohttp.client.URL("http://[::1]:1/"),
            )
            flush = await metrics.flush(timeout=0.3)
            metrics._flusher._exchange._url = url
            orders.add(2)
            await metrics.close()

            assert receiver.orders == [7]

        assert isinstance(flush.error, ConnectError)

    async def test_each_request_has_a_connection_of_its_own(self, made) -> None:
        """One that was kept may have been closed unseen, and what was written to it would be lost."""
        async with receiving() as receiver:
            metrics = made(receiver.endpoint, temporality="delta")
            for _ in range(3):
                metrics.counter("orders").add()
                await metrics.flush()

            assert receiver.orders == [1, 1, 1]
            assert receiver.connections == 3

    async def test_a_divided_report_counts_as_a_whole(self, made) -> None:
        """With its first part taken, the rest of it is lost when it is refused."""
        async with receiving(200, answer(503, "Retry-After: 60")) as receiver:
            metrics = made(receiver.endpoint, temporality="delta", report_limit_bytes=1024, compress=False)
            orders = metrics.counter("orders")
            for number in range(40):
                orders.add(1, number=number)
            flush = await metrics.flush()
            orders.add(1, number=0)
            taken = receiver.orders[0]
            del receiver.requests[:]
            await metrics.close()

            assert sum(receiver.orders) == 1

        assert taken > 0
        assert flush.delivery is None
        assert [verdict.status for verdict in flush.verdicts] == [200, 503]
