"""The jobs of the benchmarks: they do nothing, so that what is measured is the queue."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgqueue import Job, task
from pgqueue.settings import Settings

NOOP = "bench.noop"


@task(NOOP)
async def noop(job: Job[Any]) -> None:
    """The payload is decoded, as for any job, and not looked at."""


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[int | None]:
    """The file in which handlers write down when they started, where one is wanted."""
    path = os.environ.get("PGQUEUE_BENCH_STAMPS")
    if path is None:
        yield None
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@task("bench.stamp")
async def stamp(job: Job[Any]) -> None:
    """Writes down when it started, by the clock that all processes of the machine share."""
    moment = time.monotonic_ns()
    os.write(job.resources, f"{job.job_id} {moment}\n".encode())
