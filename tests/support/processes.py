"""Workers as processes of their own, ended by their process id."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.logins import url_of
from tests.support.places import ROOT


@asynccontextmanager
async def a_worker(
    url: str, ledger: Path, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m pgqueue.worker` with tests.support.tasks; killed at the end if it still runs."""
    with log_of(ledger).open(
        "ab"
    ) as log:  # a file, for a pipe that nobody reads would fill and block it
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pgqueue.worker", *arguments, cwd=ROOT,
            env=env(url, ledger, environment), stderr=log
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


def log_of(ledger: Path) -> Path:
    return ledger.with_suffix(".log")


def log_lines(ledger: Path) -> list[dict[str, Any]]:
    """What the worker has logged so far."""
    return [
        json.loads(line) for line in log_of(ledger).read_text().splitlines() if line.startswith("{")
    ]


def env(url: str, ledger: Path, more: Mapping[str, str]) -> dict[str, str]:
    mine = {
        "DATABASE_URL": url_of("queue_worker", url),
        "TEST_LEDGER": str(ledger),
        "PGQUEUE_MODULES": "tests.support.tasks",
        "PGQUEUE_LEASE": "1s",
        "PGQUEUE_IDLE_INTERVAL": "100ms",
        "PGQUEUE_POLL_INTERVAL": "50ms",
    }
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PGQUEUE_", "DATABASE_", "SMTP_", "MAIL_"))
    }
    return kept | mine | dict(more)


def words(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


async def ended(
    process: asyncio.subprocess.Process, ledger: Path, seconds: float = 20
) -> tuple[int, str]:
    """Exit code, and what it logged."""
    code = await asyncio.wait_for(process.wait(), seconds)
    return code, log_of(ledger).read_text()
