"""A producer as a process of its own: `python -m benchmarks.producers WAY JOBS`. Prints one line of
JSON: seconds and CPU seconds.

Each way of the engine has its bare counterpart: psycopg with an INSERT of the same columns, or
COPY.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from benchmarks.jobs import PAYLOAD
from benchmarks.tasks import noop
from pgqueue import AsyncClient, NewJob
from pgqueue.client import MOST_AT_ONCE

AT_ONCE = 20
INSERT = """
INSERT INTO job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority,
  max_attempts)
VALUES (%s, 'bench.noop', %s, %s, %s, 'default', 5, 5)
"""
COPY = (
    "COPY job_logs (job_id, job_type, user_id, payload, payload_digest, queue, priority, "
    "max_attempts) FROM STDIN"
)
URL = os.environ.get("DATABASE_URL", "")

Timed = Callable[[int], Awaitable[float]]


def values(number: int) -> tuple[str, str, Jsonb, bytes]:
    job_id = f"job-{number:09}"
    return job_id, f"user-{number % 2000}", Jsonb(PAYLOAD), hashlib.sha256(job_id.encode()).digest()


async def client_enqueues(jobs: int, at_once: int = 1) -> float:
    numbers = iter(range(jobs))

    async def produce() -> None:
        for number in numbers:
            await client.enqueue(
                noop, PAYLOAD, job_id=f"job-{number:09}", user_id=f"user-{number % 2000}"
            )

    async with AsyncClient.open(URL) as client:
        await client.enqueue(noop, PAYLOAD, job_id="warm")
        began = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(at_once)))
        return time.perf_counter() - began


async def psycopg_inserts(jobs: int, at_once: int = 1) -> float:
    numbers = iter(range(jobs))

    async def produce(connection: AsyncConnection) -> None:
        for number in numbers:
            await connection.execute(INSERT, values(number), prepare=True)

    connections = [await AsyncConnection.connect(URL, autocommit=True) for _ in range(at_once)]
    for number, connection in enumerate(connections):
        await connection.execute(INSERT, values(-1 - number), prepare=True)
    began = time.perf_counter()
    await asyncio.gather(*(produce(connection) for connection in connections))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return seconds


async def psycopg_inserts_synchronously(jobs: int) -> float:
    """Without an event loop, for comparison: what an asynchronous client pays for being one."""
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(INSERT, values(-1), prepare=True)
        began = time.perf_counter()
        for number in range(jobs):
            connection.execute(INSERT, values(number), prepare=True)
        return time.perf_counter() - began


async def client_in_bulk(jobs: int) -> float:
    given = [
        NewJob(noop, PAYLOAD, job_id=f"job-{number:09}", user_id=f"user-{number % 2000}")
        for number in range(jobs)
    ]
    async with AsyncClient.open(URL) as client:
        await client.enqueue_many([NewJob(noop, PAYLOAD, job_id="warm")])
        began = time.perf_counter()
        for start in range(0, jobs, MOST_AT_ONCE):
            await client.enqueue_many(given[start : start + MOST_AT_ONCE])
        return time.perf_counter() - began


async def psycopg_copies(jobs: int) -> float:
    rows = [(*values(number), "default", 5, 5) for number in range(jobs)]
    async with (
        await AsyncConnection.connect(URL, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        began = time.perf_counter()
        for start in range(0, jobs, MOST_AT_ONCE):
            async with cursor.copy(COPY) as copy:
                for job_id, user_id, payload, digest, *rest in rows[start : start + MOST_AT_ONCE]:
                    await copy.write_row((job_id, "bench.noop", user_id, payload, digest, *rest))
        return time.perf_counter() - began


WAYS: dict[str, Timed] = {
    "client-one": client_enqueues,
    "psycopg-one": psycopg_inserts,
    "psycopg-one-sync": psycopg_inserts_synchronously,
    "client-20": lambda jobs: client_enqueues(jobs, AT_ONCE),
    "psycopg-20": lambda jobs: psycopg_inserts(jobs, AT_ONCE),
    "client-bulk": client_in_bulk,
    "copy-bulk": psycopg_copies,
}


async def main() -> None:
    way, jobs = sys.argv[1], int(sys.argv[2])
    cpu = time.process_time()
    seconds = await WAYS[way](jobs)
    print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
