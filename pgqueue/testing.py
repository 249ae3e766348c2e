"""For the tests of people who write tasks: run a handler alone, work off a queue, move time.

outcome = await run(resize, Resize("a.png", 200))            # no database assert outcome.status ==
"completed"

await drain(client, resize)                                  # a real worker, until nothing is due;
it publishes the type await client.enqueue(resize, Resize("a.png", 200), job_id="img-1",
user_id="u1") await drain(client, resize) await advance(client, "img-1")
# a retry or a scheduled job is due now
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

import msgspec

from pgqueue.attempt import Claim, Job, Outcome
from pgqueue.client import AsyncClient
from pgqueue.discovery import load_tasks
from pgqueue.errors import JobNotFound
from pgqueue.settings import Settings, settings_from
from pgqueue.task import Task
from pgqueue.worker.inflight import Held
from pgqueue.worker.performer import Performer
from pgqueue.worker.worker import Worker

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _Nowhere:
    """Takes what an attempt writes, and keeps none of it."""

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None:
        return None

    async def intend(self, claim: Claim) -> None:
        return None

    def transaction(self, job: Job[Any], claim: Claim) -> AbstractAsyncContextManager[Any]:
        raise RuntimeError("run() has no database: test a job.transaction() with drain()")


async def run(
    task: Task[Any],
    payload: Any,
    attempt: int = 1,
    *,
    job_id: str = "test-job",
    user_id: str = "test-user",
    resources: Any = None,
) -> Outcome:
    """One attempt of a task on a payload (a value of its type, or what JSON would give), without a
    database: decoding, timeout and verdict are the worker's own."""
    ended: list[Outcome] = []

    performer = Performer(
        {task.job_type: task},
        {task.job_type: resources},
        1,
        lambda held, outcome: ended.append(outcome),
        lambda held: None,
        lambda held: None,
        _Nowhere(),
    )
    claim = Claim(
        uuid4().hex,
        attempt,
        job_id,
        task.job_type,
        user_id,
        attempt,
        task.max_attempts,
        msgspec.json.encode(payload),
        EPOCH,
        task.queue,
    )
    held = Held(claim, 0.0)
    performer.start(held)
    watching = asyncio.create_task(performer.watch())
    assert held.task is not None
    await held.task
    watching.cancel()
    return ended[0]


@asynccontextmanager
async def working(
    settings: Settings, *tasks: Task[Any], lifespan: Any = None
) -> AsyncIterator[Worker]:
    """A worker beside the test, in the same process, for the length of the block; it is stopped in
    an orderly way after it."""
    named = {task.job_type: task for task in tasks}
    home = ModuleType("tasks_of_a_test")
    home.lifespan = lifespan  # type: ignore[attr-defined]  # that is how a task module looks
    queues = settings.queues | {
        task.queue: 50 for task in tasks if task.queue not in settings.queues
    }
    worker = Worker(replace(settings, queues=queues), named, {name: home for name in named})
    running = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not running.done():
            yield worker
    finally:
        ready.cancel()
        worker.stop()
        await running


async def drain(client: AsyncClient, *tasks: Task[Any], timeout: float = 30.0) -> None:
    """Performs what is due of these tasks (those of PGQUEUE_MODULES when none is given) until none
    of it is due or running; what is scheduled for later stays. Raises TimeoutError after `timeout`
    seconds."""
    settings = replace(
        settings_from(),
        database_url=str(client.pool.conninfo),
        poll_interval=timedelta(milliseconds=20),
        idle_interval=timedelta(milliseconds=20),
    )
    wanted = tasks or tuple(load_tasks(settings.modules)[0].values())
    left = 0
    async with working(settings, *wanted):
        try:
            async with asyncio.timeout(timeout):
                while left := await _due(client, wanted):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(
                f"after {timeout:g} s there are still {left} jobs due or running"
            ) from None


async def _due(client: AsyncClient, tasks: tuple[Task[Any], ...]) -> int:
    return int(
        (await client.run("count_due", {"types": [task.job_type for task in tasks]}))[0]["count"]
    )


async def advance(client: AsyncClient, job_id: str) -> None:
    """The job's next attempt is due now. Raises JobNotFound when no such job waits."""
    if not await client.run("advance_job", {"job_id": job_id}):
        raise JobNotFound(job_id)
