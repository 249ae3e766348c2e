"""R16: what lies where no cursor will come by again: claimed ahead of it, committed behind it,
blocked, or starved."""

import asyncio
import random
from datetime import datetime
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, NewJob
from pgqueue.database.pool import open_pool
from pgqueue.settings import Settings
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.ledger import Ledger
from tests.chaos.load import enqueue
from tests.chaos.producer import Book
from tests.chaos.site import Site
from tests.chaos.size import many, span
from tests.support.scene import until

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

LEASE = 2
PRODUCERS = 20
SWEEP = 2


def _work(
    name: str, number: int, seconds: float, priority: int = 5, again: float = 0.01
) -> list[NewJob]:
    return [
        NewJob(
            "chaos.work", {"seconds": seconds, "again": again}, f"{name}-{n:05}", priority=priority
        )
        for n in range(number)
    ]


def _started(ledger: Ledger, name: str) -> list[datetime]:
    """When each of these was started, in order."""
    return sorted(one.at for one, _ in ledger.successors if one.job_id.startswith(name))


@pytest.mark.fault("R16")
async def test_what_a_dead_worker_claimed_ahead_of_another_s_cursor_starts_again(
    site: Site, record: Record
) -> None:
    held = many(100, 500)  # they are rescued a hundred at a time
    gate = site.folder / "gate"
    async with (
        a_fleet(site, 1, slots=held, PGQUEUE_LEASE=f"{LEASE}s") as fleet,
        AsyncClient.open(site.url) as client,
    ):
        (busy,) = fleet.members
        # It has no free slot until the other has taken all that comes next.
        first = [
            NewJob("chaos.gated", {"gate": str(gate)}, f"first-{number}") for number in range(held)
        ]
        await enqueue(site, client, first)
        await until(
            lambda: site.value("SELECT count(*) FROM job_logs WHERE status = 'processing'") == held
        )
        ahead = await fleet.start()
        await enqueue(site, client, _work("second", held, 600))
        await until(
            lambda: (
                site.value(
                    "SELECT count(*) FROM job_logs WHERE status = 'processing' AND job_id ~ "
                    "'second'"
                )
                == held
            )
        )
        gone = [(ahead.login, await fleet.kill(ahead))]
        gate.touch()
        await enqueue(site, client, _work("third", 10, 0.01))
        await fleet.drained()
        assert busy.runs
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            f"a worker that holds {held} jobs ahead of the cursor of another dies; recovery: "
            "until the last starts again"
        ),
        faults=1,
        in_flight=len(ledger.left_by([ahead.login])),
        recovery=ledger.rescued_after(gone),
    )
    record(counts)
    assert counts.in_flight == held
    assert ledger.rescued_after(gone) < LEASE + SWEEP + SLACK


@pytest.mark.fault("R16")
async def test_jobs_whose_commit_was_slow_start_soon_after_it(site: Site, record: Record) -> None:
    number = many(60, 1000)
    committed: dict[str, datetime] = {}
    book = Book(site.accepted / "test")
    settings = Settings(database_url=site.login("pgqueue_producer").url, pool_size=PRODUCERS)

    async def slowly(client: AsyncClient, connection: AsyncConnection[Any], job_id: str) -> None:
        async with connection.transaction():
            await client.enqueue("chaos.work", {"seconds": 0}, job_id=job_id, connection=connection)
            await span(random.choice((0.1, 0.5, 1.0, 2.0)))
        committed[job_id] = now()
        book.write(job_id)

    async def producer(client: AsyncClient, name: str) -> None:
        async with client.pool.connection() as connection:
            for n in range(number // PRODUCERS):
                await slowly(client, connection, f"{name}-{n}")

    async with (
        a_fleet(site, 2) as fleet,
        open_pool(settings) as pool,
        AsyncClient.open(pool) as client,
    ):
        async with asyncio.TaskGroup() as group:
            for n in range(PRODUCERS):
                group.create_task(producer(client, f"slow-{n}"))
        await fleet.drained()
    ledger = site.ledger()
    waits = [
        (events[1].at - committed[job]).total_seconds() for job, events in ledger.by_job.items()
    ]
    counts = count(
        ledger,
        what=(
            "commits that take up to two seconds; recovery: the longest from a commit to the "
            "start of its job"
        ),
        faults=number,
        in_flight=0,
        recovery=max(waits),
    )
    record(counts)
    assert max(waits) < SWEEP + SLACK


@pytest.mark.fault("R16")
async def test_a_backlog_that_was_blocked_drains_at_the_speed_of_claims(
    site: Site, record: Record
) -> None:
    """Sweeps alone would take a second for a hundred."""
    number = many(2000, 50000)
    async with a_fleet(site, 1, slots=100) as fleet, AsyncClient.open(site.url) as client:
        await client.pause("default")
        for part in range(0, number, 5000):
            await enqueue(site, client, _work(f"blocked-{part}", min(5000, number - part), 0))
        await span(2)
        assert site.live() == number
        resumed = now()
        await client.resume("default")
        await fleet.drained(300)
    ledger = site.ledger()
    seconds = (ledger.completed_at[-1] - resumed).total_seconds()
    counts = count(
        ledger,
        what=f"{number} jobs in a paused queue, resumed; recovery: until they are done",
        faults=1,
        in_flight=0,
        recovery=seconds,
        jobs_a_second=round(number / seconds),
    )
    record(counts)
    assert seconds < number / 200 + SLACK


@pytest.mark.fault("R16")
async def test_a_lane_behind_full_ones_is_not_starved(site: Site, record: Record) -> None:
    number = many(400, 5000)
    async with a_fleet(site, 1, slots=4) as fleet, AsyncClient.open(site.url) as client:
        await enqueue(site, client, _work("urgent", number, 0.04, priority=0))
        await until(
            lambda: site.value("SELECT count(*) FROM job_logs WHERE status = 'completed'") > 20
        )
        asked = now()
        await enqueue(site, client, _work("patient", 10, 0, priority=9))
        await fleet.drained(300)
    ledger = site.ledger()
    waits = [(at - asked).total_seconds() for at in _started(ledger, "patient")]
    counts = count(
        ledger,
        what=(
            f"ten jobs of the last priority behind {number} of the first; recovery: until the "
            "last of the ten starts"
        ),
        faults=1,
        in_flight=0,
        recovery=max(waits),
        seconds_until_the_last_urgent_starts=round(
            (_started(ledger, "urgent")[-1] - asked).total_seconds(), 3
        ),
    )
    record(counts)
    assert _started(ledger, "patient")[-1] < _started(ledger, "urgent")[-number // 10]
