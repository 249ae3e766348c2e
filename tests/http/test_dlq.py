"""The dead-letter queue over HTTP."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support.api import ADMIN, SIGN_IN, open_api, problem
from tests.support.factories import a_job, sql, the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]
DLQ = "/api/admin/dlq"
STORED = SIGN_IN | {"provider": "google", "timestamp": "2026-11-23T09:30:00.000Z"}


async def a_dead_job(
    connection: Connection, job_id: str, seconds_ago: float = 0, **columns: Any
) -> dict[str, Any]:
    died = timedelta(seconds=-seconds_ago)
    named = {"job_type": "user.signin.notification", "user_id": "u1", "payload": STORED}
    return await a_job(
        connection,
        job_id=job_id,
        status="dlq",
        **{**named, "dead_at": died, "processed_at": died, **columns},
    )


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        client.headers.update(ADMIN)
        yield client


async def listed(api: httpx.AsyncClient, **query: Any) -> list[str]:
    response = await api.get(DLQ, params=query)
    assert response.status_code == 200, response.text
    return [job["jobId"] for job in response.json()["jobs"]]


class TestTheList:
    @pytest.mark.parametrize("path", [DLQ, f"{DLQ}/list"])
    async def test_an_empty_one(self, api: httpx.AsyncClient, path: str) -> None:
        assert (await api.get(path)).json() == {
            "count": 0,
            "jobs": [],
            "total": 0,
            "nextCursor": None,
        }

    async def test_a_job_in_it_has_all_its_members(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        row = await a_dead_job(connection, "d-1", stack_trace="Traceback ...")
        body = (await api.get(DLQ)).json()
        assert (body["count"], body["total"], body["nextCursor"]) == (1, 1, None)
        (job,) = body["jobs"]
        for member in ("createdAt", "processedAt", "lastAttemptAt", "deadAt"):
            assert len(job.pop(member)) == len("2026-11-23T09:30:00.123Z")
        assert job == {
            "id": str(row["id"]),
            "jobId": "d-1",
            "jobType": "user.signin.notification",
            "userId": "u1",
            "status": "dlq",
            "payload": STORED,
            "error": "it went wrong",
            "stackTrace": "Traceback ...",
            "attemptCount": 5,
        }

    async def test_what_went_wrong_shows_no_address(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        """Whoever wrote it: SQL, or a release that did not mask yet."""
        await a_dead_job(
            connection,
            "d-1",
            error="550 <someone@example.com>",
            stack_trace="to='someone@example.com'",
        )
        (job,) = (await api.get(DLQ)).json()["jobs"]
        assert (job["error"], job["stackTrace"]) == (
            "550 <s***@example.com>",
            "to='s***@example.com'",
        )
        assert job["payload"] == STORED

    async def test_what_is_unknown_is_null(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1", error=None, started_at=None)
        (job,) = (await api.get(DLQ)).json()["jobs"]
        assert (job["error"], job["stackTrace"], job["lastAttemptAt"]) == (None, None, None)

    async def test_other_states_are_not_in_it(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for status in ("enqueued", "failed", "processing", "completed", "cancelled"):
            await a_job(connection, status=status)
        assert await listed(api) == []

    async def test_the_newest_come_first_page_by_page(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for number in range(5):
            await a_dead_job(connection, f"d-{number}", seconds_ago=number)
        # Dead at the same moment: no page may lose or repeat one.
        await sql(
            connection,
            (
                "UPDATE job_logs SET dead_at = (SELECT min(dead_at) FROM job_logs) WHERE job_id IN "
                "('d-2', 'd-3')"
            ),
        )
        seen, cursor = [], None
        for _ in range(3):
            body = (
                await api.get(DLQ, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            ).json()
            assert body["total"] == 5
            assert body["count"] == len(body["jobs"])
            seen += [job["jobId"] for job in body["jobs"]]
            cursor = body["nextCursor"]
        assert cursor is None
        assert seen[:2] == ["d-0", "d-1"]
        assert sorted(seen) == [f"d-{number}" for number in range(5)]

    async def test_a_page_holds_100(self, api: httpx.AsyncClient, connection: Connection) -> None:
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 dead_at)
               SELECT 'd-' || i, 't', 'u', '{}', 'dlq', now(), now() FROM generate_series(1, 101)
                 AS i""",
        )
        body = (await api.get(DLQ)).json()
        assert (body["count"], body["total"]) == (100, 101)
        assert len((await api.get(DLQ, params={"cursor": body["nextCursor"]})).json()["jobs"]) == 1

    async def test_filters(self, api: httpx.AsyncClient, connection: Connection) -> None:
        await a_dead_job(connection, "old", seconds_ago=7200)
        await a_dead_job(connection, "other-user", user_id="u2")
        await a_dead_job(connection, "other-type", job_type="email.custom")
        await a_dead_job(connection, "other-error", error="550 Unknown % recipient_")
        hour_ago = (await value(connection, "SELECT now() - interval '1 hour'")).isoformat()
        assert await listed(api, userId="u2") == ["other-user"]
        assert await listed(api, type="email.custom") == ["other-type"]
        assert await listed(api, error="unknown % RECIPIENT_") == ["other-error"]
        assert await listed(api, error="%") == ["other-error"]
        assert await listed(api, until=hour_ago) == ["old"]
        assert "old" not in await listed(api, since=hour_ago)
        assert await listed(api, userId="u2", type="email.custom") == []
        assert (
            len(
                await listed(
                    api, userId="", type="", error="", since="", until="", limit="", cursor=""
                )
            )
            == 4
        )

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ({"limit": "0"}, "limit: a whole number from 1 to 100"),
            ({"limit": "101"}, "limit"),
            ({"limit": "ten"}, "limit"),
            ({"limit": "٣"}, "limit"),
            ({"limit": "-1"}, "limit"),
            ({"cursor": "x"}, "cursor: not the nextCursor of a page"),
            ({"cursor": "MjAyNi0xMS0yM1QwOTozMDowMCwx"}, "cursor"),
            ({"cursor": "é"}, "cursor"),
            ({"since": "yesterday"}, "since: a date and time"),
            ({"until": "2026-11-23T09:30:00"}, "until: a date and time"),
            ({"error": "a\0"}, "error: must not contain NUL"),
            ({"userId": "\0"}, "userId: must not contain NUL"),
        ],
    )
    async def test_what_is_wrong_with_the_query_is_said(
        self, api: httpx.AsyncClient, query: dict[str, str], sentence: str
    ) -> None:
        assert sentence in problem(await api.get(DLQ, params=query), 400)["error"]


