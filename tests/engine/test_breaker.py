"""The circuit breaker: what depends on something broken waits, burns nothing, and goes on when one
job got through."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.errors import DependencyDown, Discard, Retry
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from pgqueue.task import Task, task
from pgqueue.testing import working
from tests.engine.test_leases import UNDONE
from tests.support.api import ADMIN, open_api
from tests.support.factories import a_job, a_type, sql, the_job, value
from tests.support.scene import LEASE, claim, link, published, sweep, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


class Server:
    """What the jobs of these tests depend on."""

    def __init__(self) -> None:
        self.error: Exception | None = ConnectionRefusedError("nobody listens")
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def task(self, job_type: str = "test.job", **options: Any) -> Task[Any]:
        @task(job_type, depends_on="server", **options)
        async def handler(job: Job[Any]) -> None:
            self.asked.append(job.job_id)
            await self.gate.wait()
            if job.payload.get("bad"):
                raise RuntimeError("only this one")
            if self.error is not None:
                raise self.error

        return handler


@pytest.fixture
def server() -> Server:
    return Server()


async def breaker(connection: Connection) -> str:
    rows = await sql(connection, "SELECT state FROM job_dependencies WHERE dependency = 'server'")
    return rows[0]["state"] if rows else "none"


async def is_(connection: Connection, *states: str) -> bool:
    return await breaker(connection) in states


async def probe_now(connection: Connection) -> None:
    """Moves the time of the next probe, by moving the row."""
    await sql(connection, "UPDATE job_dependencies SET probe_at = now() WHERE state = 'open'")


async def open_breaker(connection: Connection) -> None:
    await sql(
        connection,
        """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause,
             reason)
           VALUES ('server', 'open', now(), now() + interval '1 h', '1 s', 'it is down')""",
    )


async def attempts(connection: Connection) -> int:
    return int(
        await value(
            connection,
            "SELECT coalesce(sum(attempt_count), 0) FROM job_logs WHERE status <> 'completed'",
        )
    )


@asynccontextmanager
async def at_work(
    connection: Connection, settings: Settings, *tasks: Task[Any]
) -> AsyncIterator[AsyncClient]:
    await published(connection, settings, *tasks)
    async with AsyncClient.open(settings) as client, working(settings, *tasks):
        yield client


async def test_five_different_jobs_that_fail_open_it_across_job_types(
    connection: Connection, settings: Settings, server: Server
) -> None:
    first, second = server.task("test.first"), server.task("test.second")
    server.gate.clear()
    async with at_work(connection, settings, first, second) as client:
        await client.enqueue_many(
            [NewJob(first, {}) for _ in range(3)] + [NewJob(second, {}) for _ in range(2)]
        )
        await until(lambda: len(server.asked) == 5)
        server.gate.set()
        await until(lambda: is_(connection, "open"))
        await client.enqueue(first, {}, job_id="later")
        await until(lambda: waits(connection))
        assert (await the_job(connection, "later"))["lease"] == 0


async def waits(connection: Connection) -> bool:
    """All of them are back at their places."""
    return not await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'processing'")


async def test_what_is_in_flight_when_it_opens_burns_no_attempt(
    connection: Connection, settings: Settings, server: Server
) -> None:
    """The first four are ordinary failures, if they are heard of before the fifth; 46 others were
    on their way."""
    handler = server.task()
    server.gate.clear()
    async with at_work(connection, settings, handler) as client:
        await client.enqueue_many([NewJob(handler, {}) for _ in range(50)])
        await until(lambda: len(server.asked) == 50)
        before = await value(
            connection, "SELECT array_agg(id ORDER BY run_after, id) FROM job_logs"
        )
        server.gate.set()
        await until(lambda: is_(connection, "open"))
        await until(lambda: waits(connection))
        assert await attempts(connection) <= 4
        after = await value(
            connection,
            "SELECT array_agg(id ORDER BY run_after, id) FROM job_logs WHERE attempt_count = 0",
        )
        assert after == [id for id in before if id in set(after)], "they kept their places"


async def test_a_lone_job_takes_its_five_attempts(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task()
    async with at_work(connection, settings, handler) as client:
        await client.enqueue(handler, {}, job_id="j")
        for attempt in range(1, 5):
            await until(lambda n=attempt: failed_times(connection, n))  # type: ignore[misc]  # the default binds it
            await sql(connection, "UPDATE job_logs SET run_after = now()")
        await until(lambda: is_dead(connection))
    assert (await the_job(connection, "j"))["attempt_count"] == 5
    assert await breaker(connection) == "closed"


async def failed_times(connection: Connection, count: int) -> bool:
    row = await the_job(connection, "j")
    return row["status"] == "failed" and row["attempt_count"] == count


async def is_dead(connection: Connection) -> bool:
    return (await the_job(connection, "j"))["status"] == "dlq"


async def test_failures_while_others_succeed_are_ordinary(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task(max_attempts=1)
    server.error = None
    settings = settings.with_(queues={"default": 1})
    async with at_work(connection, settings, handler) as client:
        await client.enqueue_many([NewJob(handler, {"bad": number % 2}) for number in range(20)])
        await until(lambda: all_ended(connection))
    assert await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'dlq'") == 10
    assert await breaker(connection) == "closed"


async def all_ended(connection: Connection) -> bool:
    return not await value(connection, "SELECT count(*) FROM job_logs WHERE processed_at IS NULL")


async def test_failures_further_apart_than_ten_seconds_do_not_add_up(
    connection: Connection,
) -> None:
    for number in range(5):
        id = (await a_job(connection, job_id=f"j{number}"))["id"]
        state = await value(
            connection,
            "SELECT pgqueue_dependency_failed('server', %s, false, 'x', NULL, NULL)",
            [[id]],
        )
        assert state == "closed"
        await sql(
            connection,
            """UPDATE job_dependencies SET failures =
                 (SELECT jsonb_object_agg(key, (value::timestamptz - interval '3 s')::text)
                                                         FROM jsonb_each_text(failures))""",
        )
    assert (
        await value(
            connection,
            "SELECT count(*) FROM jsonb_object_keys((SELECT failures FROM job_dependencies))",
        )
        == 4
    )


async def test_the_same_job_five_times_is_one(connection: Connection) -> None:
    id = (await a_job(connection))["id"]
    for _ in range(6):
        assert (
            await value(
                connection,
                "SELECT pgqueue_dependency_failed('server', %s, false, 'x', NULL, NULL)",
                [[id]],
            )
            == "closed"
        )


async def test_a_dependency_that_is_known_to_be_down_opens_it_at_once(
    connection: Connection, settings: Settings, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    handler = server.task()
    server.error = DependencyDown("server", "535 the password of someone@example.com is wrong")
    with caplog.at_level(logging.INFO):
        async with at_work(connection, settings, handler) as client:
            await client.enqueue(handler, {}, job_id="j")
            await until(lambda: is_(connection, "open"))
            await until(lambda: waits(connection))
            row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
    assert row["run_after"] <= row["started_at"], "it kept its place"
    reason = await value(connection, "SELECT reason FROM job_dependencies")
    assert reason == "535 the password of s***@example.com is wrong"
    assert any(getattr(record, "event", "") == "breaker.opened" for record in caplog.records)


async def test_one_that_nobody_depends_on_lets_the_job_wait_half_a_minute(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise DependencyDown("elsewhere")

    async with at_work(connection, settings, handler) as client:
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: released(connection))
    row = await the_job(connection, "j")
    assert row["run_after"] - row["started_at"] >= timedelta(seconds=29)


async def released(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return row["lease"] == 1 and row["status"] == "enqueued"


async def test_mistakes_of_the_program_do_not_open_it(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task(max_attempts=1)
    server.error = KeyError("template")
    async with at_work(connection, settings, handler) as client:
        await client.enqueue_many([NewJob(handler, {}) for _ in range(20)])
        await until(lambda: all_ended(connection))
    assert await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'dlq'") == 20
    assert await breaker(connection) == "none"


async def test_it_takes_one_job_to_close_it_and_then_all_drains(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task()
    server.gate.clear()
    async with at_work(connection, settings, handler) as client:
        await client.enqueue_many([NewJob(handler, {}) for _ in range(300)])
        await until(lambda: len(server.asked) == 50)
        server.gate.set()
        await until(lambda: is_(connection, "open"))
        await until(lambda: waits(connection))
        server.error = None
        await probe_now(connection)
        await until(lambda: all_ended(connection))
    assert await breaker(connection) == "closed"
    rows = await sql(
        connection, "SELECT status, max(attempt_count) AS most FROM job_logs GROUP BY status"
    )
    assert [row["status"] for row in rows] == ["completed"]
    assert rows[0]["most"] <= 2


async def test_a_failed_probe_burns_nothing_and_goes_to_the_back(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task()
    await published(connection, settings, handler)
    await open_breaker(connection)
    for number in range(3):
        await a_job(connection, job_id=f"j{number}", run_after=timedelta(minutes=number - 10))
    async with at_work(connection, settings, handler):
        for _ in range(3):
            asked = len(server.asked)
            await probe_now(connection)
            await until(lambda n=asked: len(server.asked) > n)  # type: ignore[misc]  # the default binds it
            await until(lambda: is_(connection, "open"))
    assert server.asked[:3] == ["j0", "j1", "j2"]
    assert await attempts(connection) == 0
    assert await value(connection, "SELECT probe_pause FROM job_dependencies") >= timedelta(
        seconds=8
    )


async def test_a_probe_that_never_asked_says_nothing_and_the_next_one_follows(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job", depends_on="server")
    async def handler(job: Job[Any]) -> None:
        if job.payload.get("wrong"):
            raise Discard("too large")

    await published(connection, settings, handler)
    await open_breaker(connection)
    await a_job(connection, job_id="j0", payload={"wrong": 1}, run_after=timedelta(minutes=-2))
    await a_job(connection, job_id="j1", run_after=timedelta(minutes=-1))
    await probe_now(connection)
    async with at_work(connection, settings, handler):
        await until(lambda: all_ended(connection))
    assert await breaker(connection) == "closed"
    assert (await the_job(connection, "j0"))["status"] == "dlq"


async def a_probe(one: WorkerConnection, worker: str) -> list[Any]:
    values = {"worker": worker, "lease": LEASE, "queues": ["default"], "dependencies": ["server"]}
    return list(await one.run("claim_probe", values))


async def test_one_probe_at_a_time_over_all_workers(
    connection: Connection, settings: Settings
) -> None:
    """Staged: the first probe is claimed and not yet committed while the second is asked for; and
    asked for again after it."""
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection)
    await probe_now(connection)
    for _ in range(3):
        await a_job(connection)
    statement = "SELECT * FROM pgqueue_claim_probe('w-1', '30 s', '{default}', '{server}')"
    async with await AsyncConnection.connect(settings.conninfo) as first, link(settings) as second:
        assert len(await sql(first, statement)) == 1
        assert await a_probe(second, "w-2") == []
        await first.commit()
        assert await a_probe(second, "w-2") == []
    assert await breaker(connection) == "half_open"


async def test_a_backlog_of_something_else_that_is_down_hides_no_probe(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await a_type(connection, job_type="test.other", depends_on="other")
    await sql(
        connection,
        """INSERT INTO job_dependencies (dependency, state, opened_at, probe_at, probe_pause,
             reason)
           SELECT name, 'open', now(), now() + pause, '1 s', 'it is down'
             FROM (VALUES ('server', interval '0 s'), ('other', '1 h')) AS d(name, pause)""",
    )
    await sql(
        connection,
        """INSERT INTO job_logs (job_id, job_type, user_id, payload, run_after)
           SELECT 'o' || n, 'test.other', 'u', '{}', now() - interval '1 h'
            FROM generate_series(1, 1500) AS n""",
    )
    await a_job(connection, job_id="j")
    async with link(settings) as one:
        (probe,) = await a_probe(one, "w-1")
    assert probe[3] == "j"


async def test_a_probe_whose_worker_died_is_replaced_and_decides_nothing(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection)
    await probe_now(connection)
    for _ in range(2):
        await a_job(connection)
    async with link(settings) as one:
        (dead,) = await a_probe(one, "w-1")
        await sql(
            connection,
            "UPDATE job_logs SET lease_until = now() - interval '1 s' WHERE status = 'processing'",
        )
        (living,) = await a_probe(one, "w-2")
        assert living[0] != dead[0]
        said = {"dependency": "server", "verdict": "alive", "reason": None, "retry_after": None}
        assert (
            await one.run(
                "report_probe", said | {"probe": dead[0], "lease": dead[1], "worker": "w-2"}
            )
        )[0][0] == "half_open"
        assert (
            await one.run(
                "report_probe", said | {"probe": living[0], "lease": living[1], "worker": "w-2"}
            )
        )[0][0] == "closed"


async def test_a_probe_that_a_failover_has_undone_decides_nothing(
    connection: Connection, settings: Settings
) -> None:
    """Another worker has the same row as the probe now, under the same lease."""
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection)
    await probe_now(connection)
    await a_job(connection)
    async with link(settings) as one:
        (dead,) = await a_probe(one, "w-1")
        await sql(connection, UNDONE)
        (living,) = await a_probe(one, "w-2")
        assert living[:2] == dead[:2]
        said = {"dependency": "server", "verdict": "alive", "reason": None, "retry_after": None}
        said |= {"probe": living[0], "lease": living[1]}
        assert (await one.run("report_probe", said | {"worker": "w-1"}))[0][0] == "half_open"
        assert (await one.run("report_probe", said | {"worker": "w-2"}))[0][0] == "closed"


async def test_neither_claims_nor_sweeps_start_what_depends_on_it(
    connection: Connection, settings: Settings
) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await a_type(connection, job_type="free.job")
    await open_breaker(connection)
    await a_job(connection, job_id="waits")
    await a_job(connection, job_id="runs", job_type="free.job")
    await a_job(
        connection, job_id="rescued", status="processing", lease_until=timedelta(seconds=-1)
    )
    async with link(settings) as one:
        assert [row[3] for row in await claim(one)] == ["runs"]
        assert await sweep(one, types=("test.job", "free.job")) == {"release": ["rescued"]}
    assert (await the_job(connection, "waits"))["status"] == "enqueued"
    assert (await the_job(connection, "rescued"))["status"] == "failed"


async def test_a_backlog_that_waits_holds_up_nobody_else(
    connection: Connection, settings: Settings, server: Server
) -> None:
    @task("free.job")
    async def free(job: Job[Any]) -> None: ...

    handler = server.task()
    await published(connection, settings, handler, free)
    await open_breaker(connection)
    async with at_work(connection, settings, handler, free) as client:
        await client.enqueue_many([NewJob(handler, {}) for _ in range(5000)])
        await client.enqueue_many(
            [NewJob(free, {}, job_id=f"free-{number}") for number in range(200)]
        )
        await until(lambda: free_done(connection))
    assert server.asked == []


async def free_done(connection: Connection) -> bool:
    return bool(
        await value(
            connection,
            (
                "SELECT count(*) = 200 FROM job_logs WHERE job_type = 'free.job' AND status = "
                "'completed'"
            ),
        )
    )


async def test_a_wait_that_was_asked_for_is_honoured(
    connection: Connection, settings: Settings, server: Server
) -> None:
    handler = server.task()
    server.error = Retry("429", after=3600)
    server.gate.clear()
    async with at_work(connection, settings, handler) as client:
        await client.enqueue_many([NewJob(handler, {}) for _ in range(5)])
        await until(lambda: len(server.asked) == 5)
        server.gate.set()
        await until(lambda: is_(connection, "open"))
    assert await value(
        connection, "SELECT probe_at - opened_at FROM job_dependencies"
    ) >= timedelta(minutes=59)


async def test_its_state_is_seen_in_the_api(connection: Connection, settings: Settings) -> None:
    await a_type(connection, job_type="test.job", depends_on="server")
    await open_breaker(connection)
    await sql(
        connection, "UPDATE job_dependencies SET reason = 'no answer for someone@example.com'"
    )
    async with open_api(settings) as api:
        answer: httpx.Response = await api.get("/api/admin/dependencies", headers=ADMIN)
        assert (await api.get("/api/admin/dependencies")).status_code == 401
    (found,) = answer.json()["dependencies"]
    assert (found["dependency"], found["state"], found["jobTypes"]) == (
        "server",
        "open",
        ["test.job"],
    )
    assert found["reason"] == "no answer for s***@example.com"
    assert found["nextProbeS"] > 3000
    assert found["openedAt"].endswith("Z")
