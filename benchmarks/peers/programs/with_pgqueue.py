"""pgqueue itself, by the same rules as its peers: --queue default:1000, PGQUEUE_LOG_LEVEL=warning,
rows kept."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from protocol import METER, URL, each, main, paced, payload, say, timed

from pgqueue import AsyncClient, Job, NewJob, task
from pgqueue.client import MOST_AT_ONCE
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import migrate
from pgqueue.settings import Settings


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[None]:
    telling = asyncio.create_task(METER.tell())
    say("ready", time.monotonic_ns())
    yield
    telling.cancel()


@task("noop")
async def noop(job: Job[Any]) -> None:
    METER.handled(job.payload)


async def setup() -> None:
    from psycopg import AsyncConnection

    await migrate(URL)
    async with await AsyncConnection.connect(URL, autocommit=True) as connection:
        await publish(connection, declarations([noop], Settings(database_url=URL)))


async def run(command: str, count: int) -> None:
    if command == "setup":
        return await setup()
    async with AsyncClient.open(URL) as client:

        async def store(job: dict[str, Any]) -> None:
            await client.enqueue(noop, job)

        async def bulk() -> None:
            jobs = [NewJob(noop, payload(number)) for number in range(count)]
            for start in range(0, count, MOST_AT_ONCE):
                await client.enqueue_many(jobs[start : start + MOST_AT_ONCE])

        match command:
            case "one":
                await timed(each(count, store))
            case "bulk":
                await timed(bulk())
            case "paced":
                await paced(count, store)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        here = os.path.dirname(os.path.abspath(__file__))
        settings = {
            "DATABASE_URL": URL,
            "PGQUEUE_MODULES": "with_pgqueue",
            "PGQUEUE_LOG_LEVEL": "warning",
            "PYTHONPATH": here,
        }
        command = [sys.executable, "-m", "pgqueue.worker", "--queue", "default:1000"]
        os.execve(command[0], command, os.environ | settings)
    main(run)
