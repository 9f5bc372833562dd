from __future__ import annotations

import asyncio
import gzip
import logging

import pytest

from emitter import ConnectError, CredentialsError, Delivery, PeerError
from emitter.awaited import AwaitedEmitter, RefusedError, UnansweredError
from emitter.encode import as_encoder
from emitter.outcomes import Outcome, Withheld
from tests.aggregator.serving import running
from tests.awaited.receiver import Fate, answer, receiving
from tests.flushing import totals
from tests.scripted_peer import PATIENCE


async def test_what_is_recorded_arrives_and_its_verdict_comes_back(made) -> None:
    """In the aggregator that comes along, which answers once the totals are durable."""
    async with running() as aggregator:
        metrics = made(f"{aggregator.url}/v1/metrics")
        orders = metrics.counter("orders")
        orders.add(2, channel="web")
        first = await metrics.flush()
        orders.add(3, channel="web")
        second = await metrics.flush()

        assert sum(await aggregator.orders()) == 5

    assert (first.delivery, first.error, first.withheld) == (Delivery.ANSWERED, None, None)
    assert [(each.report, each.status, each.outcome) for each in second.verdicts] == [(2, 200, Outcome.ACCEPTED)]
    assert second.bytes > 0
    assert second.seconds > 0
    assert metrics.stats.flushes == metrics.stats.transmitted == 2
    assert metrics.stats.verdicts == {200: 2}
    assert metrics.stats.bytes == first.bytes + second.bytes


async def test_one_connection_carries_all_reports(made) -> None:
    """It is kept open between them."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        for _ in range(3):
            metrics.counter("orders").add()
            await metrics.flush()

        assert receiver.orders == [1, 2, 3]
        assert receiver.connections == metrics.stats.connections_opened == 1


async def test_a_request_has_what_was_asked_for_and_nothing_else(made) -> None:
    """Not what aiohttp adds by itself; the target is not written anew; credentials are out of the URL."""
    async with receiving() as receiver:
        endpoint = receiver.endpoint.replace("://", "://user:pass%21@") + "/a%2Fb%7e?key=a+b%20c"
        metrics = made(endpoint, headers={"X-Scope-OrgID": "tenant"})
        await metrics.flush()
        (request,) = receiver.requests

    assert (request.method, request.target) == (b"POST", b"/v1/metrics/a%2Fb%7e?key=a+b%20c")
    assert request.headers.keys() == {
        b"host",
        b"content-type",
        b"content-length",
        b"user-agent",
        b"authorization",
        b"x-scope-orgid",
    }
    assert request.headers[b"host"] == f"127.0.0.1:{receiver.port}".encode()
    assert request.headers[b"content-type"] == b"application/x-protobuf"
    assert request.headers[b"user-agent"] == b"lambda-emitter"
    assert request.headers[b"authorization"] == b"Basic dXNlcjpwYXNzIQ=="


async def test_a_report_without_news_is_withheld(made) -> None:
    """As soon as the last one was accepted; the withheld are counted."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        await metrics.flush()
        flush = await metrics.flush()

    assert (flush.withheld, flush.delivery, flush.bytes) == (Withheld.UNCHANGED, None, 0)
    assert len(receiver.requests) == 1
    assert metrics.stats.withheld == {Withheld.UNCHANGED: 1}


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500])
async def test_a_refusal_is_an_error_and_is_not_repeated(made, pauses, caplog, status: int) -> None:
    """The totals stay, and the log says what to do; a redirect is not followed."""
    async with receiving(answer(status, "Location: /elsewhere")) as receiver:
        metrics = made(receiver.endpoint)
        with caplog.at_level(logging.INFO, "emitter"):
            flush = await metrics.flush()
        withheld = await metrics.flush()

    assert flush.delivery is Delivery.ANSWERED
    assert isinstance(flush.error, RefusedError)
    assert (flush.error.status, flush.error.proxy) == (status, False)
    assert f"answered {status}" in str(flush.error)
    assert [each.status for each in flush.verdicts] == [status]
    assert len(receiver.requests) == 1
    assert pauses.seconds == []
    assert withheld.withheld is Withheld.BACKING_OFF
    (line,) = [record.getMessage() for record in caplog.records if record.name == "emitter"]
    assert f"answered {status} (rejected)" in line
    assert metrics.stats.last_error is flush.error


