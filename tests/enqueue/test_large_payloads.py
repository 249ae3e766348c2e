"""Large payloads: a limit for each, and claims that take fewer of them."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue import AsyncClient, Job, task
from pgqueue.errors import InvalidJob
from pgqueue.settings import Settings
from pgqueue.worker.claimer import FIRST_CLAIM_BATCH, MAX_CLAIM_BATCH, MAX_CLAIM_CHARACTERS
from tests.support.factories import a_type, sql, value
from tests.support.scene import published, until, working

Connection = AsyncConnection[Any]
LARGE = {"text": "x" * 1_000_000}


@task("test.job")
async def quick(job: Job[Any]) -> None:
    """Done at once."""


async def test_claims_of_large_jobs_take_few_and_of_small_ones_many(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(connection, settings, quick)
    small = "INSERT INTO job_logs (job_id, job_type, user_id, payload, run_after) "
    small += (
        "SELECT 's' || n, 'test.job', 'u', '{}', now() - interval '1 h' FROM generate_series(1, "
        "3000) n"
    )
    await sql(connection, small)
    async with AsyncClient.open(settings) as client:
        for number in range(60):
            await client.enqueue(quick, LARGE, job_id=f"large-{number}")
        loads: list[tuple[int, int]] = []
        ours = settings.with_(queues={"default": 1000}, doorbell=False)
        async with working(ours, quick) as worker:
            weigh = worker.claimer._adjust_batch

            def weighed(jobs: Any) -> None:
                loads.append((len(jobs), sum(len(row[8]) for row in jobs)))
                weigh(jobs)

            monkeypatch.setattr(worker.claimer, "_adjust_batch", weighed)
            await until(
                lambda: value(connection, "SELECT bool_and(status = 'completed') FROM job_logs"), 60
            )
    taken = [count for count, _ in loads if count]
    assert max(taken) > FIRST_CLAIM_BATCH, "small jobs come in large claims"
    large = [load for _, load in loads if load > MAX_CLAIM_CHARACTERS]
    assert len(large) <= 1, "the first claim of large jobs knows nothing of them"
    assert sum(taken) <= 3060
    assert max(taken) <= MAX_CLAIM_BATCH


async def test_a_payload_has_a_limit(connection: Connection, settings: Settings) -> None:
    await a_type(connection, job_type="test.job")
    async with AsyncClient.open(settings) as client:
        await client.enqueue("test.job", LARGE)
        with pytest.raises(InvalidJob, match="payload has at most 1 mib"):
            await client.enqueue("test.job", {"text": "x" * 1_100_000})
        with pytest.raises(InvalidJob, match="payload has at most 1 mib"):
            await client.enqueue(
                "test.job", {"text": "x" * 1_100_000}, delay=timedelta(hours=1), job_id="j"
            )
