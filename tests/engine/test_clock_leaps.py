"""The database's clock is set, or everything is off for a day: no job is given up by the calendar
alone, none waits for it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, task
from pgqueue.database.retention import prune
from pgqueue.settings import Settings
from tests.support.factories import a_job, sql, the_job, value
from tests.support.scene import LEASE, claim, link, published, registered, sweep, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
HOUR = timedelta(hours=1)

LEAP = """
UPDATE job_logs SET started_at = started_at - %(by)s, lease_until = lease_until - %(by)s,
  run_after = run_after - %(by)s,
                    created_at = created_at - %(by)s
"""
"""To the rows it is the same whether the clock leaps forward or they are moved back."""


async def leap(connection: Connection, by: timedelta) -> None:
    await sql(connection, LEAP, {"by": by})
    await sql(connection, "UPDATE job_workers SET seen_at = seen_at - %(by)s", {"by": by})


# Back


@pytest.mark.parametrize(
    "ahead", [timedelta(), timedelta(days=2)], ids=["old jobs", "jobs from that time"]
)
async def test_a_lease_from_before_the_clock_was_set_back_is_over(
    connection: Connection, settings: Settings, ahead: timedelta
) -> None:
    """Its worker was killed while the clock was an hour ahead; the jobs were perhaps enqueued
    then."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        await registered(one, "w-1", lease=LEASE)
        assert len(await claim(one, worker="w-1")) == 1
        assert await sweep(one) == {}
        await leap(connection, -HOUR)
        if not ahead:
            await sql(connection, "UPDATE job_logs SET run_after = now() - interval '1 min'")
        assert await sweep(one, ahead=ahead) == {"rescue": ["j"]}


async def test_a_long_lease_of_another_worker_is_not_over(
    connection: Connection, settings: Settings
) -> None:
    """Workers may have different settings; each row is measured by its own worker's."""
    await a_job(connection, job_id="long")
    async with link(settings) as one:
        await registered(one, "w-1", lease=LEASE)
        await registered(one, "w-long", lease=HOUR)
        await claim(one, worker="w-long", lease=HOUR)
        assert await sweep(one, worker="w-1") == {}
        await sql(connection, "DELETE FROM job_workers WHERE id = 'w-long'")
        assert await sweep(one, worker="w-1") == {}, (
            "nothing is known of it: it may be as long as leases can be"
        )