async def test_what_was_refused_goes_out_with_the_next_report(made) -> None:
    """Which the back-off delays, and the close does not."""
    async with receiving(400) as receiver:
        metrics = made(receiver.endpoint)
        metrics.counter("orders").add(7)
        await metrics.flush()
        flush = await metrics.close()

        assert receiver.orders == [7, 7]

    assert flush.error is None


async def test_nobody_listens(made, peer) -> None:
    """An error that says so, within the time; the emitter raises nothing."""
    endpoint = peer.endpoint
    peer.close()
    metrics = made(endpoint)
    flush = await metrics.flush(timeout=0.3)

    assert flush.delivery is None
    assert isinstance(flush.error, ConnectError)
    assert str(flush.error) == f"no connection to 127.0.0.1 port {endpoint[17:].partition('/')[0]}: Connection refused"
    assert metrics.stats.failed == {"connect": 1}
    assert metrics.stats.transmitted == metrics.stats.bytes == 0


async def test_a_receiver_that_does_not_answer_costs_no_more_than_the_time(made) -> None:
    """And nobody can tell whether it has the report."""
    async with receiving(Fate.HELD) as receiver:
        metrics = made(receiver.endpoint)
        metrics.counter("orders").add()
        flush = await metrics.flush(timeout=0.1)
        await receiver.until(ended=1)
        await metrics.close()

        assert receiver.orders == [1, 1]
        assert [totals(request.body)["emitter.failures"] for request in receiver.requests] == [0, 1]
        assert [totals(request.body)["emitter.flushes"] for request in receiver.requests] == [1, 2]

    assert isinstance(flush.error, UnansweredError)
    assert str(flush.error) == "no answer came within 0.1 s"
    assert metrics.stats.failed == {"unanswered": 1}


async def test_the_time_is_not_rounded_up(made, monkeypatch) -> None:
    """By default aiohttp lets long timeouts end at whole seconds of the loop's clock."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    moments = []

    def noted(when, *more, **options):
        moments.append(when)
        return call_at(when, *more, **options)

    monkeypatch.setattr(loop, "call_at", noted)
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        began = loop.time()
        await metrics.flush(timeout=5.5)
        ended = loop.time()

    assert any(began <= when - 5.5 <= ended for when in moments)


async def test_what_nobody_answered_is_introduced_again(made) -> None:
    """In a format without start times: the zeros of the new series go out once more, in a request of their own."""
    async with receiving(Fate.HELD) as receiver:
        metrics = made(receiver.endpoint, encoder="remote-write")
        metrics.counter("orders").add()
        await metrics.flush(timeout=0.1)
        last = await metrics.close()

        assert len(receiver.requests) == 1 + 2

    assert (last.error, len(last.verdicts)) == (None, 2)


async def test_no_time_at_all_gets_nothing_out(made) -> None:
    """Waiting is what this is about."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        flush = await metrics.flush(timeout=0)

        assert isinstance(flush.error, UnansweredError)
        assert receiver.connections == 0


