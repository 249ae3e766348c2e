"""What a dependency refuses to one job says nothing of the others: the circuit breaker stays
closed, and a probe that was refused by itself closes it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import DependencyDown, Discard, Retry
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from pgqueue.testing import working
from tests.support.factories import a_job, a_type, sql, the_job, value
from tests.support.scene import LEASE, link, published, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]

REFUSED = {
    "temporarily": Retry("450 try later", answered=True),
    "for good": Discard("550 no such user", answered=True),
}


def refusing(error: Exception) -> Task[Any]:
    """Depends on a server that refuses the jobs whose payload says so."""

    @task("test.job", depends_on="server")
    async def handler(job: Job[Any]) -> None:
        if job.payload.get("refused"):
            raise error

    return handler


async def state(connection: Connection) -> str:
    rows = await sql(connection, "SELECT state FROM job_dependencies WHERE dependency = 'server'")
    return rows[0]["state"] if rows else "none"


async def is_(connection: Connection, wanted: str) -> bool:
    return await state(connection) == wanted


async def done(connection: Connection, job_id: str) -> bool:
    return bool((await the_job(connection, job_id))["status"] == "completed")


async def open_breaker(connection: Connection, probe_in: timedelta = timedelta(hours=1)) -> None:
    await sql(
        connection,
        """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause)
           VALUES ('server', 'open', now(), now() + %s, '1 s')""",
        [probe_in],
    )


@pytest.mark.parametrize("how", REFUSED)
async def test_jobs_that_are_refused_by_themselves_hold_up_no_other(
    connection: Connection, settings: Settings, how: str
) -> None:
    handler = refusing(REFUSED[how])
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue_many([NewJob(handler, {"refused": True}) for _ in range(30)])
        await until(lambda: refused(connection, 30))
        await client.enqueue(handler, {}, job_id="good")
        await until(lambda: done(connection, "good"))
    assert await state(connection) == "none"


async def refused(connection: Connection, count: int) -> bool:
    return bool(
        await value(
            connection, "SELECT count(*) >= %s FROM job_logs WHERE error IS NOT NULL", [count]
        )
    )


async def test_a_job_that_is_refused_for_a_while_takes_its_attempts(
    connection: Connection, settings: Settings
) -> None:
    handler = refusing(REFUSED["temporarily"])
    await published(connection, settings, handler)
    await a_job(connection, job_id="j", payload={"refused": True}, status="failed", attempt_count=4)
    async with working(settings, handler):
        await until(lambda: refused_for_good(connection))
    assert (await the_job(connection, "j"))["attempt_count"] == 5


async def refused_for_good(connection: Connection) -> bool:
    return bool((await the_job(connection, "j"))["status"] == "dlq")


@pytest.mark.parametrize("how", REFUSED)
async def test_a_probe_that_is_refused_by_itself_closes_it(
    connection: Connection, settings: Settings, how: str
) -> None:
    handler = refusing(REFUSED[how])
    await published(connection, settings, handler)
    await open_breaker(connection, timedelta())
    await a_job(connection, payload={"refused": True})
    async with working(settings, handler):
        await until(lambda: is_(connection, "closed"))


async def test_failures_of_others_are_not_undone_by_a_job_that_is_refused_by_itself(
    connection: Connection, settings: Settings
) -> None:
    """The server may take recipients, and no mail: only a job that got through shows that it
    works."""
    handler = refusing(REFUSED["temporarily"])
    await published(connection, settings, handler)
    four = [(await a_job(connection, run_after=timedelta(hours=1)))["id"] for _ in range(4)]
    failed = "SELECT pgqueue_dependency_failed('server', %s, false, 'x', NULL, NULL)"
    assert await value(connection, failed, [four]) == "closed"
    await a_job(connection, job_id="j", payload={"refused": True})
    async with working(settings, handler):
        await until(lambda: refused(connection, 1))
    fifth = (await a_job(connection, run_after=timedelta(hours=1)))["id"]
    assert await value(connection, failed, [[fifth]]) == "opened"


@pytest.mark.parametrize("where", ["in its lane", "in a later lane"])
async def test_a_probe_is_a_job_that_has_not_failed(
    connection: Connection, settings: Settings, where: str
) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection, timedelta())
    for number in range(3):
        await a_job(
            connection, job_id=f"failed-{number}", status="failed", run_after=timedelta(minutes=-9)
        )
    await a_job(connection, job_id="new", priority=5 if where == "in its lane" else 9)
    await a_job(connection, job_id="newer", priority=9)
    values = {"worker": "w-1", "lease": LEASE, "queues": ["default"], "dependencies": ["server"]}
    async with link(settings) as one:
        assert [row[3] for row in await one.run("claim_probe", values)] == ["new"]


async def test_where_all_have_failed_the_oldest_is_the_probe(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection, timedelta())
    for number in range(3):
        await a_job(
            connection,
            job_id=f"j{number}",
            status="failed",
            run_after=timedelta(minutes=number - 9),
        )
    values = {"worker": "w-1", "lease": LEASE, "queues": ["default"], "dependencies": ["server"]}
    async with link(settings) as one:
        assert [row[3] for row in await one.run("claim_probe", values)] == ["j0"]


@pytest.mark.parametrize("down", [False, True])
async def test_failures_that_began_before_it_closed_do_not_count(
    connection: Connection, down: bool
) -> None:
    """What was in flight while it was open is heard of after it has closed."""
    await sql(
        connection, "INSERT INTO job_dependencies (dependency, closed_at) VALUES ('server', now())"
    )
    failed = "SELECT pgqueue_dependency_failed('server', %s, %s, 'x', NULL, NULL)"
    before = [
        (await a_job(connection, status="processing", started_at=timedelta(seconds=-1)))["id"]
        for _ in range(50)
    ]
    assert await value(connection, failed, [before, down]) == "closed"
    after = [(await a_job(connection, status="processing"))["id"] for _ in range(5)]
    assert await value(connection, failed, [before + after[:1], False]) == "closed"
    assert await value(connection, failed, [after, down]) == "opened"


async def test_what_was_in_flight_burns_nothing_even_when_it_fails_after_the_breaker_has_closed(
    connection: Connection, settings: Settings
) -> None:
    """Staged: ten jobs run while the breaker opens and closes again, and fail then."""
    gate = asyncio.Event()
    running: list[str] = []

    @task("test.job", depends_on="server")
    async def handler(job: Job[Any]) -> None:
        if job.attempt == 1 and len(running) < 10:
            running.append(job.job_id)
            await gate.wait()
            raise ConnectionResetError("gone")

    @task("free.job")
    async def free(job: Job[Any]) -> None: ...

    await published(connection, settings, handler, free)
    async with AsyncClient.open(settings) as client, working(settings, handler, free) as worker:
        await client.enqueue_many(
            [NewJob(handler, {}, job_id=f"j{number}") for number in range(10)]
        )
        await until(lambda: len(running) == 10)
        await open_breaker(connection)
        await until(lambda: worker.acker.breaker.waiting == {"server"})
        await sql(
            connection,
            """UPDATE job_dependencies
                  SET state = 'closed', opened_at = NULL, probe_at = NULL, closed_at = now(),
                      failures = '{}'""",
        )
        await until(lambda: worker.acker.breaker.waiting == set())
        gate.set()
        await until(lambda: all_done(connection, 10))
    assert await state(connection) == "closed"
    assert (
        await value(
            connection, "SELECT max(attempt_count) FROM job_logs WHERE job_type = 'test.job'"
        )
        == 1
    )


async def all_done(connection: Connection, count: int) -> bool:
    return bool(
        await value(
            connection, "SELECT count(*) = %s FROM job_logs WHERE status = 'completed'", [count]
        )
    )


async def test_a_job_that_may_be_the_only_one_steps_aside(
    connection: Connection, settings: Settings
) -> None:
    """It says that the dependency is down. Were it wrong, and first in its lane, it would open the
    breaker for ever."""
    handler = refusing(DependencyDown("server", "550 daily quota exceeded", after=15))
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {"refused": True}, job_id="j")
        await until(lambda: is_(connection, "open"))
        await until(lambda: waits(connection))
        row = await the_job(connection, "j")
        assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
        assert row["run_after"] - row["started_at"] >= timedelta(seconds=14)
        await client.enqueue(handler, {}, job_id="good")
        await sql(connection, "UPDATE job_dependencies SET probe_at = now()")
        await until(lambda: done(connection, "good"))


async def waits(connection: Connection) -> bool:
    return bool((await the_job(connection, "j"))["status"] == "enqueued")


NAMES = {
    "NUL": "a\0b",
    "lone surrogate": "a\ud800b",
    "long": "".join(map(chr, range(0x400, 0x2400))),
    "two words": "two words",
}


@pytest.mark.parametrize("name", NAMES)
async def test_whatever_the_name_of_what_is_down_the_job_waits_and_others_go_on(
    connection: Connection, settings: Settings, name: str
) -> None:
    handler = refusing(DependencyDown(NAMES[name], "it is down"))
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {"refused": True}, job_id="j")
        await until(lambda: refused(connection, 1))
        await client.enqueue(handler, {}, job_id="good")
        await until(lambda: done(connection, "good"))
        row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
