"""Statements that were prepared before something changed under them are prepared anew, by workers
and by clients."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings
from pgqueue.task import task
from pgqueue.worker.worker import Worker
from tests.support.factories import sql
from tests.support.scene import published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
COUNT = 8


@task("test.job")
async def quick(job: Job[Any]) -> None:
    """Done at once."""


TRIGGER = """
CREATE FUNCTION heard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM length(NEW.job_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER heard AFTER INSERT OR UPDATE ON job_logs FOR EACH ROW EXECUTE FUNCTION heard();
"""
"""An application's: each session keeps a plan of its statement too, made for the columns' types."""


async def another_type(connection: Connection, worker: Worker, client: AsyncClient) -> None:
    for column in ("job_id", "locked_by", "error"):
        await connection.execute(
            f"ALTER TABLE job_logs ALTER COLUMN {column} TYPE varchar".encode()
        )


async def a_column_more(connection: Connection, worker: Worker, client: AsyncClient) -> None:
    await sql(connection, "ALTER TABLE job_logs ADD COLUMN note text")


async def thrown_away(connection: Connection, worker: Worker, client: AsyncClient) -> None:
    """By a pooler, or by whoever shares the connection."""
    for one in worker._links.values():
        if one.connected:
            await (await one.connect()).execute("DEALLOCATE ALL", prepare=False)
    for _ in range(5):
        async with client.pool.connection() as pooled:
            await pooled.execute("DEALLOCATE ALL", prepare=False)


CHANGES: dict[str, Callable[[Connection, Worker, AsyncClient], Awaitable[None]]] = {
    "a column has another type": another_type,
    "a column more": a_column_more,
    "thrown away": thrown_away,
}


@pytest.mark.parametrize("change", CHANGES)
async def test_work_goes_on_when_prepared_statements_no_longer_fit(
    connection: Connection, settings: Settings, change: str
) -> None:
    await published(connection, settings, quick)
    await connection.execute(TRIGGER.encode())
    async with (
        AsyncClient.open(settings.with_(pool_size=2)) as client,
        working(settings, quick) as worker,
    ):
        for when in ("before", "after"):
            for number in range(COUNT):
                await asyncio.wait_for(client.enqueue(quick, {}, job_id=f"{when}-{number}"), 10)
                await asyncio.wait_for(client.get(f"{when}-{number}"), 10)
            await until(lambda: _all_done(connection))
            if when == "before":
                await CHANGES[change](connection, worker, client)
        assert len(await client.report("recent_jobs")) == 10


async def _all_done(connection: Connection) -> bool:
    (row,) = await sql(
        connection, "SELECT count(*) FILTER (WHERE status <> 'completed') AS n FROM job_logs"
    )
    return bool(row["n"] == 0)
