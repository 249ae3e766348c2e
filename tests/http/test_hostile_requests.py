"""R15: hostile input gets a 4xx with a clear sentence; nothing is stored, nothing executed, no
address in any log."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as chosen
from hypothesis import strategies as st
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.strict_json import DEEPEST, decode
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support.api import ADMIN, SIGN_IN, SIGNIN, open_api, problem
from tests.support.factories import the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]
JSON = {"Content-Type": "application/json"}
POSTS = [
    SIGNIN,
    "/api/jobs",
    "/api/jobs/bulk",
    "/api/admin/send-email",
    "/api/admin/dlq/retry-batch",
    "/api/admin/dlq/retry/x",
]

JOB = {"type": "user.signin.notification", "payload": SIGN_IN}
EMAIL = {"to": "someone@example.com", "subject": "Subject", "body": "Body"}

NOT_JSON = {
    "empty": b"",
    "space": b" ",
    "cut": b'{"userId": "u1"',
    "words": b"hello",
    "form": b"userId=u1&name=A",
    "NaN": b'{"userId": NaN}',
    "infinity": b'{"userId": -Infinity}',
    "too great": b'{"a": 1e999}',
    "too long": b'{"a": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"userId": "\xff"}',
    "UTF-16": '{"userId": "u1"}'.encode("utf-16"),
    "BOM": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"userId": "\\ud800"}',
    "raw control": b'{"userId": "a\nb"}',
    "raw NUL": b'{"userId": "\x00"}',
    "twice": b'{"userId": "u1", "email": "a@x.com", "name": "A", "userId": "u2"}',
    "twice inside": b'{"jobs": [{"type": "x", "payload": {"a": 1, "a": 2}}]}',
    "deep array": b"[" * 5000 + b"]" * 5000,
    "deep object": b'{"a":' * 60_00 + b"1" + b"}" * 60_00,
    "deeper than allowed": b'{"payload":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}",
    "two documents": b"{} {}",
    "comment": b"{} // x",
    "python": b"{'a': 1}",
}


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        client.headers.update(ADMIN)
        yield client


@pytest.mark.parametrize("path", POSTS)
async def test_what_is_not_json(api: httpx.AsyncClient, connection: Connection, path: str) -> None:
    for name, body in NOT_JSON.items():
        response = await api.post(path, content=body, headers=JSON)
        if name == "empty" and path.endswith("/x"):
            problem(response, 404)
        else:
            assert len(problem(response, 400)["error"]) > 15, name
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


@pytest.mark.parametrize("path", POSTS)
async def test_json_of_the_wrong_shape(api: httpx.AsyncClient, path: str) -> None:
    for body in (b"null", b"[]", b'"text"', b"17", b"true", b"[{}]"):
        assert (
            problem(await api.post(path, content=body, headers=JSON), 400)["error"]
            == "The body must be a JSON object"
        )


@pytest.mark.parametrize("path", POSTS[1:])
async def test_members_that_are_not_known(
    api: httpx.AsyncClient, connection: Connection, path: str
) -> None:
    fine = {
        "/api/jobs": JOB,
        "/api/jobs/bulk": {"jobs": [JOB]},
        "/api/admin/send-email": EMAIL,
    }.get(path, {})
    for name in ("colour", "Payload_", "uniqueKey", "", "\u202e", "__proto__"):
        error = problem(await api.post(path, json=fine | {name: None}), 400)["error"]
        assert error.startswith(f"Unknown member {name.replace(chr(0x202E), '')}: "), error
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


@pytest.mark.parametrize("path", POSTS)
async def test_other_types_of_content(api: httpx.AsyncClient, path: str) -> None:
    for content_type in (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "json",
    ):
        problem(
            await api.post(
                path, content=json.dumps(SIGN_IN), headers={"Content-Type": content_type}
            ),
            415,
        )
    problem(await api.post(path, content=json.dumps(SIGN_IN)), 415)


@pytest.mark.parametrize(
    "content_type", ["application/json;charset=utf-8", "Application/JSON ; x=y"]
)
async def test_parameters_of_the_type_do_no_harm(api: httpx.AsyncClient, content_type: str) -> None:
    response = await api.post(
        SIGNIN, content=json.dumps(SIGN_IN), headers={"Content-Type": content_type}
    )
    assert response.status_code == 202


class TestSize:
    @pytest.mark.parametrize(
        "path", [SIGNIN, "/api/jobs", "/api/admin/send-email", "/api/admin/dlq/retry/x"]
    )
    async def test_64_kib(self, api: httpx.AsyncClient, path: str) -> None:
        body = json.dumps({"a": "x" * 65536}).encode()
        assert (
            problem(await api.post(path, content=body, headers=JSON), 413)["error"]
            == "The request body is too large"
        )

    async def test_just_below_is_taken(self, api: httpx.AsyncClient) -> None:
        body = json.dumps(SIGN_IN | {"unknown": ""}).encode()
        body = body.replace(b'"unknown": ""', b'"unknown": "' + b"x" * (65536 - len(body)) + b'"')
        assert len(body) == 65536
        assert (await api.post(SIGNIN, content=body, headers=JSON)).status_code == 202

    async def test_a_body_of_unknown_length_is_cut_off(self, api: httpx.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 10_000

        problem(await api.post(SIGNIN, content=endless(), headers=JSON), 413)

    async def test_16_mib_for_many(self, api: httpx.AsyncClient) -> None:
        padding = JOB | {"payload": SIGN_IN | {"unknown": "x" * 60_000}}
        assert (await api.post("/api/jobs/bulk", json={"jobs": [padding] * 100})).status_code == 202
        problem(await api.post("/api/jobs/bulk", json={"jobs": [padding] * 280}), 413)

    async def test_64_kib_for_each_of_many(
        self, api: httpx.AsyncClient, connection: Connection
    ) -> None:
        def padded(size: int, **more: Any) -> dict[str, Any]:
            job = JOB | {"payload": SIGN_IN | {"unknown": ""}} | more
            job["payload"]["unknown"] = "x" * (
                size - len(json.dumps(job, ensure_ascii=False).encode())
            )
            return job

        def bulk(*jobs: Any) -> bytes:
            return json.dumps({"jobs": jobs}, ensure_ascii=False).encode()

        large = padded(65536)
        assert (
            await api.post("/api/jobs/bulk", content=bulk(JOB, large, JOB), headers=JSON)
        ).status_code == 202
        for large in (padded(65537), padded(12_000_000), padded(65537, jobId="x" * 200)):
            refused = problem(
                await api.post("/api/jobs/bulk", content=bulk(JOB, large, JOB), headers=JSON), 400
            )
            assert (refused["index"], refused["error"]) == (1, "jobs[1]: it is longer than 64 KiB")
        assert await value(connection, "SELECT count(*) FROM job_logs") == 3


NASTY = [
    "'; DROP TABLE job_logs; --",
    "\\'; SELECT pg_sleep(10); --",
    "%(payload)s %s {0} ${jndi:ldap://x}",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "../../etc/passwd",
    "\ufeff\u200b\u2066",
    "👩‍👩‍👧‍👦" * 5,
    "null",
    "-1",
    '{"a": 1}',
]


@pytest.mark.parametrize("text", NASTY)
async def test_texts_are_stored_as_texts(
    api: httpx.AsyncClient, connection: Connection, text: str
) -> None:
    event = SIGN_IN | {"name": text, "provider": text, "userAgent": text, "locale": text}
    body = (await api.post(SIGNIN, json=event)).json()
    payload = (await the_job(connection, body["jobId"]))["payload"]
    assert payload["userAgent"] == "".join(one for one in text if one not in "\u2066")
    for member in ("userId", "jobId"):
        response = await api.post(SIGNIN, json=SIGN_IN | {member: text})
        assert response.status_code == (400 if "\u2066" in text else 202)
    assert (
        await api.get("/api/admin/dlq", params=dict.fromkeys(("type", "userId", "error"), text))
    ).json()["count"] == 0


@pytest.mark.parametrize(
    "member", ["priority", "maxAttempts", "runAfter", "jobId", "userId", "queue", "type"]
)
async def test_numbers_where_none_belong(
    api: httpx.AsyncClient, connection: Connection, member: str
) -> None:
    for number in (10**30, 2**63, -(2**63) - 1, 1.5, -0.0, 1e308, True, [], {}):
        job = {"type": "user.signin.notification", "payload": SIGN_IN, member: number}
        assert problem(await api.post("/api/jobs", json=job), 400)["error"].startswith(member), (
            number
        )
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


async def test_numbers_that_postgres_could_store_and_we_could_not_give_back(
    settings: ServiceSettings, connection: Connection
) -> None:
    async with open_api(
        settings, modules=("pgqueue_service.notifications", "tests.support.some_tasks")
    ) as api:
        for payload in (b"1e400", b"9" * 4301, b'"\\u0000"', b'{"\\u0000": 1}'):
            body = b'{"type": "anything", "payload": ' + payload + b"}"
            problem(await api.post("/api/jobs", content=body, headers=JSON | ADMIN), 400)
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0
        fine = (
            b'{"type": "anything", "jobId": "a", "payload": ["\\\\u0000", 1e-400, '
            + b"9" * 400
            + b", -0.0]}"
        )
        assert (await api.post("/api/jobs", content=fine, headers=JSON | ADMIN)).status_code == 202


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=15,
)
MEMBERS = """
userId email name provider ipAddress userAgent timestamp locale jobId type payload queue priority
runAfter maxAttempts to subject body jobs ids all dryRun since ratePerSecond
"""
members = st.sampled_from(MEMBERS.split())
plausible = st.sampled_from(
    [
        "user.signin.notification",
        "anything",
        "email.custom",
        "u1",
        "a@example.com",
        "2026-11-23T09:30:00Z",
        SIGN_IN,
        [SIGN_IN],
    ]
)
bodies = st.dictionaries(members, plausible | anything, max_size=12) | anything


async def test_whatever_comes_is_answered_and_what_is_refused_is_not_stored(
    settings: ServiceSettings, database_url: str
) -> None:
    loop = asyncio.get_running_loop()
    async with open_api(
        settings, modules=("pgqueue_service.notifications", "tests.support.some_tasks")
    ) as api:

        async def post(path: str, body: Any) -> None:
            def stored() -> int:
                row = outside.execute("SELECT count(*) FROM job_logs").fetchone()
                assert row is not None
                return int(row[0])

            before = stored()
            response = await api.post(path, content=json.dumps(body), headers=JSON | ADMIN)
            assert response.status_code in (202, 400, 404, 409, 429), (
                response.status_code,
                response.text,
            )
            if response.status_code != 202:
                problem(response, response.status_code)
                assert stored() == before

        @chosen(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(POSTS), bodies)
        def hammer(path: str, body: Any) -> None:
            asyncio.run_coroutine_threadsafe(post(path, body), loop).result()

        with psycopg.connect(database_url, autocommit=True) as outside:
            await asyncio.to_thread(hammer)


@chosen(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | anything.map(lambda one: json.dumps(one).encode())
)
def test_decoding_answers_or_refuses(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert decode(body) == json.loads(body)


ODD_PATHS = [
    "/%00",
    "/api/jobs/a/b",
    "/api//jobs///",
    "/api/jobs/x/",
    "/..%2f",
    "/schema/../api",
    "/api/admin/dlq/%",
    "/%ff%fe",
]


@pytest.mark.parametrize(
    "method", ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
)
async def test_odd_paths_and_methods(api: httpx.AsyncClient, method: str) -> None:
    for path in ODD_PATHS:
        response = await api.request(method, path)
        assert response.status_code < 500
        if response.status_code >= 400 and method != "HEAD":
            problem(response, response.status_code)


async def test_a_method_that_a_route_does_not_take(api: httpx.AsyncClient) -> None:
    response = await api.put("/api/jobs")
    assert "POST" in response.headers["allow"]
    problem(response, 405)


async def test_every_answer_has_headers_of_safety(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/api/jobs/x", "/nowhere", "/schema/openapi.json"):
        headers = (await api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_no_address_is_in_any_log(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_api(settings) as api:
        await api.post(SIGNIN, json=SIGN_IN)
        await api.post(SIGNIN, json=SIGN_IN | {"email": "someone@@example.com"})
        await api.post(SIGNIN, json=SIGN_IN | {"jobId": "someone@example.com\0"})
        await api.get("/api/jobs/someone@example.com")
        await api.get("/api/admin/dlq?error=someone@example.com", headers=ADMIN)
    assert "someone" not in "\n".join(
        record.getMessage() for record in caplog.records if record.name != "httpx"
    )


async def test_an_error_of_our_own_shows_nothing_and_is_logged_under_its_id(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("SELECT secret FROM someone@example.com")

    async with open_api(settings) as api:
        gateway = api._transport.app.state.gateway
        monkeypatch.setattr(gateway.client, "try_enqueue", broken)
        monkeypatch.setattr(gateway.client, "get", broken)
        enqueue = await api.post(SIGNIN, json=SIGN_IN)
        assert problem(enqueue, 500)["error"] == "Failed to enqueue job"
        show = await api.get("/api/jobs/x")
        assert problem(show, 500)["error"] == "Internal server error"
    for response in (enqueue, show):
        assert "secret" not in response.text
        assert "Traceback" not in response.text
        assert response.json()["errorId"] in caplog.text
