"""Claiming: each job once, in order, up to what is free, and no more locked than taken."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.worker_connection import load
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import task
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.claimer import Claimer
from pgqueue.worker.doorbell import Doorbell
from pgqueue.worker.inflight import InFlight, RunningAttempt
from pgqueue.worker.lanes import Lanes
from tests.support.factories import a_job, a_type, sql, the_job
from tests.support.scene import a_turn, claim, link, published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


async def test_a_claim_takes_what_is_due_oldest_first_and_by_priority(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="late", run_after=minutes(-1))
    await a_job(connection, job_id="early", run_after=minutes(-2))
    await a_job(connection, job_id="urgent", run_after=minutes(0), priority=0)
    await a_job(connection, job_id="tomorrow", run_after=timedelta(days=1))
    async with link(settings) as one:
        assert [row[3] for row in await claim(one)] == ["urgent", "early", "late"]


async def test_a_claim_writes_down_attempt_lease_and_holder(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        await claim(one, worker="w-7")
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"], row["lease"], row["locked_by"]) == (
        "processing",
        1,
        1,
        "w-7",
    )
    assert row["lease_until"] - row["started_at"] == timedelta(seconds=30)


async def test_a_claim_takes_no_more_than_asked(connection: Connection, settings: Settings) -> None:
    for _ in range(20):
        await a_job(connection)
    async with link(settings) as one:
        assert len(await claim(one, most=7)) == 7
        assert len(await claim(one, most=100)) == 13
        assert await claim(one) == []


async def test_two_claims_at_once_never_take_the_same_job(
    connection: Connection, settings: Settings
) -> None:
    """The guard is SKIP LOCKED with the row lock: a claim that is not yet committed is passed over,
    not waited for."""
    for _ in range(10):
        await a_job(connection)
    async with link(settings, "a") as first, link(settings, "b") as second:
        blocker = await first.connect()
        await blocker.execute("BEGIN")
        taken = {row[3] for row in await claim(first, most=4)}
        others = {row[3] for row in await asyncio.wait_for(claim(second, most=100), 5)}
        await blocker.execute("COMMIT")
    assert len(taken) == 4
    assert len(others) == 6
    assert not taken & others


async def test_a_claim_locks_nothing_that_it_does_not_take(
    connection: Connection, settings: Settings
) -> None:
    for _ in range(10):
        await a_job(connection)
    async with link(settings) as one:
        blocker = await one.connect()
        await blocker.execute("BEGIN")
        assert len(await claim(one, most=3)) == 3
        free = await sql(connection, "SELECT id FROM job_logs FOR UPDATE SKIP LOCKED")
        await blocker.execute("COMMIT")
    assert len(free) == 7


async def test_a_paused_queue_is_not_claimed(connection: Connection, settings: Settings) -> None:
    await a_job(connection)
    await sql(connection, "SELECT pause_queue('default', true)")
    async with link(settings) as one:
        assert await claim(one) == []
        await sql(connection, "SELECT pause_queue('default', false)")
        assert len(await claim(one)) == 1


async def test_pause_reaches_a_running_worker_and_what_runs_goes_on(
    connection: Connection, settings: Settings
) -> None:
    going, release, ran = asyncio.Event(), asyncio.Event(), []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        ran.append(job.job_id)
        going.set()
        if job.job_id == "first":
            await release.wait()

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="first")
        await going.wait()
        await client.pause("default")
        await client.enqueue(handler, {}, job_id="second")
        release.set()
        await until(lambda: _is(connection, "first", "completed"))
        assert (await the_job(connection, "second"))["status"] == "enqueued"
        await client.resume("default")
        await until(lambda: _is(connection, "second", "completed"))
    assert ran == ["first", "second"]


async def test_within_a_lane_jobs_start_in_order(
    connection: Connection, settings: Settings
) -> None:
    started: list[str] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        started.append(job.job_id)

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client:
        await client.enqueue_many(
            [NewJob(handler, {}, f"job-{number:03d}") for number in range(200)]
        )
        expected = [
            row["job_id"]
            for row in await sql(connection, "SELECT job_id FROM job_logs ORDER BY run_after, id")
        ]
        async with working(settings.with_(queues={"default": 7}), handler):
            await until(lambda: len(started) == 200)
    assert started == expected


async def test_a_worker_serves_several_queues_each_with_its_own_slots(
    connection: Connection, settings: Settings
) -> None:
    at_once = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}

    def a_task(queue: str) -> Any:
        @task(f"test.{queue}", queue=queue)
        async def handler(job: Job[Any]) -> None:
            at_once[queue] += 1
            most[queue] = max(most[queue], at_once[queue])
            for _ in range(3):  # long enough for the others to start
                await a_turn()
            at_once[queue] -= 1

        return handler

    tasks = [a_task("a"), a_task("b")]
    await published(connection, settings, *tasks)
    async with AsyncClient.open(settings) as client:
        await client.enqueue_many([NewJob(one, {}) for one in tasks for _ in range(40)])
        async with working(settings.with_(queues={"a": 2, "b": 5}), *tasks):
            await until(lambda: _all(connection, "completed", 80))
    assert most["a"] <= 2
    assert 2 < most["b"] <= 5


async def test_a_slow_commit_that_lands_behind_the_cursor_is_found(
    connection: Connection, settings: Settings
) -> None:
    """The job's run_after is set long before its commit: every claim has passed it by then. A sweep
    finds it."""
    ran = asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        if job.job_id == "slow":
            ran.set()

    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings, handler) as worker,
        client.pool.connection() as slow,
    ):
        await slow.execute("BEGIN")
        await client.enqueue(handler, {}, job_id="slow", connection=slow)
        await client.enqueue(handler, {}, job_id="fast")
        await until(lambda: _is(connection, "fast", "completed"))
        await sql(connection, "UPDATE job_logs SET run_after = run_after")
        await until(lambda: worker.claimer.lanes.all[5].cursor[0].year > 1)
        await slow.execute(
            "UPDATE job_logs SET run_after = run_after - interval '1 min' WHERE job_id = 'slow'"
        )
        await slow.execute("COMMIT")
        await asyncio.wait_for(ran.wait(), 10)


async def test_a_scheduled_job_starts_when_it_is_due_and_not_before(
    connection: Connection, settings: Settings
) -> None:
    started: dict[str, float] = {}

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        started[job.job_id] = asyncio.get_running_loop().time()

    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(idle_interval=timedelta(seconds=30)), handler),
    ):
        begun = asyncio.get_running_loop().time()
        await client.enqueue(handler, {}, job_id="soon", delay="400ms")
        await until(lambda: "soon" in started)
    assert started["soon"] - begun >= 0.4
    row = await the_job(connection, "soon")
    assert row["started_at"] >= row["run_after"]


async def test_a_low_priority_is_never_starved_for_ever(
    connection: Connection, settings: Settings
) -> None:
    started: list[int] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        started.append(job.payload["priority"])

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client:
        await client.enqueue_many(
            [NewJob(handler, {"priority": 0}, priority=0) for _ in range(400)]
        )
        await client.enqueue_many([NewJob(handler, {"priority": 9}, priority=9) for _ in range(20)])
        async with working(settings.with_(queues={"default": 10}), handler):
            await until(lambda: _all(connection, "completed", 420))
    first = started[:300]
    assert 9 in first, "the low lane has its share while the high one is still full"
    assert first.count(9) <= 60, "and no more than its share"


async def test_a_type_of_another_worker_is_put_back_and_holds_up_nothing(
    connection: Connection, settings: Settings
) -> None:
    ran: list[str] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        ran.append(job.job_id)

    await published(connection, settings, handler)
    await a_type(connection, job_type="test.stranger")
    for number in range(30):
        await a_job(connection, job_id=f"stranger-{number}", job_type="test.stranger")
    await a_job(connection, job_id="known")
    async with working(settings.with_(queues={"default": 2}), handler):
        await until(lambda: _is(connection, "known", "completed"))
        await until(lambda: _shelved(connection, "stranger-0", 2))
    row = await the_job(connection, "stranger-0")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
    assert row["error"] == "no handler for test.stranger"
    assert ran == ["known"]


async def test_a_job_without_a_handler_is_dead_after_24_hours(
    connection: Connection, settings: Settings
) -> None:
    @task("test.other")
    async def handler(job: Job[Any]) -> None: ...

    await a_job(connection, job_id="orphan")
    async with working(settings, handler):
        await until(lambda: _shelved(connection, "orphan", 1))
        await sql(
            connection,
            """UPDATE job_logs SET run_after = clock_timestamp(),
                 history = jsonb_set(history, '{-1,at}',
                      to_jsonb(now() - interval '25 h')) WHERE job_id = 'orphan'""",
        )
        await until(lambda: _is(connection, "orphan", "dlq"))
    row = await the_job(connection, "orphan")
    assert (row["error"], row["attempt_count"]) == ("no handler for test.job", 0)


async def _no_sweep() -> bool:
    return True


async def _shelved(connection: Connection, job_id: str, times: int) -> bool:
    history = (await the_job(connection, job_id))["history"] or [{}]
    return bool(history[-1].get("times", 0) >= times)


async def _is(connection: Connection, job_id: str, status: str) -> bool:
    rows = await sql(connection, "SELECT status FROM job_logs WHERE job_id = %s", [job_id])
    return bool(rows and rows[0]["status"] == status)


async def _all(connection: Connection, status: str, count: int) -> bool:
    (row,) = await sql(connection, "SELECT count(*) AS n FROM job_logs WHERE status = %s", [status])
    return bool(row["n"] == count)


async def test_a_row_that_changed_hands_under_a_claim_is_left_to_the_next_one(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker takes it and gives it back between a claim's start and its lock: locked as it
    is now, the claim cannot change it as it was, and must not believe that it has it."""
    await a_type(connection)
    await a_job(connection, job_id="j", run_after=minutes(-1))
    slow = load("claim_jobs").replace(
        "), picked AS", "), stall AS MATERIALIZED (SELECT pg_advisory_xact_lock(7)), picked AS"
    )
    slow = slow.replace("FROM room CROSS JOIN LATERAL (", "FROM stall, room CROSS JOIN LATERAL (")
    started: list[RunningAttempt] = []
    async with (
        link(settings, "slow") as late,
        link(settings, "other") as other,
        link(settings, "lock") as third,
    ):
        blocker = await third.connect()
        await blocker.execute("SELECT pg_advisory_lock(7)")
        lanes, inflight = Lanes(["default"]), InFlight({"default": 5}, "w-1")
        quiet = settings.with_(doorbell=False)
        claimer = Claimer(
            connection=late,
            lanes=lanes,
            inflight=inflight,
            doorbell=Doorbell(quiet, "w-1"),
            breaker=Breaker(late, {}, list, "w-1"),
            start=started.append,
            settings=quiet,
            worker="w-1",
        )
        run, stalled = late.run, []

        async def stalling(statement: str, values: Any) -> Any:
            if statement != "claim_jobs" or stalled:
                return await run(statement, values)
            stalled.append(statement)
            return await (
                await (await late.connect()).execute(slow, values, binary=True)
            ).fetchall()

        monkeypatch.setattr(late, "run", stalling)
        claiming = asyncio.create_task(claimer.run())
        await until(lambda: _waits(connection))
        ((id, lease, *_),) = await claim(other, worker="w-2")
        given_back = {
            "ids": [id],
            "leases": [lease],
            "worker": "w-2",
            "statuses": ["enqueued"],
            "delays": [None],
            "certain": [True],
        }
        await other.run("fail_jobs", given_back | {"errors": [None], "stack_traces": [None]})
        await blocker.execute("SELECT pg_advisory_unlock(7)")
        await until(lambda: bool(started), 5, "the job's start")
        claimer.stop()
        await claiming
    assert [held.claim.job_id for held in started] == ["j"]


