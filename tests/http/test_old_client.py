"""The old service's callers must not notice: its test script, case by case, against this service
and a worker's part played."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support.api import ADMIN, open_api
from tests.support.factories import sql

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        yield client


def notification(user: str, **more: Any) -> dict[str, Any]:
    return {
        "userId": user,
        "email": "test@example.com",
        "name": "Test User",
        "provider": "google",
        "ipAddress": "192.168.1.1",
        "userAgent": "Mozilla/5.0",
        **more,
    }


class TestTheOldScript:
    async def test_1_enqueue(self, api: httpx.AsyncClient) -> None:
        response = await api.post("/api/jobs/signin-notification", json=notification("test-user-1"))
        assert response.status_code == 202
        assert response.json()["message"] == "Sign-in notification job enqueued"
        assert response.json()["jobId"]
        assert response.json()["status"] == "enqueued"

    async def test_2_status(self, api: httpx.AsyncClient, connection: Connection) -> None:
        job_id = (
            await api.post("/api/jobs/signin-notification", json=notification("test-user-2"))
        ).json()["jobId"]
        body = (await api.get(f"/api/jobs/{job_id}")).json()
        assert {
            "jobId",
            "type",
            "status",
            "createdAt",
            "processedAt",
            "attemptCount",
            "error",
        } <= set(body)
        assert (body["jobId"], body["type"]) == (job_id, "user.signin.notification")
        await sql(
            connection,
            "UPDATE job_logs SET status = 'completed', attempt_count = 1, processed_at = now()",
        )
        body = (await api.get(f"/api/jobs/{job_id}")).json()
        assert (body["status"], body["attemptCount"], body["error"]) == ("completed", 1, None)
        assert body["processedAt"]
        missing = await api.get("/api/jobs/non-existent-job")
        assert (missing.status_code, missing.json()["error"]) == (404, "Job not found")

    async def test_3_rate_limit(self, api: httpx.AsyncClient) -> None:
        codes = []
        for number in range(11):
            event = notification("rate-limit-user", jobId=f"rate-limit-{number}")
            codes.append((await api.post("/api/jobs/signin-notification", json=event)).status_code)
        assert codes == [202] * 10 + [429]
        refused = await api.post(
            "/api/jobs/signin-notification", json=notification("rate-limit-user")
        )
        assert (
            refused.json()["message"] == "Too many sign-in notifications. Please try again later."
        )

    async def test_4_idempotency(self, api: httpx.AsyncClient, connection: Connection) -> None:
        event = notification("idem-user", jobId="idempotent-job-1")
        first, second = [
            await api.post("/api/jobs/signin-notification", json=event) for _ in range(2)
        ]
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.json()["jobId"] == second.json()["jobId"] == "idempotent-job-1"
        await sql(
            connection,
            "UPDATE job_logs SET status = 'completed', attempt_count = 1, processed_at = now()",
        )
        third = await api.post("/api/jobs/signin-notification", json=event)
        assert (third.status_code, third.json()["error"]) == (409, "Job already processed")

    async def test_5_dead_letters(self, api: httpx.AsyncClient, connection: Connection) -> None:
        await api.post(
            "/api/jobs/signin-notification", json=notification("dlq-user", jobId="dlq-1")
        )
        await sql(
            connection,
            """UPDATE job_logs SET status = 'dlq', attempt_count = 5, processed_at = now(),
                 dead_at = now(), started_at = now(),
                                   error = 'Simulated failure',
                                   stack_trace = 'Error: Simulated failure'""",
        )
        listed = (await api.get("/api/admin/dlq/list", headers=ADMIN)).json()
        assert listed["count"] == 1
        (job,) = listed["jobs"]
        assert (job["jobId"], job["status"], job["error"]) == ("dlq-1", "dlq", "Simulated failure")
        assert set(job) >= {
            "id",
            "jobId",
            "jobType",
            "userId",
            "status",
            "payload",
            "error",
            "stackTrace",
            "attemptCount",
        }
        retried = await api.post("/api/admin/dlq/retry/dlq-1", headers=ADMIN)
        assert retried.status_code == 202
        assert (await api.get("/api/admin/dlq/list", headers=ADMIN)).json()["count"] == 0
        assert (await api.get("/api/jobs/dlq-1")).json()["status"] == "enqueued"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/api/jobs/signin-notification", "Missing required fields: userId, email, name"),
        ("/api/admin/send-email", "Missing required fields: to, subject, body"),
    ],
)
async def test_old_callers_find_the_sentence_where_it_was(
    api: httpx.AsyncClient, path: str, sentence: str
) -> None:
    body = (await api.post(path, json={}, headers=ADMIN)).json()
    assert (body["error"], body["message"]) == (sentence, sentence)
