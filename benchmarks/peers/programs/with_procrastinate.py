"""Procrastinate: concurrency 20 in one process, jobs kept, LISTEN/NOTIFY on."""

import asyncio
import logging
import time
from typing import Any

import procrastinate
from protocol import METER, URL, each, main, paced, payload, say, timed

logging.disable(logging.WARNING)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, max_size=25))


@app.task(name="noop")
async def noop(**job: Any) -> None:
    METER.handled(job)


async def store(job: dict[str, Any]) -> None:
    await noop.defer_async(**job)


async def run(command: str, count: int) -> None:
    async with app.open_async():
        match command:
            case "setup":
                await app.schema_manager.apply_schema_async()
            case "one":
                await timed(each(count, store))
            case "bulk":
                await timed(noop.batch_defer_async(*[payload(number) for number in range(count)]))
            case "paced":
                await paced(count, store)
            case "worker":
                telling = asyncio.create_task(METER.tell())
                say("ready", time.monotonic_ns())
                await app.run_worker_async(concurrency=20, delete_jobs="never", listen_notify=True)
                telling.cancel()


main(run)
