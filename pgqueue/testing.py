"""For the tests of applications: run a handler alone, perform what is queued, move time, look at
what was enqueued. Each helper takes either client: with a Client it blocks, with an AsyncClient it
is awaited.

    outcome = await run(resize, Resize("a.png", 200))       # no database; without `await` outside
    assert outcome.status == "completed"                    # of an event loop

    await drain(client, resize)                             # a real worker, until nothing is due
    await client.enqueue(resize, Resize("a.png", 200), job_id="img-1", user_id="u1")
    await assert_enqueued(client, resize, user_id="u1")
    await drain(client, resize)
    await advance(client, "img-1")                          # a retry or a scheduled job is due now

The pytest plugin of this distribution has fixtures for databases and clients (`pytest --fixtures`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast, overload
from uuid import uuid4

import msgspec
from psycopg.conninfo import make_conninfo

from pgqueue.attempt import Claim, Outcome
from pgqueue.client import AsyncClient
from pgqueue.client import Connection as AsyncConnection
from pgqueue.database.blocking_pool import BlockingPool
from pgqueue.database.pool import Pool
from pgqueue.discovery import Lifespan, load_tasks
from pgqueue.enqueue.encoding import json_text
from pgqueue.enqueue.joining import Joinable
from pgqueue.enqueue.results import view_from
from pgqueue.errors import JobNotFound
from pgqueue.job import JobView
from pgqueue.plugins import settings_class
from pgqueue.settings import Settings, settings_from
from pgqueue.sync_client import Client
from pgqueue.task import Task
from pgqueue.worker.inflight import RunningAttempt
from pgqueue.worker.performer import Performer
from pgqueue.worker.worker import Worker

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ANY: Any = object()
"""A payload that is not looked at."""

LOOK_SECONDS = 0.02
"""Between two looks whether something is still due."""

MAX_SHOWN_JOBS = 5
Row = dict[str, Any]


# One attempt


class AwaitableOutcome(Outcome, frozen=True):
    """What `run` answers: an Outcome, which may be awaited too."""

    def __await__(self) -> Generator[Any, Any, Outcome]:
        yield from ()
        return self


class _Unawaited:
    def __init__(self, attempt: Coroutine[Any, Any, Outcome]) -> None:
        self._attempt = attempt

    def __await__(self) -> Generator[Any, Any, Outcome]:
        return self._attempt.__await__()

    def __getattr__(self, name: str) -> Any:
        self._attempt.close()
        raise AttributeError(
            f"this test runs in an event loop: write `await run(...)`, then .{name}"
        )


def run(
    task: Task[Any],
    payload: Any,
    attempt: int = 1,
    *,
    job_id: str = "test-job",
    user_id: str = "test-user",
    resources: Any = None,
) -> AwaitableOutcome:
    """Perform one attempt of a task without a database: decoding, timeout and verdict are the
    worker's own. payload: a value of the task's type, or what JSON would give. Blocks outside of an
    event loop; await it within one."""
    performed = _perform(task, payload, attempt, job_id, user_id, resources)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return AwaitableOutcome(**msgspec.structs.asdict(asyncio.run(performed)))
    return cast(AwaitableOutcome, _Unawaited(performed))


async def _perform(
    task: Task[Any], payload: Any, attempt: int, job_id: str, user_id: str, resources: Any
) -> Outcome:
    ended: list[Outcome] = []
    performer = Performer(
        tasks={task.job_type: task},
        resources={task.job_type: resources},
        threads=1,
        finish=lambda held, outcome: ended.append(outcome),
        shelve=lambda held: None,
        forget=lambda held: None,
        writes=_Nowhere(),
    )
    claim = Claim(
        uuid4().hex,
        attempt,
        job_id,
        task.job_type,
        user_id,
        attempt,
        task.max_attempts,
        msgspec.json.encode(payload),
        EPOCH,
        task.queue,
    )
    held = RunningAttempt(claim, 0.0)
    performer.start(held)
    watching = asyncio.create_task(performer.watch())
    assert held.task is not None
    await held.task
    watching.cancel()
    return ended[0]


NO_DATABASE = "run() has no database: test a job.transaction() with drain()"


class _NowhereOfThreads:
    def progress(self, claim: Claim, fraction: float, note: str | None) -> None:
        return None

    def intend(self, claim: Claim) -> None:
        return None

    def transaction(self, job: Any, claim: Claim) -> AbstractContextManager[Any]:
        raise RuntimeError(NO_DATABASE)

    def stop(self, claim: Claim) -> None:
        return None


class _Nowhere:
    """Takes what an attempt writes, and keeps none of it."""

    async def progress(self, claim: Claim, fraction: float, note: str | None) -> None:
        return None

    async def intend(self, claim: Claim) -> None:
        return None

    def transaction(self, job: Any, claim: Claim) -> AbstractAsyncContextManager[Any]:
        raise RuntimeError(NO_DATABASE)

    def for_threads(self) -> _NowhereOfThreads:
        return _NowhereOfThreads()


# A queue


@asynccontextmanager
async def working(
    settings: Settings, *tasks: Task[Any], lifespan: Lifespan | None = None
) -> AsyncIterator[Worker]:
    """Run a worker in the event loop of the test, for the length of the block. It serves the queues
    of its tasks too."""
    queues = settings.queues | {
        task.queue: 50 for task in tasks if task.queue not in settings.queues
    }
    worker = Worker(replace(settings, queues=queues), tasks, lifespan=lifespan)
    running = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not running.done():
            yield worker
    finally:
        ready.cancel()
        worker.stop()
        await running


@overload
def drain(client: Client, *tasks: Task[Any], timeout: float = 30.0) -> None: ...


@overload
def drain(client: AsyncClient, *tasks: Task[Any], timeout: float = 30.0) -> Awaitable[None]: ...


def drain(
    client: Client | AsyncClient, *tasks: Task[Any], timeout: float = 30.0
) -> Awaitable[None] | None:
    """Perform what is due of these tasks (those of PGQUEUE_MODULES when none is given) by a worker,
    until none of it is due or running. Jobs that are scheduled for later stay. Publishes the types.
    Raises TimeoutError after `timeout` seconds."""
    draining = _drain(_settings_of(client), tasks, timeout)
    return _in_another_loop(draining) if isinstance(client, Client) else draining


async def _drain(settings: Settings, tasks: tuple[Task[Any], ...], timeout: float) -> None:
    wanted = tasks or tuple(load_tasks(settings.modules)[0].values())
    types = {"types": [task.job_type for task in wanted]}
    left = 0
    async with AsyncClient.open(settings, doorbell=False) as own, working(settings, *wanted):
        try:
            async with asyncio.timeout(timeout):
                while left := (await own.run("count_due", types))[0]["count"]:
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise TimeoutError(
                f"after {timeout:g} s there are still {left} jobs due or running"
            ) from None


def _in_another_loop(work: Coroutine[Any, Any, T]) -> T:
    # In a thread of its own: the test that blocks may itself run in an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _settings_of(client: Client | AsyncClient) -> Settings:
    """Of the database that a client works on; the worker looks often."""
    pool = client.pool
    conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
    pooled = False
    if isinstance(pool, Pool | BlockingPool):
        pooled = pool.pooled
    elif isinstance(pool.kwargs, dict):
        ours = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
        conninfo = make_conninfo(
            str(conninfo), **{key: one for key, one in pool.kwargs.items() if key not in ours}
        )
    look = timedelta(seconds=LOOK_SECONDS)
    return replace(
        settings_from(None, settings_class()),
        database_url=str(conninfo),
        pgbouncer=pooled,
        poll_interval=look,
        idle_interval=look,
    )


@overload
def advance(client: Client, job_id: str) -> None: ...


@overload
def advance(client: AsyncClient, job_id: str) -> Awaitable[None]: ...


def advance(client: Client | AsyncClient, job_id: str) -> Awaitable[None] | None:
    """Make the next attempt of a waiting job due now. Raises JobNotFound when no such job waits."""
    values = {"job_id": job_id}

    def check(rows: list[Row]) -> None:
        if not rows:
            raise JobNotFound(job_id)

    if isinstance(client, Client):
        check(client.run("advance_job", values))
        return None
    return _then(client.run("advance_job", values), check)


@overload
def assert_enqueued(
    client: Client,
    task: Task[Any] | str,
    payload: Any = ANY,
    *,
    job_id: str | None = None,
    user_id: str | None = None,
    queue: str | None = None,
    count: int | None = None,
    connection: Joinable | None = None,
) -> list[JobView]: ...


@overload
def assert_enqueued(
    client: AsyncClient,
    task: Task[Any] | str,
    payload: Any = ANY,
    *,
    job_id: str | None = None,
    user_id: str | None = None,
    queue: str | None = None,
    count: int | None = None,
    connection: AsyncConnection | None = None,
) -> Awaitable[list[JobView]]: ...


def assert_enqueued(
    client: Client | AsyncClient,
    task: Task[Any] | str,
    payload: Any = ANY,
    *,
    job_id: str | None = None,
    user_id: str | None = None,
    queue: str | None = None,
    count: int | None = None,
    connection: Any = None,
) -> list[JobView] | Awaitable[list[JobView]]:
    """Assert that a job of this type waits (enqueued, or failed and to be tried again); return all
    that match, oldest first.

    payload: equal as JSON. count: exactly so many; 0 asserts that there is none. connection: looks
    within the transaction of that connection, for what is not committed. AssertionError names the
    jobs of this type that do wait.
    """
    job_type = task if isinstance(task, str) else task.job_type
    values = {"job_type": job_type, "job_id": job_id, "user_id": user_id, "queue": queue}

    def check(rows: list[Row]) -> list[JobView]:
        waiting = [view_from(row) for row in rows]
        wanted = None if payload is ANY else msgspec.json.decode(json_text(payload))
        found = [view for view in waiting if payload is ANY or view.payload == wanted]
        if (not found) if count is None else len(found) != count:
            raise AssertionError(_missing(values, wanted, count, found, waiting))
        return found

    if isinstance(client, Client):
        return check(client.run("find_waiting", values, connection=connection))
    return _then(client.run("find_waiting", values, connection=connection), check)


def _missing(
    values: Row, payload: Any, count: int | None, found: list[JobView], waiting: list[JobView]
) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    if payload is not None:
        given["payload"] = payload
    wanted = ", ".join(f"{name}={value!r}" for name, value in given.items())
    number = f"{len(found)} jobs wait, not {count}" if count is not None else "no job waits"
    jobs = "".join(
        f"\n  {view.job_id} ({view.status}, user {view.user_id}): {view.payload!r}"
        for view in waiting[:MAX_SHOWN_JOBS]
    )
    more = "\n  ..." if len(waiting) > MAX_SHOWN_JOBS else ""
    return f"{number} with {wanted}. Waiting:{jobs or ' none'}{more}"


async def _then(rows: Awaitable[list[Row]], check: Any) -> Any:
    return check(await rows)
