"""What jobs cost the server, in exact counts and never in time: WAL, heap-only claims, statements,
commits, index entries read.

On servers of their own, with full_page_writes and autovacuum off: what those write is no cost of a
job, and comes when it likes.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection, IsolationLevel

from pgqueue import AsyncClient, Job, NewJob, task
from pgqueue.database.adapters import array
from pgqueue.database.migrations import migrate
from pgqueue.database.worker_connection import WorkerConnection
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.settings import Settings
from pgqueue.worker.lanes import LAST_ID, START
from pgqueue.worker.worker import Worker
from tests.conftest import FAST, in_memory
from tests.support.factories import sql, value
from tests.support.scene import claim, link, published, until

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]

BATCH = 500
MOST_WAL = 2_100
"""Bytes for one sign-in, from its enqueue to its ack, with all indexes."""

LEAST_HOT = 0.95

CONNECTIONS = 30
"""Commits that a pool's connections come to, and our own looks."""

WORKER = "pgqueue-worker-7d9f8b6c5d-x2x9k-1-3f2a"
"""As long as names are where programs are containers: a claim writes it into every row."""

SIGN_IN = {
    "userId": "user-000001",
    "email": "user@example.com",
    "name": "Test User",
    "provider": "github",
    "ipAddress": "192.168.1.100",
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
    "timestamp": "2026-11-23T13:00:00Z",
}


@task("costs.sign-in")
async def nothing(job: Job[Any]) -> None:
    """What is counted is the queue."""


@pytest.fixture(scope="module")
def quiet_server(installed: dict[int, Path]) -> Iterator[Callable[[int], EmbeddedServer]]:
    """By major version; nothing else writes on it while a test counts."""
    running: dict[int, EmbeddedServer] = {}
    with ExitStack() as stack:

        def start(major: int) -> EmbeddedServer:
            if major not in running:
                server = EmbeddedServer(
                    {**FAST, "autovacuum": "off"}, binaries=installed[major], within=in_memory()
                )
                running[major] = stack.enter_context(server)
            return running[major]

        yield start


