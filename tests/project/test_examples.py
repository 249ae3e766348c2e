"""Every file in examples/ runs against a real Postgres and does what the pages say."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from pgqueue import Status
from pgqueue.settings import Settings
from pgqueue.task import Task
from pgqueue.testing import run
from tests.conftest import Server
from tests.http.test_api_process import environment, running
from tests.support.api import ADMIN, open_api, problem
from tests.support.factories import a_job, sql, the_job, value
from tests.support.logins import url_of
from tests.support.places import ROOT
from tests.support.scene import published, until, working

pytestmark = pytest.mark.anyio

Connection = AsyncConnection[Any]

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def examples_are_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def task_of(module: str, name: str) -> Task[Any]:
    found = getattr(import_module(module), name)
    assert isinstance(found, Task)
    return found


async def printed(*command: str, **variables: str) -> str:
    """Runs a program in examples/; what it printed. It must exit with 0."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=EXAMPLES, env={**os.environ, **variables}, stdout=PIPE, stderr=STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def script(file: str, settings: Settings, **variables: str) -> str:
    return await printed(sys.executable, file, DATABASE_URL=str(settings.database_url), **variables)


async def is_completed(connection: Connection, job_id: str) -> bool:
    return str((await the_job(connection, job_id))["status"]) == "completed"


async def test_jobs_that_a_script_enqueues_are_performed(
    settings: Settings, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    resize = task_of("images", "resize")
    await published(connection, settings, resize)
    out = await script("enqueue.py", settings)
    assert out.splitlines() == [
        "img-1 enqueued",
        "100 more",
        "Job ID already used with another payload: img-1",
        "enqueued 0 None",
    ]
    async with working(settings, resize):
        await until(lambda: is_completed(connection, "img-1"))
    assert "resizing a.png to 200 pixels" in capsys.readouterr().out
    later = await sql(
        connection, "SELECT priority FROM job_logs WHERE run_after > now() + interval '9 min'"
    )
    assert [row["priority"] for row in later] == [0]


async def test_a_program_that_awaits_enqueues(settings: Settings, connection: Connection) -> None:
    await published(connection, settings, task_of("images", "resize"))
    assert await script("enqueue_async.py", settings) == "img-2 enqueued\n"


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("transaction_psycopg.py", "b.png"),
        ("transaction_async.py", "b.png"),
        ("transaction_sqlalchemy.py", "c.png"),
        ("transaction_django.py", "d.png"),
    ],
)
async def test_a_job_is_stored_with_the_row_of_the_application(
    file: str, image: str, settings: Settings, connection: Connection
) -> None:
    await published(connection, settings, task_of("images", "resize"))
    await connection.execute("CREATE TABLE images (name text)")
    await connection.execute("GRANT INSERT ON images TO PUBLIC")
    await script(file, settings)
    assert await value(connection, "SELECT name FROM images") == image
    assert await value(connection, "SELECT payload->>'image' FROM job_logs") == image


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ("paid", Status.COMPLETED, None),
        ("no such invoice", Status.DLQ, "does not know"),
        ("busy", Status.FAILED, "busy"),
        ("closed", Status.ENQUEUED, None),
        ("out of order", Status.ENQUEUED, None),
        ("a bug", Status.FAILED, "unexpected answer"),
    ],
)
async def test_every_ending_gives_the_status_that_its_comment_says(
    answer: str, status: Status, error: str | None
) -> None:
    collect = task_of("endings", "collect")
    outcome = await run(collect, {"invoice": "7", "answer": answer})
    assert outcome.status is status
    assert error is None or error in str(outcome.error)


async def test_a_snoozed_attempt_does_not_count() -> None:
    report = task_of("endings", "report")
    assert (await run(report, {"day": "2100-01-01T00:00:00Z"})).status is Status.ENQUEUED
    assert (await run(report, {"day": "2020-01-01T00:00:00Z"})).status is Status.COMPLETED


