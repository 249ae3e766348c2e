"""The doorbell: only a sleeper costs a NOTIFY, one worker per job, and polling alone is enough."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.settings import Settings
from pgqueue.task import task
from tests.support.factories import sql
from tests.support.scene import link, published, registered, until, working

Connection = AsyncConnection[Any]


@task("test.job")
async def handler(job: Job[Any]) -> None: ...


def said_by_the_ringer(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "pgqueue.enqueue.doorbell"
    ]


async def rung(connection: Connection, queue: str = "default", jobs: int = 1) -> int:
    (row,) = await sql(connection, "SELECT ring_doorbell(ARRAY[%s], %s) AS n", [queue, jobs])
    return int(row["n"])


@pytest.mark.postgres(15, 18)
async def test_a_ring_wakes_as_many_sleepers_as_there_are_jobs(
    connection: Connection, settings: Settings
) -> None:
    async with link(settings) as one:
        for name in ("w-1", "w-2", "w-3"):
            await registered(one, name)
            await one.run("sleep_worker", {"worker": name})
        await registered(one, "w-4", {"other": 1})
        await one.run("sleep_worker", {"worker": "w-4"})
    assert await rung(connection, jobs=2) == 2
    assert await rung(connection, jobs=9) == 1
    assert await rung(connection, jobs=9) == 0, "nobody sleeps any more: nothing is notified"
    assert await rung(connection, "other") == 1


@pytest.mark.postgres(15, 18)
async def test_a_sleeper_that_has_fallen_silent_is_not_rung_for(
    connection: Connection, settings: Settings
) -> None:
    async with link(settings) as one:
        await registered(one, "w-1")
        await one.run("sleep_worker", {"worker": "w-1"})
    await sql(connection, "UPDATE job_workers SET seen_at = now() - interval '1 min'")
    assert await rung(connection) == 0


async def awake(connection: Connection) -> bool:
    return not (await sql(connection, "SELECT asleep FROM job_workers"))[0]["asleep"]


@pytest.mark.postgres(15, 18)
async def test_where_workers_sleep_the_ring_rides_on_the_job_s_commit(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(connection, settings, handler)
    async with link(settings) as one, AsyncClient.open(settings) as client:
        await registered(one, "w-1")
        doorbell = client._transport.doorbell
        assert doorbell is not None

        await one.run("sleep_worker", {"worker": "w-1"})
        await client.enqueue(handler, {}, job_id="after its commit")
        await until(lambda: doorbell.woke_a_worker)

        await one.run("sleep_worker", {"worker": "w-1"})
        await client.enqueue(handler, {}, job_id="with it")
        by = (
            "SELECT w.xmin = j.xmin AND NOT w.asleep AS one FROM job_workers w, job_logs j WHERE "
            "j.job_id = 'with it'"
        )
        assert (await sql(connection, by))[0]["one"], "in one transaction"

        enqueued = client._transport.enqueue_alone

        async def and_falls_asleep(values: Any) -> Any:
            answer = await enqueued(values)
            await one.run("sleep_worker", {"worker": "w-1"})
            return answer

        monkeypatch.setattr(client._transport.group_commit, "_one", and_falls_asleep)
        await client.enqueue(handler, {}, job_id="too early for it")
        await until(lambda: awake(connection))
        assert doorbell.woke_a_worker

        monkeypatch.setattr(client._transport.group_commit, "_one", enqueued)
        await client.enqueue(handler, {}, job_id="nobody sleeps")
        await until(lambda: not doorbell.woke_a_worker)


async def started_at_once(settings: Settings, **changes: Any) -> float:
    """Seconds from the enqueue to the start of the handler, with a worker that would otherwise look
    once a minute."""
    going = asyncio.Event()

    @task("test.job")
    async def waiting(job: Job[Any]) -> None:
        going.set()

    lazy = settings.with_(
        idle_interval=timedelta(minutes=1), poll_interval=timedelta(minutes=1), **changes
    )
    async with AsyncClient.open(lazy) as client, working(lazy, waiting) as worker:
        await until(
            lambda: worker.claimer.resting and (worker.doorbell.working or not lazy.doorbell)
        )
        begun = asyncio.get_running_loop().time()
        await client.enqueue(waiting, {})
        await asyncio.wait_for(going.wait(), 20)
        return asyncio.get_running_loop().time() - begun


async def test_a_sleeping_worker_starts_at_once_when_it_is_rung_for(
    connection: Connection, settings: Settings
) -> None:
    await published(connection, settings, handler)
    assert await started_at_once(settings) < 15


async def test_polling_alone_is_enough(connection: Connection, settings: Settings) -> None:
    await published(connection, settings, handler)
    done = asyncio.Event()

    @task("test.job")
    async def waiting(job: Job[Any]) -> None:
        done.set()

    silent = settings.with_(doorbell=False)
    async with AsyncClient.open(silent) as client, working(silent, waiting) as worker:
        assert not worker.doorbell.working
        await client.enqueue(waiting, {})
        await asyncio.wait_for(done.wait(), 10)
    assert not worker.doorbell.working


async def test_a_lost_ring_costs_an_idle_interval_and_no_more(
    connection: Connection, settings: Settings
) -> None:
    """The job comes from plain SQL: nobody rings."""
    done = asyncio.Event()

    @task("test.job")
    async def waiting(job: Job[Any]) -> None:
        done.set()

    await published(connection, settings, waiting)
    async with working(settings, waiting) as worker:
        await until(lambda: worker.claimer.resting and worker.doorbell.working)
        await sql(connection, "SELECT enqueue_job('test.job', '{}')")
        await asyncio.wait_for(done.wait(), 10)


async def test_a_pool_whose_rows_are_dicts_rings_too(
    connection: Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await published(connection, settings, handler)
    async with link(settings) as one:
        await registered(one, "w-1")
        await one.run("sleep_worker", {"worker": "w-1"})
    theirs = AsyncConnectionPool(
        settings.conninfo, open=False, kwargs={"autocommit": True, "row_factory": dict_row}
    )
    with caplog.at_level(logging.DEBUG, "pgqueue.enqueue.doorbell"):
        async with theirs as pool, AsyncClient.open(pool) as client:
            await client.enqueue(handler, {})
    assert await sql(connection, "SELECT asleep FROM job_workers") == [{"asleep": False}]
    assert said_by_the_ringer(caplog) == []


async def test_whatever_goes_wrong_with_a_ring_is_no_matter_of_the_caller(
    connection: Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await published(connection, settings, handler)
    await sql(connection, "DROP FUNCTION ring_doorbell")
    with caplog.at_level(logging.DEBUG, "pgqueue.enqueue.doorbell"):
        async with AsyncClient.open(settings) as client:
            assert (await client.enqueue(handler, {})).created
    assert said_by_the_ringer(caplog) == ["the doorbell was not rung: UndefinedFunction"]


async def test_behind_a_transaction_pooler_there_is_no_doorbell(
    connection: Connection, settings: Settings
) -> None:
    async with working(settings.with_(pgbouncer=True), handler) as worker:
        await until(lambda: worker.claimer.resting)
        assert not worker.doorbell.working


async def test_the_doorbell_listens_again_after_its_connection_died(
    connection: Connection, settings: Settings
) -> None:
    async with working(settings, handler) as worker:
        await until(lambda: worker.doorbell.working)
        await sql(
            connection,
            (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
                "'pgqueue doorbell'"
            ),
        )
        await until(lambda: not worker.doorbell.working)
        await until(lambda: worker.doorbell.working)


async def test_an_idle_worker_with_a_doorbell_asks_at_most_60_times_a_minute(
    connection: Connection, settings: Settings
) -> None:
    """Counted by the database, over five idle intervals."""
    patient = settings.with_(idle_interval=timedelta(milliseconds=400))
    async with working(patient, handler) as worker:
        await until(lambda: worker.claimer.resting and worker.doorbell.working)
        sweeps = worker.sweeper.turns
        await until(lambda: worker.sweeper.turns >= sweeps + 1)
        before, turns = worker.statements, worker.sweeper.turns
        await until(lambda: worker.sweeper.turns >= turns + 5)
        assert worker.statements - before <= 6, "one statement in an interval: the sweep"
