"""What a peer's program and the benchmark say to each other. Runs in the peer's own environment:
standard library only.

A program is called as `PROGRAM COMMAND [COUNT]`, with the store's address in BENCH_URL. It prints
lines of a word and numbers: `ready NS`; `first NS` when the first handler starts; `done COUNT` as
jobs are handled; `start NUMBER NS` and `sent NUMBER NS` for jobs that are watched one by one;
`seconds S` for what it was asked to time. NS are of the monotonic clock of the machine.

Commands: setup, worker (until SIGTERM), one COUNT (stores that many, each awaited), bulk COUNT,
paced COUNT (20 ms apart).
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

URL = os.environ.get("BENCH_URL", "")
APART = 0.02
TICK = 0.01


def say(*words: Any) -> None:
    print(*words, flush=True)


def payload(number: int) -> dict[str, Any]:
    """200 bytes of JSON."""
    return {"n": number, "text": "x" * 176}


def watched(number: int) -> dict[str, Any]:
    return {"watch": number, "text": "x" * 176}


class Meter:
    """Counts what handlers do; tells it every few milliseconds."""

    def __init__(self) -> None:
        self.count = 0
        self.told = 0

    def handled(self, job: dict[str, Any]) -> None:
        """To be called as the whole of a handler."""
        if "watch" in job:
            say("start", job["watch"], time.monotonic_ns())
        if not self.count:
            say("first", time.monotonic_ns())
        self.count += 1

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            if self.count != self.told:
                self.told = self.count
                say("done", self.told)


METER = Meter()


async def until_stopped() -> None:
    """For workers whose library does not wait for a signal itself: tells what was handled until
    SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    telling = asyncio.create_task(METER.tell())
    say("ready", time.monotonic_ns())
    await stopped.wait()
    telling.cancel()


async def timed(work: Awaitable[Any]) -> None:
    began = time.perf_counter()
    await work
    say("seconds", time.perf_counter() - began)


async def each(count: int, store: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
    for number in range(count):
        await store(payload(number))


async def paced(count: int, store: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
    """The first one is for warming up, and not watched."""
    await store(payload(0))
    await asyncio.sleep(0.5)
    origin = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, origin + number * APART - time.monotonic()))
        say("sent", number, time.monotonic_ns())
        await store(watched(number))


def main(run: Callable[[str, int], Awaitable[None]]) -> None:
    command, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(command, count))  # type: ignore[arg-type]  # a coroutine function is what is given
    else:
        uvloop.run(run(command, count))