async def test_the_fourth_job_of_a_user_in_an_hour_is_refused(
    settings: Settings, connection: Connection
) -> None:
    await published(connection, settings, task_of("limits", "export"))
    out = await script("limits.py", settings)
    assert out.startswith("try again in 3")
    assert await value(connection, "SELECT count(*) FROM job_logs") == 3
    assert await value(connection, "SELECT DISTINCT user_id FROM job_logs") == "customer-7"


async def test_a_payment_is_booked_once_and_completes_its_job(
    settings: Settings, connection: Connection
) -> None:
    book = task_of("payments", "book")
    await published(connection, settings, book)
    await connection.execute("CREATE TABLE payments (invoice text)")
    await connection.execute("GRANT INSERT ON payments TO PUBLIC")
    await enqueued(connection, "invoice.book", "book-1", '{"number": "7"}')
    async with working(settings, book):
        await until(lambda: is_completed(connection, "book-1"))
    assert await value(connection, "SELECT invoice FROM payments") == "7"


async def test_an_intended_charge_leaves_a_receipt_with_the_job(
    settings: Settings, connection: Connection
) -> None:
    charge = task_of("payments", "charge")
    await published(connection, settings, charge)
    await enqueued(connection, "invoice.charge", "charge-1", '{"number": "7"}')
    async with working(settings, charge):
        await until(lambda: is_completed(connection, "charge-1"))
    assert (await the_job(connection, "charge-1"))["receipt"] == "receipt 1"


async def test_progress_and_its_note_are_stored(settings: Settings, connection: Connection) -> None:
    resize_album = task_of("progress", "resize_album")
    await published(connection, settings, resize_album)
    await enqueued(connection, "album.resize", "album-1", '{"images": ["a.png", "b.png"]}')
    async with working(settings, resize_album):
        await until(lambda: is_completed(connection, "album-1"))
    job = await the_job(connection, "album-1")
    assert (job["progress"], job["progress_note"]) == (1.0, "b.png done")


async def test_a_plain_function_writes_in_the_transaction_of_its_job(
    settings: Settings, connection: Connection
) -> None:
    import_rows = task_of("plain_functions", "import_rows")
    await published(connection, settings, import_rows)
    await connection.execute("CREATE TABLE imported (line text)")
    await connection.execute("GRANT INSERT ON imported TO PUBLIC")
    await enqueued(connection, "rows.import", "rows-1", '{"rows": ["a", "b"]}')
    async with working(settings, import_rows):
        await until(lambda: is_completed(connection, "rows-1"))
    assert await value(connection, "SELECT count(*) FROM imported") == 2


async def test_a_worker_in_a_program_of_its_own_performs_jobs_until_it_is_stopped(
    settings: Settings, connection: Connection
) -> None:
    await published(connection, settings, task_of("images", "resize"))
    await enqueued(connection, "image.resize", "img-own", '{"image": "a.png", "width": 9}')
    url = url_of("queue_worker", str(settings.database_url))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "own_worker.py",
        cwd=EXAMPLES,
        env={**os.environ, "DATABASE_URL": url},
        stdout=PIPE,
    )
    try:
        await until(lambda: is_completed(connection, "img-own"))
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"ready" in out


async def test_jobs_share_what_the_lifespan_of_their_module_opened(
    settings: Settings, connection: Connection
) -> None:
    resources = import_module("resources")
    await published(connection, settings, resources.warm)
    await enqueued(connection, "page.warm", "page-1", '{"url": "/"}')
    async with working(settings, resources.warm, lifespan=resources.lifespan):
        await until(lambda: is_completed(connection, "page-1"))


async def test_psql_enqueues_and_wakes_the_workers(
    settings: Settings, connection: Connection, database_url: str, pg_server: Server
) -> None:
    await published(connection, settings, task_of("images", "resize"))
    psql = str(pg_server.binaries / "psql")
    url = url_of("queue_api", database_url)
    out = await printed(psql, "-X", "-v", "ON_ERROR_STOP=1", "-f", "enqueue.sql", url, PAGER="")
    assert "img-sql-1 | enqueued | t" in out
    assert (await the_job(connection, "img-sql-1"))["user_id"] == "u1"


