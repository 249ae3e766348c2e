"""A database whose default is another isolation than READ COMMITTED: ours is said on every
connection."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from pgqueue.testing import working
from tests.support.api import SIGN_IN, SIGNIN, open_api
from tests.support.factories import sql, value
from tests.support.pooler import pooled
from tests.support.scene import link, published, until

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]


@task("test.limited", rate_limit=Limit(10, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@task("test.transaction")
async def transacting(job: Job[Any]) -> None:
    async with job.transaction() as connection:
        await connection.execute(
            "INSERT INTO isolations SELECT current_setting('transaction_isolation')"
        )


@pytest.fixture(params=["serializable", "repeatable read"])
async def strict(
    connection: Connection, settings: Settings, request: pytest.FixtureRequest
) -> Settings:
    """Settings of such a database."""
    await published(connection, settings, limited, transacting)
    await sql(connection, "CREATE TABLE isolations (level text)")
    await sql(connection, "GRANT SELECT, INSERT ON isolations TO pgqueue_worker")
    await sql(
        connection,
        (
            f"ALTER DATABASE {connection.info.dbname} SET default_transaction_isolation = "
            f"'{request.param}'"
        ),
    )
    return settings


async def exactly_the_limit(settings: Settings, connection: Connection) -> None:
    async with AsyncClient.open(settings) as client:
        tickets = await asyncio.gather(
            *(client.try_enqueue(NewJob(limited, {}, user_id="u")) for _ in range(30))
        )
        tickets += await client.enqueue_many(
            [NewJob(limited, {}, user_id=f"u{number % 2}") for number in range(30)]
        )
    assert sum(ticket.created for ticket in tickets) == 30
    assert await value(connection, "SELECT count(*) FROM job_logs") == 30


async def test_sign_ins_are_taken(strict: Settings) -> None:
    async with open_api(strict) as api:
        assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
        assert (await api.get("/readyz")).status_code == 200


async def test_limits_are_exact(strict: Settings, connection: Connection) -> None:
    await exactly_the_limit(strict, connection)


async def test_workers_work(strict: Settings, connection: Connection) -> None:
    async with AsyncClient.open(strict) as client, working(strict, limited, transacting):
        await client.enqueue_many([NewJob(transacting, {}) for _ in range(20)])
        await until(lambda: completed(connection, 20))
    assert await sql(connection, "SELECT DISTINCT level FROM isolations") == [
        {"level": "read committed"}
    ]


async def test_a_link_of_the_engine_reads_what_is_committed(strict: Settings) -> None:
    async with link(strict) as one:
        (row,) = await (
            await (await one.connect()).execute("SELECT current_setting('transaction_isolation')")
        ).fetchall()
    assert row == ("read committed",)


async def test_behind_a_pooler_too(
    strict: Settings, connection: Connection, tmp_path: Path
) -> None:
    async with pooled(str(strict.database_url), tmp_path) as url:
        through = strict.with_(database_url=url, pgbouncer=True)
        await exactly_the_limit(through, connection)
        async with open_api(through) as api:
            assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
            assert (await api.get("/readyz")).status_code == 200
        async with AsyncClient.open(through) as client, working(through, limited, transacting):
            await client.enqueue(transacting, {})
            await until(lambda: completed(connection, 31))
    assert await sql(connection, "SELECT DISTINCT level FROM isolations") == [
        {"level": "read committed"}
    ]


async def completed(connection: Connection, count: int) -> bool:
    return bool(
        await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'completed'") == count
    )
