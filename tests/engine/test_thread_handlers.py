"""Plain functions as handlers: each in a thread and in a context of its own, with progress, intents
and transactions as calls that block."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, LeaseLost, Settings, Task, ThreadJob, task
from pgqueue.database.worker_connection import WorkerConnection
from tests.support.factories import sql, the_job, value
from tests.support.scene import published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


@pytest.fixture(autouse=True)
async def effects(connection: Connection) -> None:
    await sql(connection, "CREATE TABLE effects (job_id text, attempt integer)")
    await sql(connection, "GRANT INSERT ON effects TO PUBLIC")


def insert(own: psycopg.Connection[Any], job: ThreadJob[Any]) -> None:
    own.execute("INSERT INTO effects VALUES (%s, %s)", [job.job_id, job.attempt])


async def ended(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return row["lease"] > 0 and row["status"] != "processing"


async def perform(connection: Connection, settings: Settings, handler: Task[Any]) -> dict[str, Any]:
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: ended(connection))
    return await the_job(connection, "j")


async def test_its_progress_is_stored(connection: Connection, settings: Settings) -> None:
    @task("test.job", max_attempts=1)
    def handler(job: ThreadJob[Any]) -> None:
        job.progress(0.5, "half")
        raise RuntimeError("and no further")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["progress"], row["progress_note"]) == ("dlq", 0.5, "half")


async def test_its_intent_is_durable_before_the_call_returns(
    connection: Connection, settings: Settings
) -> None:
    seen: list[Any] = []

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        job.intend()
        with psycopg.connect(settings.conninfo) as look:
            seen.extend(look.execute("SELECT intent_at IS NOT NULL FROM job_logs").fetchone() or ())

    assert (await perform(connection, settings, handler))["status"] == "completed"
    assert seen == [True]


async def test_what_it_writes_is_committed_with_the_completion(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        with job.transaction() as own:
            insert(own, job)
            job.receipt = "row 1"

    row = await perform(connection, settings, handler)
    assert (row["status"], row["receipt"]) == ("completed", "row 1")
    same = "SELECT (SELECT xmin::text FROM effects) = (SELECT xmin::text FROM job_logs)"
    assert await value(connection, same)


async def test_an_error_in_it_takes_back_both(connection: Connection, settings: Settings) -> None:
    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        with job.transaction() as own:
            insert(own, job)
            raise RuntimeError("half-way")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: half-way")
    assert await value(connection, "SELECT count(*) FROM effects") == 0


async def test_there_is_one_for_each_job(connection: Connection, settings: Settings) -> None:
    raised: list[str] = []

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        for _ in range(2):
            try:
                with job.transaction() as own:
                    insert(own, job)
            except RuntimeError as error:
                raised.append(str(error))

    await perform(connection, settings, handler)
    assert raised == ["job j is completed already: one transaction() for each job"]
    assert await value(connection, "SELECT count(*) FROM effects") == 1


@asynccontextmanager
async def cancelled_while(
    connection: Connection, settings: Settings, handler: Task[Any], inside: threading.Event
) -> AsyncIterator[None]:
    """Enters when the job was cancelled while its handler was inside, and the worker knows."""
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler) as worker:
        await client.enqueue(handler, {}, job_id="j")
        await until(inside.is_set)
        await client.cancel("j")
        await until(lambda: worker.inflight.counters.leases_lost == 1)
        yield
        await until(lambda: not worker.inflight.attempts)


@pytest.mark.parametrize("write", ["progress", "intend", "transaction"])
async def test_a_lost_lease_is_an_error_and_rolls_back(
    connection: Connection, settings: Settings, write: str
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def writing(job: ThreadJob[Any]) -> None:
        inside.set()
        go_on.wait(20)
        match write:
            case "progress":
                job.progress(0.5)
            case "intend":
                job.intend()

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        try:
            if write == "transaction":
                with job.transaction() as own:
                    insert(own, job)
                    writing(job)
            else:
                writing(job)
        except LeaseLost as error:
            raised.append(error)
            raise

    short = settings.with_(lease=settings.lease / 30)
    async with cancelled_while(connection, short, handler, inside):
        go_on.set()
        await until(lambda: bool(raised))
    assert (await the_job(connection, "j"))["status"] == "cancelled"
    assert await value(connection, "SELECT count(*) FROM effects") == 0


async def test_a_thread_that_waits_for_the_database_hears_that_its_lease_is_gone(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = threading.Event()
    raised: list[BaseException] = []
    run = WorkerConnection.run

    async def stuck(self: WorkerConnection, statement: str, parameters: Any) -> Any:
        if statement == "save_progress":
            inside.set()
            await asyncio.Event().wait()
        return await run(self, statement, parameters)

    monkeypatch.setattr(WorkerConnection, "run", stuck)

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        try:
            job.progress(0.5)
        except LeaseLost as error:
            raised.append(error)

    short = settings.with_(lease=settings.lease / 30)
    async with cancelled_while(connection, short, handler, inside):
        await until(lambda: bool(raised))


MARK: ContextVar[str] = ContextVar("mark", default="unset")


async def test_each_call_has_a_context_of_its_own(
    connection: Connection, settings: Settings
) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(given: Settings) -> AsyncIterator[None]:
        MARK.set("by the lifespan")
        yield

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        seen.append(MARK.get())
        MARK.set(job.job_id)

    await published(connection, settings, handler)
    one_thread = settings.with_(queues={"default": 1})
    async with (
        AsyncClient.open(settings) as client,
        working(one_thread, handler, lifespan=lifespan),
    ):
        await client.enqueue(handler, {})
        await client.enqueue(handler, {})
        await until(lambda: len(seen) == 2)
    assert seen == ["by the lifespan"] * 2


async def test_a_worker_that_stops_leaves_no_thread_waiting(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = threading.Event()
    raised: list[BaseException] = []
    run = WorkerConnection.run

    async def stuck(self: WorkerConnection, statement: str, parameters: Any) -> Any:
        if statement == "intend_effects":
            inside.set()
            await asyncio.Event().wait()
        return await run(self, statement, parameters)

    monkeypatch.setattr(WorkerConnection, "run", stuck)

    @task("test.job")
    def handler(job: ThreadJob[Any]) -> None:
        try:
            job.intend()
        except LeaseLost as error:
            raised.append(error)

    await published(connection, settings, handler)
    hasty = settings.with_(shutdown_timeout=settings.poll_interval)
    async with AsyncClient.open(settings) as client:
        async with working(hasty, handler):
            await client.enqueue(handler, {}, job_id="j")
            await until(inside.is_set)
        await until(lambda: bool(raised))
        row = await the_job(connection, "j")
        assert (row["status"], row["attempt_count"]) == ("enqueued", 0)
