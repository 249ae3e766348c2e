"""One id given twice, one row in hand twice: each is judged for itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.attempt import Claim, Job, Outcome
from pgqueue.client import AsyncClient
from pgqueue.job import NewJob, Status
from pgqueue.settings import Settings
from pgqueue.task import Limit, task
from pgqueue.testing import working
from pgqueue.worker.acker import Acker
from pgqueue.worker.breaker import Breaker
from pgqueue.worker.inflight import InFlight
from tests.support.factories import a_job, sql, the_job
from tests.support.scene import claim, link, published, until

Connection = AsyncConnection[Any]


@task("test.job")
async def plain(job: Job[Any]) -> None: ...


@task("test.limited", rate_limit=Limit(1, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@pytest.mark.parametrize(
    ("job_type", "user"),
    [(limited, "v"), (plain, "u")],
    ids=["another user", "a type without a limit"],
)
async def test_whoever_sends_an_id_after_somebody_who_is_refused_is_not_refused_too(
    connection: Connection, settings: Settings, job_type: Any, user: str
) -> None:
    """Nobody below the limit is refused: one by one, the second is a new job."""
    await published(connection, settings, plain, limited)
    async with AsyncClient.open(settings) as client:
        await client.enqueue(limited, {}, user_id="u")
        first, second = await client.enqueue_many(
            [NewJob(limited, {}, "j", "u"), NewJob(job_type, {}, "j", user)]
        )
    assert type(first.error).__name__ == "RateLimited"
    assert (second.error, second.created) == (None, True)


async def test_an_outcome_that_came_too_late_does_not_count_because_a_newer_attempt_s_did(
    connection: Connection, settings: Settings
) -> None:
    """The job was cancelled and replayed while the worker still had it in hand; both attempts end
    at once."""
    await a_job(connection, job_id="j")
    inflight = InFlight({"default": 9}, "w-1")
    settled: list[int] = []

    def take(row: Any) -> Any:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        return inflight.take(
            Claim(row[0], row[1], row[3], row[4], row[5], row[6], row[7], b"{}", moment, "default"),
            0.0,
        )

    async with link(settings) as one:
        breaker = Breaker(one, {}, lambda: None, "w-1")
        acker = Acker(
            one,
            inflight,
            breaker,
            lambda held, outcome: settled.append(held.claim.lease),
            lambda delay: None,
        )
        (stale,) = await claim(one)
        attempts = [take(stale)]
        await sql(connection, "SELECT cancel_job('j')")
        await sql(connection, "SELECT replay_job('j')")
        (fresh,) = await claim(one)
        attempts.append(take(fresh))
        for held in attempts:
            acker.put(held, Outcome(Status.COMPLETED))
        acker.stop()
        await acker.run()
    assert settled == [fresh[1]]
    assert inflight.counters.stale_writes == 1


async def test_an_attempt_whose_job_its_own_worker_claims_again_is_stopped(
    connection: Connection, settings: Settings
) -> None:
    """Cancelled and replayed before the next extension: the old handler is to be stopped then at
    the latest, after 3 s or so."""
    going, stopped, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        if going.is_set():
            ended.set()
            return
        going.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await published(connection, settings, handler)
    async with (
        AsyncClient.open(settings) as client,
        working(settings.with_(lease=timedelta(seconds=9)), handler) as worker,
    ):
        await client.enqueue(handler, {}, job_id="j")
        await going.wait()
        await sql(connection, "BEGIN; SELECT cancel_job('j'); SELECT replay_job('j'); COMMIT")
        await ended.wait()
        await until(lambda: worker.acker.empty)
        assert (await the_job(connection, "j"))["status"] == "completed"
        await asyncio.wait_for(stopped.wait(), 6)
