"""Who may do what: every route, every kind of token."""

import logging
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any, ClassVar

import httpx
import pytest
from pgqueue_service.api.auth import Access
from pgqueue_service.app import create_app
from pgqueue_service.loopback import is_loopback
from pgqueue_service.settings import ServiceSettings

from pgqueue.errors import SettingsError
from tests.support.api import ADMIN, ADMIN_TOKEN, API, API_TOKEN, SIGN_IN, SIGNIN, open_api, problem

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

ADMIN_ROUTES = [
    ("GET", "/api/admin/dlq"),
    ("GET", "/api/admin/dlq/list"),
    ("POST", "/api/admin/dlq/retry/x"),
    ("POST", "/api/admin/dlq/retry-batch"),
    ("DELETE", "/api/admin/dlq/x"),
    ("GET", "/api/admin/dlq/errors"),
    ("POST", "/api/admin/send-email"),
    ("GET", "/api/admin/jobs/stats"),
    ("GET", "/api/admin/workers"),
    ("GET", "/api/admin/queues"),
    ("GET", "/api/admin/dependencies"),
    ("POST", "/api/admin/queues/q/pause"),
    ("POST", "/api/admin/queues/q/resume"),
]
JOB_ROUTES = [("POST", "/api/jobs"), ("POST", "/api/jobs/bulk"), ("DELETE", "/api/jobs/x")]
OPEN_ROUTES = [("POST", SIGNIN), ("GET", "/api/jobs/x")]
FREE_ROUTES = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/schema"),
    ("GET", "/schema/openapi.json"),
]

WORDS = ("bulk", "signin-notification")
NAMESAKES = {
    *(("DELETE", f"/api/admin/dlq/{word}") for word in ("list", "errors", "retry", "retry-batch")),
    *((method, f"/api/jobs/{word}") for method in ("GET", "DELETE") for word in WORDS),
}
"""Jobs that are called as routes are: in no description, and locked like others."""
ADMIN_ROUTES += sorted(route for route in NAMESAKES if "/admin/" in route[1])
JOB_ROUTES += [("DELETE", f"/api/jobs/{word}") for word in WORDS]
OPEN_ROUTES += [("GET", f"/api/jobs/{word}") for word in WORDS]

REFUSED = (401, 403)


