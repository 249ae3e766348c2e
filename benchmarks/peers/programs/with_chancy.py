"""Chancy: the asyncio executor with a concurrency of 1,000 and eager polling, jobs kept until its
pruner takes them."""

import logging
from typing import Any

from chancy import Chancy, Queue, Worker, job
from protocol import METER, URL, each, main, paced, payload, timed, until_stopped

CONCURRENCY = 1000


@job(queue="default")
async def noop(**given: Any) -> None:
    METER.handled(given)


async def run(command: str, count: int) -> None:
    logging.disable(logging.WARNING)
    async with Chancy(URL) as chancy:

        async def store(given: dict[str, Any]) -> None:
            await chancy.push(noop.job.with_kwargs(**given))

        async def bulk() -> None:
            async for _ in chancy.push_many(
                [noop.job.with_kwargs(**payload(number)) for number in range(count)]
            ):
                pass

        match command:
            case "setup":
                await chancy.migrate()
                await chancy.declare(
                    Queue(
                        "default",
                        concurrency=CONCURRENCY,
                        executor=Chancy.Executor.Async,
                        polling_interval=1,
                        eager_polling=True,
                    )
                )
            case "one":
                await timed(each(count, store))
            case "bulk":
                await timed(bulk())
            case "paced":
                await paced(count, store)
            case "worker":
                async with Worker(chancy, register_signal_handlers=False):
                    await until_stopped()


main(run)
