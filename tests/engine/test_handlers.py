"""One attempt and how it ends: every way out of a handler, and every change of state that a worker
makes."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Job
from pgqueue.client import AsyncClient
from pgqueue.errors import DependencyDown, Discard, Retry, Snooze
from pgqueue.settings import Settings
from pgqueue.task import Backoff, Task, task
from pgqueue.testing import advance
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import for_worker, published, until, working

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


class Greeting(msgspec.Struct):
    name: str
    times: int = 1


async def perform(
    connection: Connection, settings: Settings, handler: Task[Any], payload: Any = None
) -> dict[str, Any]:
    """One job through a real worker, until its first attempt has ended. Its row."""
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {} if payload is None else payload, job_id="j")
        await until(lambda: _ended(connection))
    return await the_job(connection, "j")


async def _ended(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return row["lease"] > 0 and row["status"] != "processing"


async def test_a_handler_that_returns_completes_the_job(
    connection: Connection, settings: Settings
) -> None:
    seen: list[Job[Greeting]] = []

    @task("test.job")
    async def handler(job: Job[Greeting]) -> str:
        seen.append(job)
        return "ignored"

    row = await perform(connection, settings, handler, Greeting("Ana"))
    assert (row["status"], row["attempt_count"], row["error"], row["history"]) == (
        "completed",
        1,
        None,
        None,
    )
    assert row["processed_at"] >= row["started_at"] >= row["created_at"]
    (job,) = seen
    assert job.payload == Greeting("Ana", 1)
    assert (job.job_id, job.job_type, job.user_id, job.attempt, job.max_attempts) == (
        "j",
        "test.job",
        "system",
        1,
        5,
    )
    assert job.created_at == row["created_at"]


async def test_an_exception_is_a_failed_attempt_to_be_tried_again(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise ConnectionResetError("the line went dead")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["attempt_count"], row["processed_at"]) == ("failed", 1, None)
    assert row["error"] == "ConnectionResetError: the line went dead"
    assert "test_handlers.py" in row["stack_trace"]
    (entry,) = row["history"]
    assert entry["attempt"] == 1
    assert entry["worker"] == row["locked_by"]
    assert entry["error"] == row["error"]
    assert entry["stack"] == row["stack_trace"]


async def test_five_attempts_with_growing_waits_and_then_the_dead_letter_queue(
    connection: Connection, settings: Settings
) -> None:
    """Time is moved by moving the row; the waits are read from it."""

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise RuntimeError(f"attempt {job.attempt}")

    waits = []
    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        for attempt in range(1, 5):
            await until(
                lambda attempt=attempt: _has(connection, status="failed", attempt_count=attempt)
            )
            (row,) = await sql(
                connection,
                "SELECT run_after - (history -> -1 ->> 'at')::timestamptz AS wait FROM job_logs",
            )
            waits.append(row["wait"].total_seconds())
            await advance(client, "j")
            client.notify()
        await until(lambda: _has(connection, status="dlq", attempt_count=5))
    for wait, least in zip(waits, (2, 4, 8, 16), strict=True):
        assert least <= wait <= least * 1.1
    row = await the_job(connection, "j")
    assert [entry["error"] for entry in row["history"]] == [
        f"RuntimeError: attempt {n}" for n in range(1, 6)
    ]
    assert row["dead_at"] == row["processed_at"] is not None


async def test_a_retry_starts_when_it_is_due_though_the_worker_looks_only_once_a_minute(
    connection: Connection, settings: Settings
) -> None:
    attempts: list[float] = []

    @task("test.job", backoff=Backoff(0.3))
    async def handler(job: Job[Any]) -> None:
        attempts.append(time.monotonic())
        if job.attempt < 3:
            raise RuntimeError("not yet")

    await published(connection, settings, handler)
    lazy = settings.with_(idle_interval=timedelta(minutes=1), poll_interval=timedelta(minutes=1))
    async with AsyncClient.open(lazy) as client, working(lazy, handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: _has(connection, status="completed"))
    first, second, third = attempts
    assert second - first >= 0.3
    assert third - second >= 0.6


async def test_retry_burns_an_attempt_and_waits_at_least_as_long_as_asked(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise Retry("429 Too Many Requests", after="90s")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["attempt_count"], row["error"]) == (
        "failed",
        1,
        "429 Too Many Requests",
    )
    assert row["run_after"] - row["started_at"] >= timedelta(seconds=90)


async def test_discard_goes_to_the_dead_letter_queue_at_once(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise Discard("550 no such user")

    row = await perform(connection, settings, handler)
    assert (row["status"], row["attempt_count"], row["error"]) == ("dlq", 1, "550 no such user")


@pytest.mark.parametrize(
    ("ending", "wait"),
    [(Snooze("5m", "too early"), 300), (DependencyDown("smtp", "535 refused"), 30)],
)
async def test_a_snooze_and_a_broken_dependency_burn_no_attempt(
    connection: Connection, settings: Settings, ending: Exception, wait: int
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise ending

    row = await perform(connection, settings, handler)
    assert (row["status"], row["attempt_count"], row["error"]) == ("enqueued", 0, str(ending))
    assert row["run_after"] - row["started_at"] >= timedelta(seconds=wait)
    assert row["history"] is None


async def test_a_snooze_after_a_failure_keeps_the_failure_in_sight(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise Snooze("5m") if job.attempt == 2 else RuntimeError("first")

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: _has(connection, status="failed", attempt_count=1))
        await advance(client, "j")
        client.notify()
        await until(lambda: _has(connection, lease=2, status="failed"))
    row = await the_job(connection, "j")
    assert (row["attempt_count"], row["error"]) == (1, "RuntimeError: first")


async def test_an_attempt_that_takes_too_long_is_stopped(
    connection: Connection, settings: Settings
) -> None:
    cancelled = []

    @task("test.job", timeout="50ms")
    async def handler(job: Job[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"], row["stack_trace"]) == (
        "failed",
        "timed out after 0.05 s",
        None,
    )
    assert cancelled == [True]


async def test_a_timeout_of_the_handlers_own_is_an_ordinary_error(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"]) == ("failed", "TimeoutError")


@pytest.mark.parametrize(
    "payload", [{"nome": "Ana"}, {"name": 7}, [], "text", None, {"name": "Ana", "times": "many"}]
)
async def test_an_undecodable_payload_is_dead_before_the_call(
    connection: Connection, settings: Settings, payload: Any
) -> None:
    called = []

    @task("test.job")
    async def handler(job: Job[Greeting]) -> None:
        called.append(job)

    from psycopg.types.json import Jsonb

    await a_job(connection, job_id="j", payload=Jsonb(payload))
    async with working(settings, handler):
        await until(lambda: _ended(connection))
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("dlq", 1)
    assert row["error"].startswith("The payload cannot be read: ")
    assert called == []


async def test_a_plain_function_runs_in_a_thread(
    connection: Connection, settings: Settings
) -> None:
    threads = []

    @task("test.job")
    def handler(job: Job[Greeting]) -> None:
        threads.append((threading.current_thread().name, job.payload.name))

    row = await perform(connection, settings, handler, Greeting("Ana"))
    assert row["status"] == "completed"
    assert threads[0][0].startswith("handler")
    assert threads[0][1] == "Ana"


async def test_a_thread_that_is_too_slow_counts_as_timed_out_but_only_once_it_returned(
    connection: Connection, settings: Settings
) -> None:
    """It cannot be interrupted: it keeps slot and lease, and is not started twice meanwhile, though
    the lease is short."""
    starts, release = [], threading.Event()

    @task("test.job", timeout="50ms")
    def handler(job: Job[Any]) -> None:
        starts.append(time.monotonic())
        release.wait(10)

    await published(connection, settings, handler)
    short = settings.with_(lease=timedelta(seconds=1), queues={"default": 1})
    async with AsyncClient.open(settings) as client, working(short, handler) as worker:
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: bool(starts))
        first = (await the_job(connection, "j"))["lease_until"]
        await until(lambda: _extended(connection, first + timedelta(seconds=1)))
        assert worker.inflight.free("default") == 0
        release.set()
        await until(lambda: _ended(connection))
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("failed", 1)
    assert row["error"].startswith("timed out after 0.05 s")
    assert len(starts) == 1


async def test_a_module_s_lifespan_is_opened_once_and_handed_to_its_jobs(
    connection: Connection, settings: Settings
) -> None:
    opened, closed, seen = [], [], []

    @asynccontextmanager
    async def lifespan(given: Settings) -> Any:
        opened.append(given.database_url)
        yield "a pool of mail connections"
        closed.append(True)

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        seen.append(job.resources)

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler, lifespan=lifespan):
        await client.enqueue(handler, {})
        await client.enqueue(handler, {})
        await until(lambda: len(seen) == 2)
        assert closed == []
    assert seen == ["a pool of mail connections"] * 2
    assert (opened, closed) == ([for_worker(settings).database_url], [True])


async def test_an_error_text_that_no_database_takes_is_cleaned_before(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        raise RuntimeError("NUL \x00 and half a character \ud83d, ana.maria@example.com")

    row = await perform(connection, settings, handler)
    assert row["status"] == "failed"
    assert row["error"] == "RuntimeError: NUL \ufffd and half a character \ufffd, a***@example.com"
    assert "ana.maria" not in str(row["history"]) + row["stack_trace"]


async def test_the_history_keeps_the_last_twenty(
    connection: Connection, settings: Settings
) -> None:
    await a_job(connection, job_id="j", history=[{"attempt": n} for n in range(20)])
    (row,) = await sql(
        connection, "SELECT pgqueue_history(history, '{\"attempt\": 20}') AS new FROM job_logs"
    )
    assert [entry["attempt"] for entry in row["new"]] == list(range(1, 21))


async def _has(connection: Connection, **columns: Any) -> bool:
    row = await the_job(connection, "j")
    return all(row[name] == value for name, value in columns.items())


async def _extended(connection: Connection, moment: Any) -> bool:
    return bool((await the_job(connection, "j"))["lease_until"] > moment)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        StopIteration("x"),
        SystemExit(0),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseExceptionGroup("x", [KeyboardInterrupt()]),
        Unspeakable(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_whatever_is_raised_is_a_failed_attempt_and_the_worker_lives(
    connection: Connection, settings: Settings, error: BaseException, kind: str
) -> None:
    @task("test.job")
    async def later(job: Job[Any]) -> None:
        raise error

    @task("test.job")
    def plain(job: Job[Any]) -> None:
        raise error

    row = await perform(connection, settings, later if kind == "async" else plain)
    assert (row["status"], row["attempt_count"]) == ("failed", 1)
    assert row["error"]


async def test_a_handler_that_swallows_its_timeout_has_failed_all_the_same(
    connection: Connection, settings: Settings
) -> None:
    @task("test.job", timeout=0.1)
    async def handler(job: Job[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    row = await perform(connection, settings, handler)
    assert (row["status"], row["error"]) == ("failed", "timed out after 0.1 s")


async def test_a_payload_s_own_check_may_raise_anything(
    connection: Connection, settings: Settings
) -> None:
    class Fussy(msgspec.Struct):
        n: int = 0

        def __post_init__(self) -> None:
            raise LookupError("not today")

    @task("test.job")
    async def handler(job: Job[Fussy]) -> None: ...

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue("test.job", {}, job_id="j")
        await until(lambda: _ended(connection))
    row = await the_job(connection, "j")
    assert (row["status"], row["error"]) == ("dlq", "The payload cannot be read: not today")


async def test_a_plain_function_is_not_started_again_while_it_runs(
    connection: Connection, settings: Settings
) -> None:
    """Cancelled and replayed meanwhile: the second attempt waits for the thread of the first, and
    burns nothing."""
    go_on, starts = threading.Event(), []

    @task("test.job")
    def handler(job: Job[Any]) -> None:
        starts.append(job.attempt)
        go_on.wait(20)

    await published(connection, settings, handler)
    async with AsyncClient.open(settings) as client, working(settings, handler):
        await client.enqueue(handler, {}, job_id="j")
        await until(lambda: len(starts) == 1)
        await client.cancel("j")
        await client.replay("j")
        await until(lambda: _given_back(connection))
        assert len(starts) == 1
        go_on.set()
        await sql(connection, "UPDATE job_logs SET run_after = now()")
        await until(lambda: _completed(connection))
    assert len(starts) == 2
    assert (await the_job(connection, "j"))["attempt_count"] == 1


async def _given_back(connection: Connection) -> bool:
    row = await the_job(connection, "j")
    return (
        row["status"] == "enqueued" and row["error"] == "an earlier attempt still runs in a thread"
    )


async def _completed(connection: Connection) -> bool:
    return bool((await the_job(connection, "j"))["status"] == "completed")
