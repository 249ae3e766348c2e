"""The worker as operators run it: a process that is started, told to stop, killed, and deprived of
its database."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.database.job_types import declarations, publish
from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.job import NewJob
from pgqueue.settings import Settings
from tests.support import tasks
from tests.support.factories import sql, the_job
from tests.support.processes import a_worker, ended, log_lines, words
from tests.support.scene import until

Connection = AsyncConnection[Any]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    all_of_them = [tasks.noting, tasks.sleeping, tasks.blocking, tasks.killing]
    await publish(connection, declarations(all_of_them, settings))
    async with AsyncClient.open(settings) as opened:
        yield opened


async def is_(client: AsyncClient, job_id: str, status: str) -> bool:
    return (await client.get(job_id)).status == status


async def test_it_performs_jobs_and_ends_with_0_on_sigterm(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger) as worker:
        await client.enqueue(tasks.noting, {}, job_id="j")
        await until(lambda: is_(client, "j", "completed"))
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert code == 0
    assert words(ledger) == ["note j"]
    lines = [json.loads(line) for line in log.splitlines()]
    messages = [line["message"] for line in lines]
    assert any(
        message.startswith("pgqueue worker") and "started" in message for message in messages
    )
    assert "Processing job j (Attempt 1/5)" in messages
    completed = next(line for line in lines if line["event"] == "job.completed")
    assert completed["message"] == f"Job j completed in {completed['duration']}ms"
    assert (
        completed["jobId"],
        completed["status"],
        completed["attemptCount"],
        completed["level"],
    ) == (
        "j",
        "completed",
        1,
        "info",
    )
    assert messages[-1] == "stopped"


async def test_its_registry_entry_comes_and_goes(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, "--queue", "a:3", "--queue", "b:1") as worker:
        await until(lambda: _registered(connection))
        (row,) = await sql(connection, "SELECT * FROM job_workers")
        worker.send_signal(signal.SIGINT)
        assert (await ended(worker, ledger))[0] == 0
    assert (row["kind"], row["pid"], row["queues"]) == ("worker", worker.pid, {"a": 3, "b": 1})
    assert set(row["types"]) == {
        "test.note",
        "test.sleep",
        "test.block",
        "test.kill",
        "test.transaction",
    }
    assert await sql(connection, "SELECT 1 FROM job_workers") == []


async def test_a_health_port_that_is_taken_is_refused_with_2(
    database_url: str, ledger: Path
) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        async with a_worker(database_url, ledger, "--health-port", str(port)) as worker:
            code, said = await ended(worker, ledger)
    assert (code, f"cannot listen on port {port} for /healthz and /readyz" in said) == (2, True), (
        said
    )
    assert "Address already in use" in said


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
async def test_a_health_port_that_is_none_is_refused_with_2(
    database_url: str, ledger: Path, port: str
) -> None:
    async with a_worker(database_url, ledger, "--health-port", port) as worker:
        code, said = await ended(worker, ledger)
    assert (code, "--health-port" in said) == (2, True), said


async def _registered(connection: Connection) -> bool:
    return bool(await sql(connection, "SELECT 1 FROM job_workers"))


async def test_on_sigterm_running_jobs_get_the_timeout_and_the_rest_goes_back(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with a_worker(
        database_url, ledger, "--shutdown-timeout", "1s", "--queue", "default:3"
    ) as worker:
        for job_id, kind, seconds in [
            ("short", tasks.sleeping, 0.6),
            ("long", tasks.sleeping, 60),
            ("thread", tasks.blocking, 60),
        ]:
            await client.enqueue(kind, {"seconds": seconds}, job_id=job_id)
        await client.enqueue(tasks.noting, {}, job_id="waiting")
        await until(lambda: len(words(ledger)) >= 3)
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert code == 0
    assert await is_(client, "short", "completed")
    for job_id in ("long", "thread"):
        row = await the_job(connection, job_id)
        assert (row["status"], row["attempt_count"], row["lease_until"]) == ("enqueued", 0, None)
    assert await is_(client, "waiting", "enqueued")
    assert "given back: the worker stops" in log


async def test_a_second_signal_ends_it_at_once_with_1(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger) as worker:
        await client.enqueue(tasks.sleeping, {"seconds": 60}, job_id="j")
        await until(lambda: words(ledger) == ["start j"])
        worker.send_signal(signal.SIGTERM)
        await until(lambda: any(line["event"] == "worker.stopping" for line in log_lines(ledger)))
        worker.send_signal(signal.SIGTERM)
        assert (await ended(worker, ledger))[0] == 1


async def test_a_killed_worker_s_jobs_start_again_on_another(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger) as first:
        await client.enqueue(tasks.sleeping, {"seconds": 60}, job_id="held")
        await until(lambda: words(ledger) == ["start held"])
        first.send_signal(signal.SIGKILL)
        await ended(first, ledger)
        async with a_worker(database_url, ledger):
            await until(lambda: words(ledger) == ["start held", "start held"])
    row = await the_job(connection, "held")
    assert (row["attempt_count"], row["lease"]) == (2, 2)
    assert "The lease of attempt 1 ran out" in row["history"][0]["error"]


async def test_a_job_that_kills_its_worker_is_dead_after_five_starts_and_takes_nobody_with_it(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    """Whoever was in the same process burned attempts too; groups that shrink keep that below
    five."""
    await client.enqueue_many([NewJob(tasks.noting, {}, f"good-{n}") for n in range(200)])
    await client.enqueue(tasks.killing, {}, job_id="killer")
    await client.enqueue_many(
        [NewJob(tasks.sleeping, {"seconds": 0.3}, f"slow-{n}") for n in range(20)]
    )
    stop = asyncio.Event()

    async def keep_one_running() -> None:
        while not stop.is_set():
            async with a_worker(database_url, ledger, "--queue", "default:300") as worker:
                gone = asyncio.create_task(worker.wait())
                told = asyncio.create_task(stop.wait())
                await asyncio.wait({gone, told}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                told.cancel()

    keeper = asyncio.create_task(keep_one_running())
    await until(lambda: is_(client, "killer", "dlq"), 60)
    await until(lambda: _ended(connection, 221), 60)
    stop.set()
    await keeper
    assert words(ledger).count("kill killer") == 5
    rows = await sql(
        connection, "SELECT job_id, status, error FROM job_logs WHERE status <> 'completed'"
    )
    assert [row["job_id"] for row in rows] == ["killer"]
    assert "The lease of attempt 5 ran out" in rows[0]["error"]


async def _ended(connection: Connection, count: int) -> bool:
    (row,) = await sql(
        connection, "SELECT count(*) AS n FROM job_logs WHERE processed_at IS NOT NULL"
    )
    return bool(row["n"] == count)


async def test_it_survives_a_restart_of_the_database(ledger: Path, settings: Settings) -> None:
    """Stopped hard while a job runs and others wait: the process stays, its job is acked, and
    nothing is lost."""
    with EmbeddedServer() as server:
        url = server.url()
        await migrate(url)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await publish(connection, declarations([tasks.noting, tasks.sleeping], settings))
        async with a_worker(url, ledger, PGQUEUE_LEASE="5s") as worker:
            async with AsyncClient.open(url) as client:
                await client.enqueue(tasks.sleeping, {"seconds": 1}, job_id="running")
                await until(lambda: words(ledger) == ["start running"])
            server.restart("immediate")
            async with AsyncClient.open(url) as client:
                await client.enqueue_many([NewJob(tasks.noting, {}, f"j{n}") for n in range(50)])
                await until(lambda: len(words(ledger)) >= 52, 30)
                await until(lambda: is_(client, "running", "completed"))
                assert (await client.get("running")).attempt_count == 1
            assert worker.returncode is None
            worker.send_signal(signal.SIGTERM)
            assert (await ended(worker, ledger))[0] == 0
    assert sorted(words(ledger)) == sorted(
        ["start running", "end running", *(f"note j{n}" for n in range(50))]
    )


async def test_it_goes_on_after_its_connections_were_terminated(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, PGQUEUE_LEASE="5s") as worker:
        for turn in range(5):
            await client.enqueue_many(
                [NewJob(tasks.noting, {}, f"j{turn}-{n}") for n in range(100)]
            )
            await sql(
                connection,
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name LIKE 'pgqueue %' AND datname = current_database()""",
            )
            done = (turn + 1) * 100
            await until(lambda done=done: _ended(connection, done), 40)
        assert worker.returncode is None
    (row,) = await sql(
        connection,
        "SELECT count(*) AS n, max(attempt_count) AS most FROM job_logs WHERE status = 'completed'",
    )
    assert row["n"] == 500
    assert row["most"] == 1, "a claim whose reply was lost burns no attempt"


