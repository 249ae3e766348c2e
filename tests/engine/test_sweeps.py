"""The sweep: whose lease ran out is started again, released or buried; nobody takes the neighbours
down."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.settings import Settings
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import claim, link, registered, sweep

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]
OVER = timedelta(seconds=-1)


async def test_a_lease_that_ran_out_starts_again_with_a_new_lease(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j", status="processing", lease_until=OVER)
    async with link(settings) as one:
        assert await sweep(one, worker="w-2") == {"rescue": ["j"]}
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["lease"], row["locked_by"]) == (
        "processing",
        2,
        2,
        "w-2",
    )
    assert "its worker w-1 died" in row["history"][0]["error"]
    assert row["history"][0]["attempt"] == 1


async def test_a_lease_that_holds_is_left_alone(connection: Connection, settings: Settings) -> None:
    await a_job(connection, job_id="j", status="processing")
    async with link(settings) as one:
        assert await sweep(one) == {}


async def test_an_expired_job_without_attempts_left_is_buried_and_not_started(
    connection: Connection, settings: Settings
) -> None:
    """One row that a CHECK refuses would stop the rescue of all others; so it never gets a sixth
    attempt."""
    await a_job(connection, job_id="dead", status="processing", attempt_count=5, lease_until=OVER)
    await a_job(connection, job_id="alive", status="processing", lease_until=OVER)
    async with link(settings) as one:
        assert await sweep(one) == {"dlq": ["dead"], "rescue": ["alive"]}
    row = await the_job(connection, "dead")
    assert (row["status"], row["attempt_count"], row["lease"]) == ("dlq", 5, 2)
    assert row["processed_at"] == row["dead_at"] is not None
    assert "The lease of attempt 5 ran out" in row["error"]


async def test_24_hours_in_processing_are_enough_even_with_a_living_lease(
    connection: Connection, settings: Settings
) -> None:
    await a_job(
        connection, job_id="j", status="processing", started_at=timedelta(hours=-24, seconds=-1)
    )
    await a_job(connection, job_id="younger", status="processing", started_at=timedelta(hours=-23))
    async with link(settings) as one:
        assert await sweep(one, free=0, rescue=False) == {"dlq": ["j"]}
    row = await the_job(connection, "j")
    assert (row["status"], row["lease"], row["error"]) == (
        "dlq",
        2,
        "In processing for 24 hours: no more attempts",
    )


async def test_in_a_paused_queue_an_expired_job_goes_back_to_waiting(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j", status="processing", lease_until=OVER)
    await sql(connection, "SELECT pause_queue('default', true)")
    async with link(settings) as one:
        assert await sweep(one) == {"release": ["j"]}
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["lease_until"]) == ("failed", 1, None)


async def test_an_expired_lease_of_an_unknown_type_is_left_to_a_worker_that_knows_it(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="waiting", job_type="test.stranger")
    await a_job(
        connection,
        job_id="expired",
        job_type="test.stranger",
        status="processing",
        lease_until=OVER,
    )
    await a_job(
        connection,
        job_id="over",
        job_type="test.stranger",
        status="processing",
        attempt_count=5,
        lease_until=OVER,
    )
    async with link(settings) as one:
        assert await sweep(one) == {"dlq": ["over"], "claim": ["waiting"]}


async def test_stragglers_behind_the_cursor_are_claimed(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="straggler", run_after=timedelta(minutes=-5))
    async with link(settings) as one:
        assert await sweep(one) == {"claim": ["straggler"]}
    row = await the_job(connection, "straggler")
    assert (row["status"], row["attempt_count"], row["history"]) == ("processing", 1, None)


@pytest.mark.parametrize(("attempts", "group"), [(1, 100), (2, 10), (3, 1), (4, 1)])
async def test_rescued_jobs_start_in_groups_that_shrink(
    connection: Connection, settings: Settings, attempts: int, group: int
) -> None:
    await sql(
        connection,
        """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, attempt_count,
             started_at, lease_until)
           SELECT 'j' || n, 'test.job', 'u', '{}', 'processing', %s, now(), now() - interval '1 s'
             FROM generate_series(1, 150) n""",
        [attempts],
    )
    async with link(settings) as one:
        assert len((await sweep(one, free=500))["rescue"]) == group
        assert len((await sweep(one, free=500, rescue=False)).get("rescue", [])) == 0, (
            "one group at a time"
        )


async def test_the_youngest_suspects_start_first_and_alone(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="often", status="processing", attempt_count=3, lease_until=OVER)
    await a_job(connection, job_id="once", status="processing", attempt_count=1, lease_until=OVER)
    async with link(settings) as one:
        assert await sweep(one) == {"rescue": ["once"]}
        assert await sweep(one) == {"rescue": ["often"]}


async def test_a_sweep_starts_no_more_than_there_is_room_for(
    connection: Connection, settings: Settings
) -> None:
    for _ in range(5):
        await a_job(connection, status="processing", lease_until=OVER)
        await a_job(connection)
    async with link(settings) as one:
        done = await sweep(one, free=6)
    assert len(done["rescue"]) == 5
    assert len(done["claim"]) == 1


async def test_two_sweeps_at_once_rescue_a_job_once(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j", status="processing", lease_until=OVER)
    async with link(settings, "a") as first, link(settings, "b") as second:
        blocker = await first.connect()
        await blocker.execute("BEGIN")
        assert await sweep(first) == {"rescue": ["j"]}
        assert await sweep(second) == {}
        await blocker.execute("COMMIT")
        assert await sweep(second) == {}


async def test_a_sweep_that_raced_with_an_extension_takes_nothing(
    connection: Connection, settings: Settings
) -> None:
    """The row changes between the reading of the slice and its locking: what was read no longer
    counts."""
    await a_job(connection, job_id="j", status="processing", lease_until=OVER)
    async with link(settings, "a") as one:
        await claim(one)
        await sql(connection, "UPDATE job_logs SET lease_until = now() + interval '1 min'")
        assert await sweep(one) == {}


async def test_a_sweep_is_the_workers_heartbeat(connection: Connection, settings: Settings) -> None:
    async with link(settings) as one:
        await registered(one, "w-2")
        await sql(connection, "UPDATE job_workers SET seen_at = now() - interval '1 h'")
        await sweep(one, worker="w-2")
    (row,) = await sql(
        connection, "SELECT now() - seen_at < interval '1 min' AS alive FROM job_workers"
    )
    assert row["alive"]


async def test_a_slice_tells_where_it_ended_and_what_it_left(
    connection: Connection, settings: Settings
) -> None:
    from pgqueue.worker.claim_rows import sweep_from
    from pgqueue.worker.lanes import LAST_ID, START

    for number in range(5):
        await a_job(connection, job_id=f"j{number}", run_after=timedelta(minutes=number - 10))
    async with link(settings) as one:
        rows = await one.run(
            "sweep_jobs",
            {
                "worker": "w",
                "detail": "{}",
                "queues": ["default"],
                "free": [1],
                "lane_queues": ["default"],
                "lane_priorities": [5],
                "lane_run_afters": [START[0]],
                "lane_ids": [START[1]],
                "lane_ends": [None],
                "lane_end_ids": [LAST_ID],
                "slice": 3,
                "patient": False,
                "expected": None,
                "ahead": timedelta(),
                "aside": [],
                "types": ["test.job"],
                "rescue": True,
                "lease": timedelta(seconds=30),
            },
        )
    (lane,) = sweep_from(rows).lanes
    third = await the_job(connection, "j2")
    assert lane == (1, (third["run_after"], str(third["id"])), 3, 2, 0)
