"""sql/monitoring/: the four queries behind the routes run as they are, on every version, and read
no more than they must."""

import re
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.database.worker_connection import load
from tests.support.factories import a_job, sql

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]
REPORTS = ("job_stats", "workers", "queues", "dead_letter_errors")


@pytest.fixture
async def big(connection: Connection) -> Connection:
    """Past the size up to which finished rows are counted: most rows finished, some dead, few live.
    Never vacuumed."""
    await sql(
        connection,
        """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at, dead_at,
             attempt_count, error)
           SELECT 'j-' || i, 't', 'u', jsonb_build_object('fill', repeat('x', 600)),
                  CASE WHEN i % 10 = 0 THEN 'dlq' WHEN i % 100 = 1 THEN 'cancelled' ELSE 'completed'
                    END,
                  now(), CASE WHEN i % 10 = 0 THEN now() - i * interval '1 ms' END, 1, 'error ' || i
             FROM generate_series(1, 60000) AS i""",
    )
    for priority in range(3):
        await a_job(connection, queue="q", priority=priority)
    await sql(connection, "ANALYZE job_logs")
    return connection


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("name", REPORTS)
async def test_it_runs_and_says_what_to_do(connection: Connection, name: str) -> None:
    text = load(name, "monitoring")
    header = text[: re.search(r"^[^-]", text, re.MULTILINE).start()]
    assert len(header.splitlines()) >= 5
    assert "%" not in text
    assert isinstance(await sql(connection, text), list)


@pytest.mark.postgres(15, 18)
async def test_what_has_ended_is_estimated_when_there_is_much_of_it(big: Connection) -> None:
    (row,) = await sql(big, load("job_stats", "monitoring"))
    assert row["estimated"]
    assert row["completed"] == pytest.approx(53_400, rel=0.05)
    assert row["cancelled"] == pytest.approx(600, rel=0.5)
    assert (row["dlq"], row["enqueued"], row["ready"]) == (6000, 3, 3)


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("name", ["job_stats", "queues"])
async def test_no_part_of_it_reads_the_whole_table(big: Connection, name: str) -> None:
    plan = "\n".join(
        row["QUERY PLAN"] for row in await sql(big, "EXPLAIN (ANALYZE) " + load(name, "monitoring"))
    )
    scans = [
        line
        for line in plan.splitlines()
        if "Seq Scan on job_logs" in line and "never executed" not in line
    ]
    assert scans == []


async def test_exact_numbers_of_dead_jobs_up_to_100000(connection: Connection) -> None:
    for count in (999, 1, 1000):
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 dead_at)
               SELECT 'd-' || gen_random_uuid(), 't', 'u', '{}', 'dlq', now(), now()
                FROM generate_series(1, %s) AS i""",
            [count],
        )
        (row,) = await sql(connection, load("job_stats", "monitoring"))
        assert [row["dlq"]] == [
            one["count"] for one in await sql(connection, "SELECT count(*) FROM job_logs")
        ]


async def test_errors_that_differ_only_in_what_varies_are_one_group(connection: Connection) -> None:
    for error in (
        'SMTP 550 5.1.1 <u***@a.example>: Recipient "x y" rejected (id 7f3a-11)',
        "SMTP 551 5.7.1 <v***@b.example>: Recipient 'z' rejected (id 9c00-12)",
        "connection refused",
    ):
        await a_job(connection, status="dlq", error=error)
    rows = await sql(connection, load("dead_letter_errors", "monitoring"))
    assert {row["fingerprint"]: row["count"] for row in rows} == {
        "SMTP ? ? ? Recipient ? rejected (id ?": 2,
        "connection refused": 1,
    }
