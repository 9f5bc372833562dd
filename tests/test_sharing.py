from __future__ import annotations

import asyncio

import pytest

from emitter.sharing import Shared


class Work:
    """Counts how often it runs; each run waits to be let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        await self.gate.wait()
        return number


async def test_alone_it_is_just_done():
    """Each call in turn runs the work anew."""
    shared, work = Shared(), Work()
    work.gate.set()

    assert [await shared.run(work, lambda _: True, timeout=1) for _ in range(3)] == [1, 2, 3]


async def test_those_who_come_during_a_run_share_the_next():
    """The run under way may have begun before they recorded, so it is not for them."""
    shared, work = Shared(), Work()
    first = asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5)) for _ in range(5)]
    await asyncio.sleep(0)
    assert work.runs == 1
    work.gate.set()

    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 5


async def test_a_result_that_does_not_suffice_is_not_shared():
    """Then it falls to the caller to do it, still one at a time."""
    shared, work = Shared(), Work()
    first = asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(shared.run(work, lambda _: False, timeout=5)) for _ in range(3)]
    await asyncio.sleep(0)
    work.gate.set()
    await first

    assert sorted(await asyncio.gather(*others)) == [2, 3, 4]


async def test_waiting_for_others_is_bounded():
    """Whoever runs out of time gets nothing, and nobody else is held up by that."""
    shared, work = Shared(), Work()
    first = asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5))
    await asyncio.sleep(0)

    assert await shared.run(work, lambda _: True, timeout=0.01) is None
    work.gate.set()
    assert await first == 1
    assert await shared.run(work, lambda _: True, timeout=5) == 2


@pytest.mark.parametrize("who", ["leader", "waiter"])
async def test_a_cancelled_caller_holds_nobody_up(who):
    """The next one waiting takes over."""
    shared, work = Shared(), Work()
    tasks = [asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5)) for _ in range(3)]
    await asyncio.sleep(0)
    cancelled = tasks.pop(0 if who == "leader" else 1)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    work.gate.set()

    assert set(await asyncio.gather(*tasks)) <= {1, 2}
    assert cancelled.cancelled()


async def test_a_failing_run_is_for_its_caller_alone():
    """The others try for themselves."""
    shared = Shared()
    gate = asyncio.Event()

    async def fail() -> int:
        await gate.wait()
        raise LookupError

    async def succeed() -> int:
        return 42

    failing = asyncio.ensure_future(shared.run(fail, lambda _: True, timeout=5))
    await asyncio.sleep(0)
    other = asyncio.ensure_future(shared.run(succeed, lambda _: True, timeout=5))
    await asyncio.sleep(0)
    gate.set()

    with pytest.raises(LookupError):
        await failing
    assert await other == 42


def test_a_waiter_whose_loop_is_gone_is_no_trouble():
    """It cannot be woken, and does not have to be."""
    shared: Shared[int] = Shared()
    gate_holder = {}

    async def leave_a_waiter_behind() -> None:
        work = Work()
        gate_holder["work"] = work
        leader = asyncio.ensure_future(shared.run(work, lambda _: True, timeout=5))
        await asyncio.sleep(0)
        closed = asyncio.new_event_loop()
        closed.close()
        shared._waiting.append((closed, asyncio.Event()))
        work.gate.set()
        assert await leader == 1

    asyncio.run(leave_a_waiter_behind())

    assert gate_holder["work"].runs == 1
