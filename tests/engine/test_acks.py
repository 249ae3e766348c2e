"""Acks in groups: one bad row, one lost reply, one deadlock harm nobody else."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Claim, Outcome
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.job import Status
from pgqueue.settings import Settings
from pgqueue.worker.acker import Acker
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.inflight import InFlight, RunningAttempt
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import claim, link, until

Connection = AsyncConnection[Any]


class Scene:
    """An acker with some claimed jobs in hand."""

    def __init__(self, one: WorkerConnection) -> None:
        self.inflight = InFlight({"default": 1000}, "w-1")
        self.settled: list[str] = []
        breaker = Breaker(one, {}, lambda: None, "w-1")
        self.acker = Acker(
            one,
            self.inflight,
            breaker,
            lambda held, outcome: self.settled.append(held.claim.job_id),
            lambda delay: None,
        )
        self.running = asyncio.create_task(self.acker.run())

    def take(self, row: Any) -> RunningAttempt:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        return self.inflight.take(
            Claim(row[0], row[1], row[3], row[4], row[5], row[6], row[7], b"{}", moment, "default"),
            0.0,
        )

    async def finish(self) -> None:
        self.acker.stop()
        await asyncio.wait_for(self.running, 20)
        assert not self.inflight.attempts
        assert self.inflight.free("default") == 1000


@pytest.fixture
async def scene(settings: Settings) -> Any:
    async with link(settings, "acks") as one:
        yield Scene(one)


async def claimed(
    connection: Connection, settings: Settings, scene: Scene, count: int
) -> list[RunningAttempt]:
    for number in range(count):
        await a_job(connection, job_id=f"j{number}")
    async with link(settings) as one:
        return [scene.take(row) for row in await claim(one, most=count)]


async def states(connection: Connection) -> dict[str, str]:
    return {
        row["job_id"]: row["status"]
        for row in await sql(connection, "SELECT job_id, status FROM job_logs")
    }


async def test_what_gathers_meanwhile_goes_in_one_statement(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    for held in await claimed(connection, settings, scene, 50):
        scene.acker.put(held, Outcome(Status.COMPLETED))
    await scene.finish()
    assert set((await states(connection)).values()) == {"completed"}
    (row,) = await sql(connection, "SELECT count(DISTINCT xmin::text) AS commits FROM job_logs")
    assert row["commits"] == 1
    assert len(scene.settled) == 50


async def test_one_outcome_that_the_database_refuses_loses_no_other(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    jobs = await claimed(connection, settings, scene, 20)
    for held in jobs:
        error = "bad \x00 text" if held.claim.job_id == "j7" else "an error"
        scene.acker.put(held, Outcome(Status.FAILED, timedelta(seconds=1), error, None))
    await scene.finish()
    assert set((await states(connection)).values()) == {"failed"}
    assert (await the_job(connection, "j7"))["error"] == "the error could not be stored"
    assert (await the_job(connection, "j8"))["error"] == "an error"


async def test_one_row_that_violates_a_check_loses_no_other(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    jobs = await claimed(connection, settings, scene, 20)
    for held in jobs:
        status = Status.FAILED if held.claim.job_id == "j3" else Status.COMPLETED
        scene.acker.put(
            held, Outcome(status, timedelta(seconds=1), "x" if status is Status.FAILED else None)
        )
    await sql(connection, "UPDATE job_logs SET max_attempts = 1 WHERE job_id = 'j3'")
    await scene.finish()
    after = await states(connection)
    assert after.pop("j3") == "dlq"
    assert set(after.values()) == {"completed"}
    error = (await the_job(connection, "j3"))["error"]
    assert "The attempt ended as failed, but the database refuses to store that" in error
    assert "waiting_job_has_attempts_left" in error


def losing_replies(one: WorkerConnection, times: int) -> Callable[[], int]:
    """Makes the link carry out a statement and lose the reply, so many times."""
    run, lost = one._run, [0]

    async def lossy(statement: str, parameters: Any) -> Any:
        cursor = await run(statement, parameters)
        if lost[0] < times and statement in ("ack_jobs", "fail_jobs"):
            lost[0] += 1
            await one.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return cursor

    one._run = lossy
    return lambda: lost[0]


async def test_an_ack_whose_reply_was_lost_counts_as_done(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    jobs = await claimed(connection, settings, scene, 5)
    lost = losing_replies(scene.acker.connection, 1)
    for held in jobs:
        scene.acker.put(held, Outcome(Status.COMPLETED))
    await scene.finish()
    assert lost() == 1
    assert sorted(scene.settled) == [f"j{n}" for n in range(5)]
    assert scene.inflight.counters.stale_writes == 0


async def test_a_retry_whose_reply_was_lost_counts_as_done_once(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    (held,) = await claimed(connection, settings, scene, 1)
    losing_replies(scene.acker.connection, 1)
    scene.acker.put(held, Outcome(Status.FAILED, timedelta(seconds=60), "x"))
    await scene.finish()
    row = await the_job(connection, "j0")
    assert (row["status"], row["attempt_count"], len(row["history"])) == ("failed", 1, 1)
    assert scene.settled == ["j0"]


async def test_a_cancelled_job_s_lost_ack_is_not_taken_for_done(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    (held,) = await claimed(connection, settings, scene, 1)
    await sql(connection, "SELECT cancel_job('j0')")
    losing_replies(scene.acker.connection, 1)
    scene.acker.put(held, Outcome(Status.COMPLETED))
    await scene.finish()
    assert scene.settled == []
    assert scene.inflight.counters.stale_writes == 1


async def test_an_ack_outlives_a_dead_connection(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    jobs = await claimed(connection, settings, scene, 10)
    one = await scene.acker.connection.connect()
    await sql(connection, "SELECT pg_terminate_backend(%s)", [one.info.backend_pid])
    for held in jobs:
        scene.acker.put(held, Outcome(Status.COMPLETED))
    await scene.finish()
    assert set((await states(connection)).values()) == {"completed"}


async def test_a_statement_undone_by_a_deadlock_is_sent_again(
    connection: Connection, settings: Settings, scene: Scene
) -> None:
    """Two rows, locked in opposite orders by us and by somebody careless: we are the victim, and go
    again."""
    first, second = sorted(
        await claimed(connection, settings, scene, 2), key=lambda held: held.claim.id
    )
    # Who is the victim is staged with a setting that is not for programs.
    await sql(connection, "GRANT SET ON PARAMETER deadlock_timeout TO queue_worker, queue_program")
    await sql(connection, "SELECT set_config('deadlock_timeout', '10s', false)")
    engine = await scene.acker.connection.connect()
    await engine.execute("SELECT set_config('deadlock_timeout', '50ms', false)")
    async with await AsyncConnection.connect(settings.conninfo) as careless:
        await careless.execute("SELECT set_config('deadlock_timeout', '10s', true)")
        await careless.execute("SELECT 1 FROM job_logs WHERE id = %s FOR UPDATE", [second.claim.id])
        scene.acker.put(first, Outcome(Status.COMPLETED))
        scene.acker.put(second, Outcome(Status.COMPLETED))
        await until(lambda: _waiting(connection))
        blocked = asyncio.create_task(
            sql(careless, "SELECT 1 FROM job_logs WHERE id = %s FOR UPDATE", [first.claim.id])
        )
        await until(lambda: scene.acker.connection.repeats > 0 or blocked.done())
        await blocked
        await careless.commit()
    await scene.finish()
    assert scene.acker.connection.repeats >= 1
    assert set((await states(connection)).values()) == {"completed"}


async def test_groups_of_several_rows_lock_in_the_order_of_their_ids(
    connection: Connection, settings: Settings
) -> None:
    """Two acks over the same rows, given in opposite orders, again and again: not one deadlock."""
    for number in range(40):
        await a_job(connection, job_id=f"j{number}")
    async with link(settings, "a") as first, link(settings, "b") as second:
        for _ in range(25):
            rows = await claim(first, most=40)
            ids, leases = [row[0] for row in rows], [row[1] for row in rows]
            given = {
                "statuses": ["failed"] * 40,
                "delays": [timedelta()] * 40,
                "errors": [None] * 40,
                "stack_traces": [None] * 40,
                "certain": [True] * 40,
            }
            await asyncio.gather(
                first.run("fail_jobs", {"ids": ids, "leases": leases, "worker": "w-1"} | given),
                second.run(
                    "fail_jobs", {"ids": ids[::-1], "leases": leases[::-1], "worker": "w-1"} | given
                ),
            )
            await sql(
                connection,
                "UPDATE job_logs SET attempt_count = 0, run_after = now() WHERE status = 'failed'",
            )
        assert (first.repeats, second.repeats) == (0, 0)


async def _waiting(connection: Connection) -> bool:
    (row,) = await sql(connection, "SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
    return bool(row["n"])
