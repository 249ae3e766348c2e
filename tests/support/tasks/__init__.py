"""Tasks for workers in processes of their own. They write what they do into a file, one word a line
(TEST_LEDGER)."""

import asyncio
import os
import signal
import time
from typing import Any

from pgqueue import Job, task


def note(word: str) -> None:
    descriptor = os.open(os.environ["TEST_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


@task("test.note")
async def noting(job: Job[Any]) -> None:
    note(f"note {job.job_id}")


@task("test.sleep")
async def sleeping(job: Job[Any]) -> None:
    note(f"start {job.job_id}")
    await asyncio.sleep(job.payload["seconds"])
    note(f"end {job.job_id}")


@task("test.block")
def blocking(job: Job[Any]) -> None:
    note(f"start {job.job_id}")
    time.sleep(job.payload["seconds"])
    note(f"end {job.job_id}")


@task("test.kill")
async def killing(job: Job[Any]) -> None:
    note(f"kill {job.job_id}")
    os.kill(os.getpid(), signal.SIGKILL)


@task("test.transaction")
async def transacting(job: Job[Any]) -> None:
    """Dies at the step that its payload names, in its first attempt."""
    last = job.payload["die"] if job.attempt == 1 else None
    die(job, "before", last)
    async with job.transaction() as connection:
        die(job, "inside", last)
        await connection.execute("INSERT INTO effects VALUES (%s, %s)", [job.job_id, job.attempt])
        die(job, "written", last)
    die(job, "after", last)


def die(job: Job[Any], step: str, last: str | None) -> None:
    if step == last:
        note(f"{step} {job.job_id}")
        os.kill(os.getpid(), signal.SIGKILL)
