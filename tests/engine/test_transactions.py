"""`job.transaction()`: the handler's own writes and the completion are one commit, or neither."""

import asyncio
import logging
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job, ThreadJob
from pgqueue.client import AsyncClient
from pgqueue.errors import LeaseLost
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from pgqueue.testing import run
from tests.support import tasks
from tests.support.factories import sql, the_job, value
from tests.support.processes import a_worker, words
from tests.support.scene import published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.fixture(autouse=True)
async def effects(connection: Connection) -> None:
    """The application's own table, on which the worker's role has the rights that the application
    gives it."""
    await sql(connection, "CREATE TABLE effects (job_id text, attempt integer)")
    await sql(connection, "GRANT SELECT, INSERT ON effects TO pgqueue_worker")


async def effects_of(connection: Connection) -> list[int]:
    return [
        row["attempt"]
        for row in await sql(connection, "SELECT attempt FROM effects ORDER BY attempt")
    ]


async def insert(connection: AsyncConnection[Any], job: Job[Any]) -> None:
    await connection.execute("INSERT INTO effects VALUES (%s, %s)", [job.job_id, job.attempt])


async def perform(connection: Connection, settings: Settings, handler: Task[Any]) -> dict[str, Any]:
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: settled(connection))
    return await the_job(connection, "j")


async def settled(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return row["lease"] > 0 and row["status"] != "processing"


async def test_what_it_writes_is_committed_with_the_completion(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
            job.receipt = "row 1 for someone@example.com"

    row = await perform(connection, settings, handler)
    assert (row["status"], row["attempt_count"]) == ("completed", 1)
    assert row["receipt"] == "row 1 for s***@example.com"
    assert await effects_of(connection) == [1]
    assert await value(
        connection, "SELECT (SELECT xmin::text FROM effects) = (SELECT xmin::text FROM job_logs)"
    )


async def test_an_error_in_it_takes_back_both(connection: Connection, settings: Settings) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
            raise RuntimeError("half-way")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: half-way")
    assert await effects_of(connection) == []


async def test_a_lost_lease_takes_back_what_it_wrote(
    connection: Connection, settings: Settings
) -> None:
    raised: list[BaseException] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        try:
            async with job.transaction() as own:
                await insert(own, job)
                await sql(connection, "SELECT cancel_job('j')")
        except LeaseLost as error:
            raised.append(error)
            raise

    row = await perform(connection, settings, handler)
    await until(lambda: bool(raised))
    assert row["status"] == "cancelled"
    assert await effects_of(connection) == []


async def test_an_error_after_it_changes_nothing_and_is_told(
    connection: Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
        raise RuntimeError("too late")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"]) == ("completed", None)
    await until(
        lambda: "job.late_error" in {getattr(record, "event", "") for record in caplog.records}
    )


async def test_there_is_one_for_each_job(connection: Connection, settings: Settings) -> None:
    raised: list[str] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
        try:
            async with job.transaction() as own:
                await insert(own, job)
        except RuntimeError as error:
            raised.append(str(error))

    await perform(connection, settings, handler)
    await until(lambda: bool(raised))
    assert raised == ["job j is completed already: one transaction() for each job"]
    assert await effects_of(connection) == [1]


async def test_the_row_is_free_while_the_handler_works_in_it(
    connection: Connection, settings: Settings
) -> None:
    """Its lease is extended meanwhile; nobody waits for a lock."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
            inside.set()
            await go_on.wait()

    await published(connection, settings, handler)
    settings = settings.with_(lease=timedelta(seconds=1))
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        await inside.wait()
        first = (await the_job(connection, "j"))["lease_until"]
        await until(lambda: extended(connection, first))
        go_on.set()
        await until(lambda: settled(connection))
    assert (await the_job(connection, "j"))["status"] == "completed"


async def extended(connection: Connection, first: Any) -> bool:
    return bool((await the_job(connection, "j"))["lease_until"] > first)


async def test_a_lost_reply_to_its_commit_is_not_taken_for_a_failure(
    connection: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The commit went through, the connection died before it said so: the job is completed, and
    told as such."""
    leave = psycopg.AsyncTransaction._exit_gen

    def after_the_commit(self: Any, *args: Any) -> Any:
        result = yield from leave(self, *args)
        if self._conn.info.dbname and armed:
            armed.clear()
            raise psycopg.OperationalError("the connection is lost")
        return result

    armed: list[bool] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction() as own:
            await insert(own, job)
            armed.append(True)

    monkeypatch.setattr(psycopg.AsyncTransaction, "_exit_gen", after_the_commit)
    with caplog.at_level(logging.INFO):
        row = await perform(connection, settings, handler)
        await until(
            lambda: "job.completed" in {getattr(record, "event", "") for record in caplog.records}
        )
    assert (row["status"], row["attempt_count"], row["history"]) == ("completed", 1, None)
    assert await effects_of(connection) == [1]
    assert "lease.lost" not in {getattr(record, "event", "") for record in caplog.records}


async def test_a_run_without_database_has_none() -> None:
    @task("test.plain")
    def plain(job: ThreadJob[Any]) -> None:
        job.progress(0.5)
        job.intend()
        with job.transaction():
            pass

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with job.transaction():
            pass

    assert "has no database" in ((await run(plain, {})).error or "")
    assert "has no database" in ((await run(handler, {})).error or "")


@pytest.mark.parametrize("step", ["before", "inside", "written", "after"])
async def test_a_process_killed_at_any_step_leaves_exactly_one_effect(
    connection: Connection, settings: Settings, database_url: str, tmp_path: Path, step: str
) -> None:
    await published(connection, settings, tasks.transacting)
    ledger = tmp_path / "ledger"
    async with AsyncClient.open(settings) as client:
        await client.enqueue(tasks.transacting, {"die": step}, job_id="j")
        async with a_worker(database_url, ledger) as worker:
            await asyncio.wait_for(worker.wait(), 20)
        assert worker.returncode == -signal.SIGKILL
        assert await effects_of(connection) == ([1] if step == "after" else [])
        async with a_worker(database_url, ledger):
            await until(lambda: settled(connection))
    assert (await the_job(connection, "j"))["status"] == "completed"
    assert await effects_of(connection) == ([1] if step == "after" else [2])
    assert words(ledger) == [f"{step} j"]