async def test_a_second_machine_s_worker_joins(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with (
        a_worker(database_url, ledger, "--queue", "default:2"),
        a_worker(database_url, ledger, "--queue", "default:2"),
    ):
        await client.enqueue_many(
            [NewJob(tasks.sleeping, {"seconds": 0.05}, f"j{n}") for n in range(60)]
        )
        await until(lambda: _ended(connection, 60))
    rows = await sql(connection, "SELECT locked_by, count(*) AS n FROM job_logs GROUP BY locked_by")
    assert len(rows) == 2
    assert len([word for word in words(ledger) if word.startswith("start")]) == 60


async def test_health_tells_whether_it_hears_from_the_database(
    database_url: str, ledger: Path, client: AsyncClient
) -> None:
    async with a_worker(
        database_url, ledger, "--health-port", "0", PGQUEUE_LOG_LEVEL="info"
    ) as worker:
        await until(lambda: any("port" in line for line in log_lines(ledger)))
        port = next(line["port"] for line in log_lines(ledger) if "port" in line)
        assert worker.returncode is None
        assert await _get(port, "/healthz") == "200"
        await until(lambda: _answers(port, "/readyz", "200"))
        assert await _get(port, "/nothing") == "404"


async def _answers(port: int, path: str, status: str) -> bool:
    return await _get(port, path) == status


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.split()[1].decode()


MAIL = {
    "PGQUEUE_MODULES": "pgqueue_service.notifications",
    "MAIL_TRANSPORT": "smtp",
    "SMTP_HOST": "mail.example.com",
    "MAIL_FROM": "a@example.com",
}


@pytest.mark.parametrize(
    ("environment", "arguments", "code", "sentence"),
    [
        ({"DATABASE_URL": ""}, [], 2, "DATABASE_URL is not set"),
        ({"PGQUEUE_LEASE": "soon"}, [], 2, "PGQUEUE_LEASE: not a duration"),
        (
            {"PGQUEUE_MODULES": "no.such"},
            [],
            1,
            "task module no.such cannot be imported: it was not found",
        ),
        ({"PGQUEUE_MODULES": "tests.support.factories"}, [], 2, "holds no task"),
        ({}, ["--queue", "default:none"], 2, "a queue is NAME:CONCURRENCY"),
        (
            {"PGQUEUE_MODULES": "pgqueue_service.notifications", "SMTP_HOST": "mail.example.com"},
            [],
            2,
            "MAIL_TRANSPORT is not",
        ),
        (MAIL | {"SMTP_HOST": "mail.example.com:2525"}, [], 2, "SMTP_PORT=2525"),
        (MAIL | {"SMTP_HOST": "smtp://mail.example.com"}, [], 2, "not a URL"),
        (MAIL | {"SMTP_PORT": "465", "SMTP_SECURE": "starttls"}, [], 2, "SMTP_PORT=465"),
        (
            MAIL | {"MAIL_FROM": "x" * 1500 + " <a@example.com>"},
            [],
            2,
            "MAIL_FROM: a sender's name",
        ),
        (MAIL | {"MAIL_FROM": "a@example.com, b@example.com"}, [], 2, "MAIL_FROM: not a sender"),
    ],
)
async def test_wrong_settings_end_it_with_a_sentence(
    database_url: str,
    ledger: Path,
    environment: dict[str, str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    async with a_worker(database_url, ledger, *arguments, **environment) as worker:
        answer = await ended(worker, ledger)
    assert answer[0] == code
    assert sentence in answer[1]


async def test_the_first_line_names_the_mail_transport(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(
        database_url, ledger, PGQUEUE_MODULES="pgqueue_service.notifications", MAIL_TRANSPORT="log"
    ) as worker:
        await until(lambda: any(line["event"] == "worker.started" for line in log_lines(ledger)))
        assert worker.returncode is None
    started = next(line for line in log_lines(ledger) if line["event"] == "worker.started")
    assert started["message"].endswith("; mail by log")


async def test_a_database_without_a_schema_ends_it_with_1(
    empty_database_url: str, ledger: Path
) -> None:
    async with a_worker(empty_database_url, ledger) as worker:
        code, log = await ended(worker, ledger)
    assert code == 1
    assert "run pgqueue migrate" in log
