"""Routes that a task module brings: what holds for the service's own routes holds for them."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from pgqueue_service.app import create_app
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue.errors import TaskError
from tests.support.api import ADMIN, API, API_TOKEN, SIGN_IN, SIGNIN, open_api, problem
from tests.support.factories import a_job, the_job, value

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

SHOP = ("tests.support.tasks.shop",)
ORDERS = "/api/shop/orders"
ORDER = {"customer": "c1", "item": "bread"}


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(settings, modules=SHOP, api_tokens=(API_TOKEN,)) as client:
        yield client


async def test_a_job_is_enqueued_by_the_rules_of_the_module(
    api: httpx.AsyncClient, connection: AsyncConnection[Any]
) -> None:
    answer = await api.post(ORDERS, json=ORDER | {"howMany": 3}, headers=API)
    assert (answer.status_code, answer.json()) == (
        202,
        {"message": "Order enqueued", "jobId": "order-c1", "status": "enqueued"},
    )
    row = await the_job(connection, "order-c1")
    assert (row["job_type"], row["user_id"]) == ("shop.order", "c1")
    assert row["payload"] == {"customer": "c1", "item": "bread", "count": 3}


async def test_its_rules_hold_on_the_general_route_and_in_bulk_too(
    api: httpx.AsyncClient, connection: AsyncConnection[Any]
) -> None:
    job = {"type": "shop.order", "payload": {"customer": "c1", "item": "", "colour": "red"}}
    refused = problem(await api.post("/api/jobs", json=job, headers=API), 400)
    assert refused["error"] == "An order needs an item"
    job["payload"] = {**ORDER, "colour": "red"}
    assert (await api.post("/api/jobs", json=job, headers=API)).json()["jobId"] == "order-c1"
    assert (await the_job(connection, "order-c1"))["payload"] == ORDER | {"count": 1}
    many = {"jobs": [{**job, "jobId": "another"}]}
    (result,) = (await api.post("/api/jobs/bulk", json=many, headers=API)).json()["results"]
    assert (result["code"], result["error"]) == (429, "One order an hour, please.")


async def test_the_limit_of_its_type_is_answered_in_its_words(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    assert (await api.post(ORDERS, json=ORDER, headers=API | key)).json()["jobId"] == "one"
    refused = await api.post(ORDERS, json=ORDER, headers=API | {"Idempotency-Key": "two"})
    assert problem(refused, 429)["error"] == "One order an hour, please."
    assert 3500 < int(refused.headers["retry-after"]) <= 3600


async def test_its_guards_are_asked_first(api: httpx.AsyncClient) -> None:
    nonsense = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    assert problem(await api.post(ORDERS, **nonsense), 401)["error"] == "A valid token is required"
    assert problem(await api.get("/api/shop/desk", headers=API), 403)
    assert (await api.get("/api/shop/desk", headers=ADMIN)).json() == {"desk": "staffed"}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"customer": "c1", "item": "a", "item": "b"}', "The body is not valid JSON: an object"),
        (b'{"customer": "c1", "item": "a", "howMany": "3"}', "howMany: expected `int`"),
        (b'{"customer": "c1", "item": "a", "howmany": 3}', "did you mean howMany?"),
        (b'{"customer": "c1"}', "Missing required field: item"),
        (b"[]", "The body must be a JSON object"),
        (b"", "The request has no body"),
    ],
)
async def test_its_bodies_are_decoded_strictly(
    api: httpx.AsyncClient, body: bytes, sentence: str
) -> None:
    headers = API | {"Content-Type": "application/json"}
    refused = problem(await api.post(ORDERS, content=body, headers=headers), 400)
    assert sentence in refused["error"]


async def test_a_body_that_does_not_say_that_it_is_json(api: httpx.AsyncClient) -> None:
    problem(await api.post(ORDERS, content=b"{}", headers=API), 415)


async def test_a_body_that_is_too_large(api: httpx.AsyncClient) -> None:
    problem(await api.post(ORDERS, json=ORDER | {"item": "x" * 70_000}, headers=API), 413)


async def test_its_deadline_holds_when_the_database_does_not_answer(
    settings: ServiceSettings, database_url: str
) -> None:
    soon = settings.with_(modules=SHOP, request_timeout=timedelta(seconds=0.5))
    async with open_api(soon) as api, await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("LOCK TABLE job_logs IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        answer = await api.post(ORDERS, json=ORDER, headers=ADMIN)
        assert time.monotonic() - started < 3
        assert problem(answer, 503)["error"] == "Failed to enqueue job"


async def test_it_is_in_the_description_with_its_body_and_its_errors(
    api: httpx.AsyncClient,
) -> None:
    operation = (await api.get("/schema/openapi.json")).json()["paths"][ORDERS]["post"]
    assert operation["description"] == "Enqueue an order."
    assert operation["security"] == [{"bearer": []}]
    assert {"202", "400", "401", "429", "503"} <= set(operation["responses"])
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["customer"]["maxLength"] == 50
    assert body["required"] == ["customer", "item"]
    assert [one["name"] for one in operation["parameters"]] == ["Idempotency-Key"]


async def test_a_job_may_be_called_like_one_of_its_routes(
    api: httpx.AsyncClient, connection: AsyncConnection[Any]
) -> None:
    await a_job(connection, job_id="shop-order")
    answer = await api.get("/api/jobs/shop-order", headers=API)
    assert answer.json()["jobId"] == "shop-order"
    await api.delete("/api/jobs/shop-order", headers=API)
    assert (await the_job(connection, "shop-order"))["status"] == "cancelled"


async def test_a_route_without_a_guard_stops_the_start(settings: ServiceSettings) -> None:
    open_door = settings.with_(modules=("tests.support.tasks.unguarded",))
    with pytest.raises(TaskError, match="the route /api/open-door has no guard"):
        create_app(open_door)


async def test_two_modules_that_bring_the_same_route_stop_the_start(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.tasks import shop

    monkeypatch.setattr(shop, "routes", [shop.place_order, shop.place_order])
    with pytest.raises(TaskError, match="routes of the task modules cannot be served"):
        create_app(settings.with_(modules=SHOP))


async def test_routes_that_no_module_brings_are_not_there(
    api: httpx.AsyncClient, connection: AsyncConnection[Any]
) -> None:
    problem(await api.post(SIGNIN, json=SIGN_IN, headers=API), 405)
    problem(await api.post("/api/admin/send-email", json={}, headers=ADMIN), 404)
    assert await value(connection, "SELECT count(*) FROM job_logs") == 0


def test_a_worker_runs_the_tasks_without_loading_litestar() -> None:
    code = (
        "import sys; from pgqueue.discovery import load_tasks; "
        "load_tasks(['pgqueue_service.notifications']); "
        "print([name for name in ('litestar', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
