"""Producers in processes of their own: `python -m tests.chaos.producer ORDER` enqueues until told
to stop, or so many jobs.

An id that is accepted is written down before the producer goes on. Whatever fails is tried again
under the same id.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from pgqueue import AsyncClient
from pgqueue.errors import QueueError
from pgqueue.settings import Settings
from tests.chaos.size import span


class Order(msgspec.Struct):
    """What one process is to do. `seconds` is the range from which each job's work is drawn,
    `patience` how long one statement may take, `rate` jobs a second."""

    url: str
    accepted: str
    prefix: str
    job_type: str = "chaos.work"
    count: int | None = None
    at_once: int = 4
    rate: float = 100.0
    seconds: tuple[float, float] = (0.0, 0.05)
    deadlines: float = 5.0
    payload: dict[str, Any] = {}
    delay: float = 0.0
    own_ids: bool = True
    """Otherwise the client makes them, a new one for each call."""
    pgbouncer: bool = False


class Book:
    """A file of whole lines: each is one write to its end."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


class Producer:
    def __init__(self, client: AsyncClient, order: Order) -> None:
        self.client = client
        self.order = order
        self.book = Book(order.accepted)
        self.stopping = asyncio.Event()
        self.figures = {"accepted": 0, "repeated": 0, "known": 0}

    async def run(self) -> None:
        numbers: Iterator[int] = (
            iter(range(self.order.count)) if self.order.count is not None else itertools.count()
        )
        async with asyncio.TaskGroup() as group:
            for _ in range(self.order.at_once):
                group.create_task(self._work(numbers))

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if self.stopping.is_set():
                return
            payload = self.order.payload | {
                "seconds": round(random.uniform(*self.order.seconds), 3)
            }
            await self._insist(f"{self.order.prefix}-{number}", payload)
            await span(random.uniform(0.5, 1.5) * self.order.at_once / self.order.rate)

    async def _insist(self, job_id: str, payload: dict[str, Any]) -> None:
        """One job, until it is accepted."""
        mine = job_id if self.order.own_ids else None
        while True:
            try:
                async with asyncio.timeout(3 * self.order.deadlines):
                    ticket = await self.client.enqueue(
                        self.order.job_type, payload, job_id=mine, delay=self.order.delay or None
                    )
            except (psycopg.Error, OSError, QueueError) as error:
                self.figures["repeated"] += 1
                print(f"{job_id}: {type(error).__name__}: {error}", file=sys.stderr)
                await span(random.uniform(0.05, 0.2))
                continue
            self.book.write(ticket.job_id)
            self.figures["accepted"] += 1
            self.figures["known"] += not ticket.created
            return


async def main(order: Order) -> None:
    settings = Settings(
        database_url=order.url,
        pool_size=max(2, order.at_once),
        pgbouncer=order.pgbouncer,
        statement_timeout=timedelta(seconds=order.deadlines),
    )
    async with AsyncClient.open(settings) as client:
        producer = Producer(client, order)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.stopping.set)
        print("ready", flush=True)
        await producer.run()
    print(msgspec.json.encode(producer.figures).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
