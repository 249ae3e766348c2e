"""awa: its queue storage and Rust engine, handlers in Python, 1,000 workers in one process."""

import logging
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient
from protocol import METER, URL, each, main, paced, payload, timed, until_stopped

WORKERS = 1000


@dataclass
class Noop:
    text: str
    n: int | None = None
    watch: int | None = None


async def run(command: str, count: int) -> None:
    logging.disable(logging.WARNING)
    client = AsyncClient(URL)

    async def store(job: dict[str, Any]) -> None:
        await client.insert(Noop(**job), queue="bench")

    match command:
        case "setup":
            await client.migrate()
            await client.install_queue_storage()
        case "one":
            await timed(each(count, store))
        case "bulk":
            await timed(
                client.enqueue_many_copy(
                    [Noop(**payload(number)) for number in range(count)], queue="bench"
                )
            )
        case "paced":
            await paced(count, store)
        case "worker":

            @client.task(Noop, queue="bench")
            async def noop(job: Any) -> None:
                METER.handled({} if job.args.watch is None else {"watch": job.args.watch})

            await client.start([("bench", WORKERS)])
            await until_stopped()
            await client.shutdown()
    await client.close()


main(run)