@pytest.fixture
async def database_url(
    quiet_server: Callable[[int], EmbeddedServer], postgres_major: int, installed: dict[int, Path]
) -> str:
    if postgres_major not in installed:
        pytest.skip(f"Postgres {postgres_major} is not installed here")
    server, name = quiet_server(postgres_major), f"costs_{uuid.uuid4().hex[:12]}"
    async with await AsyncConnection.connect(server.url(), autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    await migrate(server.url(name))
    return server.url(name)


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> AsyncIterator[AsyncClient]:
    await published(connection, settings, nothing)
    async with AsyncClient.open(settings.with_(doorbell=False)) as client:
        yield client


def sign_ins(count: int) -> list[NewJob]:
    return [
        NewJob(nothing, SIGN_IN | {"userId": f"user-{n:06}"}, f"sign-in-{n:09}", f"user-{n:06}")
        for n in range(count)
    ]


async def stored(client: AsyncClient, count: int, *, singly: bool = False) -> None:
    if singly:
        for job in sign_ins(count):
            await client.enqueue(job.task, job.payload, job_id=job.job_id, user_id=job.user_id)
    else:
        await client.enqueue_many(sign_ins(count))


@asynccontextmanager
async def at_work(settings: Settings, concurrency: int) -> AsyncIterator[Worker]:
    """A real worker, in this process; when it is left, it has stopped and its sessions have told
    what they did."""
    ours = settings.with_(queues={"default": concurrency}, doorbell=False, auto_prune=False)
    worker = Worker(ours, [nothing])
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await running


async def drained(worker: Worker, count: int) -> None:
    await until(
        lambda: worker.inflight.counters.completed >= count, 60, f"{count} jobs are completed"
    )


async def written(connection: Connection) -> int:
    """Bytes of WAL so far."""
    return int(
        await value(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
    )


async def told(*connections: Connection) -> None:
    """What these sessions have counted becomes visible; by themselves they tell it about once a
    second, or when they end."""
    for connection in connections:
        await connection.execute("SELECT pg_stat_force_next_flush()")


async def heap_only(connection: Connection, one: WorkerConnection) -> tuple[int, int]:
    """Updates of job_logs so far, and how many of them were heap-only."""
    await told(connection, await one.connect())
    (row,) = await sql(
        connection,
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'job_logs'",
    )
    return int(row["n_tup_upd"]), int(row["n_tup_hot_upd"])


async def commits(connection: Connection) -> int:
    """Of sessions that have ended, and our own."""
    await told(connection)
    return int(
        await value(
            connection,
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
        )
    )


async def entries_read(connection: Connection, one: WorkerConnection) -> int:
    """Entries of the claim index that scans have returned so far, dead ones among them."""
    await told(await one.connect())
    query = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'job_logs_claim'"
    return int(await value(connection, query))


async def acked(one: WorkerConnection, rows: list[Any]) -> None:
    held = sorted((row[0], row[1]) for row in rows)
    values = {
        "ids": array(id for id, _ in held),
        "leases": array(lease for _, lease in held),
        "receipts": [None] * len(held),
        "worker": "w-1",
    }
    assert await one.count("ack_jobs", values | {"worker": "w-1"}) == len(rows)


async def place_of(connection: Connection, row: Any) -> Any:
    """Where a claim goes on that has taken this job last."""
    (place,) = await sql(
        connection, "SELECT run_after, id FROM job_logs WHERE job_id = %s", [row[3]]
    )
    return place["run_after"], place["id"]


@pytest.mark.parametrize(
    ("count", "concurrency", "singly"),
    [(2000, 1000, False), (200, 1, True)],
    ids=["groups", "singly"],
)
async def test_a_sign_in_costs_at_most_2100_bytes_of_wal(
    connection: Connection,
    settings: Settings,
    client: AsyncClient,
    count: int,
    concurrency: int,
    singly: bool,
) -> None:
    async with at_work(settings, concurrency) as worker:
        await until(
            lambda: worker.ready.is_set() and worker.claimer.resting, 20, "the worker rests"
        )
        before = await written(connection)
        await stored(client, count, singly=singly)
        await drained(worker, count)
        cost = (await written(connection) - before) / count
    assert cost <= MOST_WAL


async def test_claims_are_heap_only(
    connection: Connection, settings: Settings, client: AsyncClient
) -> None:
    """Whole pages are claimed at once: the free part of each must take all of its rows again, with
    what a claim adds to them. How much of a page is left over depends on the length of the rows, so
    all lengths are tried."""
    part: dict[int, float] = {}
    async with link(settings) as one:
        place: Any = START
        for longer in range(0, 400, 50):
            before = await heap_only(connection, one)
            name = {"name": "x" * longer}
            jobs = [
                msgspec.structs.replace(j, job_id=f"{longer}-{j.job_id}", payload=j.payload | name)
                for j in sign_ins(BATCH)
            ]
            await client.enqueue_many(jobs)
            rows = await claim(one, worker=WORKER, most=BATCH, place=place)
            place = await place_of(connection, rows[-1])
            updates, cheap = (
                now - then
                for now, then in zip(await heap_only(connection, one), before, strict=True)
            )
            assert updates == BATCH
            part[longer] = cheap / BATCH
    assert min(part.values()) >= LEAST_HOT, part


async def test_a_worker_sends_few_statements_for_a_thousand_jobs(
    connection: Connection, settings: Settings, client: AsyncClient
) -> None:
    """Claims and acks in groups, and each statement its own commit; a sweep about once a second,
    and a few to start and stop."""
    count = 5_000
    await stored(client, count)
    before = await commits(connection)
    async with at_work(settings, 1000) as worker:
        await drained(worker, count)
        statements = worker.statements
    assert statements <= 25 * count / 1000
    assert await commits(connection) - before <= 25 * count / 1000 + 25


async def test_an_enqueue_is_one_commit(
    connection: Connection, settings: Settings, client: AsyncClient
) -> None:
    await stored(client, 1)
    before = await commits(connection)
    for job in sign_ins(101)[1:]:
        await client.enqueue(job.task, job.payload, job_id=job.job_id, user_id=job.user_id)
    await client.pool.close()
    assert await commits(connection) - before <= 100 + CONNECTIONS


async def test_ten_thousand_jobs_in_bulk_are_one_commit(
    connection: Connection, client: AsyncClient
) -> None:
    before = await commits(connection)
    await stored(client, 10_000)
    await client.pool.close()
    assert await value(connection, "SELECT count(*) FROM job_logs") == 10_000
    assert await commits(connection) - before <= 1 + CONNECTIONS


async def test_a_claim_under_a_held_snapshot_reads_what_it_takes(
    connection: Connection, settings: Settings, client: AsyncClient
) -> None:
    """What was done since the snapshot cannot be cleaned away; a claim begins behind it. One that
    began at the lane's start would read it all, as the last one here does."""
    count = 10 * BATCH
    await stored(client, count + BATCH)
    async with await AsyncConnection.connect(settings.conninfo) as old, link(settings) as one:
        await old.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await old.execute("SELECT count(*) FROM job_types")
        place: Any = START
        for _ in range(count // BATCH):
            before = await entries_read(connection, one)
            rows = await claim(one, most=BATCH, place=place)
            assert await entries_read(connection, one) - before <= BATCH + 10
            await acked(one, rows)
            place = await place_of(connection, rows[-1])
        before = await entries_read(connection, one)
        assert len(await claim(one, most=BATCH)) == BATCH
        assert await entries_read(connection, one) - before >= count


async def test_an_idle_claim_under_a_held_snapshot_reads_next_to_nothing(
    connection: Connection, settings: Settings, client: AsyncClient
) -> None:
    """It has moved its cursor to its own now, less the grace for slow commits."""
    long_due = datetime(2026, 1, 1, tzinfo=UTC)
    await client.enqueue_many(
        [msgspec.structs.replace(job, run_after=long_due) for job in sign_ins(4 * BATCH)]
    )
    async with await AsyncConnection.connect(settings.conninfo) as old, link(settings) as one:
        await old.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await old.execute("SELECT count(*) FROM job_types")
        await acked(one, await claim(one, most=4 * BATCH))
        now = await value(connection, "SELECT now()")
        before = await entries_read(connection, one)
        assert (
            await claim(one, most=BATCH, place=(now - timedelta(milliseconds=250), LAST_ID)) == []
        )
        assert await entries_read(connection, one) - before <= 10
