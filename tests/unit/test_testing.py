"""What people get to test their own tasks with."""

from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Discard, Job, JobNotFound, Status, task
from pgqueue.settings import Settings
from pgqueue.testing import advance, drain, run
from tests.support.scene import published


class Resize(msgspec.Struct):
    image: str
    width: int


@task("image.resize", timeout="10s")
async def resize(job: Job[Resize]) -> None:
    match job.payload.width:
        case 0:
            raise Discard("no width")
        case 1:
            raise RuntimeError(f"attempt {job.attempt}")
    await job.progress(0.5)


async def test_run_performs_one_attempt_without_a_database() -> None:
    assert (await run(resize, Resize("a", 200))).status is Status.COMPLETED
    assert (await run(resize, Resize("a", 0))).status is Status.DLQ
    assert (await run(resize, Resize("a", 1))).status is Status.FAILED
    assert (await run(resize, Resize("a", 1), attempt=5)).status is Status.DLQ
    assert "missing required field" in ((await run(resize, {"image": "a"})).error or "")


async def test_drain_works_off_what_is_due_and_advance_moves_time(
    connection: AsyncConnection[Any], settings: Settings
) -> None:
    await published(connection, settings, resize)
    async with AsyncClient.open(settings) as client:
        await client.enqueue(resize, Resize("a", 200), job_id="good")
        await client.enqueue(resize, Resize("a", 1), job_id="bad")
        await client.enqueue(resize, Resize("a", 200), job_id="tomorrow", delay="1d")
        await drain(client, resize)
        assert [(await client.get(name)).status for name in ("good", "bad", "tomorrow")] == [
            "completed",
            "failed",
            "enqueued",
        ]
        await advance(client, "tomorrow")
        for _ in range(4):
            await advance(client, "bad")
            await drain(client, resize)
        bad = await client.get("bad")
        assert (bad.status, bad.attempt_count) == (Status.DLQ, 5)
        assert (await client.get("tomorrow")).status is Status.COMPLETED
        with pytest.raises(JobNotFound):
            await advance(client, "bad")
