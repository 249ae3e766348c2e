"""POST /api/jobs/signin-notification: what its callers rely on."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support.api import SIGN_IN, SIGNIN, open_api, problem
from tests.support.factories import sql, the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        yield client


async def test_a_sign_in_is_a_job_with_the_old_answer(
    api: httpx.AsyncClient, connection: Connection
) -> None:
    response = await api.post(SIGNIN, json=SIGN_IN)
    assert response.status_code == 202
    body = response.json()
    assert set(body) == {"message", "jobId", "status"}
    assert body["message"] == "Sign-in notification job enqueued"
    assert body["status"] == "enqueued"
    assert re.fullmatch(r"signin-u1-\d{13}-[0-9a-f-]{36}", body["jobId"])
    row = await the_job(connection, body["jobId"])
    assert (row["job_type"], row["user_id"], row["status"]) == (
        "user.signin.notification",
        "u1",
        "enqueued",
    )
    assert row["payload"].pop("timestamp")
    assert row["payload"] == SIGN_IN | {
        "provider": "unknown",
        "ipAddress": "0.0.0.0",
        "userAgent": "Unknown",
        "locale": "mn",
    }


async def test_what_is_null_or_empty_takes_its_default_and_what_is_unknown_is_ignored(
    api: httpx.AsyncClient, connection: Connection
) -> None:
    event = SIGN_IN | {
        "provider": None,
        "ipAddress": "",
        "locale": "",
        "jobId": "",
        "colour": "red",
        "isAdmin": {"a": [1]},
    }
    response = await api.post(SIGNIN, json=event)
    row = await the_job(connection, response.json()["jobId"])
    assert (row["payload"]["provider"], row["payload"]["ipAddress"], row["payload"]["locale"]) == (
        "unknown",
        "0.0.0.0",
        "mn",
    )
    assert "colour" not in row["payload"]
    assert "isAdmin" not in row["payload"]


async def test_two_identical_posts_without_an_id_are_two_sign_ins(
    api: httpx.AsyncClient, connection: Connection
) -> None:
    first, second = [(await api.post(SIGNIN, json=SIGN_IN)).json()["jobId"] for _ in range(2)]
    assert first != second
    assert await value(connection, "SELECT count(*) FROM job_logs") == 2


@pytest.mark.parametrize(
    ("posted", "missing"),
    [
        ({}, ""),
        ({"provider": "x"}, ""),
        ({"userId": "u1"}, ": email and name are missing"),
        (SIGN_IN | {"userId": ""}, ": userId is missing"),
        (SIGN_IN | {"email": None}, ": email is missing"),
        (SIGN_IN | {"name": " \0"}, ": name is missing"),
    ],
)
async def test_missing_members_get_the_old_sentence_and_then_which(
    api: httpx.AsyncClient, posted: dict[str, str], missing: str
) -> None:
    sentence = "Missing required fields: userId, email, name"
    assert problem(await api.post(SIGNIN, json=posted), 400)["error"] == sentence + missing


@pytest.mark.parametrize(
    "email",
    [
        "nobody",
        "a@b",
        "a@b@example.com",
        "a@x.com, b@x.com",
        "A <a@x.com>",
        "a@x.com\r\nBcc: b@x.com",
        "x" * 250 + "@x.com",
    ],
)
async def test_what_is_not_one_address_gets_the_old_sentence(
    api: httpx.AsyncClient, email: str, connection: Connection
) -> None:
    assert (
        problem(await api.post(SIGNIN, json=SIGN_IN | {"email": email}), 400)["error"]
        == "Invalid email address"
    )
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


async def test_lengths_are_counted(api: httpx.AsyncClient, connection: Connection) -> None:
    problem(await api.post(SIGNIN, json=SIGN_IN | {"userId": "u" * 191}), 400)
    problem(await api.post(SIGNIN, json=SIGN_IN | {"jobId": "j" * 256}), 400)
    response = await api.post(
        SIGNIN,
        json=SIGN_IN
        | {"userId": "ү" * 190, "jobId": "ж" * 255, "name": "n" * 300, "userAgent": "a" * 600},
    )
    assert response.status_code == 202
    row = await the_job(connection, "ж" * 255)
    assert (len(row["payload"]["name"]), len(row["payload"]["userAgent"])) == (200, 512)


async def test_control_characters_are_refused_in_ids_and_removed_from_what_is_shown(
    api: httpx.AsyncClient, connection: Connection
) -> None:
    for member in ("userId", "email", "jobId"):
        for character in ("\0", "\n", "\x7f", "\x85", "\u2028", "\u202e"):
            assert (
                await api.post(SIGNIN, json=SIGN_IN | {member: f"a{character}b@example.com"})
            ).status_code == 400
    response = await api.post(
        SIGNIN, json=SIGN_IN | {"name": "A\0B\x07\nC", "userAgent": "\0", "provider": "g\0gl"}
    )
    assert response.status_code == 202
    payload = (await the_job(connection, response.json()["jobId"]))["payload"]
    assert (payload["name"], payload["userAgent"], payload["provider"]) == ("ABC", "Unknown", "ggl")


@pytest.mark.parametrize("timestamp", ["yesterday", "2026-13-01T00:00:00Z", "2026-11-23", 17])
async def test_a_timestamp_is_rfc_3339(api: httpx.AsyncClient, timestamp: object) -> None:
    assert (
        "timestamp"
        in problem(await api.post(SIGNIN, json=SIGN_IN | {"timestamp": timestamp}), 400)["error"]
    )


class TestTheSameJobAgain:
    async def test_while_it_is_live_it_gets_the_same_answer(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        event = SIGN_IN | {"jobId": "s-1"}
        first = await api.post(SIGNIN, json=event)
        again = await api.post(SIGNIN, json=event)
        assert first.json() == again.json()
        assert again.status_code == 202
        await sql(
            connection,
            (
                "UPDATE job_logs SET status = 'processing', attempt_count = 1, lease = 1, "
                "lease_until = now() + interval '30 s'"
            ),
        )
        assert (await api.post(SIGNIN, json=event)).json()["status"] == "processing"
        assert await value(connection, "SELECT count(*) FROM job_logs") == 1

    async def test_once_completed_it_is_processed_already(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        event = SIGN_IN | {"jobId": "s-1"}
        await api.post(SIGNIN, json=event)
        await sql(connection, "UPDATE job_logs SET status = 'completed', processed_at = now()")
        body = problem(await api.post(SIGNIN, json=event), 409)
        assert (body["error"], body["jobId"], body["jobStatus"]) == (
            "Job already processed",
            "s-1",
            "completed",
        )

    @pytest.mark.parametrize("status", ["dlq", "cancelled"])
    async def test_dead_or_cancelled_it_says_so(
        self, api: httpx.AsyncClient, connection: Connection, status: str
    ) -> None:
        event = SIGN_IN | {"jobId": "s-1"}
        await api.post(SIGNIN, json=event)
        await sql(
            connection,
            (
                "UPDATE job_logs SET status = %(s)s, processed_at = now(), "
                "dead_at = CASE WHEN %(s)s = 'dlq' THEN now() END"
            ),
            {"s": status},
        )
        body = problem(await api.post(SIGNIN, json=event), 409)
        assert (body["jobStatus"], body["jobId"]) == (status, "s-1")
        assert "replay" in body["error"]

    async def test_another_payload_under_the_id_is_refused(self, api: httpx.AsyncClient) -> None:
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1"})
        body = problem(
            await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1", "name": "Another"}), 409
        )
        assert body["error"] == "Job ID already used with another payload"

    async def test_what_the_server_filled_in_does_not_count(self, api: httpx.AsyncClient) -> None:
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1", "provider": None, "unknown": 1})
        assert (
            await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1", "timestamp": ""})
        ).status_code == 202

    async def test_it_is_known_after_retention_has_removed_it(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        event = SIGN_IN | {"jobId": "s-1"}
        await api.post(SIGNIN, json=event)
        await sql(
            connection,
            """WITH gone AS (DELETE FROM job_logs RETURNING *)
               INSERT INTO job_tombstones SELECT pgqueue_id_hash(job_id), payload_digest,
                 'completed', now() FROM gone""",
        )
        assert problem(await api.post(SIGNIN, json=event), 409)["error"] == "Job already processed"


class TestTheHeaderIdempotencyKey:
    async def test_it_is_the_id(self, api: httpx.AsyncClient) -> None:
        response = await api.post(SIGNIN, json=SIGN_IN, headers={"Idempotency-Key": "k-1"})
        assert response.json()["jobId"] == "k-1"
        assert (await api.post(SIGNIN, json=SIGN_IN | {"jobId": "k-1"})).status_code == 202

    async def test_it_may_stand_beside_the_same_job_id(self, api: httpx.AsyncClient) -> None:
        headers = {"Idempotency-Key": "ключ".encode()}
        response = await api.post(SIGNIN, json=SIGN_IN | {"jobId": "ключ"}, headers=headers)
        assert response.json()["jobId"] == "ключ"

    async def test_but_not_beside_another(self, api: httpx.AsyncClient) -> None:
        response = await api.post(
            SIGNIN, json=SIGN_IN | {"jobId": "k-2"}, headers={"Idempotency-Key": "k-1"}
        )
        assert problem(response, 400)["error"] == "jobId and Idempotency-Key are different"

    async def test_it_must_be_utf_8_and_not_too_long(self, api: httpx.AsyncClient) -> None:
        problem(await api.post(SIGNIN, json=SIGN_IN, headers={"Idempotency-Key": b"\xff"}), 400)
        problem(await api.post(SIGNIN, json=SIGN_IN, headers={"Idempotency-Key": "k" * 256}), 400)


class TestTheLimit:
    async def test_the_eleventh_of_an_hour_is_told_to_come_later(
        self, api: httpx.AsyncClient
    ) -> None:
        for _ in range(10):
            assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
        response = await api.post(SIGNIN, json=SIGN_IN)
        body = problem(response, 429)
        assert body["error"] == "Too many sign-in notifications. Please try again later."
        assert 3500 < int(response.headers["retry-after"]) <= 3600
        assert body["retryAfter"] == int(response.headers["retry-after"])
        assert (await api.post(SIGNIN, json=SIGN_IN | {"userId": "u2"})).status_code == 202

    async def test_it_says_at_least_one_second(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for _ in range(10):
            await api.post(SIGNIN, json=SIGN_IN)
        await sql(
            connection,
            "UPDATE job_logs SET created_at = now() - interval '1 hour' + interval '0.9 s'",
        )
        response = await api.post(SIGNIN, json=SIGN_IN)
        assert response.status_code == 202 or response.headers["retry-after"] == "1"

    async def test_a_duplicate_is_never_refused_by_it(self, api: httpx.AsyncClient) -> None:
        for number in range(10):
            await api.post(SIGNIN, json=SIGN_IN | {"jobId": f"s-{number}"})
        assert (await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-3"})).status_code == 202
        assert (await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-10"})).status_code == 429

    async def test_it_is_exact_under_simultaneous_requests(self, api: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(api.post(SIGNIN, json=SIGN_IN) for _ in range(30)))
        assert sorted(answer.status_code for answer in answers) == [202] * 10 + [429] * 20

    async def test_it_is_the_setting(self, settings: ServiceSettings) -> None:
        async with open_api(settings, signin_limit=(1, timedelta(minutes=1))) as api:
            assert (await api.post(SIGNIN, json=SIGN_IN)).status_code == 202
            response = await api.post(SIGNIN, json=SIGN_IN)
            assert response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 60
