"""The fence: whoever lost the lease changes nothing, with any verb; and a lease is kept as long as
its job runs."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.errors import LeaseLost
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import claim, link, published, sweep, until, working

Connection = AsyncConnection[Any]
SHORT = timedelta(seconds=1)


def of(row: Any) -> dict[str, Any]:
    return {"ids": [row[0]], "leases": [row[1]], "worker": "w-1"}


async def stale_complete(one: WorkerConnection, row: Any) -> Any:
    return ["written"] * await one.count("ack_jobs", of(row) | {"receipts": ["too late"]})


async def stale_fail(status: str, one: WorkerConnection, row: Any) -> Any:
    values = {
        "statuses": [status],
        "delays": [timedelta(seconds=1)],
        "errors": ["too late"],
        "stack_traces": [None],
    }
    return await one.run("fail_jobs", of(row) | values | {"certain": [True]})


async def stale_shelve(one: WorkerConnection, row: Any) -> Any:
    return await one.run("shelve_jobs", of(row))


async def stale_extend(one: WorkerConnection, row: Any) -> Any:
    rows = await one.run("extend_leases", of(row) | {"lease": SHORT, "alive": True, "ages": [0.0]})
    assert [what for *_, what in rows] in ([], ["lost"])
    return [found for found in rows if found[2] == "extended"]


async def stale_progress(one: WorkerConnection, row: Any) -> Any:
    return await one.run(
        "save_progress",
        {"id": row[0], "lease": row[1], "worker": "w-1", "fraction": 0.5, "note": None},
    )


async def stale_intend(one: WorkerConnection, row: Any) -> Any:
    return await one.run("intend_effects", of(row))


async def stale_transaction(one: WorkerConnection, row: Any) -> Any:
    return await one.run(
        "complete_job", {"id": row[0], "lease": row[1], "worker": "w-1", "receipt": "too late"}
    )


async def stale_release(one: WorkerConnection, row: Any) -> Any:
    return await one.run(
        "release_orphans", {"queues": ["default"], "worker": "w-1", "ids": [], "leases": []}
    )


VERBS = {
    "complete": stale_complete,
    "retry": lambda one, row: stale_fail("failed", one, row),
    "dlq": lambda one, row: stale_fail("dlq", one, row),
    "snooze": lambda one, row: stale_fail("enqueued", one, row),
    "no handler": stale_shelve,
    "extend": stale_extend,
    "progress": stale_progress,
    "intend": stale_intend,
    "own transaction": stale_transaction,
    "release": stale_release,
}


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_worker_that_lost_its_lease_changes_nothing(
    connection: Connection, settings: Settings, verb: str
) -> None:
    """Another worker has the job now: same row, same status, another lease."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (stale,) = await claim(one, worker="w-1")
        await sql(connection, "UPDATE job_logs SET lease_until = now() - interval '1 s'")
        assert await sweep(one, worker="w-2") == {"rescue": ["j"]}
        before = await the_job(connection, "j")
        assert list(await VERBS[verb](one, stale)) == []
    assert await the_job(connection, "j") == before


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("taken_by", ["cancel", "24 hours", "no attempts left"])
async def test_whoever_takes_a_running_job_away_ends_the_lease_first(
    connection: Connection, settings: Settings, verb: str, taken_by: str
) -> None:
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (stale,) = await claim(one, worker="w-1")
        match taken_by:
            case "cancel":
                await sql(connection, "SELECT cancel_job('j')")
            case "24 hours":
                await sql(connection, "UPDATE job_logs SET started_at = now() - interval '25 h'")
                assert await sweep(one) == {"dlq": ["j"]}
            case _:
                await sql(
                    connection,
                    "UPDATE job_logs SET lease_until = now() - interval '1 s', attempt_count = 5",
                )
                assert await sweep(one) == {"dlq": ["j"]}
        before = await the_job(connection, "j")
        assert list(await VERBS[verb](one, stale)) == []
        assert list(await one.run("confirm_acks", of(stale))) == [], (
            "nor is it taken for an ack that went through"
        )
    assert await the_job(connection, "j") == before


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "release"])
async def test_an_attempt_that_its_own_worker_has_rescued_changes_nothing(
    connection: Connection, settings: Settings, verb: str
) -> None:
    """Same row, same status, same worker: the lease alone tells the two attempts apart."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (stale,) = await claim(one, worker="w-1")
        await sql(connection, "UPDATE job_logs SET lease_until = now() - interval '1 s'")
        assert await sweep(one, worker="w-1") == {"rescue": ["j"]}
        before = await the_job(connection, "j")
        assert list(await VERBS[verb](one, stale)) == []
    assert await the_job(connection, "j") == before


UNDONE = """
UPDATE job_logs SET status = 'enqueued', attempt_count = 0, lease = 0, started_at = NULL,
  lease_until = NULL, locked_by = NULL
