"""oban-py: one queue with a limit of 100 in one process, jobs kept."""

import logging
from typing import Any

import psycopg
from oban import Oban, worker
from oban.schema import install_sql
from protocol import METER, URL, each, main, paced, payload, timed, until_stopped
from psycopg_pool import AsyncConnectionPool

LIMIT = 100


@worker(queue="default")
class Noop:
    async def process(self, job: Any) -> None:
        METER.handled(job.args)


async def run(command: str, count: int) -> None:
    logging.disable(logging.WARNING)
    if command == "setup":
        async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
            await connection.execute(install_sql())
        return
    async with AsyncConnectionPool(URL, min_size=2, max_size=10, open=False) as pool:
        queues: dict[str, Any] = {"default": LIMIT} if command == "worker" else {}
        async with Oban(pool=pool, queues=queues) as oban:

            async def store(job: dict[str, Any]) -> None:
                await oban.enqueue(Noop.new(job))

            match command:
                case "one":
                    await timed(each(count, store))
                case "bulk":
                    await timed(
                        oban.enqueue_many([Noop.new(payload(number)) for number in range(count)])
                    )
                case "paced":
                    await paced(count, store)
                case "worker":
                    await until_stopped()


main(run)
