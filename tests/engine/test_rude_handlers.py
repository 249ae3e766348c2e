"""Handlers that are rude to their process: neighbours go on, and the worker stops when it is told
to."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from pgqueue.client import AsyncClient
from pgqueue.database.job_types import declarations, publish
from pgqueue.settings import Settings
from tests.support import tasks
from tests.support.factories import sql, the_job
from tests.support.processes import ROOT, a_worker, ended, env, log_lines, words
from tests.support.scene import until
from tests.support.tasks import rude

Connection = AsyncConnection[Any]
MODULES = {"PGQUEUE_MODULES": "tests.support.tasks,tests.support.tasks.rude"}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
async def client(connection: Connection, settings: Settings) -> Any:
    known = [
        tasks.noting,
        tasks.sleeping,
        rude.rude,
        rude.rude_thread,
        rude.deaf,
        rude.stuck,
        rude.chatty,
    ]
    await publish(connection, declarations(known, settings))
    async with AsyncClient.open(settings) as opened:
        yield opened


async def over(connection: Connection, job_id: str = "j") -> bool:
    return (await the_job(connection, job_id))["status"] in ("completed", "dlq")


async def completed(client: AsyncClient, job_id: str) -> bool:
    return (await client.get(job_id)).status == "completed"


CASES = [("rude", how) for how in rude.RUDE] + [
    ("rude_thread", how) for how in ("fork_and_return", "fork_and_raise")
]


@pytest.mark.parametrize("uvloop", ["on", "off"])
@pytest.mark.parametrize(("kind", "how"), CASES)
async def test_the_worker_lives_and_stops_when_it_is_told_to(
    client: AsyncClient,
    connection: Connection,
    database_url: str,
    ledger: Path,
    kind: str,
    how: str,
    uvloop: str,
) -> None:
    async with a_worker(
        database_url, ledger, "--queue", "default:3", PGQUEUE_UVLOOP=uvloop, **MODULES
    ) as worker:
        await client.enqueue(tasks.sleeping, {"seconds": 0.5}, job_id="running")
        await until(lambda: "start running" in words(ledger))
        await client.enqueue(getattr(rude, kind), {"how": how}, job_id="j")
        await until(lambda: over(connection))
        await until(lambda: completed(client, "running"))
        await client.enqueue(tasks.noting, {}, job_id="next")
        await until(lambda: completed(client, "next"))
        await asyncio.sleep(0.2)
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert code == 0, log
    assert await sql(connection, "SELECT 1 FROM job_workers") == []
    assert words(ledger).count("start running") == 1
    for word in words(ledger):
        if word.startswith("child"):
            await until(
                lambda word=word: left(word.split()[1]), what="the end of a child that came back"
            )


def left(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_handler_that_ignores_that_it_is_cancelled_is_given_back(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, "--shutdown-timeout", "500ms", **MODULES) as worker:
        await client.enqueue(rude.deaf, {}, job_id="j")
        await until(lambda: words(ledger) == ["deaf"])
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert code == 0, log
    row = await the_job(connection, "j")
    assert (row["status"], row["attempt_count"]) == ("enqueued", 0)


async def test_one_that_blocks_the_event_loop_for_good_cannot_keep_the_process(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, "--shutdown-timeout", "500ms", **MODULES) as worker:
        await client.enqueue(rude.stuck, {"seconds": 600}, job_id="j")
        await until(lambda: words(ledger) == ["stuck"])
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert code == 1
    assert "did not end within" in log
    assert "rude.py:" in log


async def test_a_second_signal_ends_even_that_at_once(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, "--shutdown-timeout", "10m", **MODULES) as worker:
        await client.enqueue(rude.stuck, {"seconds": 600}, job_id="j")
        await until(lambda: words(ledger) == ["stuck"])
        worker.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        worker.send_signal(signal.SIGTERM)
        code, log = await ended(worker, ledger)
    assert (code, "stopped at once by a second signal" in log) == (1, True)


async def test_a_line_that_blocks_the_event_loop_is_named_once(
    client: AsyncClient, database_url: str, ledger: Path
) -> None:
    async with a_worker(database_url, ledger, PGQUEUE_LEASE="30s", **MODULES) as worker:
        await client.enqueue(rude.stuck, {"seconds": 3}, job_id="j")
        await until(lambda: completed(client, "j"))
        assert worker.returncode is None
    (line,) = [line for line in log_lines(ledger) if line["event"] == "loop.blocked"]
    assert line["where"].startswith("tests/support/tasks/rude.py:")
    assert (line["jobId"], line["level"]) == ("j", "warning")


async def test_a_loop_that_stands_still_leaves_what_has_not_begun_to_others(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    """It was claimed with the one that blocks; its handler never began. Meanwhile nothing says that
    the worker lives."""
    await client.enqueue(rude.stuck, {"seconds": 12}, job_id="blocks", priority=1)
    for number in range(3):
        await client.enqueue(tasks.noting, {}, job_id=f"n{number}")
    async with a_worker(database_url, ledger, PGQUEUE_LEASE="1s", **MODULES) as first:
        await until(lambda: words(ledger) == ["stuck"])
        other = ledger.with_name("other")
        async with a_worker(database_url, other, PGQUEUE_LEASE="1s", **MODULES):
            for number in range(3):
                await until(lambda number=number: completed(client, f"n{number}"))
            silent = (
                "SELECT now() - seen_at > interval '1 s' AS silent FROM job_workers WHERE pid = %s"
            )
            assert (await sql(connection, silent, [first.pid]))[0]["silent"]
            assert not await completed(client, "blocks")
        await until(lambda: any(line["event"] == "loop.stands_still" for line in log_lines(ledger)))
        await until(lambda: completed(client, "blocks"))
    assert sorted(words(other)) == ["note n0", "note n1", "note n2"]
    assert words(ledger) == ["stuck"]


async def test_a_log_that_nothing_reads_does_not_stop_the_work(
    client: AsyncClient, connection: Connection, database_url: str, ledger: Path
) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgqueue.worker"),
        cwd=ROOT,
        env=env(database_url, ledger, MODULES),
        stderr=subprocess.PIPE,
        limit=1,
    )
    try:
        for number in range(3):
            await client.enqueue(rude.chatty, {}, job_id=f"j{number}")
        for number in range(3):
            await until(lambda number=number: completed(client, f"j{number}"))
        worker.send_signal(signal.SIGTERM)
        await until(lambda: gone(connection))
        assert worker.stderr is not None
        said = (await worker.stderr.read()).decode()
        assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
    lines = said.splitlines()
    assert len([line for line in lines if "xxx" in line]) == 600, (
        "nothing is lost when it is read in the end"
    )
    assert '"message": "stopped"' in lines[-1]


async def gone(connection: Connection) -> bool:
    return not await sql(connection, "SELECT 1 FROM job_workers")


def can_unshare() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode
    )


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("sleeps", ["import", "lifespan", "blocking lifespan"])
@pytest.mark.parametrize("first_process", [False, True], ids=["", "PID 1"])
async def test_sigterm_while_it_starts_ends_it(
    connection: Connection, database_url: str, ledger: Path, sleeps: str, first_process: bool
) -> None:
    """The first process of a container: the kernel drops a signal for which it has no handler."""
    command = [sys.executable, "-m", "pgqueue.worker", "--shutdown-timeout", "500ms"]
    if first_process:
        if not can_unshare():
            pytest.skip("no name space of process ids can be made here")
        command = ["unshare", "--pid", "--fork", "--kill-child", *command]
    more = {"PGQUEUE_MODULES": "tests.support.tasks.late", "TEST_SLEEPS": sleeps}
    worker = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=env(database_url, ledger, more)
    )
    try:
        await until(lambda: words(ledger) == ["sleeps"])
        os.kill(child_of(worker.pid) if first_process else worker.pid, signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 20) == (
            1 if sleeps == "blocking lifespan" else 0
        )
    finally:
        if worker.returncode is None:
            worker.kill()
    assert await sql(connection, "SELECT 1 FROM job_workers") == []
