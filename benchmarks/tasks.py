"""The jobs of the benchmarks: they do nothing, so that what is measured is the queue."""

from typing import Any

from pgqueue import Job, task

NOOP = "bench.noop"


@task(NOOP)
async def noop(job: Job[Any]) -> None:
    """The payload is decoded, as for any job, and not looked at."""
