"""What tests of the engine share: publishing tasks, a claim and an ack without a worker, waiting
for a state."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from pgqueue import testing
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.processes import entry
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.settings import Settings
from pgqueue.task import Task
from pgqueue.worker.claim_rows import answer_from
from pgqueue.worker.lanes import LAST_ID, START
from pgqueue.worker.worker import Worker
from tests.support.logins import url_of

LEASE = timedelta(seconds=30)


async def published(
    connection: AsyncConnection[Any], settings: Settings, *tasks: Task[Any]
) -> None:
    await publish(connection, declarations(tasks, settings))


async def until(
    true: Callable[[], Awaitable[bool] | bool],
    seconds: float = 20.0,
    what: str = "what the test waits for",
) -> None:
    """Waits for a state; never for a time."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                result = true()
                if result if isinstance(result, bool) else await result:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about in {seconds} s") from None


async def a_turn() -> None:
    """Lets whatever is ready on the event loop run, once."""
    await asyncio.sleep(0)


def for_worker(settings: Settings) -> Settings:
    """The same, with a worker's rights in the database."""
    return settings.with_(
        database_url=url_of("queue_worker", settings.database_url),
        direct_url=settings.direct_url and url_of("queue_worker", settings.direct_url),
    )


@asynccontextmanager
async def working(
    settings: Settings, *tasks: Task[Any], lifespan: Any = None
) -> AsyncIterator[Worker]:
    """`pgqueue.testing.working`, with a worker's rights."""
    async with testing.working(for_worker(settings), *tasks, lifespan=lifespan) as worker:
        yield worker


@asynccontextmanager
async def link(settings: Settings, name: str = "test") -> AsyncIterator[WorkerConnection]:
    """One of a worker's connections, to run its statements by hand."""
    mine = for_worker(settings)
    one = WorkerConnection(mine.conninfo, mine, name=name)
    try:
        yield one
    finally:
        await one.close()


async def claim(
    one: WorkerConnection,
    *,
    worker: str = "w-1",
    most: int = 10,
    queue: str = "default",
    lease: timedelta = LEASE,
    place: Any = START,
    aside: Sequence[str] = (),
) -> list[Any]:
    """The jobs of claim_jobs.sql: (id, lease, lane, job_id, job_type, user_id, attempt, ...), in
    order."""
    lanes = list(range(10))
    rows = await one.run(
        "claim_jobs",
        {
            "queues": [queue],
            "free": [most],
            "lane_rooms": [1] * 10,
            "lane_priorities": lanes,
            "lane_run_afters": [place[0]] * 10,
            "lane_ids": [place[1]] * 10,
            "lease": lease,
            "worker": worker,
            "aside": list(aside),
        },
    )
    return answer_from(rows).jobs


async def sweep(
    one: WorkerConnection,
    *,
    worker: str = "w-2",
    free: int = 10,
    queue: str = "default",
    types: tuple[str, ...] = ("test.job",),
    rescue: bool = True,
    lease: timedelta = LEASE,
    aside: Sequence[str] = (),
    patient: bool = False,
    expected: datetime | None = None,
    ahead: timedelta = timedelta(),
) -> dict[str, list[str]]:
    """One whole sweep by hand: what was done -> job ids, in order."""
    rows = await one.run(
        "sweep_jobs",
        {
            "worker": worker,
            "detail": "{}",
            "queues": [queue],
            "free": [free],
            "lane_queues": [queue] * 10,
            "lane_priorities": list(range(10)),
            "lane_run_afters": [START[0]] * 10,
            "lane_ids": [START[1]] * 10,
            "lane_ends": [None] * 10,
            "lane_end_ids": [LAST_ID] * 10,
            "slice": 5000,
            "patient": patient,
            "expected": expected,
            "ahead": ahead,
            "types": list(types),
            "rescue": rescue,
            "lease": lease,
            "aside": list(aside),
        },
    )
    done: dict[str, list[str]] = {}
    for row in sorted(
        (row for row in rows if row[3] is not None), key=lambda row: (row[2], row[10], row[0])
    ):
        done.setdefault(row[11], []).append(row[3])
    return done


async def registered(
    one: WorkerConnection,
    worker: str = "w-1",
    queues: dict[str, int] | None = None,
    lease: timedelta | None = None,
) -> None:
    await one.run(
        "register_worker",
        entry(worker, "worker", "test", queues or {"default": 1}, [], lease=lease),
    )
