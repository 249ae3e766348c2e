"""Django's ORM in handlers: a connection that was lost fails one job at most, as one request of a
web server."""

from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from tests.support.django_database import django as django
from tests.support.factories import sql
from tests.support.scene import published, until, working

Connection = AsyncConnection[Any]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_lost_connection_is_replaced_before_the_next_job(
    connection: Connection, settings: Settings, django: Any, kind: str
) -> None:
    def ask() -> None:
        with django["default"].cursor() as cursor:
            cursor.execute("SELECT 1")

    @task("test.job", max_attempts=1)
    def plain(job: Job[Any]) -> None:
        ask()

    @task("test.job", max_attempts=1)
    async def later(job: Job[Any]) -> None:
        from asgiref.sync import sync_to_async

        await sync_to_async(ask)()

    handler: Task[Any] = plain if kind == "plain" else later
    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(queues={"default": 1}), handler),
    ):
        await client.enqueue(handler, {}, job_id="before")
        await until(lambda: over(connection, 1))
        await sql(
            connection,
            (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
                "'django'"
            ),
        )
        for number in range(3):
            await client.enqueue(handler, {}, job_id=f"after{number}")
        await until(lambda: over(connection, 4))
    rows = await sql(connection, "SELECT job_id FROM job_logs WHERE status <> 'completed'")
    assert len(rows) <= 1, "the one that finds the connection lost"


async def over(connection: Connection, count: int) -> bool:
    (row,) = await sql(
        connection, "SELECT count(*) AS n FROM job_logs WHERE status IN ('completed', 'dlq')"
    )
    return bool(row["n"] == count)
