"""A worker with more to do than it can: what ran out under somebody else must not wait for the end
of the backlog."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, NewJob, task
from pgqueue.settings import Settings
from pgqueue.testing import working
from tests.chaos.size import span
from tests.support.factories import a_job
from tests.support.scene import published, until

BACKLOG = 60


@pytest.mark.fault("R1")
async def test_a_lease_that_ran_out_is_rescued_before_the_backlog_is_done(
    connection: AsyncConnection[Any], settings: Settings
) -> None:
    done: list[str] = []

    @task("test.job")
    async def handler(job: Job[Any]) -> None:
        await span(0.1)
        done.append(job.job_id)

    impatient = settings.with_(lease=timedelta(seconds=1), queues={"default": 1})
    await published(connection, impatient, handler)
    async with AsyncClient.open(impatient) as client:
        await client.enqueue_many([NewJob(handler, {}, f"j{n}") for n in range(BACKLOG)])
    await a_job(
        connection,
        job_id="left behind",
        status="processing",
        lease_until=timedelta(seconds=2),
        locked_by="gone",
    )
    async with working(impatient, handler) as worker:
        await until(lambda: len(done) == BACKLOG + 1, 60)
    assert worker.sweeper.turns > 4
    assert done.index("left behind") < BACKLOG - 10
