"""Many jobs in one request, and others beside it: long work on the event loop goes in slices."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from pgqueue_service.api import deadlines as deadlines
from pgqueue_service.api.deadlines import Turns

from pgqueue.enqueue.encoding import bulk_parameters
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from tests.support.api import ADMIN, open_api

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]


class Turnings:
    """How often the event loop has turned."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


@contextmanager
def turnings() -> Iterator[Turnings]:
    counted = Turnings()
    try:
        yield counted
    finally:
        counted.stop()


async def test_others_get_their_turn_while_many_jobs_are_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "SLICE", 0.0)
    jobs = [{"type": "anything", "payload": {}} for _ in range(200)]
    async with open_api(
        settings, modules=("pgqueue_service.notifications", "tests.support.some_tasks")
    ) as api:
        catalog = api._transport.app.state.gateway.job_types
        made, seen = catalog.job, []
        with turnings() as loop:

            def watched(*arguments: Any) -> NewJob:
                seen.append(loop.count)
                job: NewJob = made(*arguments)
                return job

            monkeypatch.setattr(catalog, "job", watched)
            response = await api.post("/api/jobs/bulk", json={"jobs": jobs}, headers=ADMIN)
    assert response.status_code == 202
    assert seen[-1] - seen[0] >= 199


async def test_others_get_their_turn_while_a_client_makes_many_jobs_ready() -> None:
    with turnings() as loop:
        await bulk_parameters([NewJob("anything", {}) for _ in range(1000)])
        assert loop.count >= 9


async def test_large_jobs_are_made_ready_one_by_one() -> None:
    """What is many nothings takes the longest."""
    with turnings() as loop:
        await bulk_parameters([NewJob("anything", [None] * 14_000) for _ in range(20)])
        assert loop.count >= 19


async def test_of_the_jobs_of_a_long_body_only_the_text_is_kept(settings: Settings) -> None:
    """As objects they would take twenty times the room, and their end a second."""
    jobs = [{"type": "anything", "payload": [{}] * 100} for _ in range(3)]
    async with open_api(
        settings, modules=("pgqueue_service.notifications", "tests.support.some_tasks")
    ) as api:
        gateway, read = api._transport.app.state.gateway, []
        offered = gateway.enqueue_many

        async def watched(jobs: list[NewJob], request: Any) -> Any:
            read.extend(jobs)
            return await offered(jobs, request)

        gateway.enqueue_many = watched
        assert (
            await api.post("/api/jobs/bulk", json={"jobs": jobs}, headers=ADMIN)
        ).status_code == 202
    assert all(isinstance(job.payload, msgspec.Raw) for job in read)


async def test_work_whose_time_is_over_is_given_up_at_its_next_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "SLICE", 0.0)
    await Turns(time.monotonic() + 60).pause()
    with pytest.raises(TimeoutError):
        await Turns(time.monotonic() - 1).pause()


async def test_many_jobs_are_not_read_to_the_end_when_their_time_is_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "SLICE", 0.0)
    jobs = [{"type": "no.such", "payload": {}}]
    async with open_api(settings) as api:
        gateway = api._transport.app.state.gateway
        monkeypatch.setattr(gateway, "deadline", lambda request: time.monotonic() - 1)
        assert (
            await api.post("/api/jobs/bulk", json={"jobs": jobs}, headers=ADMIN)
        ).status_code == 503
