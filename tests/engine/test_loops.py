"""A loop of a worker that fails is started again; one that goes on failing ends the worker, which
gives back what it has."""

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings
from pgqueue.task import task
from pgqueue.worker.claimer import Claimer
from pgqueue.worker.loops import MAX_FAILURES_IN_A_ROW, RestartingLoop
from pgqueue.worker.performer import Performer
from pgqueue.worker.sweeper import Sweeper
from pgqueue.worker.worker import Worker
from tests.support.factories import the_job
from tests.support.scene import for_worker, published, until, working

Connection = AsyncConnection[Any]


@task("test.job")
async def nothing(job: Job[Any]) -> None: ...


@pytest.mark.parametrize(
    "off",
    [{"doorbell": False}, {"auto_prune": False}, {"doorbell": False, "auto_prune": False}],
    ids=str,
)
async def test_a_loop_that_has_nothing_to_do_ends_nothing(
    connection: Connection, settings: Settings, off: dict[str, Any]
) -> None:
    await published(connection, settings, nothing)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(**off), nothing) as worker,
    ):
        for number in range(3):
            await client.enqueue(nothing, {}, job_id=f"j{number}")
            await until(lambda number=number: completed(connection, f"j{number}"))
        assert worker.healthy
        assert not worker.stopping.is_set()


async def completed(connection: Connection, job_id: str) -> bool:
    return bool((await the_job(connection, job_id))["status"] == "completed")


@pytest.mark.parametrize("part", ["claimer", "sweeper", "performer"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("a fault of ours"), asyncio.CancelledError()],
    ids=["failed", "cancelled"],
)
async def test_a_loop_that_fails_is_started_again(
    connection: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: BaseException,
) -> None:
    await published(connection, settings, nothing)
    async with AsyncClient.open(settings) as client:
        left = [error]

        def failing(of: type, name: str) -> None:
            run = getattr(of, name)

            async def once(self: Any) -> None:
                if left:
                    raise left.pop()
                await run(self)

            monkeypatch.setattr(of, name, once)

        failing(
            *{
                "claimer": (Claimer, "run"),
                "sweeper": (Sweeper, "run"),
                "performer": (Performer, "watch"),
            }[part]
        )
        async with working(settings, nothing) as worker:
            await client.enqueue(nothing, {}, job_id="j")
            await until(lambda: completed(connection, "j"))
            assert left == []
            assert worker.healthy


async def test_one_that_goes_on_failing_ends_the_worker_which_gives_back(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was is raised; what ran has gone back to its place without an attempt."""
    started, fail, runs = asyncio.Event(), asyncio.Event(), []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    async def run(self: Any) -> None:
        runs.append(1)
        await fail.wait()
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Sweeper, "run", run)
    await published(connection, settings, handler)
    impatient = for_worker(settings.with_(shutdown_timeout=settings.poll_interval))
    worker = Worker(impatient, [handler])
    async with AsyncClient.open(settings) as client:
        await client.enqueue(handler, {}, job_id="j")
        running = asyncio.create_task(worker.run())
        await started.wait()
        fail.set()
        with pytest.raises(RuntimeError, match="a fault of ours"):
            await asyncio.wait_for(running, 30)
    assert len(runs) == MAX_FAILURES_IN_A_ROW
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
    assert not worker.healthy


async def test_a_failure_while_it_stops_is_told() -> None:
    stopping = asyncio.Event()
    stopping.set()

    async def run() -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        await RestartingLoop("loop", run, stopping).run()
