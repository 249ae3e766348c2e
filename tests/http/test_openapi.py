"""The description of the interface: true to the routes, and its page needs nobody else."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import httpx
import pytest
from pgqueue_service.settings import ServiceSettings

from tests.support.api import SIGN_IN, SIGNIN, open_api

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings) as client:
        yield client


@pytest.fixture
async def schema(api: httpx.AsyncClient) -> dict[str, Any]:
    response = await api.get("/schema/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


async def test_it_is_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    assert schema["info"]["title"] == "pgqueue"


async def test_every_error_is_described_as_a_problem(schema: dict[str, Any]) -> None:
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    (content,) = response["content"].items()
                    assert content == (
                        "application/problem+json",
                        {"schema": {"$ref": "#/components/schemas/Problem"}},
                    )
                else:
                    assert response["content"]["application/json"]["schema"], (method, path)


async def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for inner in value.values() for one in references(inner)]
        return (
            [one for inner in value for one in references(inner)] if isinstance(value, list) else []
        )

    for reference in references(schema):
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"]


async def test_bodies_are_described(schema: dict[str, Any]) -> None:
    for path in (
        SIGNIN,
        "/api/jobs",
        "/api/jobs/bulk",
        "/api/admin/send-email",
        "/api/admin/dlq/retry-batch",
    ):
        body = schema["paths"][path]["post"]["requestBody"]
        assert body["required"]
        assert body["content"]["application/json"]["schema"]["properties"]
    shape = schema["paths"][SIGNIN]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert shape["required"] == ["userId", "email", "name"]
    assert set(SIGN_IN) <= set(shape["properties"])


async def test_answers_have_the_members_that_are_described(
    api: httpx.AsyncClient, schema: dict[str, Any]
) -> None:
    job_id = (await api.post(SIGNIN, json=SIGN_IN)).json()["jobId"]
    answer = (await api.get(f"/api/jobs/{job_id}")).json()
    assert set(schema["components"]["schemas"]["JobState"]["required"]) == set(answer)


class Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "spec-url", "action", "data")
        ]


async def test_the_page_loads_nothing_from_another_host(api: httpx.AsyncClient) -> None:
    page = await api.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    sources = Sources()
    sources.feed(page.text)
    assert sorted(sources.found) == ["/schema/openapi.json", "/schema/rapidoc.js", "data:,"]
    assert not re.search(r"https?:|//", page.text)
    # Whatever the script would like to load, the browser is told not to.
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)
    assert 'load-fonts="false"' in page.text
    for source in sources.found:
        if source.startswith("/"):
            assert (await api.get(source)).status_code == 200


async def test_the_script_is_ours_to_give_away(api: httpx.AsyncClient) -> None:
    script = await api.get("/schema/rapidoc.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "max-age" in script.headers["cache-control"]
    assert (
        "MIT License"
        in files("pgqueue_service.api.openapi").joinpath("rapidoc.LICENSE.txt").read_text()
    )