async def test_a_worker_rescues_what_a_clock_ahead_has_left(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def quick(job: Job[Any]) -> None: ...

    await published(connection, settings, quick)
    for number in range(10):
        await a_job(connection, job_id=f"j{number}")
    await a_job(connection, job_id="scheduled", run_after=HOUR)
    async with link(settings) as one:
        await registered(one, "w-dead", lease=LEASE)
        assert len(await claim(one, worker="w-dead")) == 10
    await sql(connection, LEAP + " WHERE job_id <> 'scheduled'", {"by": -HOUR})
    async with working(settings, quick):
        query = "SELECT count(*) = 10 FROM job_logs WHERE status = 'completed'"
        await until(lambda: value(connection, query), 20)
    assert (await the_job(connection, "scheduled"))["status"] == "enqueued"


# Forward


async def test_jobs_that_run_while_the_clock_leaps_are_neither_given_up_nor_started_again(
    connection: Connection, settings: Settings
) -> None:
    release, starts = asyncio.Event(), []

    @task("test.job", timeout="1h")
    async def waits(job: Job[Any]) -> None:
        starts.append(job.job_id)
        await release.wait()

    await published(connection, settings, waits)
    mine = settings.with_(lease=timedelta(seconds=3))
    async with (
        AsyncClient.open(settings) as client,
        working(mine, waits) as worker,
        working(mine, waits) as other,
    ):
        for number in range(20):
            await client.enqueue(waits, {}, job_id=f"j{number}", max_attempts=1 + number % 2)
        await until(lambda: len(starts) == 20)
        turns = [one.sweeper.turns for one in (worker, other)]
        await until(
            lambda: all(
                one.sweeper.turns > turn for one, turn in zip((worker, other), turns, strict=True)
            )
        )
        for one in (worker, other):
            now, at = one.sweeper._clock
            one.sweeper._clock = (now - timedelta(hours=25), at)
        await leap(connection, timedelta(hours=25))
        extended = (
            "SELECT bool_and(lease_until > now() AND started_at > now() - interval '1 h') FROM "
            "job_logs"
        )
        await until(lambda: value(connection, extended), 20, "all leases are extended")
        turns = [one.sweeper.turns for one in (worker, other)]
        await until(
            lambda: all(
                one.sweeper.turns > turn + 3
                for one, turn in zip((worker, other), turns, strict=True)
            ),
            30,
        )
        assert (
            await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'processing'")
            == 20
        )
        release.set()
        await until(
            lambda: value(connection, "SELECT bool_and(status = 'completed') FROM job_logs")
        )
    assert len(starts) == 20


async def test_while_a_sweep_is_patient_no_lease_is_over(
    connection: Connection, settings: Settings
) -> None:
    over = timedelta(seconds=-1)
    await a_job(connection, job_id="waits")
    await a_job(connection, job_id="over", status="processing", lease_until=over)
    await a_job(connection, job_id="last", status="processing", attempt_count=5, lease_until=over)
    async with link(settings) as one:
        now = await value(connection, "SELECT now()")
        assert await sweep(one, expected=now - HOUR) == {"claim": ["waits"]}
        assert await sweep(one, patient=True) == {}
        assert await sweep(one, expected=now) == {"dlq": ["last"], "rescue": ["over"]}


async def test_an_extension_corrects_when_the_attempt_began(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        ((id, lease, *_),) = await claim(one, worker="w-1")
        began = (await the_job(connection, "j"))["started_at"]
        values = {"ids": [id], "leases": [lease], "worker": "w-1", "lease": LEASE}
        await one.run("extend_leases", values | {"alive": True, "ages": [0.5]})
        assert (await the_job(connection, "j"))["started_at"] == began
        await leap(connection, timedelta(hours=25))
        await one.run("extend_leases", values | {"alive": True, "ages": [60.0]})
        query = (
            "SELECT started_at BETWEEN now() - interval '2 min' AND now() - interval '1 min' "
            "FROM job_logs"
        )
        assert await value(connection, query)


# Off


async def test_after_a_day_off_jobs_in_flight_are_rescued_while_attempts_are_left(
    connection: Connection, settings: Settings
) -> None:
    off = {
        "status": "processing",
        "started_at": timedelta(hours=-25),
        "lease_until": timedelta(hours=-25),
    }
    await a_job(connection, job_id="first", attempt_count=1, **off)
    await a_job(connection, job_id="last", attempt_count=5, **off)
    await a_job(connection, job_id="unknown", job_type="test.stranger", **off)
    async with link(settings) as one:
        assert await sweep(one) == {"dlq": ["last"], "release": ["unknown"], "rescue": ["first"]}
    assert "The lease of attempt 5 ran out" in (await the_job(connection, "last"))["error"]
    row = await the_job(connection, "unknown")
    assert (row["status"], row["attempt_count"]) == ("failed", 1), (
        "a worker that knows it is looked for again"
    )


async def test_after_a_day_off_retention_gives_up_no_job_that_has_attempts_left(
    connection: Connection, settings: Settings
) -> None:
    off = {
        "status": "processing",
        "started_at": timedelta(hours=-25),
        "lease_until": timedelta(hours=-25),
    }
    await a_job(connection, job_id="first", attempt_count=1, **off)
    await a_job(connection, job_id="last", attempt_count=5, **off)
    await a_job(connection, job_id="alive", attempt_count=1, **off | {"locked_by": "w-alive"})
    async with link(settings) as one:
        await registered(one, "w-alive")
    assert (await prune(connection, settings)).expired == 2
    states = {
        row["job_id"]: row["status"]
        for row in await sql(connection, "SELECT job_id, status FROM job_logs")
    }
    assert states == {"first": "failed", "last": "dlq", "alive": "processing"}
