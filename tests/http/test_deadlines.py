"""Every enqueue route answers within PGQUEUE_REQUEST_TIMEOUT, whatever the database does."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer
from tests.support.api import ADMIN, SIGN_IN, SIGNIN, open_api, problem
from tests.support.factories import sql, value
from tests.support.scene import until

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]
LIMIT = 0.6
"""Seconds; the tests' PGQUEUE_REQUEST_TIMEOUT."""

JOB = {"type": "user.signin.notification", "payload": SIGN_IN}
ROUTES = [
    (SIGNIN, SIGN_IN),
    ("/api/jobs", JOB),
    ("/api/jobs/bulk", {"jobs": [JOB, JOB]}),
    ("/api/admin/send-email", {"to": "someone@example.com", "subject": "s", "body": "b"}),
]


@asynccontextmanager
async def an_api(settings: ServiceSettings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings, request_timeout=timedelta(seconds=LIMIT), **changes) as api:
        api.headers.update(ADMIN)
        yield api


async def unavailable(api: httpx.AsyncClient, path: str, body: Any) -> None:
    started = time.monotonic()
    response = await api.post(path, json=body)
    # Room for a busy machine; what it guards against waits for ever, or 10 s for a cancellation
    # that nobody hears.
    assert time.monotonic() - started < LIMIT + 2
    assert problem(response, 503)["error"] == "Failed to enqueue job"
    assert response.headers["retry-after"] == "1"


def send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.parametrize(("path", "body"), ROUTES[:3])
async def test_a_lock_that_somebody_holds(
    settings: ServiceSettings, database_url: str, connection: Connection, path: str, body: Any
) -> None:
    async with (
        an_api(settings) as api,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await holder.execute(
            "SELECT pg_advisory_xact_lock(pgqueue_limit_lock('user.signin.notification', 'u1'))"
        )
        await unavailable(api, path, body)

        async def nobody_waits() -> bool:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                "wait_event_type = 'Lock'"
            )
            return bool(await value(connection, waiting) == 0)

        # What was given up does not stand in line any longer, and is not stored later.
        await until(nobody_waits)
        await holder.rollback()
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0
        assert (await api.post(path, json=body)).status_code == 202


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_a_table_that_somebody_locked(
    settings: ServiceSettings, database_url: str, path: str, body: Any
) -> None:
    async with (
        an_api(settings) as api,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await holder.execute("LOCK TABLE job_logs")
        await unavailable(api, path, body)
        await holder.rollback()


async def test_a_pool_that_is_exhausted(settings: ServiceSettings, database_url: str) -> None:
    async with (
        an_api(settings, pool_size=1) as api,
        await psycopg.AsyncConnection.connect(database_url) as holder,
    ):
        await holder.execute(
            "SELECT pg_advisory_xact_lock(pgqueue_limit_lock('user.signin.notification', 'u1'))"
        )
        # All of one user: whoever has the connection waits for the lock, and the rest for the
        # connection.
        await asyncio.gather(
            *(unavailable(api, SIGNIN, SIGN_IN | {"userId": "u1"}) for _ in range(4))
        )
        await holder.rollback()
        assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202


class TestTheClock:
    """It starts when a request has arrived, and not when somebody comes to read it."""

    @pytest.mark.parametrize(("path", "body"), ROUTES)
    async def test_what_was_spent_before_the_database_counts(
        self,
        settings: ServiceSettings,
        connection: Connection,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        body: Any,
    ) -> None:
        async with an_api(settings) as api:
            with monkeypatch.context() as long_ago:
                long_ago.setattr(
                    "pgqueue_service.api.middleware.time",
                    SimpleNamespace(monotonic=lambda: time.monotonic() - LIMIT),
                )
                await unavailable(api, path, body)
            assert await value(connection, "SELECT count(*) FROM job_logs") == 0
            assert (await api.post(path, json=body)).status_code == 202

    @pytest.mark.parametrize(("path", "body"), ROUTES)
    async def test_how_long_the_caller_takes_to_send_does_not(
        self, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
    ) -> None:
        async with an_api(settings) as api:
            begun = iter([time.monotonic() - 2 * LIMIT])
            monkeypatch.setattr(
                "pgqueue_service.api.middleware.time",
                SimpleNamespace(monotonic=lambda: next(begun, time.monotonic())),
            )
            assert (await api.post(path, json=body)).status_code == 202
            assert not list(begun)


class TestADatabaseOfItsOwn:
    @pytest.fixture
    async def server(self) -> AsyncIterator[EmbeddedServer]:
        with EmbeddedServer({"fsync": "off", "restart_after_crash": "on"}) as server:
            await migrate(server.url())
            yield server

    async def test_that_is_stopped_and_comes_back(
        self, settings: ServiceSettings, server: EmbeddedServer
    ) -> None:
        async with an_api(settings, database_url=server.url()) as api:
            assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
            server.stop()
            for path, body in ROUTES:
                await unavailable(api, path, body)
            assert (
                problem(await api.get("/api/jobs/x"), 503)["error"]
                == "The database is not available"
            )
            assert (await api.get("/readyz")).status_code == 503
            assert (await api.get("/healthz")).status_code == 200
            server.start()

            async def recovered() -> bool:
                ready = (await api.get("/readyz")).status_code == 200
                return (
                    ready
                    and (await api.post(SIGNIN, json=SIGN_IN | {"jobId": "after"})).status_code
                    == 202
                )

            await until(recovered)

    async def test_that_is_frozen(self, settings: ServiceSettings, server: EmbeddedServer) -> None:
        async with an_api(settings, database_url=server.url()) as api:
            assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
            async with await psycopg.AsyncConnection.connect(
                server.url(), autocommit=True
            ) as connection:
                rows = await sql(connection, "SELECT pid FROM pg_stat_activity")
            assert server.pid
            processes = [server.pid, *(row["pid"] for row in rows)]
            send(signal.SIGSTOP, processes)
            try:
                await unavailable(api, SIGNIN, SIGN_IN)
                await unavailable(api, SIGNIN, SIGN_IN)
            finally:
                send(signal.SIGCONT, processes)

            async def recovered() -> bool:
                return (
                    await api.post(SIGNIN, json=SIGN_IN | {"userId": "u9", "jobId": "after"})
                ).status_code == 202

            await until(recovered)


async def test_an_api_that_starts_before_its_database_has_a_schema(
    settings: ServiceSettings, empty_database_url: str
) -> None:
    async with an_api(settings, database_url=empty_database_url) as api:
        await unavailable(api, SIGNIN, SIGN_IN)
        await migrate(empty_database_url)

        async def ready() -> bool:
            return (await api.get("/readyz")).status_code == 200

        await until(ready)
        assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
