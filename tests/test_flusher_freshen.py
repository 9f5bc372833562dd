from __future__ import annotations

import threading

from emitter import loop as loops
from emitter.outcomes import Verdict, Withheld
from emitter.transmit.delivery import Delivery
from tests.flushing import Bench, next_totals
from tests.scripted_peer import PATIENCE, ScriptedPeer


def freshen(bench: Bench) -> None:
    loops.run(bench.flusher.freshen())


def wait_for_the_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "emitter-ahead":
            thread.join(PATIENCE)


def close_behind_its_back(bench: Bench, peer: ScriptedPeer, *, answered: bool = True) -> None:
    """Open a connection with one report on it, and close its other end."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    if answered:
        other_end.answer()
    other_end.close()
    bench.wait_for_input()


def test_a_connection_that_was_closed_meanwhile_is_replaced_before_the_flush(bench, peer):
    """While a handler works: the flush finds the new one open."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    other_end = peer.accept()
    wait_for_the_thread()
    flush = bench.record_and_flush()

    assert flush.delivery is Delivery.TRANSMITTED
    assert next_totals(other_end)["orders"] == 2
    assert bench.stats.connections_opened == 2


def test_answers_that_are_read_before_a_flush_are_told_by_it(bench, peer):
    """Each is told once, whoever has read it."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    freshen(bench)

    assert bench.record_and_flush().verdicts == (Verdict(1, 200),)
    assert bench.record_and_flush().verdicts == ()


def test_a_sound_connection_stays(bench, peer):
    """Nothing is opened, and nobody is asked."""
    bench.record_and_flush()
    peer.accept()
    freshen(bench)
    freshen(bench)

    assert bench.flusher._link.opening is None
    assert not peer.has_another_connection()


def test_a_connection_that_waited_too_long_is_replaced_as_well(bench, peer, clock):
    """As in a sandbox that was frozen for longer than load balancers keep a connection."""
    bench.record_and_flush()
    peer.accept()
    clock.now += 60
    freshen(bench)

    peer.accept()


def test_one_that_dies_again_before_the_flush_is_noticed(bench, peer):
    """The handler worked for long, and the peer gave up on it: the report goes out on a third."""
    close_behind_its_back(bench, peer)
    freshen(bench)
    peer.accept().close()
    wait_for_the_thread()
    bench.flusher._link.come_back()
    if bench.flusher._link.connection.ended is None:  # otherwise it was so quick that the thread has seen it
        bench.wait_for_input()
    bench.record_and_flush()

    assert next_totals(peer.accept())["orders"] == 2


def test_while_backing_off_nobody_is_asked(bench, peer, clock):
    """Somebody who was left alone for a reason is left alone here too."""
    close_behind_its_back(bench, peer, answered=False)
    bench.flusher._network.fail()
    freshen(bench)

    assert bench.flusher._link.opening is None
    assert not peer.has_another_connection()
    clock.now += 3
    freshen(bench)
    peer.accept()


def test_what_an_earlier_budget_cut_short_goes_on_behind_the_handler(bench):
    """Also while backing off, as a flush would; and its connection is used at once."""
    bench.flusher._link.opening = bench.flusher._link._new()
    bench.flusher._network.fail()
    freshen(bench)
    wait_for_the_thread()

    assert bench.record_and_flush().delivery is Delivery.TRANSMITTED


def test_a_disabled_emitter_opens_nothing(peer, clock):
    """It does nothing at all."""
    bench = Bench(peer, clock, environment={"EMITTER_DISABLED": "true"})
    freshen(bench)

    assert not peer.has_another_connection()


def test_what_failed_behind_a_handler_is_told_while_backing_off(bench, peer):
    """The reason, and not merely that it was given up."""
    close_behind_its_back(bench, peer, answered=False)
    peer.close()
    freshen(bench)
    wait_for_the_thread()
    bench.flusher._network.fail()
    bench.orders.add()
    flush = bench.flush()

    assert flush.withheld is Withheld.BACKING_OFF
    assert "refused" in str(bench.stats.last_error)


def test_a_receiver_that_asked_to_be_left_alone_is_not_connected_to(bench, peer, clock):
    """`Retry-After` is meant for connections too: a fleet that comes at each invocation is what it cannot bear."""
    bench.record_and_flush()
    other_end = peer.accept()
    other_end.read_request()
    other_end.answer(503, "Retry-After: 60", "Connection: close")
    bench.wait_for_input()
    freshen(bench)

    assert bench.flusher._link.connection is None
    assert bench.flusher._link.opening is None
    assert not peer.has_another_connection()
    clock.now += 61
    freshen(bench)
    peer.accept()


async def test_while_a_flush_is_at_work_nothing_is_freshened(bench):
    """Two would open two connections, or take one out of each other's hands."""
    found = []

    async def flush():
        await bench.flusher.freshen()
        found.append(bench.flusher._link.opening)

    await bench.flusher._shared.run(flush, lambda _: False, timeout=0.0)

    assert found == [None]
