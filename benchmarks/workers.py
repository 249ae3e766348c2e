"""Worker processes, started beforehand and held back by a paused queue, so that what is measured
begins for all at once."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

from psycopg import AsyncConnection

from benchmarks.jobs import one
from benchmarks.processes import cpu_seconds
from benchmarks.server import environment

ROOT = Path(__file__).resolve().parent.parent

CONCURRENCY = 1000
"""Of the queue: two claims' worth, so that one is worked on while the next is fetched."""

FAST = {"PGQUEUE_MODULES": "benchmarks.tasks", "PGQUEUE_LOG_LEVEL": "warning"}
"""The settings that are recommended where jobs are short: high concurrency, and no two log lines
per job."""

NONE: Mapping[str, str] = {}


@dataclass
class Crew:
    """Some workers on one database."""

    url: str
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    looks: int = 0
    """Statements of ours while they worked, to be subtracted from what the server counted."""

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.processes)


@asynccontextmanager
async def crew(
    url: str,
    count: int,
    settings: Mapping[str, str] = NONE,
    *,
    concurrency: int = CONCURRENCY,
    asleep: bool = True,
) -> AsyncIterator[Crew]:
    """`count` worker processes that have registered (and sleep, for the doorbell). They are told to
    stop at the end, and ended if they do not."""
    workers = Crew(url)
    try:
        for _ in range(count):
            workers.processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "pgqueue.worker", "--queue", f"default:{concurrency}",
                    cwd=ROOT, env=environment(url, FAST | dict(settings)),
                    stdin=asyncio.subprocess.DEVNULL,
                )
            )  # fmt: skip
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            text = "SELECT count(*) = %s FROM job_workers WHERE asleep OR NOT %s"
            await _until(connection, text, [count, asleep], 60, workers)
        yield workers
    finally:
        await _end(workers)


async def _end(workers: Crew) -> None:
    for process in workers.processes:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    for process in workers.processes:
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until(
    connection: AsyncConnection[Any],
    text: LiteralString,
    parameters: Any,
    seconds: float,
    workers: Crew,
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        workers.looks += 1
        if await one(connection, text, parameters):
            return
        if any(process.returncode is not None for process in workers.processes):
            raise RuntimeError("a worker ended by itself; what it said stands above")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {text}")
        await asyncio.sleep(0.01)


async def finished(connection: AsyncConnection[Any], deadlines: float) -> None:
    """Until no job is left that has not ended."""
    text = "SELECT NOT EXISTS (SELECT FROM job_logs WHERE processed_at IS NULL)"
    await _until(connection, text, None, deadlines, Crew(""))


async def hold(connection: AsyncConnection[Any]) -> None:
    """Pauses the queue, before workers start."""
    await connection.execute("SELECT pause_queue('default', true)")


async def drain(
    connection: AsyncConnection[Any],
    workers: Crew,
    last: str,
    *,
    whole: bool = True,
    deadlines: float = 600,
) -> float:
    """Lets the workers loose and returns when nothing is left: seconds as seen from outside. `last`
    is the job that comes last; asking for that one costs the server nothing. With `whole` off that
    is all that is waited for."""
    began = time.monotonic()
    await connection.execute("SELECT pause_queue('default', false)")
    await connection.execute("SELECT ring_doorbell(ARRAY['default'], 1000)")
    workers.looks += 2
    text = "SELECT processed_at IS NOT NULL FROM job_logs WHERE job_id = %s"
    await _until(connection, text, [last], deadlines, workers)
    if whole:
        await _until(
            connection,
            "SELECT NOT EXISTS (SELECT FROM job_logs WHERE processed_at IS NULL)",
            None,
            deadlines,
            workers,
        )
    return time.monotonic() - began