@pytest.mark.parametrize("garbage", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc X\r\n\r\n"])
async def test_what_is_no_answer_is_an_error(made, garbage: bytes) -> None:
    """Whoever speaks something else will do so again: it is not repeated."""
    async with receiving(garbage) as receiver:
        metrics = made(receiver.endpoint)
        flush = await metrics.flush()

        assert len(receiver.requests) == 1

    assert flush.error.reason == "answer"
    assert isinstance(flush.error, PeerError)


@pytest.mark.parametrize("coding", ["", "Content-Encoding: gzip", "Content-Encoding: br"])
async def test_the_body_of_an_answer_is_read_past_and_not_looked_at(made, coding: str) -> None:
    """Whatever it says of its coding; the connection can be used again."""
    said = answer(200, coding or "X: y", body=b"no such coding" * 10_000)
    async with receiving(said) as receiver:
        metrics = made(receiver.endpoint)
        flush = await metrics.flush()
        metrics.counter("orders").add()
        await metrics.flush()

        assert flush.error is None
        assert receiver.connections == 1


async def test_an_endless_body_is_read_no_further_than_the_limit(made) -> None:
    """Its status counts, and the next report takes another connection."""
    head = b"HTTP/1.1 200 X\r\nContent-Length: 1000000000000\r\n\r\n"
    async with receiving(head + bytes(3 * 1024 * 1024)) as receiver:
        metrics = made(receiver.endpoint)
        flush = await asyncio.wait_for(metrics.flush(timeout=600), PATIENCE)
        metrics.counter("orders").add()
        await metrics.flush()

        assert (flush.delivery, flush.error) == (Delivery.ANSWERED, None)
        assert receiver.connections == 2


@pytest.mark.parametrize("then", [Fate.CLOSED, Fate.RESET, Fate.HELD])
async def test_an_answer_that_breaks_in_its_body_has_been_given(made, then: Fate) -> None:
    """Nobody wants to know more than its status."""
    async with receiving((b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nx", then)) as receiver:
        flush = await made(receiver.endpoint).flush(timeout=0.5)

    assert (flush.delivery, flush.error) == (Delivery.ANSWERED, None)


async def test_a_large_report_is_divided_and_its_parts_go_in_order(made) -> None:
    """Each after the answer to the one before; a verdict of each."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint, report_limit_bytes=1024, compress=False)
        orders = metrics.counter("orders")
        for number in range(40):
            orders.add(1, number=number)
        flush = await metrics.flush()

        assert len(receiver.requests) == len(flush.verdicts) > 2
        assert sum(receiver.orders) == 40
        assert receiver.connections == 1

    assert flush.bytes == sum(len(request.body) for request in receiver.requests)
    assert {each.report for each in flush.verdicts} == {1}
    assert (await metrics.flush()).withheld is Withheld.UNCHANGED


async def test_one_part_that_is_refused_makes_the_report_refused(made) -> None:
    """The others have got there: each is complete in itself."""
    async with receiving(200, 400, 413) as receiver:
        metrics = made(receiver.endpoint, report_limit_bytes=1024, compress=False)
        for number in range(40):
            metrics.counter("orders").add(1, number=number)
        flush = await metrics.flush()

        assert len(receiver.requests) == len(flush.verdicts)

    assert flush.delivery is Delivery.ANSWERED
    assert [each.status for each in flush.verdicts][:3] == [200, 400, 413]
    assert flush.error.status == 400


async def test_a_large_body_is_packed(made) -> None:
    """And says so; so it is when the signer sees it."""
    signed = []

    class Signer:
        def check(self, url):
            pass

        def sign(self, method, url, headers, body):
            signed.append((method, url, dict(headers), bytes(body)))
            return {"Authorization": "signed"}

    async with receiving() as receiver:
        metrics = made(f"{receiver.endpoint}?a=%2f", signer=Signer())
        for number in range(300):
            metrics.counter("orders").add(1, number=number)
        await metrics.flush()
        (request,) = receiver.requests

    ((method, url, headers, body),) = signed
    assert request.headers[b"content-encoding"] == b"gzip"
    assert totals(gzip.decompress(request.body))["orders"] == 300
    assert (method, url, body) == ("POST", f"{receiver.endpoint}?a=%2f", request.body)
    assert request.headers[b"authorization"] == b"signed"
    assert {name.lower().encode(): value.encode() for name, value in headers.items()}.items() <= request.headers.items()
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"


async def test_flushes_at_the_same_time_share_a_report(made) -> None:
    """What all of them have recorded is in it, once for those who came while another one was under way."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        orders = metrics.counter("orders")

        async def work() -> object:
            orders.add()
            return await metrics.flush()

        flushes = await asyncio.gather(*(work() for _ in range(20)))

        assert len(receiver.requests) <= 2
        assert receiver.orders[-1] == 20

    assert all(flush.error is None for flush in flushes)
    assert metrics.stats.withheld == {}


async def test_a_strict_emitter_raises_what_went_wrong() -> None:
    """The error that would have been returned."""
    async with receiving(401, 401) as receiver:
        metrics = AwaitedEmitter(receiver.endpoint, strict=True)
        with pytest.raises(RefusedError, match="answered 401"):
            await metrics.flush()
        with pytest.raises(RefusedError, match="answered 401"):
            await metrics.close()


async def test_the_block_of_a_strict_emitter_ends_as_it_ended() -> None:
    """An error in the last report comes out only if nothing else does."""
    async with receiving(401, 401) as receiver:
        with pytest.raises(KeyError):
            async with AwaitedEmitter(receiver.endpoint, strict=True):
                raise KeyError("x")
        with pytest.raises(RefusedError):
            async with AwaitedEmitter(receiver.endpoint, strict=True):
                pass


async def test_at_intervals(made) -> None:
    """`every`, as with any emitter: the last report is there at the end, and the connection is closed."""
    async with receiving() as receiver:
        metrics = made(receiver.endpoint)
        orders = metrics.counter("orders")
        async with metrics.every(0.001):
            orders.add()
            await receiver.until(requests=1)
            orders.add()
            await receiver.until(requests=2)
            orders.add()
        await receiver.until(ended=1)

        assert receiver.orders[-1] == 3


async def test_a_disabled_emitter_does_nothing(monkeypatch) -> None:
    """It needs no endpoint; its instruments record as ever."""
    monkeypatch.setenv("EMITTER_DISABLED", "true")
    async with AwaitedEmitter() as metrics:
        metrics.counter("orders").add()
        flush = await metrics.flush()

    assert flush.withheld is Withheld.DISABLED
    assert metrics.stats.flushes == 0


async def test_a_load_balancer_finds_its_sandbox_again(made) -> None:
    """Its cookie comes back, with a retry already; what else is set does not."""
    learned = answer(503, "Set-Cookie: AWSALB=one", "Set-Cookie: session=no", "Set-Cookie: route=r; Path=/")
    async with receiving(learned, answer(200, "Set-Cookie: AWSALB=two")) as receiver:
        # By name, since aiohttp's own cookies are not for addresses.
        metrics = made(receiver.endpoint.replace("127.0.0.1", "localhost"), sticky_cookies=["route"])
        await metrics.flush()
        metrics.counter("orders").add()
        await metrics.flush()

    assert [request.headers.get(b"cookie") for request in receiver.requests] == [
        None,
        b"AWSALB=one; route=r",
        b"AWSALB=two; route=r",
    ]


async def test_a_signer_without_credentials_is_an_error_like_another(made) -> None:
    """Nothing is written, and nothing repeated."""

    class Signer:
        def check(self, url):
            pass

        def sign(self, method, url, headers, body):
            raise CredentialsError("no credentials were found")

    async with receiving() as receiver:
        metrics = made(receiver.endpoint, signer=Signer())
        flush = await metrics.flush()

        assert receiver.requests == []

    assert isinstance(flush.error, CredentialsError)
    assert metrics.stats.failed == {"credentials": 1}


async def test_a_mistake_in_an_encoder_comes_out_and_is_counted(made) -> None:
    """It is nobody's but the caller's."""

    @as_encoder("text/plain")
    def broken(snapshot):
        raise ZeroDivisionError

    async with receiving() as receiver:
        metrics = made(receiver.endpoint, encoder=broken)
        with pytest.raises(ZeroDivisionError):
            await metrics.flush()

    assert metrics.stats.failed == {"defect": 1}