"""
"""What a standby knows of a claim whose commit it never received."""


@pytest.mark.postgres(15, 18)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_claim_that_a_failover_has_undone_is_no_claim(
    connection: Connection, settings: Settings, verb: str
) -> None:
    """The standby was promoted without it; another worker claims the row there, and is given the
    same lease."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (stale,) = await claim(one, worker="w-1")
        await sql(connection, UNDONE)
        (fresh,) = await claim(one, worker="w-2")
        assert fresh[:2] == stale[:2]
        before = await the_job(connection, "j")
        assert list(await VERBS[verb](one, stale)) == []
        assert await the_job(connection, "j") == before
        told = await one.run(
            "extend_leases", of(stale) | {"lease": SHORT, "alive": True, "ages": [0.0]}
        )
        assert [what for *_, what in told] == ["lost"]
        assert await one.count("ack_jobs", of(fresh) | {"worker": "w-2", "receipts": [None]}) == 1
        assert list(await one.run("confirm_acks", of(stale))) == [], (
            "the other's ack is not taken for ours"
        )
        assert len(await one.run("confirm_acks", of(fresh) | {"worker": "w-2"})) == 1


async def test_a_replayed_job_has_a_new_lease_and_the_old_attempt_does_not_count(
    connection: Connection, settings: Settings
) -> None:
    """attempt_count is no fence: a replay resets it, and the new attempt has the number of the
    old."""
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (stale,) = await claim(one)
        await sql(connection, "SELECT cancel_job('j')")
        await sql(connection, "SELECT replay_job('j')")
        (fresh,) = await claim(one)
        assert (fresh[6], stale[6]) == (1, 1)
        assert fresh[1] > stale[1]
        assert list(await stale_complete(one, stale)) == []
        assert len(await stale_complete(one, fresh)) == 1


async def test_the_lease_of_a_long_job_is_extended(
    connection: Connection, settings: Settings
) -> None:
    release = asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        await release.wait()

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings.with_(lease=SHORT), handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: _claimed(connection))
        first = (await the_job(connection, "j"))["lease_until"]
        await until(lambda: _extended_past(connection, first + timedelta(seconds=1)))
        release.set()
        await until(lambda: _status(connection, "completed"))
    assert (await the_job(connection, "j"))["attempt_count"] == 1


async def test_a_handler_that_blocks_the_event_loop_keeps_its_lease(
    connection: Connection, settings: Settings
) -> None:
    """Two leases long nothing of asyncio moves; a second worker is waiting for the job all the
    while."""

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        time.sleep(2.2)  # noqa: ASYNC251 - blocking is what is tested

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client:
        await client.enqueue(handler, {}, job_id="j")
        async with working(settings.with_(lease=SHORT), handler):
            await until(lambda: _status(connection, "completed"))
    row = await the_job(connection, "j")
    assert (row["attempt_count"], row["lease"], row["history"]) == (1, 1, None)


async def test_cancelling_a_running_job_stops_its_handler(
    connection: Connection, settings: Settings
) -> None:
    stopped = asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(lease=SHORT), handler) as worker,
    ):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: _claimed(connection))
        await client.cancel("j")
        assert await _status(connection, "cancelled")
        await asyncio.wait_for(stopped.wait(), 5)
        await until(lambda: not worker.inflight.attempts)
        assert worker.inflight.counters.leases_lost == 1
    assert await _status(connection, "cancelled")


async def test_progress_is_written_while_the_lease_holds_and_refused_after(
    connection: Connection, settings: Settings
) -> None:
    going, release, seen = asyncio.Event(), asyncio.Event(), []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        await job.progress(0.5, "half")
        going.set()
        await release.wait()
        try:
            await job.progress(0.9)
        except LeaseLost as error:
            seen.append(error)
            raise

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler) as worker:
        await client.enqueue(handler, {}, job_id="j")
        await going.wait()
        view = await client.get("j")
        assert (view.progress, view.progress_note) == (0.5, "half")
        await client.cancel("j")
        release.set()
        await until(lambda: not worker.inflight.attempts)
    assert len(seen) == 1
    assert (await the_job(connection, "j"))["progress"] == 0.5


async def test_a_handler_is_stopped_when_its_lease_could_not_be_extended_in_time(
    connection: Connection, settings: Settings
) -> None:
    """The lease's connection finds no database, for longer than the lease; the rest of the worker
    does not notice."""
    stopped = asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await published(connection, settings, handler)
    nowhere = settings.with_(
        lease=SHORT, direct_url="postgresql://nobody@127.0.0.1:1/none", doorbell=False
    )
    async with AsyncClient.open(settings) as client, working(nowhere, handler) as worker:
        await client.enqueue(handler, {}, job_id="j")
        await asyncio.wait_for(stopped.wait(), 10)
        assert worker.inflight.counters.leases_lost == 1


async def test_an_extension_skips_a_locked_row_and_does_not_call_it_lost(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j")
    async with link(settings) as one, connection.transaction():
        (row,) = await claim(one)
        await sql(connection, "SELECT 1 FROM job_logs FOR UPDATE")
        rows = await one.run(
            "extend_leases", of(row) | {"lease": SHORT, "alive": True, "ages": [0.0]}
        )
        assert list(rows) == []


async def _claimed(connection: Connection) -> bool:
    return await _status(connection, "processing")


async def _status(connection: Connection, status: str) -> bool:
    (row,) = await sql(connection, "SELECT status FROM job_logs")
    return bool(row["status"] == status)


async def _extended_past(connection: Connection, moment: Any) -> bool:
    (row,) = await sql(connection, "SELECT lease_until FROM job_logs")
    return bool(row["lease_until"] > moment)
