"""A type checker tells callers which payload goes with which task."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT

SNIPPET = """
from typing import Any

import msgspec

from pgqueue import AsyncClient, Job, NewJob, Ticket, task


class Resize(msgspec.Struct):
    image: str


@task("image.resize")
async def resize(job: Job[Resize]) -> None:
    job.payload.nonsense  # wrong


@task("anything")
async def anything(job: Job[Any]) -> None:
    job.payload.nonsense


async def produce(client: AsyncClient, name: str) -> Ticket:
    await client.enqueue(resize, "nonsense")  # wrong
    await client.enqueue(resize, {"image": "a.png"})  # wrong
    await client.enqueue(7, {})  # wrong
    await client.enqueue(resize, Resize("a.png"), priority="high")  # wrong
    await client.enqueue(resize, Resize("a.png"), nonsense=1)  # wrong
    await client.enqueue(anything, "nonsense")
    await client.enqueue(name, "nonsense", delay="30s")
    await client.try_enqueue(NewJob(resize, "nonsense"))  # wrong
    await client.try_enqueue(NewJob(7, "nonsense"))  # wrong
    three = [NewJob(resize, Resize("a.png")), NewJob(name, 7), NewJob(anything, None)]
    await client.enqueue_many(three)
    await client.enqueue_many([NewJob(resize, "nonsense")])  # wrong
    several = [NewJob(resize, Resize("a.png")), NewJob(name, 7)]
    await client.enqueue_many(several)
    return await client.enqueue(resize, Resize("a.png"), job_id="img-1", priority=3)
"""


def test_a_payload_that_is_not_its_task_s_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(snippet)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = {int(line) for line in re.findall(r"snippet\.py:(\d+): error", done.stdout)}
    wrong = {
        number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")
    }
    assert told == wrong, done.stdout + done.stderr
