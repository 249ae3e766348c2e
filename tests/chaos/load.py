"""Producers at work beside a test, and what they report."""

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pgqueue import AsyncClient, NewJob
from pgqueue.verbs import MOST_AT_ONCE
from tests.chaos.producer import Book, Order
from tests.chaos.site import Site
from tests.support.processes import ROOT, env

NUMBERS = itertools.count(1)


class Load:
    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self.processes = processes
        self.figures: Counter[str] = Counter()

    async def stop(self, deadlines: float = 60) -> None:
        """No new jobs; what was begun is insisted on until it is accepted."""
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        await self.end(deadlines)

    async def end(self, deadlines: float = 60) -> None:
        """Until each has produced what it was to produce."""
        async with asyncio.timeout(deadlines):
            for process in self.processes:
                assert process.stdout is not None
                told = (await process.stdout.read()).decode().splitlines()
                assert await process.wait() == 0
                self.figures.update(msgspec.json.decode(told[-1], type=dict[str, int]))


@asynccontextmanager
async def producing(
    site: Site,
    processes: int = 2,
    *,
    address: str | None = None,
    environment: Mapping[str, str] = {},
    **order: Any,
) -> AsyncIterator[Load]:
    """So many producer processes, ready when the block begins, killed at its end if they still
    run."""
    started = []
    try:
        for _ in range(processes):
            number = next(NUMBERS)
            login = site.login("pgqueue_producer", address)
            what = Order(
                login.url, str(site.accepted / f"producer-{number}"), f"p{number}", **order
            )
            started.append(
                await start("tests.chaos.producer", site, f"producer-{number}", what, environment)
            )
        for process in started:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield Load(started)
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def enqueue(site: Site, client: AsyncClient, jobs: Sequence[NewJob]) -> None:
    """From the test itself, as many in one commit as may be; they are in the books then."""
    for first in range(0, len(jobs), MOST_AT_ONCE):
        tickets = await client.enqueue_many(jobs[first : first + MOST_AT_ONCE])
        Book(site.accepted / "test").write("\n".join(ticket.job_id for ticket in tickets))


async def start(
    module: str, site: Site, name: str, order: Any, environment: Mapping[str, str] = {}
) -> asyncio.subprocess.Process:
    """`python -m MODULE ORDER`, with its standard output to read from and the rest in a log."""
    command = [sys.executable, "-m", module, msgspec.json.encode(order).decode()]
    with (site.folder / f"{name}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=env("", site.effects, environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