@pytest.fixture
async def both(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(
        settings, api_tokens=("old-token", API_TOKEN), admin_tokens=(ADMIN_TOKEN, "next-token")
    ) as client:
        yield client


async def test_every_route_is_in_one_of_these_lists(both: httpx.AsyncClient) -> None:
    paths = (await both.get("/schema/openapi.json")).json()["paths"]
    described = {(method.upper(), path) for path, item in paths.items() for method in item}
    tested = {
        (method, path.replace("/x", "/{jobId}").replace("/q/", "/{name}/"))
        for method, path in ADMIN_ROUTES + JOB_ROUTES + OPEN_ROUTES
    }
    assert described == tested - NAMESAKES | {("GET", "/healthz"), ("GET", "/readyz")}


class TestWithTokensOfBothKinds:
    async def test_admin_routes(self, both: httpx.AsyncClient) -> None:
        for method, path in ADMIN_ROUTES:
            missing = await both.request(method, path)
            assert problem(missing, 401)["error"] == "A valid token is required"
            assert missing.headers["www-authenticate"] == "Bearer"
            problem(
                await both.request(method, path, headers={"Authorization": "Bearer wrong"}), 401
            )
            problem(await both.request(method, path, headers=API), 403)
            for token in (ADMIN_TOKEN, "next-token"):
                response = await both.request(
                    method, path, headers={"Authorization": f"bearer  {token} "}
                )
                assert response.status_code not in REFUSED

    async def test_job_routes(self, both: httpx.AsyncClient) -> None:
        for method, path in JOB_ROUTES + OPEN_ROUTES:
            problem(await both.request(method, path), 401)
            for headers in (API, ADMIN, {"Authorization": "Bearer old-token"}):
                assert (
                    await both.request(method, path, headers=headers)
                ).status_code not in REFUSED

    async def test_free_routes(self, both: httpx.AsyncClient) -> None:
        for method, path in FREE_ROUTES:
            assert (
                await both.request(method, path, headers={"Authorization": "Bearer wrong"})
            ).status_code == 200

    @pytest.mark.parametrize(
        "authorization",
        [
            "",
            "Bearer",
            "Bearer ",
            f"Basic {ADMIN_TOKEN}",
            ADMIN_TOKEN,
            f"Bearer {ADMIN_TOKEN}x",
            f"Bearer {ADMIN_TOKEN[:-1]}",
            b"Bearer \xff",
        ],
    )
    async def test_what_is_no_token(self, both: httpx.AsyncClient, authorization: Any) -> None:
        problem(await both.get("/api/admin/queues", headers={"Authorization": authorization}), 401)

    async def test_a_token_may_be_in_any_letters(self, settings: ServiceSettings) -> None:
        async with open_api(settings, admin_tokens=("нууц",)) as api:
            assert (
                await api.get(
                    "/api/admin/queues", headers={"Authorization": "Bearer нууц".encode()}
                )
            ).status_code == 200

    async def test_who_may_not_is_told_before_what_is_wrong(self, both: httpx.AsyncClient) -> None:
        problem(await both.post("/api/jobs", content=b"x" * 100_000), 401)


class TestWithoutApiTokens:
    async def test_the_other_job_routes_take_admins(self, settings: ServiceSettings) -> None:
        async with open_api(settings) as api:
            for method, path in JOB_ROUTES:
                problem(await api.request(method, path), 401)
                assert (await api.request(method, path, headers=ADMIN)).status_code not in REFUSED

    async def test_sign_ins_and_states_are_open_and_look_at_no_token(
        self, settings: ServiceSettings
    ) -> None:
        async with open_api(settings) as api:
            for method, path in OPEN_ROUTES:
                for headers in (
                    {},
                    {"Authorization": "Bearer wrong"},
                    {"Authorization": "Basic eDp5"},
                ):
                    assert (
                        await api.request(method, path, headers=headers)
                    ).status_code not in REFUSED


class TestWithoutAdminTokens:
    async def test_admin_routes_are_closed(self, settings: ServiceSettings) -> None:
        async with open_api(settings, admin_tokens=(), api_tokens=(API_TOKEN,)) as api:
            for method, path in ADMIN_ROUTES:
                for headers in ({}, API, ADMIN):
                    assert (
                        "PGQUEUE_ADMIN_TOKENS"
                        in problem(await api.request(method, path, headers=headers), 403)["error"]
                    )

    async def test_and_without_any_tokens_the_other_job_routes_too(
        self, settings: ServiceSettings
    ) -> None:
        async with open_api(settings, admin_tokens=()) as api:
            for method, path in JOB_ROUTES:
                problem(await api.request(method, path, headers=API), 403)

    def test_it_is_said_once(self, settings: ServiceSettings) -> None:
        notes = Access(settings).notes()
        assert sum("admin routes are closed" in note for note in notes) == 1
        assert any("PGQUEUE_API_TOKENS" in note for note in notes)
        assert Access(settings.with_(admin_tokens=("a",), api_tokens=("b",))).notes() == ()


class TestTheStart:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
    def test_is_refused_when_the_world_could_come_in(
        self, settings: ServiceSettings, host: str
    ) -> None:
        with pytest.raises(SettingsError, match="PGQUEUE_API_TOKENS"):
            create_app(settings.with_(host=host))
        with pytest.raises(SettingsError, match="PGQUEUE_OPEN"):
            create_app(
                settings.with_(host=host, open=True, api_tokens=("t",), allow_anonymous=True)
            )
        create_app(settings.with_(host=host, api_tokens=("t",)))
        create_app(settings.with_(host=host, allow_anonymous=True))

    @pytest.mark.parametrize("origins", [("*",), ("https://app.example", "*"), ("null",)])
    def test_is_refused_when_any_page_could_do_everything(
        self, settings: ServiceSettings, origins: tuple[str, ...]
    ) -> None:
        with pytest.raises(SettingsError, match="PGQUEUE_CORS_ORIGINS"):
            create_app(settings.with_(open=True, cors_origins=origins))
        create_app(settings.with_(open=True, cors_origins=("https://app.example",)))
        create_app(settings.with_(api_tokens=("t",), cors_origins=origins))

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    def test_loopback_is_ourselves(self, settings: ServiceSettings, host: str) -> None:
        create_app(settings.with_(host=host))
        create_app(settings.with_(host=host, open=True))
        assert is_loopback(host)

    def test_without_a_database_url_it_is_refused(self, settings: ServiceSettings) -> None:
        with pytest.raises(SettingsError, match="DATABASE_URL"):
            create_app(settings.with_(database_url=None))


class TestWhollyOpen:
    async def test_every_route(self, settings: ServiceSettings) -> None:
        async with open_api(settings, open=True, admin_tokens=()) as api:
            for method, path in ADMIN_ROUTES + JOB_ROUTES + OPEN_ROUTES:
                assert (await api.request(method, path)).status_code not in REFUSED
            email = {
                "type": "email.custom",
                "payload": {"to": "a@example.com", "subject": "s", "body": "b"},
            }
            response = await api.post("/api/jobs", json=email)
            assert response.status_code == 202
            assert (await api.get(f"/api/jobs/{response.json()['jobId']}")).status_code == 200


class TestPagesOfOtherSites:
    """Where something is open, a browser on this machine must not be the way in."""

    @pytest.mark.parametrize("host", [
        "evil.example", "evil.example:3333", "evil.example.", "127.0.0.1.evil.example", "192.0.2.1",
        "[::", "[::1", "::1",
        "x@localhost", "localhost@evil.example", "localhost/x", "localhost#x", "localhost?x",
        "localhost,evil.example",
        "localhost evil.example", "localhost:x", "localhost:1:2", "[::1]x", "[::1%25lo]",
        "[::ffff:192.0.2.1]", "[::2]:3333",
        "localhost.evil.example", "evillocalhost", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "",
    ])  # fmt: skip
    async def test_a_name_that_they_point_at_us(self, settings: ServiceSettings, host: str) -> None:
        for changes in ({}, {"open": True}, {"open": True, "allow_anonymous": True}):
            async with open_api(settings, **changes) as api:
                assert (
                    await api.post(SIGNIN, json=SIGN_IN, headers={"Host": host})
                ).status_code in (400, 403)

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "localhost.",
            "a.localhost",
            "LOCALHOST:3333",
            "127.0.0.1:80",
            "[::1]:3333",
            "[::1]",
            "127.1.2.3",
        ],
    )
    async def test_our_own_names(self, settings: ServiceSettings, host: str) -> None:
        async with open_api(settings) as api:
            assert (await api.post(SIGNIN, json=SIGN_IN, headers={"Host": host})).status_code == 202

    @pytest.mark.parametrize("origin", [
        "https://evil.example", "null", "http://127.0.0.1:8080", "http://127.0.0.1",
        "https://127.0.0.1", "http://[", "file://",
        "http://127.0.0.1:3333.evil.example", "http://127.0.0.1:3333@evil.example", "http://x@127.0.0.1:3333",
        "http://127.0.0.1:3333/x", "ftp://127.0.0.1:3333", "127.0.0.1:3333", "//127.0.0.1:3333", "http://127.0.0.1.:3333",
        "http://localhost:3333", "http://[::1]:3333", "http://127.0.0.1:3333 https://evil.example",
    ])  # fmt: skip
    async def test_their_origin(self, settings: ServiceSettings, origin: str) -> None:
        async with open_api(settings) as api:
            problem(await api.post(SIGNIN, json=SIGN_IN, headers={"Origin": origin}), 403)

    async def test_our_own_origin_and_those_that_are_named(self, settings: ServiceSettings) -> None:
        async with open_api(settings, cors_origins=("https://App.example",)) as api:
            for origin in ("http://127.0.0.1:3333", "https://app.example"):
                assert (
                    await api.post(SIGNIN, json=SIGN_IN, headers={"Origin": origin})
                ).status_code == 202

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://localhost", "localhost"),
            ("http://localhost", "localhost:80"),
            ("http://localhost:80", "localhost"),
            ("https://localhost", "localhost:443"),
            ("HTTP://LOCALHOST:3333", "localhost:3333"),
            ("http://[::1]:3333", "[::1]:3333"),
            ("http://[::1]", "[::1]:80"),
            ("http://localhost.:3333", "localhost.:3333"),
        ],
    )
    async def test_an_origin_and_a_host_that_are_the_same(
        self, settings: ServiceSettings, origin: str, host: str
    ) -> None:
        for changes in ({}, {"open": True}):
            async with open_api(settings, **changes) as api:
                headers = {"Origin": origin, "Host": host}
                assert (await api.post(SIGNIN, json=SIGN_IN, headers=headers)).status_code == 202

    async def test_open_to_the_world_any_host_will_do_but_not_any_origin(
        self, settings: ServiceSettings
    ) -> None:
        async with open_api(settings, host="0.0.0.0", allow_anonymous=True) as api:
            headers = {"Host": "jobs.example"}
            assert (await api.post(SIGNIN, json=SIGN_IN, headers=headers)).status_code == 202
            problem(
                await api.post(
                    SIGNIN, json=SIGN_IN, headers=headers | {"Origin": "https://evil.example"}
                ),
                403,
            )
            assert (
                await api.post(
                    SIGNIN, json=SIGN_IN, headers=headers | {"Origin": "https://jobs.example"}
                )
            ).status_code == 202

    async def test_with_tokens_it_does_not_matter(self, both: httpx.AsyncClient) -> None:
        headers = API | {"Host": "jobs.example", "Origin": "https://other.example"}
        assert (await both.post(SIGNIN, json=SIGN_IN, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    "name", ["Host", "Authorization", "Content-Type", "Content-Length", "Idempotency-Key", "Origin"]
)
async def test_a_header_that_is_there_twice_is_refused(
    settings: ServiceSettings, name: str
) -> None:
    fine = {
        "Host": "127.0.0.1:3333",
        "Authorization": f"Bearer {ADMIN_TOKEN}",
        "Content-Type": "application/json",
        "Content-Length": "2",
        "Idempotency-Key": "k",
        "Origin": "http://127.0.0.1:3333",
    }
    for changes in ({}, {"open": True}, {"api_tokens": (API_TOKEN,)}):
        async with open_api(settings, **changes) as api:
            for method, path in (
                ("POST", SIGNIN),
                ("POST", "/api/jobs"),
                ("GET", "/api/admin/queues"),
                ("GET", "/healthz"),
            ):
                headers = [(key, value) for key, value in fine.items() if key != name] + [
                    (name, fine[name]),
                    (name.lower(), "x"),
                ]
                for twice in (headers, [*headers[:-1], headers[-2]], headers[::-1]):
                    refused = await api.request(method, path, content=b"{}", headers=twice)
                    assert f"The header {name} is there twice" in problem(refused, 400)["error"]


class TestCors:
    ASKING: ClassVar = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }

    async def test_is_off(self, both: httpx.AsyncClient) -> None:
        response = await both.options(SIGNIN, headers=self.ASKING)
        assert not [name for name in response.headers if name.startswith("access-control")]

    async def test_is_on_for_those_that_are_named(self, settings: ServiceSettings) -> None:
        async with open_api(
            settings, api_tokens=(API_TOKEN,), cors_origins=("https://app.example",)
        ) as api:
            response = await api.options(SIGNIN, headers=self.ASKING)
            assert response.headers["access-control-allow-origin"] == "https://app.example"
            response = await api.post(
                SIGNIN, json=SIGN_IN, headers=API | {"Origin": "https://app.example"}
            )
            assert response.headers["access-control-allow-origin"] == "https://app.example"
            response = await api.post(
                SIGNIN, json=SIGN_IN, headers=API | {"Origin": "https://other.example"}
            )
            assert "access-control-allow-origin" not in response.headers


