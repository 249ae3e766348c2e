"""What may be said twice counts once."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.retention import prune
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.support.factories import a_job, sql, value
from tests.support.scene import link, published, registered

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
OLD = timedelta(days=-40)


@task("test.job", max_attempts=3)
async def three(job: Job[Any]) -> None: ...


@task("test.job", max_attempts=4)
async def four(job: Job[Any]) -> None: ...


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"job_id": "j"}, {"job_id": "j"}, "unique_job_id"),
        ({"id": UUID(int=1)}, {"id": UUID(int=1)}, "job_logs_pkey"),
    ],
    ids=["job_id", "id"],
)
async def test_a_job_is_one_row_whoever_inserts_it(
    connection: Connection, first: dict[str, Any], second: dict[str, Any], key: str
) -> None:
    await a_job(connection, **first)
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        await a_job(connection, **second)
    assert refused.value.diag.constraint_name == key


@pytest.mark.parametrize(
    "row",
    [
        "job_types (job_type) VALUES ('t')",
        "job_queues (queue) VALUES ('q')",
        "job_dependencies (dependency) VALUES ('d')",
        "job_workers (id, kind, host, pid, release) VALUES ('w', 'worker', 'h', 1, 'r')",
        "job_tombstones (id_hash, digest, outcome, ended_at) VALUES ('h', 'd', 'completed', now())",
    ],
    ids=["type", "queue", "dependency", "worker", "tombstone"],
)
async def test_a_thing_is_one_row(connection: Connection, row: str) -> None:
    await connection.execute(f"INSERT INTO {row}".encode())
    with pytest.raises(psycopg.errors.UniqueViolation):
        await connection.execute(f"INSERT INTO {row}".encode())


async def test_a_queue_that_is_paused_twice_is_resumed_by_one_word(
    connection: Connection, settings: Settings
) -> None:
    async with AsyncClient.open(settings) as client:
        await client.pause("default")
        await client.pause("default")
        await client.resume("default")
        await client.resume("default")
    assert await value(connection, "SELECT count(*) FROM job_queues") == 0


async def test_a_worker_that_registers_again_is_alive(
    connection: Connection, settings: Settings
) -> None:
    async with link(settings) as one:
        await registered(one)
        await sql(connection, "UPDATE job_workers SET seen_at = now() - interval '1 h'")
        await registered(one)
    assert await value(connection, "SELECT now() - seen_at < interval '1 min' FROM job_workers")


async def test_a_type_that_is_published_again_is_as_it_was_said_last(
    connection: Connection, settings: Settings
) -> None:
    await published(connection, settings, three)
    await published(connection, settings, three)
    await published(connection, settings, four)
    assert await value(connection, "SELECT max_attempts FROM job_types") == 4


async def test_an_id_that_was_buried_can_be_buried_again(
    connection: Connection, settings: Settings
) -> None:
    """A bare INSERT asks no tombstone. What is remembered is the first; the rest of the batch goes
    all the same."""
    for status in ("completed", "cancelled"):
        await a_job(connection, job_id="j", status=status, created_at=OLD, processed_at=OLD)
        await a_job(connection, status=status, created_at=OLD, processed_at=OLD)
        assert (await prune(connection, settings)).jobs == 2
    assert (
        await value(
            connection, "SELECT outcome FROM job_tombstones WHERE id_hash = pgqueue_id_hash('j')"
        )
        == "completed"
    )
