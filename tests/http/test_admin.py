"""The operators' other routes, and health."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support.api import ADMIN, open_api, problem
from tests.support.factories import a_job, sql, the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]
EMAIL = {"to": "someone@example.com", "subject": "Hello", "body": "World <b>"}


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        client.headers.update(ADMIN)
        yield client


class TestSendEmail:
    async def test_it_is_a_job(self, api: httpx.AsyncClient, connection: Connection) -> None:
        response = await api.post("/api/admin/send-email", json=EMAIL)
        assert response.status_code == 202
        assert response.json()["message"] == "Email job enqueued successfully"
        row = await the_job(connection, response.json()["jobId"])
        assert (row["job_type"], row["user_id"], row["payload"]) == (
            "email.custom",
            "system",
            EMAIL,
        )

    async def test_nobody_called_admin_is_counted(self, api: httpx.AsyncClient) -> None:
        for _ in range(12):
            assert (await api.post("/api/admin/send-email", json=EMAIL)).status_code == 202

    @pytest.mark.parametrize(
        ("posted", "missing"),
        [
            ({}, ""),
            (EMAIL | {"to": ""}, ": to is missing"),
            (EMAIL | {"subject": " "}, ": subject is missing"),
            (EMAIL | {"body": "\0"}, ": body is missing"),
            ({"to": "a@example.com"}, ": subject and body are missing"),
        ],
    )
    async def test_missing_members(
        self, api: httpx.AsyncClient, posted: dict[str, str], missing: str
    ) -> None:
        body = problem(await api.post("/api/admin/send-email", json=posted), 400)
        assert body["error"] == "Missing required fields: to, subject, body" + missing

    async def test_an_address_that_is_none(self, api: httpx.AsyncClient) -> None:
        body = problem(
            await api.post("/api/admin/send-email", json=EMAIL | {"to": "a@x.com,b@x.com"}), 400
        )
        assert body["error"] == "Invalid email address"

    @pytest.mark.parametrize("subject", ["a\r\nBcc: b@x.com", "a\0b", 7, "s" * 1000])
    async def test_a_subject_that_is_none(
        self, api: httpx.AsyncClient, connection: Connection, subject: object
    ) -> None:
        assert (
            "subject"
            in problem(
                await api.post("/api/admin/send-email", json=EMAIL | {"subject": subject}), 400
            )["error"]
        )
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    async def test_with_an_id_it_is_sent_once(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for _ in range(2):
            response = await api.post(
                "/api/admin/send-email", json=EMAIL, headers={"Idempotency-Key": "mail-1"}
            )
            assert response.json()["jobId"] == "mail-1"
        assert await value(connection, "SELECT count(*) FROM job_logs") == 1


async def test_stats(api: httpx.AsyncClient, connection: Connection) -> None:
    await a_job(connection, status="enqueued", run_after=timedelta(seconds=-5))
    await a_job(connection, status="enqueued", run_after=timedelta(hours=1), queue="other")
    await a_job(connection, status="failed", run_after=timedelta(seconds=3))
    await a_job(connection, status="processing")
    await a_job(connection, status="dlq")
    await a_job(connection, status="cancelled")
    await a_job(connection, status="completed", run_after=timedelta(seconds=-2))
    stats = (await api.get("/api/admin/jobs/stats")).json()
    assert 5 <= stats.pop("oldestReadyS") < 60
    assert stats.pop("recentP50S") >= 0
    assert 1.9 < stats.pop("recentP99S") < 60
    assert stats == {
        "enqueued": 2,
        "processing": 1,
        "failed": 1,
        "dlq": 1,
        "completed": 1,
        "cancelled": 1,
        "estimated": False,
        "ready": 1,
        "scheduled": 2,
        "recentFinished": 3,
        "recentFailedShare": 0.6667,
    }


async def test_workers(api: httpx.AsyncClient, connection: Connection) -> None:
    await sql(
        connection,
        """INSERT INTO job_workers (id, kind, host, pid, release, queues, seen_at, asleep, detail)
            VALUES
           ('live', 'worker', 'h', 1, '1.0.0', '{"default": 50}', now(), true, '{"completed": 7}'),
           ('gone', 'worker', 'h', 2, '1.0.0', '{"default": 50}', now() - interval '31 s', false,
             '{}')""",
    )
    workers = {one["id"]: one for one in (await api.get("/api/admin/workers")).json()["workers"]}
    (us,) = [one for one in workers.values() if one["kind"] == "api"]
    assert us["alive"]
    assert (workers["live"]["alive"], workers["live"]["asleep"], workers["live"]["detail"]) == (
        True,
        True,
        {"completed": 7},
    )
    assert (workers["gone"]["alive"], workers["gone"]["queues"]) == (False, {"default": 50})
    assert 31 <= workers["gone"]["seenS"] < 90


async def test_queues(api: httpx.AsyncClient, connection: Connection) -> None:
    await a_job(connection, queue="mail", run_after=timedelta(seconds=-5))
    await a_job(connection, queue="mail", status="processing")
    await a_job(connection, queue="mail", run_after=timedelta(hours=1), priority=9)
    await sql(
        connection,
        """INSERT INTO job_workers (id, kind, host, pid, release, queues) VALUES
           ('a', 'worker', 'h', 1, '1.0.0', '{"mail": 4, "default": 50}'),
           ('b', 'worker', 'h', 2, '1.0.0', '{"mail": 3}')""",
    )
    await api.post("/api/admin/queues/idle/pause")
    queues = (await api.get("/api/admin/queues")).json()["queues"]
    assert [one["queue"] for one in queues] == ["default", "idle", "mail"]
    assert (queues[0]["workers"], queues[0]["slots"], queues[0]["ready"]) == (1, 50, 0)
    assert (queues[1]["paused"], queues[1]["oldestReadyS"]) == (True, None)
    assert 5 <= queues[2].pop("oldestReadyS") < 60
    assert queues[2] == {
        "queue": "mail",
        "paused": False,
        "ready": 1,
        "scheduled": 1,
        "processing": 1,
        "workers": 2,
        "slots": 7,
    }


async def test_pausing_and_resuming(api: httpx.AsyncClient, connection: Connection) -> None:
    response = await api.post("/api/admin/queues/a%2Fb%20%C3%A9/pause")
    assert (response.status_code, response.json()) == (200, {"queue": "a/b é", "paused": True})
    assert await value(connection, "SELECT paused FROM job_queues WHERE queue = 'a/b é'") is True
    assert (await api.post("/api/admin/queues/a%2Fb%20%C3%A9/resume")).json()["paused"] is False
    assert await value(connection, "SELECT count(*) FROM job_queues") == 0
    for name in ("%00", "%FF", "x" * 256, "a%0Ab"):
        problem(await api.post(f"/api/admin/queues/{name}/pause"), 400)


class TestHealth:
    async def test_a_healthy_service(self, api: httpx.AsyncClient) -> None:
        assert (await api.get("/healthz")).json() == {"status": "ok"}
        assert (await api.get("/readyz")).json() == {"status": "ready"}

    async def test_a_database_that_was_never_migrated(
        self, settings: ServiceSettings, empty_database_url: str
    ) -> None:
        async with open_api(settings, database_url=empty_database_url) as api:
            assert (await api.get("/healthz")).status_code == 200
            assert "pgqueue migrate" in problem(await api.get("/readyz"), 503)["error"]
            problem(await api.get("/api/jobs/x"), 503)

    async def test_a_schema_for_a_later_release(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        await sql(connection, "UPDATE job_migrations SET min_release = 99 WHERE version = 1")
        async with open_api(settings) as api:
            assert "release 99" in problem(await api.get("/readyz"), 503)["error"]
            response = await api.post("/api/admin/send-email", json=EMAIL, headers=ADMIN)
            assert response.headers["retry-after"] == "1"
            assert problem(response, 503)["error"] == "Failed to enqueue job"
            assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    async def test_a_service_that_stops(self, settings: ServiceSettings) -> None:
        async with open_api(settings) as api:
            api._transport.app.state.stopping = True
            assert problem(await api.get("/readyz"), 503)["error"] == "The service is stopping"
            assert (await api.get("/healthz")).status_code == 200


class TestItsPlaceInTheDatabase:
    async def test_it_registers_and_retires_itself(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        async with open_api(settings):
            (row,) = await sql(connection, "SELECT kind, types FROM job_workers")
            assert row["kind"] == "api"
            assert set(row["types"]) == {"user.signin.notification", "email.custom"}
        assert await value(connection, "SELECT count(*) FROM job_workers") == 0

    async def test_it_publishes_the_types(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        async with open_api(settings, signin_limit=(3, timedelta(hours=2))):
            rows = await sql(
                connection, "SELECT job_type, limit_count, admin FROM job_types ORDER BY 1"
            )
        assert [(row["job_type"], row["limit_count"], row["admin"]) for row in rows] == [
            ("email.custom", None, True),
            ("user.signin.notification", 3, False),
        ]

    async def test_types_that_vanish_are_published_again(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        async with open_api(settings) as api:
            await sql(connection, "DELETE FROM job_types")
            response = await api.post("/api/admin/send-email", json=EMAIL, headers=ADMIN)
            assert problem(response, 503)["error"] == "Failed to enqueue job"
            assert (await api.get("/readyz")).status_code == 200
            assert (
                await api.post("/api/admin/send-email", json=EMAIL, headers=ADMIN)
            ).status_code == 202