class TestRetryingOne:
    async def test_it_starts_afresh_and_keeps_its_history(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1")
        response = await api.post(f"{DLQ}/retry/d-1")
        assert response.status_code == 202
        assert response.json() == {
            "message": "Job enqueued again",
            "jobId": "d-1",
            "status": "enqueued",
        }
        row = await the_job(connection, "d-1")
        assert (row["status"], row["attempt_count"], row["error"], row["dead_at"]) == (
            "enqueued",
            0,
            None,
            None,
        )
        assert row["history"][-1]["error"] == "it went wrong"
        assert row["payload"] == STORED

    async def test_with_another_payload(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1")
        response = await api.post(
            f"{DLQ}/retry/d-1", json={"payload": SIGN_IN | {"email": "right@example.com"}}
        )
        assert response.status_code == 202
        row = await the_job(connection, "d-1")
        assert (row["payload"]["email"], row["payload"]["provider"]) == (
            "right@example.com",
            "unknown",
        )
        assert row["history"][-1]["payload"] == STORED

    @pytest.mark.parametrize("empty", [b"", b"{}", b'{"payload": null}'])
    async def test_an_empty_body_keeps_the_payload(
        self, api: httpx.AsyncClient, connection: Connection, empty: bytes
    ) -> None:
        await a_dead_job(connection, "d-1")
        assert (
            await api.post(
                f"{DLQ}/retry/d-1", content=empty, headers={"Content-Type": "application/json"}
            )
        ).status_code == 202
        assert (await the_job(connection, "d-1"))["payload"] == STORED

    @pytest.mark.parametrize(
        "payload",
        [
            {"userId": "u1"},
            SIGN_IN | {"email": "nobody"},
            SIGN_IN | {"userId": "u2"},
            [],
            "x",
            {"a": "\0"},
        ],
    )
    async def test_a_payload_that_cannot_be_right_changes_nothing(
        self, api: httpx.AsyncClient, connection: Connection, payload: Any
    ) -> None:
        await a_dead_job(connection, "d-1")
        problem(await api.post(f"{DLQ}/retry/d-1", json={"payload": payload}), 400)
        assert (await the_job(connection, "d-1"))["status"] == "dlq"

    async def test_a_type_that_the_service_does_not_know_takes_any_payload(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1", job_type="other")
        assert (await api.post(f"{DLQ}/retry/d-1", json={"payload": [1]})).status_code == 202
        assert (await the_job(connection, "d-1"))["payload"] == [1]

    async def test_a_body_has_a_type_or_is_empty(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1")
        problem(await api.post(f"{DLQ}/retry/d-1", content=b"{}"), 415)

    async def test_a_live_one(self, api: httpx.AsyncClient, connection: Connection) -> None:
        await a_job(connection, job_id="j", status="processing")
        assert problem(await api.post(f"{DLQ}/retry/j"), 409)["jobStatus"] == "processing"

    async def test_none(self, api: httpx.AsyncClient) -> None:
        assert problem(await api.post(f"{DLQ}/retry/nobody"), 404)["error"] == "Job not found"
        problem(await api.post(f"{DLQ}/retry/nobody", json={"payload": {}}), 404)


class TestRetryingMany:
    async def batch(self, api: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
        response = await api.post(f"{DLQ}/retry-batch", json=body)
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def test_by_id(self, api: httpx.AsyncClient, connection: Connection) -> None:
        for job_id in ("a", "b", "c"):
            await a_dead_job(connection, job_id)
        answer = await self.batch(api, ids=["a", "c", "nobody"])
        assert answer == {"retried": 2, "matched": 2, "remaining": 0, "dryRun": False}
        assert await listed(api) == ["b"]

    async def test_by_ids_of_any_letters(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        odd = [
            'a"b',
            "a\\b",
            'a\\"',
            "a,b",
            "{a}",
            "{",
            "}",
            "NULL",
            " a ",
            "'",
            "a''b",
            "é",
            "%s",
            "\\\\",
            '""',
            "😀",
        ]
        for job_id in [*odd, "other"]:
            await a_dead_job(connection, job_id)
        assert (await self.batch(api, ids=odd, dryRun=True))["matched"] == len(odd)
        assert (await self.batch(api, ids=odd))["retried"] == len(odd)
        assert await listed(api) == ["other"]

    async def test_a_body_of_many_ids_is_checked_as_it_is_read(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "a")
        many = [f"{number:0>250}" for number in range(9_999)] + ["a"]
        assert (await self.batch(api, ids=many))["retried"] == 1
        for ids, sentence in (
            ([*many, "b"], "1 to 10000"),
            (["a", 7], "ids[1]"),
            (["a", "x" * 70_000], "ids[1]"),
            ([], "ids"),
        ):
            assert (
                sentence
                in problem(await api.post(f"{DLQ}/retry-batch", json={"ids": ids}), 400)["error"]
            )

    async def test_by_what_they_have_in_common(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "a", error="Connection refused")
        await a_dead_job(connection, "b")
        assert (
            await self.batch(api, error="refused", type="user.signin.notification", userId="u1")
        )["retried"] == 1
        assert await listed(api) == ["b"]

    async def test_all_only_when_it_says_so(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for job_id in ("a", "b"):
            await a_dead_job(connection, job_id)
        for nothing in (
            {},
            {"all": False},
            {"type": "", "error": None},
            {"dryRun": True},
            {"ids": None},
        ):
            problem(await api.post(f"{DLQ}/retry-batch", json=nothing), 400)
        assert (await self.batch(api, all=True))["retried"] == 2

    async def test_a_dry_run_only_counts(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "a")
        assert await self.batch(api, all=True, dryRun=True) == {
            "retried": 0,
            "matched": 1,
            "remaining": 1,
            "dryRun": True,
        }
        assert await listed(api) == ["a"]

    async def test_the_longest_dead_first_and_spread_by_the_rate(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for number in range(3):
            await a_dead_job(connection, f"d-{number}", seconds_ago=number)
        await self.batch(api, all=True, ratePerSecond=2)
        rows = await sql(
            connection,
            (
                "SELECT job_id, extract(epoch FROM run_after - min(run_after) OVER ())::float AS "
                "after FROM job_logs ORDER BY 2"
            ),
        )
        assert [row["job_id"] for row in rows] == ["d-2", "d-1", "d-0"]
        assert [row["after"] for row in rows] == pytest.approx([0, 0.5, 1], abs=0.01)

    async def test_10000_a_call(self, api: httpx.AsyncClient, connection: Connection) -> None:
        await sql(
            connection,
            """INSERT INTO job_logs (job_id, job_type, user_id, payload, status, processed_at,
                 dead_at)
               SELECT 'd-' || i, 't', 'u', '{}', 'dlq', now(), now() FROM generate_series(1, 10005)
                 AS i""",
        )
        assert await self.batch(api, all=True) == {
            "retried": 10_000,
            "matched": 10_005,
            "remaining": 5,
            "dryRun": False,
        }

    @pytest.mark.parametrize(
        "body",
        [
            {"ids": []},
            {"ids": "a"},
            {"ids": [1]},
            {"ids": ["\0"]},
            {"ids": ["a"] * 10_001},
            {"all": "yes"},
            {"all": True, "ratePerSecond": 0},
            {"all": True, "ratePerSecond": 1e300},
            {"all": True, "ratePerSecond": 1e-300},
            {"all": True, "since": "now"},
            {"error": "\0"},
            [],
        ],
    )
    async def test_what_is_wrong_with_it_changes_nothing(
        self, api: httpx.AsyncClient, connection: Connection, body: Any
    ) -> None:
        await a_dead_job(connection, "a")
        problem(await api.post(f"{DLQ}/retry-batch", json=body), 400)
        assert await listed(api) == ["a"]


class TestDeleting:
    async def test_it_is_cancelled_and_its_id_stays_taken(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_dead_job(connection, "d-1")
        response = await api.delete(f"{DLQ}/d-1")
        assert (response.status_code, response.json()["jobId"]) == (200, "d-1")
        assert (await the_job(connection, "d-1"))["status"] == "cancelled"
        assert await listed(api) == []

    async def test_one_that_is_not_dead(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_job(connection, job_id="j", status="completed")
        assert problem(await api.delete(f"{DLQ}/j"), 409)["jobStatus"] == "completed"

    async def test_none(self, api: httpx.AsyncClient) -> None:
        problem(await api.delete(f"{DLQ}/nobody"), 404)


async def test_errors_are_grouped(api: httpx.AsyncClient, connection: Connection) -> None:
    for number in range(3):
        await a_dead_job(
            connection,
            f"d-{number}",
            seconds_ago=number,
            error=f'550 5.1.{number} "u{number}@x.com": unknown',
        )
    await a_dead_job(connection, "other", error=None, job_type="email.custom")
    groups = (await api.get(f"{DLQ}/errors")).json()["errors"]
    assert [group["count"] for group in groups] == [3, 1]
    assert groups[0]["sampleJobId"] == "d-0"
    assert groups[0]["jobTypes"] == ["user.signin.notification"]
    assert groups[0]["first"] < groups[0]["last"]
    assert groups[0]["fingerprint"] == "? ? ? unknown"
