"""The whole system for the demonstration: Postgres, migrations, the API and a worker, as they run
in production."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psycopg

from pgqueue.database.migrations import exists, migrate
from pgqueue.embedded.server import EmbeddedServer
from pgqueue_service.demo.inbox import Inbox, open_inbox

START_TIMEOUT_SECONDS = 30.0
"""Seconds in which the API has to answer."""


class Broken(Exception):
    """A part of the system did not come up, or ended."""


@asynccontextmanager
async def the_system(inbox: Inbox, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Everything started, with logs in `folder`; yields a client of the API. Everything is stopped
    at the end."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_inbox(inbox))
        url = os.environ.get("DATABASE_URL") or stack.enter_context(EmbeddedServer()).url()
        await _refuse_a_database_in_use(url)
        await migrate(url)
        port = _free_port()
        environment = _environment(url, port, inbox.port)
        children = [
            await stack.enter_async_context(_process(kind, environment, folder))
            for kind in ("api", "worker")
        ]
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        )
        await _ready(client, children, folder)
        yield client


async def _refuse_a_database_in_use(url: str) -> None:
    """The demonstration's worker would send real mails to its own inbox."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        if await exists(connection, "job_logs"):
            raise Broken(
                "the database of DATABASE_URL has a table job_logs already: unset DATABASE_URL, "
                "or name an empty database"
            )


def _environment(url: str, port: int, smtp_port: int) -> dict[str, str]:
    ours = ("PGQUEUE_", "SMTP_", "MAIL_", "SENDGRID_", "DATABASE_", "HOST", "PORT")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return kept | {
        "DATABASE_URL": url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PGQUEUE_OPEN": "on",
        "PGQUEUE_DRAIN": "0s",
        "MAIL_TRANSPORT": "smtp",
        "MAIL_FROM": "no-reply@yellowbooks.example",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtp_port),
    }


@asynccontextmanager
async def _process(
    kind: str, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / f"{kind}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pgqueue.cli",
            kind,
            env=dict(environment),
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _ready(
    client: httpx.AsyncClient, children: list[asyncio.subprocess.Process], folder: Path
) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while not (
                await _answers(client) and "worker.started" in (folder / "worker.log").read_text()
            ):
                if any(child.returncode is not None for child in children):
                    raise Broken("a process of the system ended at once")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Broken("the system did not come up") from None


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
