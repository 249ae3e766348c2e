"""The other job routes: any type, many at once, one job's state, cancelling."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from litestar.testing import AsyncTestClient
from pgqueue_service.app import create_app
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from tests.support.api import ADMIN, API, API_TOKEN, SIGN_IN, SIGNIN, open_api, problem
from tests.support.factories import a_job, a_type, sql, the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]

EMAIL = {"to": "someone@example.com", "subject": "Hello", "body": "World"}


def a_sign_in(**members: Any) -> dict[str, Any]:
    return {"type": "user.signin.notification", "payload": SIGN_IN} | members


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(
        settings.with_(modules=("pgqueue_service.notifications", "tests.support.some_tasks"))
    ) as client:
        client.headers.update(ADMIN)
        yield client


class TestAJobOfAnyType:
    async def test_with_everything_said(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        job = {
            "type": "image.resize",
            "payload": {"image": "a.png", "width": 200},
            "jobId": "img/1",
            "userId": "u1",
            "queue": "images",
            "priority": 0,
            "runAfter": "2030-01-01T00:00:00+08:00",
            "maxAttempts": 2,
        }
        response = await api.post("/api/jobs", json=job)
        assert (response.status_code, response.json()) == (
            202,
            {"message": "Job enqueued", "jobId": "img/1", "status": "enqueued"},
        )
        row = await the_job(connection, "img/1")
        assert (row["queue"], row["priority"], row["max_attempts"], row["user_id"]) == (
            "images",
            0,
            2,
            "u1",
        )
        assert row["run_after"].isoformat().startswith("2029-12-31T16:00:00")
        assert row["payload"] == job["payload"]

    async def test_with_next_to_nothing_said(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        job = {
            "type": "image.resize",
            "payload": {"image": "a.png", "width": 200},
            "queue": "",
            "runAfter": None,
            "userId": "",
        }
        row = await the_job(connection, (await api.post("/api/jobs", json=job)).json()["jobId"])
        assert (row["queue"], row["priority"], row["user_id"]) == ("default", 5, "system")

    async def test_a_sign_in_is_translated_as_on_its_own_route(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        response = await api.post("/api/jobs", json=a_sign_in(userId="u1", jobId="s-1"))
        assert response.status_code == 202
        row = await the_job(connection, "s-1")
        assert (row["user_id"], row["payload"]["provider"]) == ("u1", "unknown")
        assert (await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1"})).status_code == 202

    async def test_a_sign_in_without_an_id_gets_the_usual_one(self, api: httpx.AsyncClient) -> None:
        assert (
            (await api.post("/api/jobs", json=a_sign_in())).json()["jobId"].startswith("signin-u1-")
        )

    async def test_the_header_is_the_id_here_too(self, api: httpx.AsyncClient) -> None:
        assert (
            await api.post("/api/jobs", json=a_sign_in(), headers={"Idempotency-Key": "k"})
        ).json()["jobId"] == "k"

    @pytest.mark.parametrize(
        ("job", "sentence"),
        [
            ({"payload": {}}, "Missing required field: type"),
            ({"type": "image.resize"}, "Missing required field: payload"),
            ({"type": "no.such", "payload": {}}, "Unknown job type: no.such"),
            ({"type": "owned", "payload": [1]}, "userId is required: owned has a limit per user"),
            (
                {"type": "owned", "payload": {"owner": "a"}, "userId": "b"},
                "userId is not the owner of the payload",
            ),
            (
                {"type": "image.resize", "payload": {"image": "a", "width": "wide"}},
                "width: expected `int`, got `str`",
            ),
            ({"type": "image.resize", "payload": [1]}, "The payload does not fit image.resize"),
            (a_sign_in(payload={"userId": "u1"}), "Missing required fields: userId, email, name"),
            (a_sign_in(payload=[]), "The payload must be a JSON object"),
            (a_sign_in(userId="u2"), "userId is not the userId of the payload"),
            (a_sign_in(priority=10), "priority"),
            (a_sign_in(priority="5"), "priority"),
            (a_sign_in(maxAttempts=0), "maxAttempts"),
            (a_sign_in(runAfter="tomorrow"), "runAfter must be a date and time"),
            (
                a_sign_in(runAfter="9999-06-01T00:00:00Z"),
                "runAfter must be between the years 1970 and 9998",
            ),
            (
                a_sign_in(runAfter="1969-12-31T23:59:59Z"),
                "runAfter must be between the years 1970 and 9998",
            ),
            (a_sign_in(delay="soon"), "delay: not a duration"),
            (a_sign_in(delay="101y"), "delay: not a duration"),
            (a_sign_in(delay=-1), "delay: a duration is between"),
            (a_sign_in(delay="40000d"), "delay: a duration is between"),
            (a_sign_in(delay=True), "delay: expected"),
            (a_sign_in(delay=["1h"]), "delay: expected"),
            (
                a_sign_in(delay="1h", runAfter="2099-01-01T00:00:00Z"),
                "runAfter and delay say the same",
            ),
            (
                a_sign_in(delay=0, runAfter="2099-01-01T00:00:00Z"),
                "runAfter and delay say the same",
            ),
            (a_sign_in(dealy="1h"), "Unknown member dealy: did you mean delay?"),
            (
                a_sign_in(run_after="2099-01-01T00:00:00Z"),
                "Unknown member run_after: did you mean runAfter?",
            ),
            (
                a_sign_in(RunAfter="2099-01-01T00:00:00Z"),
                "Unknown member RunAfter: did you mean runAfter?",
            ),
            (a_sign_in(maxattempts=1), "Unknown member maxattempts: did you mean maxAttempts?"),
            (a_sign_in(colour="red"), "Unknown member colour: known are type, payload, jobId"),
            (a_sign_in(**{"x" * 60_000: 1}), "Unknown member x"),
            (a_sign_in(queue="a\nb"), "queue must not contain control characters"),
            (a_sign_in(jobId=7), "jobId"),
            (
                {"type": "limited", "payload": None},
                "userId is required: limited has a limit per user",
            ),
            ([], "The body must be a JSON object"),
        ],
    )
    async def test_what_is_wrong_with_it_is_said(
        self, api: httpx.AsyncClient, connection: Connection, job: Any, sentence: str
    ) -> None:
        assert sentence in problem(await api.post("/api/jobs", json=job), 400)["error"]
        assert (
            sentence
            in problem(await api.post("/api/jobs/bulk", json={"jobs": [job]}), 400)["error"]
            or job == []
        )
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    @pytest.mark.parametrize(
        ("delay", "seconds"),
        [("1h", 3600), (90, 90), (0.5, 0.5), ("2d", 172_800), (0, 0), ("", 0), (None, 0)],
    )
    async def test_a_delay_counts_from_now(
        self, api: httpx.AsyncClient, connection: Connection, delay: Any, seconds: float
    ) -> None:
        assert (await api.post("/api/jobs", json=a_sign_in(delay=delay))).status_code == 202
        assert (
            await api.post("/api/jobs/bulk", json={"jobs": [a_sign_in(delay=delay)]})
        ).status_code == 202
        rows = await sql(
            connection,
            "SELECT extract(epoch FROM run_after - created_at)::float AS later FROM job_logs",
        )
        assert [row["later"] for row in rows] == [pytest.approx(seconds, abs=2)] * 2

    async def test_another_limited_type_has_a_sentence_of_its_own(
        self, api: httpx.AsyncClient
    ) -> None:
        job = {"type": "limited", "payload": 1, "userId": "u1"}
        assert (await api.post("/api/jobs", json=job)).status_code == 202
        body = problem(await api.post("/api/jobs", json=job), 429)
        assert (
            body["error"] == "Too many jobs of type limited for this user. Please try again later."
        )


class TestManyAtOnce:
    async def test_each_has_its_result_in_order(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": "done"})
        await sql(connection, "UPDATE job_logs SET status = 'completed', processed_at = now()")
        jobs = [
            a_sign_in(jobId="a"),
            a_sign_in(jobId="done"),
            a_sign_in(jobId="a", payload=SIGN_IN | {"name": "Another"}),
            a_sign_in(jobId="a"),
            *(a_sign_in() for _ in range(10)),
        ]
        response = await api.post("/api/jobs/bulk", json={"jobs": jobs})
        assert response.status_code == 202
        results = response.json()["results"]
        assert results[0] == {"jobId": "a", "status": "enqueued"}
        assert results[1] == {
            "jobId": "done",
            "error": "Job already processed",
            "code": 409,
            "jobStatus": "completed",
        }
        assert results[2] == {
            "jobId": "a",
            "error": "Job ID already used with another payload",
            "code": 409,
        }
        assert results[3] == {"jobId": "a", "status": "enqueued"}
        assert [one.get("code") for one in results[4:]] == [None] * 8 + [429] * 2
        assert results[-1]["retryAfter"] > 3500
        assert await value(connection, "SELECT count(*) FROM job_logs") == 10

    async def test_a_malformed_one_refuses_the_whole_and_is_named(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        for bad in (
            a_sign_in(payload={}),
            {"type": "no.such", "payload": 1},
            7,
            a_sign_in(jobId="\0"),
            a_sign_in(priority=-1),
        ):
            body = problem(
                await api.post("/api/jobs/bulk", json={"jobs": [a_sign_in(), a_sign_in(), bad]}),
                400,
            )
            assert body["index"] == 2
            assert body["error"].startswith("jobs[2]: ")
        nul = {"type": "anything", "payload": "a\0b"}
        assert (
            problem(await api.post("/api/jobs/bulk", json={"jobs": [a_sign_in(), nul]}), 400)[
                "index"
            ]
            == 1
        )
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    @pytest.mark.parametrize(
        "body", [{}, {"jobs": []}, {"jobs": 1}, {"jobs": [a_sign_in()] * 10_001}, []]
    )
    async def test_there_are_1_to_10000(self, api: httpx.AsyncClient, body: Any) -> None:
        problem(await api.post("/api/jobs/bulk", json=body), 400)

    async def test_there_may_be_10000(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        jobs = [a_sign_in(payload=SIGN_IN | {"userId": f"u{number}"}) for number in range(10_000)]
        async with open_api(settings, request_timeout=timedelta(seconds=30)) as api:
            response = await api.post("/api/jobs/bulk", json={"jobs": jobs}, headers=ADMIN)
        assert response.status_code == 202
        assert {one["status"] for one in response.json()["results"]} == {"enqueued"}
        assert await value(connection, "SELECT count(*) FROM job_logs") == 10_000


class TestAJobsState:
    async def test_a_new_one(self, api: httpx.AsyncClient) -> None:
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": "s-1"})
        body = (await api.get("/api/jobs/s-1")).json()
        assert body.pop("createdAt").endswith("Z")
        assert len(body.pop("runAfter")) == len("2026-11-23T09:30:00.123Z")
        assert body == {
            "jobId": "s-1",
            "type": "user.signin.notification",
            "status": "enqueued",
            "processedAt": None,
            "attemptCount": 0,
            "error": None,
            "maxAttempts": 5,
            "queue": "default",
            "priority": 5,
            "startedAt": None,
            "progress": None,
            "receipt": None,
            "history": [],
        }

    async def test_nothing_in_it_is_anybodys_address(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_job(
            connection,
            job_id="j",
            status="dlq",
            payload=SIGN_IN,
            error="550 <someone@example.com> unknown",
            stack_trace="someone@example.com",
            progress=0.5,
            progress_note="to someone@example.com",
            receipt="250 queued for someone@example.com",
            history=[
                {
                    "at": "2026-11-23T09:30:00.5+00:00",
                    "attempt": 1,
                    "error": "someone@example.com",
                    "stack": "x",
                    "worker": "w",
                },
                {"at": "when?", "event": "replayed", "payload": SIGN_IN},
            ],
        )
        response = await api.get("/api/jobs/j")
        assert "someone" not in response.text
        assert response.json()["progress"] == {"fraction": 0.5, "note": "to s***@example.com"}
        assert response.json()["receipt"] == "250 queued for s***@example.com"
        assert response.json()["history"] == [
            {
                "at": "2026-11-23T09:30:00.500Z",
                "attempt": 1,
                "event": None,
                "error": "s***@example.com",
            },
            {"at": None, "attempt": None, "event": "replayed", "error": None},
        ]

    async def test_one_that_failed_is_not_processed(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_job(connection, job_id="j", status="failed")
        body = (await api.get("/api/jobs/j")).json()
        assert (body["status"], body["attemptCount"], body["error"], body["processedAt"]) == (
            "failed",
            1,
            "it went wrong",
            None,
        )

    async def test_one_that_nobody_knows(self, api: httpx.AsyncClient) -> None:
        assert problem(await api.get("/api/jobs/nobody"), 404)["error"] == "Job not found"


IDS = [
    "a/b",
    "..",
    "a/../b",
    "./x",
    "a b",
    "a+b",
    "100%",
    "%2F",
    "Ж/ү",
    "a?b#c&d=e",
    '"\\',
    "a;b",
    "~a",
    "a//b",
    "/",
    "x" * 255,
]


class TestIdsInPaths:
    @pytest.mark.parametrize("job_id", IDS)
    async def test_every_route_takes_every_id(
        self, api: httpx.AsyncClient, connection: Connection, job_id: str
    ) -> None:
        path = quote(job_id, safe="").replace(".", "%2E")
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": job_id})
        assert (await api.get(f"/api/jobs/{path}")).json()["jobId"] == job_id
        assert (await api.delete(f"/api/jobs/{path}")).json()["jobId"] == job_id
        await sql(connection, "UPDATE job_logs SET status = 'dlq', dead_at = now()")
        assert (await api.post(f"/api/admin/dlq/retry/{path}")).json()["jobId"] == job_id
        await sql(
            connection, "UPDATE job_logs SET status = 'dlq', dead_at = now(), processed_at = now()"
        )
        assert (await api.delete(f"/api/admin/dlq/{path}")).json()["jobId"] == job_id

    async def test_words_of_our_routes_are_ids_like_others(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        paths = [route.path.split("/")[1:] for route in api._transport.app.routes]
        words = {path[2] for path in paths if path[:2] == ["api", "jobs"] and len(path) > 2}
        words |= {
            path[3] for path in paths if path[:3] == ["api", "admin", "dlq"] and len(path) > 3
        }
        assert {"bulk", "signin-notification", "list", "errors", "retry", "retry-batch"} <= words
        for word in words - {"{jobId:str}"}:
            await api.post(SIGNIN, json=SIGN_IN | {"jobId": word, "userId": word})
            assert (await api.get(f"/api/jobs/{word}")).json()["jobId"] == word
            assert (await api.get(f"/api/jobs/{word}/")).json()["jobId"] == word
            assert (await api.delete(f"/api/jobs/{word}")).json()["jobId"] == word
            await sql(
                connection,
                "UPDATE job_logs SET status = 'dlq', dead_at = now() WHERE job_id = %s",
                [word],
            )
            assert (await api.post(f"/api/admin/dlq/retry/{word}")).json()["jobId"] == word
            await sql(
                connection,
                (
                    "UPDATE job_logs SET status = 'dlq', dead_at = now(), processed_at = now() "
                    "WHERE job_id = %s"
                ),
                [word],
            )
            assert (await api.delete(f"/api/admin/dlq/{word}")).json()["jobId"] == word

    @pytest.mark.parametrize("path", ["%00", "a%00b", "%FF", "%ED%A0%80", "x" * 256, "%0A"])
    async def test_what_can_be_no_id_is_not_found(self, api: httpx.AsyncClient, path: str) -> None:
        for method, route in (
            ("GET", "jobs"),
            ("DELETE", "jobs"),
            ("DELETE", "admin/dlq"),
            ("POST", "admin/dlq/retry"),
        ):
            assert (
                problem(await api.request(method, f"/api/{route}/{path}"), 404)["error"]
                == "Job not found"
            )

    async def test_litestars_own_client_finds_them_too(self, settings: ServiceSettings) -> None:
        async with AsyncTestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            await client.post(SIGNIN, json=SIGN_IN | {"jobId": "a/b %2F"})
            assert (await client.get("/api/jobs/a%2Fb%20%252F")).json()["jobId"] == "a/b %2F"


class TestCancelling:
    @pytest.mark.parametrize("status", ["enqueued", "failed", "processing"])
    async def test_a_live_job(
        self, api: httpx.AsyncClient, connection: Connection, status: str
    ) -> None:
        await a_job(connection, job_id="j", status=status)
        response = await api.delete("/api/jobs/j")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        assert (await the_job(connection, "j"))["status"] == "cancelled"

    @pytest.mark.parametrize("status", ["completed", "dlq", "cancelled"])
    async def test_an_ended_job(
        self, api: httpx.AsyncClient, connection: Connection, status: str
    ) -> None:
        await a_job(connection, job_id="j", status=status)
        body = problem(await api.delete("/api/jobs/j"), 409)
        assert (body["jobStatus"], body["jobId"], body["status"]) == (status, "j", 409)

    async def test_no_job(self, api: httpx.AsyncClient) -> None:
        problem(await api.delete("/api/jobs/nobody"), 404)


class TestTypesOfAdministrators:
    """email.custom: an admin token on every route."""

    @pytest.fixture
    async def open(self, settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
        async with open_api(settings, api_tokens=(API_TOKEN,)) as client:
            yield client

    async def test_enqueueing(self, open: httpx.AsyncClient) -> None:
        job = {"type": "email.custom", "payload": EMAIL}
        assert (
            problem(await open.post("/api/jobs", json=job, headers=API), 403)["error"]
            == "This needs an admin token"
        )
        assert (await open.post("/api/jobs", json=job, headers=ADMIN)).status_code == 202

    async def test_an_item_among_many(
        self, open: httpx.AsyncClient, connection: Connection
    ) -> None:
        jobs = {"jobs": [a_sign_in(), {"type": "email.custom", "payload": EMAIL}]}
        assert problem(await open.post("/api/jobs/bulk", json=jobs, headers=API), 403)["index"] == 1
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0
        assert (await open.post("/api/jobs/bulk", json=jobs, headers=ADMIN)).status_code == 202

    async def test_seeing_and_cancelling(
        self, open: httpx.AsyncClient, connection: Connection
    ) -> None:
        await a_job(connection, job_id="mail", job_type="email.custom")
        for method in ("GET", "DELETE"):
            problem(await open.request(method, "/api/jobs/mail", headers=API), 403)
        assert (await open.get("/api/jobs/mail", headers=ADMIN)).status_code == 200
        assert (await open.delete("/api/jobs/mail", headers=ADMIN)).status_code == 200

    async def test_seeing_where_states_are_open(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        await a_job(connection, job_id="mail", job_type="email.custom")
        async with open_api(settings) as open:
            problem(await open.get("/api/jobs/mail"), 401)

    async def test_a_type_that_only_other_processes_know(
        self, settings: ServiceSettings, connection: Connection
    ) -> None:
        await a_type(connection, job_type="secret", admin=True)
        await a_job(connection, job_id="j", job_type="secret")
        async with open_api(settings) as open:
            problem(await open.get("/api/jobs/j"), 401)


async def test_times_have_three_decimals(api: httpx.AsyncClient, connection: Connection) -> None:
    await a_job(connection, job_id="j", status="completed")
    await sql(
        connection,
        (
            "UPDATE job_logs SET processed_at = '2026-11-23 10:00:00.123999+08', created_at = "
            "'2026-11-23', payload = %s"
        ),
        [Jsonb({})],
    )
    body = (await api.get("/api/jobs/j")).json()
    assert body["processedAt"] == "2026-11-23T02:00:00.123Z"
    assert body["createdAt"].endswith(":00:00.000Z")


async def test_a_job_may_wait(api: httpx.AsyncClient, connection: Connection) -> None:
    await api.post("/api/jobs", json=a_sign_in(jobId="later", runAfter="2030-01-01T00:00:00Z"))
    assert (await the_job(connection, "later"))["run_after"] > (await the_job(connection, "later"))[
        "created_at"
    ] + timedelta(days=1)


async def test_a_service_without_the_modules_of_a_type_does_not_take_it(
    settings: ServiceSettings, connection: Connection
) -> None:
    async with open_api(settings, modules=("tests.support.some_tasks",)) as api:
        problem(await api.post(SIGNIN, json=SIGN_IN), 405)  # its module brings the route
        refused = problem(await api.post("/api/jobs", json=a_sign_in(), headers=ADMIN), 400)
        assert refused["error"] == "Unknown job type: user.signin.notification"
