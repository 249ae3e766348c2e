"""Tests of one's own tasks. Run them with pytest; DATABASE_URL is a migrated test database."""

import os

import pytest
from images import Resize, resize

from pgqueue import AsyncClient, Status
from pgqueue.testing import drain, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_an_attempt_without_a_database() -> None:
    outcome = await run(resize, Resize("a.png", 200))
    assert outcome.status is Status.COMPLETED


async def test_a_payload_that_does_not_fit_is_a_dead_job() -> None:
    outcome = await run(resize, {"image": "a.png"})
    assert outcome.status is Status.DLQ
    assert "width" in str(outcome.error)


async def test_from_the_enqueue_to_the_end() -> None:
    async with AsyncClient.open(os.environ["DATABASE_URL"]) as client:
        await drain(client, resize)  # publishes the type
        await client.enqueue(resize, Resize("a.png", 200), job_id="img-test-1")
        await drain(client, resize)
        assert (await client.get("img-test-1")).status is Status.COMPLETED
