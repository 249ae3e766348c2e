"""The HTTP service for tests, in this process and without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pgqueue_service.app import create_app
from pgqueue_service.settings import ServiceSettings

from tests.support.logins import url_of

ADMIN_TOKEN = "an-admin-token"
API_TOKEN = "an-api-token"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
API = {"Authorization": f"Bearer {API_TOKEN}"}

SIGN_IN = {"userId": "u1", "email": "someone@example.com", "name": "Болд"}
SIGNIN = "/api/jobs/signin-notification"


@asynccontextmanager
async def open_api(settings: ServiceSettings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service. Unless told otherwise admin routes take ADMIN, and sign-ins are
    open."""
    mine = settings.with_(database_url=url_of("queue_api", settings.database_url))
    app = create_app(mine.with_(**{"admin_tokens": (ADMIN_TOKEN,), **changes}))
    transport = httpx.ASGITransport(app)
    async with (
        app.lifespan(),
        httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:3333", timeout=30
        ) as client,
    ):
        yield client


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that the response is, which must have that status and all that every problem
    has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["detail"] == body["error"] == body["message"]
    assert body["title"]
    return body
