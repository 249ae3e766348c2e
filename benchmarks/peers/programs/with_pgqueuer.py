"""PgQueuer, on asyncpg or (BENCH_DRIVER=psycopg) psycopg: five managers in one process as its own
benchmark has, batches of 100."""

import asyncio
import json
import logging
import os
from typing import Any

from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from protocol import METER, URL, each, main, paced, payload, timed, until_stopped

MANAGERS = 5
BATCH = 100


async def driver() -> Any:
    if os.environ.get("BENCH_DRIVER") == "psycopg":
        import psycopg
        from pgqueuer.db import PsycopgDriver

        return PsycopgDriver(await psycopg.AsyncConnection.connect(URL, autocommit=True))
    import asyncpg
    from pgqueuer.db import AsyncpgDriver

    return AsyncpgDriver(await asyncpg.connect(URL))


async def work() -> None:
    managers = []
    for _ in range(MANAGERS):
        manager = PgQueuer(await driver())

        @manager.entrypoint("noop")
        async def noop(job: Job) -> None:
            METER.handled(json.loads(job.payload or b"{}"))

        managers.append(manager)
    running = [asyncio.create_task(manager.run(batch_size=BATCH)) for manager in managers]
    await until_stopped()
    for manager in managers:
        manager.shutdown.set()
    await asyncio.wait(running, timeout=10)


async def run(command: str, count: int) -> None:
    logging.disable(logging.WARNING)
    if command == "worker":
        return await work()
    queries = Queries(await driver())

    async def store(job: dict[str, Any]) -> None:
        await queries.enqueue("noop", json.dumps(job).encode())

    match command:
        case "setup":
            await queries.install()
        case "one":
            await timed(each(count, store))
        case "bulk":
            jobs: list[bytes | None] = [
                json.dumps(payload(number)).encode() for number in range(count)
            ]
            await timed(queries.enqueue(["noop"] * count, jobs, [0] * count))
        case "paced":
            await paced(count, store)


main(run)