async def test_no_token_is_in_any_log(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_api(settings, api_tokens=(API_TOKEN,)) as api:
        await api.get("/api/admin/queues", headers=ADMIN)
        await api.get("/api/admin/queues", headers=API)
        await api.get("/api/admin/queues", headers={"Authorization": "Bearer mistaken-secret"})
    for secret in (ADMIN_TOKEN, API_TOKEN, "mistaken-secret"):
        assert secret not in caplog.text


async def test_refusals_and_actions_of_admins_are_logged_with_who_and_without_the_token(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_api(settings, api_tokens=(API_TOKEN,)) as api:
        await api.post("/api/admin/queues/mail/pause", headers=ADMIN)
        await api.delete("/api/admin/dlq/j%2F1", headers=ADMIN)
        await api.delete("/api/admin/dlq/j1", headers=API)
        await api.get("/api/admin/queues", headers={"Authorization": "Bearer mistaken-secret"})
        await api.get("/api/admin/queues")
        email = {
            "type": "email.custom",
            "payload": {"to": "a@example.com", "subject": "s", "body": "b"},
        }
        await api.post("/api/jobs/bulk", json={"jobs": [email, email]}, headers=ADMIN)
    told = [vars(record) for record in caplog.records if record.name == "pgqueue_service.api.auth"]
    mine, theirs = (sha256(token.encode()).hexdigest()[:8] for token in (ADMIN_TOKEN, API_TOKEN))
    assert [
        (one["event"], one.get("status"), one["method"], one["path"], one["token"]) for one in told
    ] == [
        ("api.admin", None, "POST", "/api/admin/queues/mail/pause", mine),
        ("api.admin", None, "DELETE", "/api/admin/dlq/j%2F1", mine),
        ("api.refused", 403, "DELETE", "/api/admin/dlq/j1", theirs),
        ("api.refused", 401, "GET", "/api/admin/queues", "unknown"),
        ("api.refused", 401, "GET", "/api/admin/queues", "none"),
        ("api.admin", None, "POST", "/api/jobs/bulk", mine),
    ]
    assert {one["remote"] for one in told} == {"127.0.0.1"}
    assert told[1]["jobId"] == "j/1"
    assert not [
        secret for secret in (ADMIN_TOKEN, API_TOKEN, "mistaken-secret") if secret in caplog.text
    ]


async def test_a_page_of_another_site_is_refused_in_the_log_too(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_api(settings) as api:
        problem(await api.post(SIGNIN, json=SIGN_IN, headers={"Host": "evil.example"}), 403)
    (told,) = [
        vars(record) for record in caplog.records if record.name == "pgqueue_service.api.auth"
    ]
    assert (told["event"], told["status"], told["path"]) == ("api.refused", 403, SIGNIN)
