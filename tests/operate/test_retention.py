"""Retention: what is past its time goes, in batches, and its id stays known; nothing else goes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection

from pgqueue.database.retention import Pruned, prune
from pgqueue.settings import Settings
from tests.support.factories import a_job, a_type, sql, the_job
from tests.support.scene import link

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


async def ended(
    connection: Connection, job_id: str, days: float, status: str = "completed", **columns: Any
) -> None:
    moment = timedelta(days=-days)
    more = {"dead_at": moment} if status == "dlq" else {}
    await a_job(
        connection,
        job_id=job_id,
        status=status,
        created_at=moment,
        processed_at=moment,
        **more,
        **columns,
    )
    await sql(
        connection, "UPDATE job_logs SET id = job_uuid_at(created_at) WHERE job_id = %s", [job_id]
    )


async def left(connection: Connection) -> set[str]:
    return {row["job_id"] for row in await sql(connection, "SELECT job_id FROM job_logs")}


async def test_ended_rows_go_when_their_time_has_come(
    connection: Connection, settings: Settings
) -> None:
    await ended(connection, "completed-8", 8)
    await ended(connection, "completed-6", 6)
    await ended(connection, "cancelled-8", 8.1, "cancelled")
    await ended(connection, "dead-8", 8.2, "dlq")
    await ended(connection, "dead-31", 31, "dlq")
    await a_job(
        connection,
        job_id="waiting",
        created_at=timedelta(days=-100),
        run_after=timedelta(days=-100),
    )
    done = await prune(connection, settings)
    assert done.jobs == 3
    assert await left(connection) == {"completed-6", "dead-8", "waiting"}
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_tombstones")
    assert row["n"] == 3


async def test_an_id_stays_known_from_the_removal_of_its_row_on(
    connection: Connection, settings: Settings
) -> None:
    """However long ago the job ended: one that was archived late would else be forgotten in the
    same run."""
    await ended(connection, "j", 400)
    done = await prune(connection, settings)
    assert (done.jobs, done.tombstones) == (1, 0)
    await sql(
        connection, "UPDATE job_tombstones SET ended_at = ended_at - interval '364 days 23 hours'"
    )
    assert (await prune(connection, settings)).tombstones == 0
    await sql(connection, "UPDATE job_tombstones SET ended_at = ended_at - interval '1 hour'")
    assert (await prune(connection, settings)).tombstones == 1


async def test_nothing_inside_the_window_of_its_limit_goes(
    connection: Connection, settings: Settings
) -> None:
    """A job may end long after it was made, and be old; what counts is that its place in the window
    is still taken."""
    await a_type(connection, job_type="test.job", limit_count=1, limit_window="60 days")
    await ended(connection, "j", 50)
    await prune(connection, settings)
    assert await left(connection) == {"j"}
    await sql(connection, "UPDATE job_types SET limit_window = '40 days'")
    await prune(connection, settings)
    assert await left(connection) == set()


async def test_a_locked_row_is_left_for_the_next_time(
    connection: Connection, settings: Settings
) -> None:
    await ended(connection, "j", 8)
    async with await AsyncConnection.connect(settings.conninfo) as other:
        await sql(other, "SELECT 1 FROM job_logs FOR UPDATE")
        assert (await prune(connection, settings)).jobs == 0
        await other.rollback()
    assert (await prune(connection, settings)).jobs == 1


async def test_it_works_in_batches_and_tells_how_far_it_is(
    connection: Connection, settings: Settings
) -> None:
    await sql(
        connection,
        """INSERT INTO job_logs (id, job_id, job_type, user_id, payload, status, created_at,
             processed_at)
           SELECT job_uuid_at(now() - interval '9 d' + n * interval '1 s'), 'j' || n, 't', 'u',
             '{}', 'completed',
                  now() - interval '9 d', now() - interval '9 d' FROM generate_series(1, 1200) n""",
    )
    told: list[int] = []

    def tell(so_far: Pruned) -> None:
        told.append(so_far.jobs)

    done = await prune(connection, settings, told=tell)
    assert done.jobs == 1200
    assert told[:3] == [500, 1000, 1200]


async def test_by_itself_it_reads_only_what_can_be_old_enough(
    connection: Connection, settings: Settings
) -> None:
    """Adopted rows have random ids: they go when the whole table is read, which a command does and
    a worker does not."""
    old = timedelta(days=-9)
    # One random id in two hundred looks old: not this one.
    random = UUID(int=uuid4().int | 1 << 127)
    await a_job(
        connection,
        id=random,
        job_id="adopted",
        status="completed",
        created_at=old,
        processed_at=old,
    )
    assert (await prune(connection, settings, whole=False)).jobs == 0
    assert (await prune(connection, settings, whole=True)).jobs == 1


async def test_the_archive_has_every_row_that_went(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    await ended(connection, "a", 8, payload={"email": "ana@example.com"})
    await ended(connection, "b", 40, "dlq")
    await prune(connection, settings, archive=tmp_path / "archive")
    rows = [
        json.loads(line)
        for file in (tmp_path / "archive").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert {row["job_id"]: row["status"] for row in rows} == {"a": "completed", "b": "dlq"}
    assert {row["job_id"]: row["payload"] for row in rows}["a"] == {"email": "ana@example.com"}
    assert all((file.stat().st_mode & 0o077) == 0 for file in (tmp_path / "archive").iterdir())


async def test_rows_stay_when_the_archive_cannot_be_written(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    await ended(connection, "a", 8)
    (tmp_path / "archive").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="archive"):
        await prune(connection, settings, archive=tmp_path / "archive")
    assert await left(connection) == {"a"}


async def test_a_job_that_nobody_sweeps_is_buried_after_24_hours(
    connection: Connection, settings: Settings
) -> None:
    await a_job(
        connection,
        job_id="old",
        queue="nobody",
        status="processing",
        started_at=timedelta(hours=-25),
    )
    await a_job(
        connection,
        job_id="young",
        queue="nobody",
        status="processing",
        started_at=timedelta(hours=-23),
    )
    assert (await prune(connection, settings)).expired == 1
    row = await the_job(connection, "old")
    assert (row["status"], row["lease"], row["error"]) == (
        "dlq",
        2,
        "In processing for 24 hours: no more attempts",
    )
    assert (await the_job(connection, "young"))["status"] == "processing"


async def test_processes_that_fell_silent_leave_the_registry_after_a_day(
    connection: Connection, settings: Settings
) -> None:
    from tests.support.scene import registered

    async with link(settings) as one:
        await registered(one, "w-1")
        await registered(one, "w-2")
        await registered(one, "w-3")
        await sql(
            connection, "UPDATE job_workers SET seen_at = now() - interval '25 h' WHERE id = 'w-2'"
        )
        await one.run("retire_worker", {"worker": "w-1"})
    assert [row["id"] for row in await sql(connection, "SELECT id FROM job_workers")] == ["w-3"]
