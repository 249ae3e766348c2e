"""P7: what one job costs the server: bytes of WAL, heap-only claims, commits, processor time.
Counts, not times.

With the sign-in payload and all indexes. WAL is counted with full_page_writes off and autovacuum
off, or the number depends on when the last checkpoint was; both are on everywhere else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from psycopg import AsyncConnection

from benchmarks import workers
from benchmarks.jobs import one
from benchmarks.run import Figure, Run, Sample, Verdict, median
from benchmarks.tasks import noop
from pgqueue import AsyncClient
from pgqueue.database.job_types import declarations, publish
from pgqueue.settings import Settings

SIGN_IN = {
    "userId": "user-000001",
    "email": "user@example.com",
    "name": "Test User",
    "provider": "github",
    "ipAddress": "192.168.1.100",
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
    "timestamp": "2026-11-23T13:00:00Z",
}
MOST_WAL = 2100
LEAST_HOT = 0.95


@asynccontextmanager
async def exact(run: Run) -> AsyncIterator[None]:
    """The server without what depends on the moment."""
    await run.postgres.change(full_page_writes="off", autovacuum="off")
    try:
        yield
    finally:
        await run.postgres.change(full_page_writes="on", autovacuum="on")


async def counted(run: Run, connection: AsyncConnection[Any]) -> dict[str, float]:
    """The server's counters for this database, as they are now."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await connection.execute(
        """SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
             d.xact_commit::float8, t.n_tup_upd::float8,
                  t.n_tup_hot_upd::float8
             FROM pg_stat_database d, pg_stat_user_tables t WHERE d.datname = current_database()
               AND t.relname = 'job_logs'"""
    )
    row = (await cursor.fetchall())[0]
    return dict(zip(("wal", "commits", "updates", "hot"), row, strict=True)) | {
        "cpu": run.postgres.cpu_seconds()
    }


async def enqueued(client: AsyncClient, jobs: int) -> None:
    numbers = iter(range(1, jobs + 1))

    async def produce() -> None:
        for number in numbers:
            user = f"user-{number:06}"
            await client.enqueue(
                noop, SIGN_IN | {"userId": user}, job_id=f"job-{number:09}", user_id=user
            )

    await asyncio.gather(*(produce() for _ in range(10)))


async def costs(run: Run, jobs: int, concurrency: int) -> Sample:
    """Per job: of its enqueue, and of its claim and ack."""
    async with (
        exact(run),
        run.postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
        AsyncClient.open(url, doorbell=False) as client,
    ):
        await publish(connection, declarations([noop], Settings(database_url=url)))
        await workers.hold(connection)
        async with workers.crew(url, 1, concurrency=concurrency) as crew:
            start = await counted(run, connection)
            await enqueued(client, jobs)
            stored = await counted(run, connection)
            crew.looks = 0
            await workers.drain(connection, crew, f"job-{jobs:09}")
            looks = crew.looks
        done = await counted(run, connection)
        if (
            await one(connection, "SELECT count(*) FROM job_logs WHERE status = 'completed'")
            != jobs
        ):
            raise RuntimeError("not every job was completed")
    return {
        "jobs": jobs,
        "wal_enqueue": (stored["wal"] - start["wal"]) / jobs,
        "wal_work": (done["wal"] - stored["wal"]) / jobs,
        "wal": (done["wal"] - start["wal"]) / jobs,
        "hot": (done["hot"] - stored["hot"]) / jobs,
        "updates": (done["updates"] - stored["updates"]) / jobs,
        "commits_per_1000": 1000 * (done["commits"] - stored["commits"] - looks) / jobs,
        "cpu_ms_enqueue": 1000 * (stored["cpu"] - start["cpu"]) / jobs,
        "cpu_ms_work": 1000 * (done["cpu"] - stored["cpu"]) / jobs,
    }


async def measure(run: Run, wanted: set[str]) -> None:
    many, few = run.size(20_000, 5_000), run.size(5_000, 1_000)
    samples = await run.take_turns(
        "P7",
        {
            "in groups": partial(costs, run, many, workers.CONCURRENCY),
            "one at a time": partial(costs, run, few, 1),
        },
    )
    figure = Figure("P7", "What a job costs the server", samples=samples)
    for side, taken in samples.items():
        figure.rows.append(
            {"side": side}
            | {
                name: f"{median(taken, name):,.5g}"
                for name in taken[0]
                if name not in ("round", "took")
            }
        )
        wal, hot = median(taken, "wal"), median(taken, "hot")
        figure.verdicts += [
            Verdict(
                f"WAL a job, {side}", f"at most {MOST_WAL:,} bytes", f"{wal:,.0f}", wal <= MOST_WAL
            ),
            Verdict(
                f"heap-only claims, {side}",
                f"at least {LEAST_HOT:.0%}",
                f"{hot:.1%}",
                hot >= LEAST_HOT,
            ),
        ]
    figure.notes += [
        f"In groups: concurrency {workers.CONCURRENCY}. One at a time: concurrency 1, so that "
        "every job has a claim and an ack of "
        "its own. Enqueues are single, each with its commit, ten at once.",
        "Counted with full_page_writes and autovacuum off. Commits are all of the worker's "
        "statements, for each is a transaction "
        "of its own; those of its sweeps and heartbeats among them.",
    ]
    run.add(figure)
