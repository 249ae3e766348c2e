"""The probe of a circuit breaker: one job at a time, taken from nobody, an attempt like any
other."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.settings import Settings
from tests.support.factories import a_job, a_type, sql, the_job, value
from tests.support.races import another, impatient, slow_clock, waiting
from tests.support.scene import LEASE, link, sweep

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.fixture(autouse=True)
async def broken(connection: Connection) -> None:
    """A dependency whose probe is due."""
    await a_type(connection, job_type="test.job", depends_on="server")
    await sql(
        connection,
        """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause)
           VALUES ('server', 'open', now() - interval '1 min', now() - interval '1 s', '5 s')""",
    )


async def probe(one: WorkerConnection, worker: str = "w-2") -> list[str]:
    """Starts one, if it may: its job_id."""
    values = {"worker": worker, "lease": LEASE, "queues": ["default"], "dependencies": ["server"]}
    return [row[3] for row in await one.run("claim_probe", values)]


async def half_open(connection: Connection, job: dict[str, Any], lease: int) -> None:
    values = [job["id"], lease]
    await sql(
        connection,
        "UPDATE job_dependencies SET state = 'half_open', probe_id = %s, probe_lease = %s",
        values,
    )


async def test_a_probe_is_an_attempt_like_any_other(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j", status="failed", lease=3)
    async with link(settings) as one:
        assert await probe(one) == ["j"]
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["lease"], row["locked_by"]) == (
        "processing",
        2,
        4,
        "w-2",
    )
    assert row["lease_until"] - row["started_at"] == LEASE
    assert await value(connection, "SELECT probe_lease FROM job_dependencies") == 4


async def test_a_job_that_runs_is_no_probe(connection: Connection, settings: Settings) -> None:
    """It was started before the breaker opened."""
    await a_job(connection, job_id="runs", status="processing", run_after=timedelta(minutes=-9))
    await a_job(connection, job_id="waits", status="failed")
    async with link(settings) as one:
        assert await probe(one) == ["waits"]


async def test_a_probe_that_somebody_else_is_starting_is_not_waited_for(
    connection: Connection, settings: Settings
) -> None:
    for _ in range(2):
        await a_job(connection)
    async with another(settings, autocommit=False) as other, link(settings) as one:
        assert (
            len(
                await sql(
                    other,
                    "SELECT * FROM pgqueue_claim_probe('w-1', '30 s', '{default}', '{server}')",
                )
            )
            == 1
        )
        assert await probe(await impatient(one)) == []


async def test_a_job_that_somebody_has_locked_is_no_probe(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection)
    async with another(settings, autocommit=False) as other, link(settings) as one:
        await sql(other, "SELECT 1 FROM job_logs FOR UPDATE")
        assert await probe(await impatient(one)) == []


async def test_a_job_that_was_claimed_while_it_was_chosen_is_no_probe(
    connection: Connection, settings: Settings
) -> None:
    """The clock is asked for the first time when the dependency is chosen, for the second when the
    job is."""
    await a_job(connection, job_id="j")
    async with (
        link(settings) as one,
        slow_clock(connection, settings, one, tick=2) as gate,
        waiting(connection, one, probe(one)) as probing,
    ):
        await sql(
            connection,
            (
                "UPDATE job_logs SET status = 'processing', lease = 1, attempt_count = 1, "
                "lease_until = now() + interval '1 h'"
            ),
        )
        claimed = await the_job(connection, "j")
        await gate.rollback()
        assert await probing == []
    assert await the_job(connection, "j") == claimed


async def test_a_dependency_that_was_tried_while_it_was_chosen_is_not_tried_again(
    connection: Connection, settings: Settings
) -> None:
    for _ in range(2):
        await a_job(connection)
    async with (
        link(settings) as one,
        slow_clock(connection, settings, one) as gate,
        waiting(connection, one, probe(one)) as probing,
    ):
        assert (
            len(
                await sql(
                    connection,
                    "SELECT * FROM pgqueue_claim_probe('w-1', '30 s', '{default}', '{server}')",
                )
            )
            == 1
        )
        await gate.rollback()
        assert await probing == []


async def test_a_sweep_claims_no_straggler_that_is_held_back(
    connection: Connection, settings: Settings
) -> None:
    before = await a_job(connection, job_id="j", run_after=timedelta(minutes=-5))
    async with link(settings) as one:
        assert await sweep(one) == {}
    assert await the_job(connection, "j") == before


@pytest.mark.parametrize("how", ["it lives", "its lease ran out", "another has its job"])
async def test_a_probe_holds_as_long_as_its_lease(
    connection: Connection, settings: Settings, how: str
) -> None:
    columns: dict[str, dict[str, Any]] = {
        "it lives": {},
        "its lease ran out": {"lease_until": timedelta(seconds=-1)},
        "another has its job": {"lease": 2, "attempt_count": 2},
    }
    await half_open(connection, await a_job(connection, status="processing", **columns[how]), 1)
    await a_job(connection, job_id="next")
    async with link(settings) as one:
        assert await probe(one) == ([] if how == "it lives" else ["next"])


async def test_failures_that_are_told_at_once_add_up(
    connection: Connection, settings: Settings
) -> None:
    """Two workers at once, and each has seen one job fail. The first has read the row, and not yet
    written it."""
    await sql(connection, "INSERT INTO job_dependencies (dependency) VALUES ('other')")
    jobs = [(await a_job(connection))["id"] for _ in range(2)]
    failed = "SELECT pgqueue_dependency_failed('other', ARRAY[%s]::uuid[], false, 'x', NULL, NULL)"
    async with (
        another(settings) as first,
        another(settings) as second,
        slow_clock(connection, settings, first) as gate,
        waiting(connection, first, sql(first, failed, [jobs[0]])) as told,
        waiting(connection, second, sql(second, failed, [jobs[1]])) as told_too,
    ):
        await gate.rollback()
        await told
        await told_too
    failures = await value(
        connection, "SELECT failures FROM job_dependencies WHERE dependency = 'other'"
    )
    assert set(failures) == {str(job) for job in jobs}


async def test_a_dependency_is_one_row_however_often_it_fails(connection: Connection) -> None:
    for _ in range(2):
        job = await a_job(connection)
        await sql(
            connection,
            "SELECT pgqueue_dependency_failed('new', ARRAY[%s]::uuid[], false, 'x', NULL, NULL)",
            [job["id"]],
        )
    assert (
        await value(connection, "SELECT count(*) FROM job_dependencies WHERE dependency = 'new'")
        == 1
    )
