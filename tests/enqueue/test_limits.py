"""The rate limit: exact, rolling, per user and type, whoever enqueues and however many at once."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import RateLimited
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from tests.support.factories import a_job, sql
from tests.support.scene import published

Connection = AsyncConnection[Any]

pytestmark = pytest.mark.postgres(15, 18)


@task("test.limited", rate_limit=Limit(10, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    await published(connection, settings, limited)
    async with AsyncClient.open(settings) as opened:
        yield opened


PRODUCER = """
import asyncio, json, sys
from pgqueue import AsyncClient, NewJob

async def main(url, me):
    async with AsyncClient.open(url) as client:
        jobs = [NewJob("test.limited", {"n": n}, user_id=f"user-{n % 5}") for n in range(100)]
        tickets = await asyncio.gather(*(client.try_enqueue(job) for job in jobs))
        bulk = await client.enqueue_many(jobs)
        print(json.dumps([sum(t.created for t in tickets), sum(t.created for t in bulk)]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_40_producers_in_four_processes_get_exactly_the_limit(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    """4 processes with 10 connections each, one by one and in bulk, for 5 users: 10 each and no
    more."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PRODUCER,
            str(settings.database_url),
            str(number),
            stdout=subprocess.PIPE,
            env=os.environ.copy(),
        )
        for number in range(4)
    ]
    answers = [json.loads((await process.communicate())[0]) for process in processes]
    assert sum(sum(answer) for answer in answers) == 50
    rows = await sql(connection, "SELECT user_id, count(*) AS n FROM job_logs GROUP BY user_id")
    assert {row["user_id"]: row["n"] for row in rows} == {f"user-{n}": 10 for n in range(5)}


async def test_the_window_rolls(client: AsyncClient, connection: Connection) -> None:
    """Nine jobs a minute inside the hour and one a minute outside it: one place is free, and then
    none."""
    for _ in range(9):
        await a_job(
            connection, job_type="test.limited", user_id="u", created_at=timedelta(minutes=-59)
        )
    await a_job(connection, job_type="test.limited", user_id="u", created_at=timedelta(minutes=-61))
    assert (await client.enqueue(limited, {}, user_id="u")).created
    with pytest.raises(RateLimited) as refused:
        await client.enqueue(limited, {}, user_id="u")
    assert timedelta(seconds=50) < refused.value.retry_after <= timedelta(minutes=1)


async def test_jobs_of_all_states_count(client: AsyncClient, connection: Connection) -> None:
    for status in ["enqueued", "processing", "completed", "failed", "dlq", "cancelled"]:
        await a_job(connection, job_type="test.limited", user_id="u", status=status)
    created = [
        (await client.try_enqueue(NewJob(limited, {}, user_id="u"))).created for _ in range(6)
    ]
    assert created == [True] * 4 + [False] * 2


async def test_users_and_types_are_counted_apart(
    client: AsyncClient, connection: Connection
) -> None:
    for _ in range(10):
        await client.enqueue(limited, {}, user_id="u")
        await a_job(connection, job_type="test.other", user_id="v")
    assert (await client.enqueue(limited, {}, user_id="v")).created


async def test_in_bulk_the_earlier_items_go_first(client: AsyncClient) -> None:
    for _ in range(4):
        await client.enqueue(limited, {}, user_id="u")
    tickets = await client.enqueue_many(
        [NewJob(limited, {"n": n}, f"z-{9 - n % 10}-{n}", "u") for n in range(12)]
    )
    assert [ticket.created for ticket in tickets] == [True] * 6 + [False] * 6
    assert all(isinstance(ticket.error, RateLimited) for ticket in tickets[6:])
    assert isinstance(tickets[-1].error, RateLimited)
    assert timedelta(minutes=59) < tickets[-1].error.retry_after <= timedelta(hours=1)


async def test_a_long_transaction_counts_by_the_clock_and_not_by_its_start(
    client: AsyncClient, settings: Settings
) -> None:
    """created_at is the moment of the insert: with the transaction's start, a second window would
    open (20 were seen to pass)."""
    async with await AsyncConnection.connect(settings.conninfo) as own:
        begun = (await sql(own, "SELECT now() AS now"))[0]["now"]
        for _ in range(10):
            await client.enqueue(limited, {}, user_id="u", connection=own)
        rows = await sql(own, "SELECT min(created_at) AS first FROM job_logs")
        assert rows[0]["first"] > begun
        await own.commit()


async def test_the_lock_is_held_until_the_caller_commits(
    client: AsyncClient, settings: Settings
) -> None:
    """The guard is the advisory lock: without it the second caller would count before the first's
    rows can be seen."""
    async with await AsyncConnection.connect(settings.conninfo) as own:
        for _ in range(10):
            await client.enqueue(limited, {}, user_id="u", connection=own)
        second = asyncio.create_task(client.try_enqueue(NewJob(limited, {}, user_id="u")))
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done
        await own.commit()
    assert isinstance((await second).error, RateLimited)


async def test_a_new_limit_holds_for_everybody_at_once(
    client: AsyncClient, connection: Connection, settings: Settings
) -> None:
    @task("test.limited", rate_limit=Limit(1, per="1h"))
    async def stricter(job: Job[Any]) -> None: ...

    await published(connection, settings, stricter)
    assert (await client.try_enqueue(NewJob(limited, {}, user_id="u"))).created
    assert not (await client.try_enqueue(NewJob(limited, {}, user_id="u"))).created
