"""The fence once more, from its other sides: what has ended stays ended, and what is told of a
lease is the truth."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.database.worker_connection import load
from pgqueue.errors import JobNotFound
from pgqueue.settings import Settings
from pgqueue.testing import advance
from pgqueue.worker.lanes import LAST_ID, START
from tests.engine.test_leases import VERBS, of, stale_complete, stale_fail
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import claim, link, sweep

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]

ENDINGS = {
    "completed": stale_complete,
    "failed": lambda one, row: stale_fail("failed", one, row),
    "dead": lambda one, row: stale_fail("dlq", one, row),
    "snoozed": lambda one, row: stale_fail("enqueued", one, row),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("ended", ENDINGS)
async def test_an_attempt_that_has_ended_does_not_end_again(
    connection: Connection, settings: Settings, ended: str, verb: str
) -> None:
    """By the same worker, under the same lease: an outcome that is sent twice, or two outcomes of
    one attempt."""
    await a_job(connection, job_id="j", attempt_count=1)
    async with link(settings) as one:
        (row,) = await claim(one, worker="w-1")
        assert len(await ENDINGS[ended](one, row)) == 1
        await sql(connection, "UPDATE job_logs SET run_after = now() - interval '1 min'")
        before = await the_job(connection, "j")
        assert list(await VERBS[verb](one, row)) == []
    assert await the_job(connection, "j") == before


async def told(one: Any, row: Any) -> list[str]:
    rows = await one.run(
        "extend_leases", of(row) | {"lease": timedelta(seconds=9), "alive": True, "ages": [0.0]}
    )
    return [row[-1] for row in rows]


@pytest.mark.parametrize(
    "how", ["another worker has it", "its own worker has it again", "it has ended", "it is gone"]
)
async def test_an_extension_tells_that_a_lease_is_lost(
    connection: Connection, settings: Settings, how: str
) -> None:
    """A handler is stopped on this proof, and on none less."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (row,) = await claim(one, worker="w-1")
        assert await told(one, row) == ["extended"]
        match how:
            case "another worker has it" | "its own worker has it again":
                await sql(connection, "UPDATE job_logs SET lease_until = now() - interval '1 s'")
                by = "w-2" if how == "another worker has it" else "w-1"
                assert await sweep(one, worker=by) == {"rescue": ["j"]}
            case "it has ended":
                await stale_fail("failed", one, row)
            case _:
                await sql(connection, "DELETE FROM job_logs")
        assert await told(one, row) == ["lost"]


async def test_an_ack_is_not_confirmed_while_its_attempt_runs(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (row,) = await claim(one)
        assert list(await one.run("confirm_acks", of(row))) == []
        await stale_complete(one, row)
        assert [found[0] for found in await one.run("confirm_acks", of(row))] == [row[0]]


async def test_an_orphan_is_known_by_its_lease(connection: Connection, settings: Settings) -> None:
    """The worker has an older attempt of the same job in hand; of this one it never heard."""
    await a_job(connection, job_id="j", status="processing", lease=2, attempt_count=2)
    await a_job(connection, job_id="held", status="processing", lease=2)
    held, job = await the_job(connection, "held"), await the_job(connection, "j")
    inflight = {"ids": [job["id"], held["id"]], "leases": [1, 2]}
    async with link(settings) as one:
        rows = await one.run("release_orphans", {"queues": ["default"], "worker": "w-1"} | inflight)
    assert [row[0] for row in rows] == ["j"]
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["lease"]) == ("failed", 1, 2)


@pytest.mark.parametrize("status", ["processing", "completed", "dlq", "cancelled"])
async def test_time_is_moved_only_for_a_job_that_waits(
    connection: Connection, settings: Settings, status: str
) -> None:
    before = await a_job(connection, job_id="j", status=status)
    async with AsyncClient.open(settings) as client:
        with pytest.raises(JobNotFound):
            await advance(client, "j")
    assert await the_job(connection, "j") == before


async def test_jobs_that_wait_are_found_and_no_others(
    connection: AsyncConnection[Any], settings: Settings
) -> None:
    for status in ("failed", "enqueued", "processing", "completed", "dlq", "cancelled"):
        await a_job(connection, job_id=status, status=status)
    sought = {"job_type": "test.job", "job_id": None, "user_id": None, "queue": None}
    async with AsyncClient.open(settings) as client:
        found = [row["job_id"] for row in await client.run("find_waiting", sought)]
        assert found == ["failed", "enqueued"]
        assert await client.run("find_waiting", sought | {"queue": "other"}) == []


async def test_what_has_ended_is_no_work_any_more(
    connection: Connection, settings: Settings
) -> None:
    for status in ("enqueued", "processing", "completed", "dlq", "cancelled"):
        await a_job(connection, status=status)
    await a_job(connection, run_after=timedelta(hours=1))
    async with AsyncClient.open(settings) as client:
        assert await client.run("count_due", {"types": ["test.job"]}) == [{"count": 2}]


async def test_a_job_that_waits_is_never_forgotten(
    connection: Connection, settings: Settings
) -> None:
    """However long ago its last attempt began."""
    before = await a_job(connection, job_id="j", status="failed", started_at=timedelta(hours=-25))
    async with link(settings) as one:
        assert list(await one.run("bury_forgotten", {"batch": 10})) == []
    assert await the_job(connection, "j") == before


async def test_no_attempt_is_counted_past_the_last(connection: Connection) -> None:
    await a_job(connection, status="processing", attempt_count=5)
    for wrong in ("attempt_count = 6", "attempt_count = -1"):
        with pytest.raises(psycopg.errors.CheckViolation):
            await connection.execute(f"UPDATE job_logs SET {wrong}".encode())


async def test_the_claim_index_has_only_live_rows(connection: Connection) -> None:
    """Or a claim would walk over everything that was ever done."""
    (row,) = await sql(
        connection, "SELECT indexdef FROM pg_indexes WHERE indexname = 'job_logs_claim'"
    )
    assert row["indexdef"].endswith("(queue, priority, run_after, id) WHERE (processed_at IS NULL)")


LANES = {
    "claim_jobs": 2,
    "sweep_jobs": 1,
    "release_orphans": 1,
    "bury_forgotten": 0,
    "count_due": 0,
}
"""How often a statement looks into a queue."""


@pytest.mark.parametrize("statement", LANES)
async def test_who_asks_for_live_rows_reads_the_index_of_live_rows(
    connection: Connection, settings: Settings, statement: str
) -> None:
    """The words `processed_at IS NULL` are what lets Postgres use it; the status says the same, and
    Postgres does not know."""
    values = {
        **{
            "queues": ["default"],
            "free": [1],
            "lane_rooms": [1],
            "lane_queues": ["default"],
            "lane_priorities": [5],
        },
        **{
            "lane_run_afters": [START[0]],
            "lane_ids": [START[1]],
            "lane_ends": [None],
            "lane_end_ids": [LAST_ID],
        },
        **{
            "slice": 10,
            "patient": False,
            "expected": None,
            "ahead": timedelta(),
            "types": ["test.job"],
            "rescue": True,
            "lease": timedelta(seconds=30),
            "worker": "w",
            "detail": "{}",
            "aside": [],
        },
        **{"ids": [], "leases": [], "batch": 10, "aside": []},
    }
    await a_job(connection)
    async with link(settings) as one:
        cursor = await (await one.connect()).execute(f"EXPLAIN {load(statement)}", values)
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert plan.count("Index Cond: ((queue = ") == LANES[statement], plan
    assert "job_logs_claim" in plan
