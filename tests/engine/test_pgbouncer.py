"""Everything through PgBouncer in transaction mode: no prepared statements, no session state, and
still every promise."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.migrations import migrate
from pgqueue.database.pooler import check_pooler
from pgqueue.database.retention import prune
from pgqueue.database.session import connected
from pgqueue.errors import SchemaError
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.support.commands import cli_for
from tests.support.factories import a_job, sql, the_job
from tests.support.pooler import pooled
from tests.support.scene import published, until, working

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
    async with AsyncClient.open(through) as client, working(through, handler) as worker:
        jobs = [
            NewJob(handler, {"fail": n % 10 == 0}, f"j{n}", f"user-{n % 7}") for n in range(200)
        ]
        await asyncio.gather(*(client.try_enqueue(job) for job in jobs[:50]))
        await client.enqueue_many(jobs[50:])
        await until(lambda: _ended(connection, 180))
        await sql(connection, "UPDATE job_logs SET run_after = now() WHERE status = 'failed'")
        await until(lambda: _ended(connection, 200))
        assert not worker.doorbell.working
    (row,) = await sql(
        connection,
        "SELECT count(*) AS n, max(attempt_count) AS most FROM job_logs WHERE status = 'completed'",
    )
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


async def test_a_direct_url_brings_the_doorbell_back(
    connection: Connection, settings: Settings, through: Settings
) -> None:
    await published(connection, through, handler)
    async with working(through.with_(direct_url=settings.database_url), handler) as worker:
        await until(lambda: worker.doorbell.working)


async def test_a_doorbell_behind_a_pooler_is_noticed(
    connection: Connection, settings: Settings, through: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN succeeds and nothing ever arrives: the trial ring tells."""
    await published(connection, through, handler)
    # Only the doorbell goes through it, and nobody said so.
    mine = settings.with_(direct_url=through.database_url, statement_timeout=timedelta(seconds=5))
    async with working(mine, handler) as worker:
        await until(lambda: "a ring did not arrive" in caplog.text or worker.doorbell.working, 30)
        assert not worker.doorbell.working


async def test_migrations_and_pruning_go_through(
    settings: Settings, through: Settings, connection: Connection
) -> None:
    assert await migrate(through.conninfo) == []
    old = timedelta(days=-9)
    await a_job(connection, status="completed", created_at=old, processed_at=old)
    async with await psycopg.AsyncConnection.connect(
        through.conninfo, autocommit=True, prepare_threshold=None
    ) as pruning:
        assert (await prune(pruning, through)).jobs == 1


async def _ended(connection: Connection, count: int) -> bool:
    (row,) = await sql(
        connection, "SELECT count(*) AS n FROM job_logs WHERE processed_at IS NOT NULL"
    )
    return bool(row["n"] == count)


async def _attempts(connection: Connection, job_id: str, count: int) -> bool:
    return bool((await the_job(connection, job_id))["attempt_count"] == count)


async def _past(connection: Connection, moment: Any) -> bool:
    return bool((await the_job(connection, "orphan"))["lease_until"] > moment)


class TestAPoolerThatNobodySpokeOf:
    """PGQUEUE_PGBOUNCER is off, and a pooler stands in between all the same."""

    async def test_in_transaction_mode_it_is_named_at_the_start(
        self, connection: Connection, through: Settings
    ) -> None:
        forgotten = through.with_(pgbouncer=False)
        await published(connection, through, handler)
        for _ in range(3):
            with pytest.raises(SchemaError, match="Set PGQUEUE_PGBOUNCER=on"):
                async with working(forgotten, handler):
                    raise AssertionError("it has started")

    async def test_although_others_use_it_meanwhile(
        self, connection: Connection, through: Settings
    ) -> None:
        async with await psycopg.AsyncConnection.connect(
            through.conninfo, autocommit=True, prepare_threshold=None
        ) as busy:
            going = asyncio.create_task(_ask_on(busy))
            try:
                async with await connected(through.conninfo, pooled=True) as one:
                    with pytest.raises(SchemaError):
                        await check_pooler(one, False)
            finally:
                going.cancel()
                await asyncio.wait([going])

    async def test_in_session_mode_it_does_no_harm(
        self, connection: Connection, settings: Settings, tmp_path: Path
    ) -> None:
        await published(connection, settings, handler)
        async with pooled(str(settings.database_url), tmp_path, mode="session") as url:
            plain = settings.with_(database_url=url)
            async with await connected(plain.conninfo) as one:
                assert (
                    one.info.backend_pid
                    != (await (await one.execute("SELECT pg_backend_pid()")).fetchone())[0]
                )
                await check_pooler(one, False)

    async def test_without_one_a_statement_is_all_it_costs(self, settings: Settings) -> None:
        async with await connected(settings.conninfo) as one:
            await check_pooler(one, False)

    async def test_the_command_line_names_it(self, through: Settings) -> None:
        result = await cli_for(str(through.database_url))("job", "j", PGQUEUE_PGBOUNCER=None)
        assert result.exit_code == 1
        assert "PGQUEUE_PGBOUNCER=on" in result.stderr


async def _ask_on(connection: Connection) -> None:
    while True:
        await connection.execute("SELECT 1")
