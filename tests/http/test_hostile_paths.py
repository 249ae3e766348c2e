"""R15: every hostile text in every query, path and header."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support import hostile
from tests.support.api import SIGN_IN, SIGNIN
from tests.support.factories import value
from tests.support.hostile import (
    TEXTS,
    clearly_refused,
    dead,
    everything,
    no_header_was_split,
    target,
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with target(settings) as client:
        yield client


@pytest.mark.parametrize(
    "parameter", ["type", "userId", "error", "since", "until", "cursor", "limit"]
)
async def test_a_query(api: httpx.AsyncClient, connection: Connection, parameter: str) -> None:
    await dead(connection)
    before = await everything(connection)
    for name, text in TEXTS.items():
        encoded = quote(text.encode("utf-8", "surrogatepass"), safe="")
        for path in ("/api/admin/dlq", "/api/admin/dlq/list"):
            response = await api.get(f"{path}?{parameter}={encoded}")
            no_header_was_split(response)
            if text == "":
                assert response.json()["count"] == 1
            elif parameter in ("type", "userId", "error") and hostile.storable(text):
                assert (
                    response.status_code,
                    response.json()["count"],
                    response.json()["total"],
                ) == (200, 0, 0), name
            elif "\ud800" in text and parameter in ("type", "userId", "error"):
                assert response.status_code in (200, 400)
            else:
                clearly_refused(response, 400)
    assert await everything(connection) == before


SEGMENTS = [
    ("GET", "/api/jobs/{}"),
    ("DELETE", "/api/jobs/{}"),
    ("POST", "/api/admin/dlq/retry/{}"),
    ("DELETE", "/api/admin/dlq/{}"),
]


@pytest.mark.parametrize(("method", "path"), SEGMENTS)
async def test_an_id_in_a_path(
    api: httpx.AsyncClient, connection: Connection, method: str, path: str
) -> None:
    await dead(connection)
    before = await everything(connection)
    for text in [*TEXTS.values(), hostile.NOISE]:
        response = await api.request(
            method, path.format(quote(text.encode("utf-8", "surrogatepass"), safe=""))
        )
        no_header_was_split(response)
        clearly_refused(response, 404, *([405] if text == "" else []))
    assert await everything(connection) == before


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_the_name_of_a_queue(
    api: httpx.AsyncClient, connection: Connection, verb: str
) -> None:
    takes = hostile.identifying(255)
    for name, text in TEXTS.items():
        before = await everything(connection)
        response = await api.post(
            f"/api/admin/queues/{quote(text.encode('utf-8', 'surrogatepass'), safe='')}/{verb}"
        )
        if takes(text):
            assert (response.status_code, response.json()["queue"]) == (200, text)
        else:
            clearly_refused(response, 400, *([404] if text == "" else []))
            assert await everything(connection) == before, name


IGNORED = ["User-Agent", "Accept", "Accept-Language", "Cookie", "Referer", "X-Forwarded-For",
           "X-Request-Id", "Forwarded", "Range",
           "If-None-Match", "Traceparent", "Content-Encoding", "X-HTTP-Method-Override",
           "X-Original-URL"]  # fmt: skip


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class TestHeaders:
    async def test_idempotency_key(self, api: httpx.AsyncClient, connection: Connection) -> None:
        for name, text in TEXTS.items():
            before = await everything(connection)
            response = await api.post(SIGNIN, json=SIGN_IN, headers={b"Idempotency-Key": raw(text)})
            no_header_was_split(response)
            if hostile.identifying(255, optional=True)(text.strip()):
                assert response.status_code == 202, (name, response.text)
                assert text.strip() in ("", response.json()["jobId"])
            else:
                clearly_refused(response, 400)
                assert await everything(connection) == before, name

    async def test_authorization(self, api: httpx.AsyncClient, connection: Connection) -> None:
        before = await everything(connection)
        for text in TEXTS.values():
            for prefix in (b"", b"Bearer ", b"bearer ", b"Basic "):
                response = await api.post(
                    "/api/admin/queues/q/pause", headers={b"Authorization": prefix + raw(text)}
                )
                clearly_refused(response, 401)
        assert await everything(connection) == before

    @pytest.mark.parametrize(
        ("header", "status"), [("Host", 403), ("Origin", 403), ("Content-Type", 415)]
    )
    async def test_headers_that_decide(
        self, api: httpx.AsyncClient, connection: Connection, header: str, status: int
    ) -> None:
        for text in TEXTS.values():
            if header == "Origin" and text == "":
                continue  # that is none
            headers = {b"Content-Type": b"application/json", header.encode(): raw(text)}
            response = await api.post(SIGNIN, content=json.dumps(SIGN_IN), headers=headers)
            no_header_was_split(response)
            clearly_refused(response, status)
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    @pytest.mark.parametrize("header", IGNORED)
    async def test_headers_that_do_not(self, api: httpx.AsyncClient, header: str) -> None:
        for text in TEXTS.values():
            response = await api.post(SIGNIN, json=SIGN_IN, headers={header.encode(): raw(text)})
            no_header_was_split(response)
            assert response.status_code == 202, response.text
