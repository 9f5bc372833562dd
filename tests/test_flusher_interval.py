from __future__ import annotations

from contextlib import closing

from emitter import loop as loops
from emitter.outcomes import Withheld
from emitter.transmit.delivery import Delivery
from tests.flushing import next_totals
from tests.scripted_peer import ScriptedPeer
from tests.test_flusher_freshen import close_behind_its_back


def test_nothing_is_opened_for_a_flush_that_would_be_withheld(bench, peer, clock):
    """Where an interval is asked for, to spare the receiver."""
    close_behind_its_back(bench, peer)
    loops.run(bench.flusher.freshen(every=60.0))
    assert bench.flusher._link.opening is None
    clock.now += 60
    loops.run(bench.flusher.freshen(every=60.0))

    peer.accept()


def test_an_interval_does_not_hold_up_a_report_that_failed(bench, peer, clock):
    """It trades freshness for requests, and a request that never went out was none."""
    port = peer.port
    peer.close()
    bench.record_and_flush()
    clock.now += 3
    with closing(ScriptedPeer(port=port)) as again:
        assert bench.flush(every=60.0).delivery is Delivery.TRANSMITTED
        again.accept()


def test_a_flush_that_comes_too_early_is_withheld(bench, peer, clock):
    """And counted with its reason; its totals go out with the one that comes in time."""
    bench.record_and_flush()
    other_end = peer.accept()
    clock.now += 4.9
    bench.orders.add()
    early = bench.flush(every=5.0)
    clock.now += 0.1
    late = bench.flush(every=5.0)

    assert early.withheld is Withheld.INTERVAL
    assert late.withheld is None
    assert next_totals(other_end)["orders"] == 1
    second = next_totals(other_end)
    assert (second["orders"], second["emitter.withheld"]) == (2, 1)


def test_the_last_flush_waits_for_no_interval(bench, peer):
    """Nor does one of which nobody has said so."""
    bench.record_and_flush()
    bench.orders.add()
    bench.flush(every=60.0)
    bench.orders.add()

    assert bench.flush().withheld is None
    assert bench.stats.withheld == {Withheld.INTERVAL: 1}


def test_an_interval_is_measured_by_the_clock_that_says_more(bench, peer, clock):
    """A sandbox that was frozen for an hour reports at once, though its own clock stood still."""
    bench.wall = clock.now
    bench.record_and_flush()
    bench.wall += 3_600
    bench.orders.add()

    assert bench.flush(every=5.0).withheld is None