async def test_psql_replays_and_cancels(
    connection: Connection, database_url: str, pg_server: Server
) -> None:
    await a_job(connection, job_id="img-1", status="dlq")
    await a_job(connection, job_id="img-2", status="dlq")
    await a_job(connection, job_id="img-3")
    psql = str(pg_server.binaries / "psql")
    url = url_of("queue_api", database_url)
    out = await printed(psql, "-X", "-v", "ON_ERROR_STOP=1", "-f", "replay.sql", url, PAGER="")
    assert out.count("Job enqueued again") == 2
    assert "img-3  | cancelled | t" in out
    assert (await the_job(connection, "img-2"))["payload"]["width"] == 200


async def test_the_tests_of_the_guide_pass(settings: Settings) -> None:
    arguments = ("-m", "pytest", "-p", "no:cacheprovider", "-v", "test_images.py")
    out = await printed(sys.executable, *arguments, DATABASE_URL=str(settings.database_url))
    assert "3 passed" in out


async def test_curl_enqueues_and_asks_for_the_state(
    settings: Settings, connection: Connection, database_url: str
) -> None:
    variables = environment(
        database_url,
        PGQUEUE_MODULES="images",
        PGQUEUE_API_TOKENS="q7Hk-29s_Zx1LmPq",
        PYTHONPATH=str(EXAMPLES),
    )
    async with running(**variables) as api:
        out = await printed("./http_enqueue.sh", API=api.url, TOKEN="q7Hk-29s_Zx1LmPq")
    assert '"jobId":"img-http-1"' in out.replace('": "', '":"')
    assert '"image.resize"' in out
    assert (await the_job(connection, "img-http-1"))["status"] == "enqueued"


async def test_a_sign_in_is_posted_with_the_standard_library(
    connection: Connection, database_url: str
) -> None:
    async with running(**environment(database_url)) as api:
        out = await printed(sys.executable, "http_sign_in.py", API=api.url)
    assert out.startswith("202 {'message': 'Sign-in notification job enqueued'")
    assert await value(connection, "SELECT user_id FROM job_logs") == "u1"


async def test_the_route_of_a_module_enqueues(
    settings: ServiceSettings, connection: Connection
) -> None:
    async with open_api(settings, modules=("shop",)) as api:
        order = {"customer": "c1", "items": ["bread"], "jobId": "order-1"}
        answer = await api.post("/api/shop/orders", json=order, headers=ADMIN)
        assert (answer.status_code, answer.json()["message"]) == (202, "Order enqueued")
        problem(await api.post("/api/shop/orders", json=order), 401)
    assert (await the_job(connection, "order-1"))["payload"] == {
        "customer": "c1",
        "items": ["bread"],
    }


def test_a_strict_type_checker_accepts_the_examples() -> None:
    modules = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases"]
    command += ["--disable-error-code", "import-untyped"]  # Django has no types of its own
    command += [word for module in modules for word in ("-p", module)]
    paths = {"MYPYPATH": f"{EXAMPLES}{os.pathsep}{ROOT / 'service'}"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_example_is_run() -> None:
    here = (files("tests.project") / "test_examples.py").read_text()
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert len(names) > 10
    left_out = [
        name
        for name in names
        if f'"{name}"' not in here
        and f'"./{name}"' not in here
        and f'"{name.removesuffix(".py")}"' not in here
    ]
    assert left_out == []


async def enqueued(connection: Connection, job_type: str, job_id: str, payload: str) -> None:
    await sql(
        connection,
        "SELECT enqueue_job(%s, %s::jsonb, job_id => %s, user_id => 'u1')",
        [job_type, payload, job_id],
    )
