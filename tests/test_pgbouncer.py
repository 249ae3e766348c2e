"""Everything through PgBouncer in transaction mode: no prepared statements, no session state, and still every promise."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.client import Client
from pgqueue.job import Job, NewJob
from pgqueue.migrations import migrate
from pgqueue.retention import prune
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.factories import a_job, sql, the_job
from tests.pooler import pooled
from tests.scene import published, until, working

Connection = AsyncConnection[Any]


@pytest.fixture
async def through(settings: Settings, tmp_path: Path) -> Any:
    """Settings whose every connection goes through the pooler."""
    async with pooled(str(settings.database_url), tmp_path) as url:
        yield settings.with_(database_url=url, pgbouncer=True)


@task("test.job", rate_limit=Limit(50, per="1h"))
async def handler(job: Job[Any]) -> None:
    if job.payload.get("fail") and job.attempt == 1:
        raise RuntimeError("the first attempt fails")


async def test_jobs_go_through(connection: Connection, through: Settings) -> None:
    await published(connection, through, handler)
    async with Client.open(through) as client, working(through, handler) as worker:
        jobs = [NewJob(handler, {"fail": n % 10 == 0}, f"j{n}", f"user-{n % 7}") for n in range(200)]
        await asyncio.gather(*(client.offer(job) for job in jobs[:50]))
        await client.enqueue_many(jobs[50:])
        await until(lambda: _ended(connection, 180))
        await sql(connection, "UPDATE job_logs SET run_after = now() WHERE status = 'failed'")
        await until(lambda: _ended(connection, 200))
        assert not worker.doorbell.working
    (row,) = await sql(connection, "SELECT count(*) AS n, max(attempt_count) AS most FROM job_logs WHERE status = 'completed'")
    assert row == {"n": 200, "most": 2}


async def test_leases_are_extended_and_rescued(connection: Connection, through: Settings) -> None:
    release = asyncio.Event()

    @task("test.job")
    async def waiting(job: Job[Any]) -> None:
        await release.wait()

    await published(connection, through, waiting)
    await a_job(connection, job_id="orphan", status="processing", lease_until=timedelta(seconds=-1))
    async with working(through.with_(lease=timedelta(seconds=1)), waiting):
        await until(lambda: _attempts(connection, "orphan", 2))
        first = (await the_job(connection, "orphan"))["lease_until"]
        await until(lambda: _past(connection, first))
        release.set()
        await until(lambda: _ended(connection, 1))


async def test_a_direct_url_brings_the_doorbell_back(connection: Connection, settings: Settings, through: Settings) -> None:
    await published(connection, through, handler)
    async with working(through.with_(direct_url=settings.database_url), handler) as worker:
        await until(lambda: worker.doorbell.working)


async def test_a_pooler_that_nobody_told_of_is_noticed(
    connection: Connection, through: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN succeeds and nothing ever arrives: the trial ring tells."""
    await published(connection, through, handler)
    async with working(through.with_(pgbouncer=False, statement_timeout=timedelta(seconds=5)), handler) as worker:
        await until(lambda: "a ring did not arrive" in caplog.text or worker.doorbell.working, 30)
        assert not worker.doorbell.working


async def test_migrations_and_pruning_go_through(settings: Settings, through: Settings, connection: Connection) -> None:
    assert await migrate(through.conninfo) == []
    old = timedelta(days=-9)
    await a_job(connection, status="completed", created_at=old, processed_at=old)
    async with await psycopg.AsyncConnection.connect(through.conninfo, autocommit=True, prepare_threshold=None) as pruning:
        assert (await prune(pruning, through)).jobs == 1


async def _ended(connection: Connection, count: int) -> bool:
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_logs WHERE processed_at IS NOT NULL")
    return bool(row["n"] == count)


async def _attempts(connection: Connection, job_id: str, count: int) -> bool:
    return bool((await the_job(connection, job_id))["attempt_count"] == count)


async def _past(connection: Connection, moment: Any) -> bool:
    return bool((await the_job(connection, "orphan"))["lease_until"] > moment)
