"""`pgqueue.Worker` in the program of an application: its own event loop, no PGQUEUE_MODULES."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, Settings, SettingsError, TaskError, Worker, task
from tests.support.factories import the_job
from tests.support.scene import for_worker, until

Connection = AsyncConnection[Any]


@dataclass
class Resources:
    name: str


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[Resources]:
    yield Resources("a pool")


seen: list[Any] = []


@task("test.first")
async def first(job: Job[Any, Resources]) -> None:
    seen.append(job.resources.name)


@task("test.second")
async def second(job: Job[Any]) -> None:
    seen.append(job.resources)


async def test_it_publishes_performs_and_stops(connection: Connection, settings: Settings) -> None:
    seen.clear()
    worker = Worker(
        for_worker(settings).with_(modules=("no.such.module",)),
        tasks=[first, second],
        lifespan=lifespan,
    )
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    assert worker.healthy
    async with AsyncClient.open(settings) as client:
        await client.enqueue(first, {}, job_id="a")
        await client.enqueue(second, {}, job_id="b")
        await until(lambda: len(seen) == 2)
        assert {getattr(one, "name", one) for one in seen} == {"a pool"}
        worker.stop()
        await asyncio.wait_for(running, 20)
        assert {(await the_job(connection, name))["status"] for name in "ab"} == {"completed"}


async def test_each_type_may_have_a_lifespan_of_its_own(
    connection: Connection, settings: Settings
) -> None:
    seen.clear()
    worker = Worker(for_worker(settings), [first, second], lifespan={"test.first": lifespan})
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    async with AsyncClient.open(settings) as client:
        await client.enqueue(first, {})
        await client.enqueue(second, {})
        await until(lambda: len(seen) == 2)
    worker.stop()
    await running
    assert set(seen) == {"a pool", None}


async def test_a_url_stands_for_settings(settings: Settings) -> None:
    worker = Worker(str(for_worker(settings).database_url), [first])
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    worker.stop()
    await running


def test_what_cannot_work_is_refused_when_it_is_made(settings: Settings) -> None:
    @task("test.first")
    async def again(job: Job[Any]) -> None: ...

    with pytest.raises(TaskError, match=r"test\.first is declared twice .*test_public_worker\.py"):
        Worker(settings, [first, again])
    Worker(settings, [first, first])
    with pytest.raises(TaskError, match="decorate the function with @task"):
        Worker(settings, [lambda job: None])  # type: ignore[list-item]  # that is the point
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        Worker(Settings(), [first])
