from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from emitter import loop as loops

FORK = """
import asyncio, os, sys, time
from emitter import loop as loops

async def wait():
    await loops.loop_needed()
    # Another thread wakes the loop, once it waits: through the pipe that is registered in the epoll set.
    began = time.monotonic()
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.1), 5)
    if time.monotonic() - began > 4:
        sys.exit("the loop was not woken")
    return asyncio.get_running_loop()

before = loops.run(wait())
if os.fork() == 0:
    if loops.run(wait()) is not before:
        print("child has its own", flush=True)
    os._exit(0)
os.wait()
if os.fork() == 0:
    sys.exit()  # an ordinary end, in which everything is finalised, the copy of the parent's loop included
os.wait()
if loops.run(wait()) is before:
    print("parent still wakes up")
"""


async def _says(what: str) -> str:
    return what


async def _waits(what: str) -> tuple[str, asyncio.AbstractEventLoop]:
    await loops.loop_needed()
    await asyncio.sleep(0)
    return what, asyncio.get_running_loop()


def test_what_never_waits_needs_no_loop():
    """The coroutine is started, and ends, in synchronous code."""

    async def look() -> bool:
        return asyncio._get_running_loop() is None

    assert loops.run(_says("hello")) == "hello"
    assert loops.run(look()) is True


def test_what_waits_goes_on_in_the_loop_of_the_process():
    """The same one each time, and it can be waited on again and again."""
    what, loop = loops.run(_waits("hello"))
    _, again = loops.run(_waits("again"))

    assert what == "hello"
    assert loop is again
    assert loop is loops.current()
    assert loops.outlives_its_caller(loop)


def test_exceptions_come_out_as_they_are():
    """With a loop and without."""

    async def fail(*, wait: bool) -> None:
        if wait:
            await loops.loop_needed()
        raise LookupError("lost")

    for wait in (False, True):
        with pytest.raises(LookupError, match="lost"):
            loops.run(fail(wait=wait))
    assert loops.run(_says("still works")) == "still works"


async def test_inside_a_loop_nothing_gives_way():
    """`loop_needed` only matters where there is none."""
    running = asyncio.get_running_loop()

    assert (await _waits("hello"))[1] is running
    assert loops.current() is running
    assert not loops.outlives_its_caller(running)


async def test_blocking_a_running_loop_is_refused():
    """With the name of what to await instead."""
    with pytest.raises(RuntimeError, match=r"expected `await flush\(\)`"):
        loops.refuse_inside_loop("flush()")


def test_a_second_thread_gets_a_passing_loop():
    """While the first one is using the loop of the process, running or not."""
    seen = {}

    async def occupy() -> None:
        await loops.loop_needed()
        thread = threading.Thread(target=lambda: seen.update(loop=loops.run(_waits("meanwhile"))[1]))
        thread.start()
        await asyncio.to_thread(thread.join)

    loops.run(occupy())

    assert seen["loop"] is not loops.current()
    assert seen["loop"].is_closed()


def test_an_interrupt_leaves_no_half_run_coroutine_behind():
    """It is cancelled and awaited, so that what it holds is given back; then the interrupt goes on."""
    steps = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def hold() -> None:
        await loops.loop_needed()
        asyncio.get_running_loop().call_soon(interrupt)  # comes through the loop, as Ctrl-C does
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("given back")

    with pytest.raises(KeyboardInterrupt):
        loops.run(hold())

    assert steps == ["given back"]


@pytest.mark.parametrize("end", [ValueError, asyncio.CancelledError])
def test_an_interrupt_at_the_end_of_a_run_does_not_end_the_next_one(end):
    """The loop had been told to stop, and would as soon as it ran again."""

    def interrupt():
        raise KeyboardInterrupt

    async def raises():
        await loops.loop_needed()
        asyncio.get_running_loop().call_soon(interrupt)  # in the round in which the end of the run is due
        raise end

    async def waits():
        await loops.loop_needed()
        await asyncio.sleep(0.001)
        return "fine"

    with pytest.raises(KeyboardInterrupt):
        loops.run(raises())

    assert loops.run(waits()) == "fine"


def test_a_forked_child_has_a_loop_of_its_own():
    """Its parent's must not be touched: they share one epoll set. Not even when the child ends and all is closed."""
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30, check=False)

    assert (run.returncode, run.stdout) == (0, "child has its own\nparent still wakes up\n"), run.stderr
