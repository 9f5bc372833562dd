r"""An asyncio service that runs on: takes orders over TCP, works through them, reports at intervals, ends in order.

    EMITTER_ENDPOINT=http://localhost:4318/v1/metrics python examples/asyncio_service.py 9000
    printf 'web 3\napp 1\n' | nc -N localhost 9000

Each line is a channel and how many items are ordered, and is answered with `ok`. At SIGTERM, as containers are ended,
and at Ctrl-C it takes no more orders, works through those that it has, and makes a last report. Through a proxy, or to
know that each report was accepted, use `emitter.awaited.AwaitedEmitter` instead of `Emitter` and change nothing else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from emitter import Emitter

metrics = Emitter(service="orders")  # the endpoint comes from EMITTER_ENDPOINT
orders = metrics.counter("orders", unit="{order}", description="Orders that were worked through.")
items = metrics.counter("items", unit="{item}", description="What was ordered.")
refused = metrics.counter("orders.refused", unit="{order}", description="Lines that were no order.")
waiting = metrics.up_down_counter("orders.waiting", unit="{order}", description="Orders that nobody works on yet.")
duration = metrics.histogram("order.duration", unit="s", description="Time to work on one order.")

SECONDS = float(os.environ.get("REPORT_SECONDS", "10"))
"""Between two reports. What is recorded costs nothing until then, however much it is."""


class Service:
    """A queue, what fills it, and what empties it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue(maxsize=1_000)
        self._clients: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def run(self, port: int) -> None:
        """Serve until a signal comes."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with metrics.every(SECONDS):  # its end comes last, so the last report has everything
            worker = asyncio.create_task(self._work())
            server = await asyncio.start_server(self._take, "127.0.0.1", port)
            print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
            await ended.wait()
            server.close()
            for client in self._clients.values():
                client.close()
            await asyncio.gather(*filter(None, self._clients))
            await self._queue.join()
            worker.cancel()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._clients[task] = writer
        try:
            async for line in reader:
                channel, _, amount = line.decode("utf-8", "replace").strip().partition(" ")
                if amount.isdecimal():
                    waiting.add(1)
                    await self._queue.put((channel, int(amount)))
                else:
                    refused.add(1)
                writer.write(b"ok\n" if amount.isdecimal() else b"expected a channel and a number\n")
        except (ConnectionError, ValueError):
            refused.add(1)  # it went away, or its line has no end
        finally:
            del self._clients[task]
            writer.close()

    async def _work(self) -> None:
        while True:
            channel, amount = await self._queue.get()
            waiting.add(-1)
            with duration.time(channel=channel):
                await asyncio.sleep(0)  # stands in for what a shop awaits
            orders.add(1, channel=channel)
            items.add(amount, channel=channel)
            self._queue.task_done()


if __name__ == "__main__":
    asyncio.run(Service().run(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