async def _waits(connection: Connection) -> bool:
    return bool(
        await sql(connection, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    )


@pytest.mark.parametrize("statement", ["claim_jobs", "sweep_jobs"])
async def test_a_claim_whose_reply_is_lost_burns_no_attempt(
    connection: Connection, settings: Settings, statement: str
) -> None:
    """The rows are processing, and nobody performs them: the worker gives them back when it
    notices, and claims them again."""
    seen: list[int] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        seen.append(job.attempt)

    await published(connection, settings, handler)
    patient = settings.with_(
        lease=timedelta(minutes=10), doorbell=False, poll_interval=timedelta(seconds=60)
    )
    async with working(patient, handler) as worker:
        await until(lambda: worker.claimer.resting)
        one = worker.claimer.connection if statement == "claim_jobs" else worker.sweeper.connection
        run, lost = one.run, []

        async def lossy(name: str, values: Any) -> Any:
            rows = await run(name, values)
            if name == statement and not lost and any(row[3] for row in rows):
                lost.append(len(rows))
                await one.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return rows

        one.run = lossy
        if statement == "claim_jobs":
            worker.sweeper._turn = _no_sweep
        turns = worker.sweeper.turns
        await until(
            lambda: worker.sweeper.turns > turns + 1, what="the end of the sweep that was under way"
        )
        await a_job(
            connection, job_id="j", run_after=minutes(0 if statement == "claim_jobs" else -1)
        )
        if statement == "claim_jobs":
            worker.doorbell.wake()
        await until(lambda: _is(connection, "j", "completed"))
        assert lost
    row = await the_job(connection, "j")
    assert (row["attempt_count"], row["lease"], row["history"]) == (1, 2, None)
    assert seen == [1]


async def test_one_that_is_lost_while_the_worker_stops_burns_none_either(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None: ...

    await published(connection, settings, handler)
    quiet = settings.with_(
        lease=timedelta(minutes=10), doorbell=False, poll_interval=timedelta(seconds=60)
    )
    async with working(quiet, handler) as worker:
        await until(lambda: worker.claimer.resting)
        worker.sweeper._turn = _no_sweep
        turns = worker.sweeper.turns
        await until(
            lambda: worker.sweeper.turns > turns + 1, what="the end of the sweep that was under way"
        )
        one, run = worker.claimer.connection, worker.claimer.connection.run

        async def lossy(name: str, values: Any) -> Any:
            rows = await run(name, values)
            if name == "claim_jobs" and any(row[3] for row in rows):
                await one.close()
                worker.stop()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return rows

        one.run = lossy
        await a_job(connection, job_id="j")
        worker.doorbell.wake()
        await until(lambda: _is(connection, "j", "enqueued") if worker.stopping.is_set() else False)
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
