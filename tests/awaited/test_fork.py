from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import h11
import pytest

from tests.flushing import totals
from tests.fork.sandboxes import Peers, has_ended, identity, is_quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scripted_peer import PeerConnection

PREPARED = """
from emitter.awaited import AwaitedEmitter
metrics = AwaitedEmitter(service="checkout")
orders = metrics.counter("orders")
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)

async def report(amount):
    orders.add(amount)
    flush = await metrics.flush()
    say(error=flush.error and str(flush.error), flushes=metrics.stats.flushes)

loop.run_until_complete(report(3))
heard()
"""

SCRIPT = (
    PREPARED
    + """
child = os.fork()
if child == 0:
    async def work():
        await report(4)
        await metrics.close()
    asyncio.run(work())
    del metrics  # with everything that was inherited
    sys.exit(0)
say(ended=os.waitpid(child, 0)[1])
heard()
loop.run_until_complete(report(5))
loop.run_until_complete(metrics.close())
loop.close()
"""
)


@pytest.fixture(params=["plain", "tls"])
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    """Peers of either kind."""
    peers = Peers(request.param)
    yield peers
    peers.close()


def test_a_forked_child_is_a_sandbox_of_its_own(peers: Peers) -> None:
    """Its own identity, totals from zero, its own connection; no word on the parent's, which goes on as before."""
    with peers.run(SCRIPT) as sandbox:
        parents = peers.accept()
        first = parents.read_request()
        parents.answer(200, "Set-Cookie: AWSALB=one")
        said = [sandbox.said()]
        sandbox.go()
        childs = peers.accept()
        second = childs.read_request()
        childs.answer()
        said.append(sandbox.said())

        assert has_ended(childs)
        assert sandbox.said() == {"ended": 0}
        assert is_quiet(parents)

        sandbox.go()
        third = parents.read_request()
        parents.answer()
        said.append(sandbox.said())

        assert has_ended(parents)
        assert sandbox.ended() == 0

        stderr = sandbox.stderr

    assert [totals(report.body)["orders"] for report in (first, second, third)] == [3, 4, 8]
    assert identity(first) == identity(third)
    assert identity(first)[0] != identity(second)[0]
    assert [report.headers.get(b"cookie") for report in (first, second, third)] == [None, None, b"AWSALB=one"]
    assert said == [{"error": None, "flushes": each} for each in (1, 1, 2)]
    if sys.version_info >= (3, 11):  # Python 3.10 has a word about inherited TLS when the child ends, on no connection
        assert stderr == ""


SAME_LOOP = (
    PREPARED
    + """
child = os.fork()
if child == 0:
    loop.run_until_complete(report(4))
    loop.run_until_complete(metrics.close())
    os._exit(0)
say(ended=os.waitpid(child, 0)[1])
heard()
for _ in range(3):
    loop.run_until_complete(asyncio.sleep(0))  # so that it hears what has become of its connection
loop.run_until_complete(report(5))
say(failed=dict(metrics.stats.failed), opened=metrics.stats.connections_opened)
loop.run_until_complete(metrics.close())
loop.close()
"""
)


def test_a_child_that_goes_on_in_the_same_loop_hears_nothing_of_its_parents_connection(peers: Peers) -> None:
    """Its end, for one, is for the parent to hear, who then opens another."""
    with peers.run(SAME_LOOP) as sandbox:
        parents = peers.accept()
        parents.read_request()
        parents.answer()
        sandbox.said()
        sandbox.go()
        childs = peers.accept()
        second = childs.read_request()
        parents.close()
        childs.answer()
        sandbox.said()
        sandbox.said()
        sandbox.go()
        others = peers.accept()
        third = others.read_request()
        others.answer()
        sandbox.said()
        said = sandbox.said()

        assert has_ended(others)
        assert sandbox.ended() == 0

    assert [totals(report.body)["orders"] for report in (second, third)] == [4, 8]
    assert said == {"failed": {}, "opened": 2}


DELTAS = """
from emitter.awaited import AwaitedEmitter
metrics = AwaitedEmitter(service="checkout", temporality="delta")
orders = metrics.counter("orders")

async def report(amount):
    orders.add(amount)
    await metrics.close()

asyncio.run(report(3))
if os.fork() == 0:
    asyncio.run(report(4))
    os._exit(0)
os.wait()
"""


def test_the_deltas_of_a_child_are_its_own() -> None:
    """What its parent has reported is none of them."""
    peers = Peers("plain")
    seen = []
    with peers.run(DELTAS) as sandbox:
        for _ in range(2):
            other_end = peers.accept()
            seen.append(totals(body_of_the_only_request(other_end))["orders"])
            other_end.answer()
        sandbox.ended()
    peers.close()

    assert seen == [3, 4]


def body_of_the_only_request(other_end: PeerConnection) -> bytes:
    """Of a connection that is not to be kept, which h11 is asked for in its own words."""
    body = b""
    while not isinstance(event := other_end._next_event(), h11.EndOfMessage):
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    return body


INJECTED = """
import aiohttp
from emitter import UsageError
from emitter.awaited import AwaitedEmitter
loop = asyncio.new_event_loop()

async def make():
    session = aiohttp.ClientSession()
    return session, AwaitedEmitter(service="checkout", session=session)

session, metrics = loop.run_until_complete(make())
child = os.fork()
if child == 0:
    try:
        loop.run_until_complete(metrics.close())
    except UsageError as error:
        say(error=str(error))
    os._exit(0)
os.waitpid(child, 0)
loop.run_until_complete(session.close())
"""


def test_a_session_of_ones_own_does_not_survive_a_fork() -> None:
    """It is the parent's; the error says what to do."""
    peers = Peers("plain")
    with peers.run(INJECTED) as sandbox:
        said = sandbox.said()
        sandbox.ended()
    peers.close()

    assert said["error"].endswith(
        "it belongs to the parent process; expected an emitter with a session made in this one"
    )
