"""What the workers of these tests perform. Each handler writes down that it begins and that it has
done its work."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from pgqueue import Backoff, Discard, Job, Limit, task
from tests.chaos.size import span
from tests.support.tasks import note

QUICKLY = Backoff(0.2, cap=1)

STILL = threading.Event()


def began(job: Job[Any]) -> None:
    note(f"start {job.job_id} {job.attempt} {os.getpid()}")


def done(job: Job[Any]) -> None:
    note(f"end {job.job_id} {job.attempt} {os.getpid()}")


@task("chaos.work")
async def work(job: Job[Any]) -> None:
    """Takes so many `seconds`, or when it is started `again`, so many."""
    began(job)
    await span(
        job.payload["seconds"]
        if job.attempt == 1
        else job.payload.get("again", job.payload["seconds"])
    )
    done(job)


@task("chaos.gated", timeout=7200)
async def gated(job: Job[Any]) -> None:
    """Until its gate is there."""
    began(job)
    while not _is_open(job.payload["gate"]):
        await span(0.05)
    done(job)


def _is_open(gate: str) -> bool:
    return Path(gate).exists()


@task("chaos.limited", rate_limit=Limit(10, per="1h"))
async def limited(job: Job[Any]) -> None:
    began(job)
    done(job)


@task("chaos.windowed", rate_limit=Limit(10, per="3s"))
async def windowed(job: Job[Any]) -> None:
    began(job)
    done(job)


@task("chaos.paid")
async def paid(job: Job[Any]) -> None:
    """Completes in the same commit as what it writes."""
    began(job)
    async with job.transaction() as connection:
        await connection.execute("INSERT INTO payments (job_id) VALUES (%s)", [job.job_id])
        await span(job.payload["seconds"])


@task("chaos.poison")
async def poison(job: Job[Any]) -> None:
    """Takes its process with it."""
    began(job)
    os.kill(os.getpid(), signal.SIGKILL)


@task("chaos.flaky", backoff=QUICKLY)
async def flaky(job: Job[Any]) -> None:
    """Fails so many `times`, with an error that no database stores as it is, or is discarded."""
    began(job)
    await span(job.payload.get("seconds", 0))
    if job.attempt <= job.payload.get("times", 0):
        raise RuntimeError("it went wrong: \x00 \ud800 " + "at length " * 500)
    if job.payload.get("discard"):
        raise Discard("no use")
    done(job)


@task("chaos.frozen", backoff=QUICKLY, timeout=600)
async def frozen(job: Job[Any]) -> None:
    """Blocks its event loop until its gate opens, so that nothing comes between that and how it
    ends: the first attempt as the payload says, later ones completed once the second gate is
    open."""
    began(job)
    gates = Path(job.payload["gates"])
    if job.attempt > 1:
        while not (gates / "second").exists():
            await span(0.01)
    elif job.payload["then"] == "go on":
        await span(600)
    else:
        while not (gates / "first").exists():
            STILL.wait(0.001)  # the event loop is to stand still
        await _end_as(job, job.payload["then"])
    done(job)


async def _end_as(job: Job[Any], then: str) -> None:
    match then:
        case "fail":
            raise RuntimeError("the frozen attempt fails")
        case "discard":
            raise Discard("the frozen attempt is discarded")
        case "report":
            await job.progress(0.5, "by the frozen attempt")
